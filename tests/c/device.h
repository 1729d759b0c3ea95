/* SPDX-License-Identifier: Apache-2.0 */
/* A device crueller than the real one: owns the clock, fails any port call on demand, and has validators that sign by a
 * keyed hash instead of a curve, so that a test reads without a crypto library.  Each test includes this one file. */
#ifndef DEVICE_H
#define DEVICE_H

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qsafp.h"

enum { N = 6, M = 4 };

typedef struct {
    uint64_t now_ns, wall_ms, entropy_takes_ns;
    int valid, failsafe, req, syncs, saves, kicks;
    int calls, fail_at;               /* every fallible call counts; call number fail_at fails */
    uint8_t log[QSAFP_LOG_SLOTS * 256], state[sizeof(qsafp_state_t)];
    bool has_state;
    uint8_t seed;
} device_t;

static inline int gate_call(device_t *d) { return ++d->calls == d->fail_at ? QSAFP_E_STORE : 0; }
static inline uint64_t d_now(void *c) { return ((device_t *)c)->now_ns; }
static inline uint64_t d_counter(void *c, uint64_t ns) { (void)c; return ns * 3; }
static inline uint64_t d_wall(void *c) { return ((device_t *)c)->wall_ms; }
static inline int d_entropy(void *c, uint8_t *b, size_t n)
{
    device_t *d = c;
    if (gate_call(d))
        return QSAFP_E_ENTROPY;
    d->now_ns += d->entropy_takes_ns;
    for (size_t i = 0; i < n; i++)
        b[i] = (uint8_t)(d->seed++ * 37u + 11u);
    return 0;
}
static inline int d_mac(void *c, uint8_t out[32], const uint8_t *m, size_t n)
{
    if (gate_call(c))
        return QSAFP_E_STORE;
    qsafp_hmac_sha256(out, (const uint8_t *)"nonce key", 9, m, n);
    return 0;
}
/* R = hash(key, message) with a canonical y, S = 1: passes the edge-case refusal, means nothing on the curve */
static inline void toy_sign(uint8_t sig[64], const uint8_t pk[32], const uint8_t *m, size_t n)
{
    memset(sig, 0, 64);
    qsafp_hmac_sha256(sig, pk, 32, m, n);
    sig[31] &= 0x3F;
    sig[32] = 1;
}
static inline int d_sign(void *c, uint8_t sig[64], const uint8_t *m, size_t n)
{
    if (gate_call(c))
        return QSAFP_E_KEY;
    toy_sign(sig, (const uint8_t *)"device key device key device key", m, n);
    return 0;
}
static inline int d_verify(void *c, const uint8_t sig[64], const uint8_t pk[32], const uint8_t *m, size_t n)
{
    uint8_t want[64];
    (void)c;
    toy_sign(want, pk, m, n);
    return qsafp_equal(sig, want, 64) ? 0 : QSAFP_E_BAD_SIGNATURE; /* libFuzzer sees what memcmp compares, and signs with it */
}
static inline int d_valid(void *c, int v) { if (gate_call(c)) return QSAFP_E_STORE; ((device_t *)c)->valid = v; return 0; }
static inline int d_failsafe(void *c, int v) { if (gate_call(c)) return QSAFP_E_STORE; ((device_t *)c)->failsafe = v; return 0; }
static inline int d_req(void *c) { if (gate_call(c)) return QSAFP_E_STORE; ((device_t *)c)->req ^= 1; return 0; }
static inline int d_read(void *c, uint32_t off, void *b, uint32_t n)
{
    device_t *d = c;
    if (gate_call(d) || off + n > sizeof d->log)
        return QSAFP_E_STORE;
    memcpy(b, d->log + off, n);
    return 0;
}
static inline int d_prog(void *c, uint32_t off, const void *b, uint32_t n)
{
    device_t *d = c;
    if (gate_call(d) || off + n > sizeof d->log)
        return QSAFP_E_STORE;
    memcpy(d->log + off, b, n);
    return 0;
}
static inline int d_erase(void *c, uint32_t s)
{
    device_t *d = c;
    if (gate_call(d) || (s + 1) * 4096u > sizeof d->log)
        return QSAFP_E_STORE;
    memset(d->log + s * 4096u, 0xFF, 4096);
    return 0;
}
static inline int d_sync(void *c) { device_t *d = c; if (gate_call(d)) return QSAFP_E_STORE; d->syncs++; return 0; }
static inline int d_evidence(void *c, const uint8_t h[32], const uint8_t *b, size_t n) { (void)h; (void)b; (void)n; return gate_call(c); }
static inline int d_load(void *c, void *b, uint32_t n)
{
    device_t *d = c;
    if (!d->has_state || n != sizeof d->state)
        return QSAFP_E_STORE;
    memcpy(b, d->state, n);
    return 0;
}
static inline int d_save(void *c, const void *b, uint32_t n)
{
    device_t *d = c;
    if (gate_call(d) || n != sizeof d->state)
        return QSAFP_E_STORE;
    memcpy(d->state, b, n);
    d->has_state = true;
    d->saves++;
    return 0;
}
static inline void d_kick(void *c) { ((device_t *)c)->kicks++; }

static const qsafp_port_t PORT = {
    .now_ns = d_now, .counter_at = d_counter, .wall_ms = d_wall, .entropy = d_entropy, .nonce_mac = d_mac, .sign = d_sign,
    .verify_ed25519 = d_verify, .set_lease_valid = d_valid, .set_failsafe = d_failsafe, .toggle_validator_req = d_req,
    .log_read = d_read, .log_prog = d_prog, .log_erase = d_erase, .log_sync = d_sync, .evidence_put = d_evidence,
    .state_load = d_load, .state_save = d_save, .kick = d_kick,
};

#define S (1000000000ull)

typedef struct { device_t d; qsafp_t q; qsafp_gate_page_t page; } bench_t;

/* A host around the device's stores; call again over the same device for a reboot. */
static inline void wire(bench_t *b)
{
    memset(&b->q, 0, sizeof b->q);
    memset(&b->page, 0, sizeof b->page);
    qsafp_t *q = &b->q;
    q->port = &PORT;
    q->ctx = &b->d;
    q->page = &b->page;
    q->log.slots = QSAFP_LOG_SLOTS;
    q->cfg = (qsafp_config_t){.ueid = {1, 2, 3}, .kid = {9}, .model = {7}, .alg = QSAFP_ALG_ED25519, .duration_ms = 60000, .policy_ms = {10000, 5000, 0, 0},
                              .stale_after_ns = S, .tick_ns = S / 10};
    q->set = (qsafp_set_t){.set_id = {5}, .epoch = 1, .m = M, .n = N, .suite = QSAFP_SUITE_ED25519, .lab = true, .max_duration_ms = 86400000};
    for (int i = 0; i < N; i++) {
        uint8_t h[32];
        memset(q->set.v[i].ed25519, 0x21 + i, 31);
        qsafp_sha256(h, q->set.v[i].ed25519, 32);
        memcpy(q->set.kid[2 * i], h, 8);
    }
}

static inline bench_t *fresh(void)
{
    bench_t *b = calloc(1, sizeof *b);
    assert(b);
    b->d.now_ns = 100 * S;
    b->d.wall_ms = 1700000000000;
    memset(b->d.log, 0xFF, sizeof b->d.log);
    wire(b);
    int err = qsafp_create(&b->q);
    wire(b);
    if (!err)
        err = qsafp_init(&b->q);
    if (err)
        printf("device: start failed with %d\n", err);
    assert(!err);
    b->d.calls = 0;
    return b;
}

static inline size_t protected_of(const qsafp_t *q, int i, uint8_t out[32])
{
    qsafp_cbor_w w = qsafp_cbor_writer(out, 32);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 2);
    qsafp_cbor_put_int(&w, 1);
    qsafp_cbor_put_int(&w, QSAFP_ALG_ED25519);
    qsafp_cbor_put_int(&w, 4);
    qsafp_cbor_put_bstr(&w, q->set.kid[2 * i], 8);
    return (size_t)(w.p - out);
}

typedef struct { const char *aad; bool sign1; const uint8_t *p; size_t n; } toy_t;

static inline void vote(const qsafp_t *q, int i, const toy_t *t, uint8_t sig[64])
{
    uint8_t prot[32], tbs[2048];
    size_t len, pl = protected_of(q, i, prot);
    qsafp_tbs_t what = {.aad = t->aad, .sign1 = t->sign1, .protected_ = {prot, pl}, .payload = {t->p, t->n}};
    assert(qsafp_tbs(&what, tbs, sizeof tbs, &len) == 0);
    toy_sign(sig, q->set.v[i].ed25519, tbs, len);
}

/* The lease over the pending request, signed by the validators listed; those in `forge` sign badly. */
static inline size_t lease_of(const qsafp_t *q, const int *who, size_t count, unsigned forge, uint8_t *out)
{
    qsafp_cbor_w w = qsafp_cbor_writer(out, QSAFP_RESPONSE_MAX);
    toy_t t = {"qsafp/1/lease", false, q->pending.payload, q->pending.payload_len};
    qsafp_cbor_put(&w, QSAFP_CBOR_TAG, 98);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 4);
    qsafp_cbor_put_bstr(&w, "", 0);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 0);
    qsafp_cbor_put_bstr(&w, t.p, t.n);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, count);
    for (size_t k = 0; k < count; k++) {
        uint8_t prot[32], sig[64];
        size_t pl = protected_of(q, who[k], prot);
        vote(q, who[k], &t, sig);
        sig[5] ^= (uint8_t)(forge >> who[k] & 1);
        qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 3);
        qsafp_cbor_put_bstr(&w, prot, pl);
        qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 0);
        qsafp_cbor_put_bstr(&w, sig, 64);
    }
    assert(!w.err);
    return (size_t)(w.p - out);
}

static inline size_t sign1_of(const qsafp_t *q, int i, const toy_t *t, uint8_t *out)
{
    uint8_t prot[32], sig[64];
    size_t pl = protected_of(q, i, prot);
    vote(q, i, t, sig);
    qsafp_cbor_w w = qsafp_cbor_writer(out, QSAFP_RESPONSE_MAX);
    qsafp_cbor_put(&w, QSAFP_CBOR_TAG, 18);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 4);
    qsafp_cbor_put_bstr(&w, prot, pl);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 0);
    qsafp_cbor_put_bstr(&w, t->p, t->n);
    qsafp_cbor_put_bstr(&w, sig, 64);
    return (size_t)(w.p - out);
}

static inline size_t refusal_of(const qsafp_t *q, int i, const uint8_t hash[32], int code, uint8_t *out)
{
    uint8_t body[128];
    qsafp_cbor_w w = qsafp_cbor_writer(body, sizeof body);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 5);
    qsafp_cbor_put_int(&w, 1);
    qsafp_cbor_put_bstr(&w, hash, 32);
    qsafp_cbor_put_int(&w, 2);
    qsafp_cbor_put_int(&w, code < QSAFP_REFUSAL_STALE ? QSAFP_REFUSAL_CLASS_DENY : QSAFP_REFUSAL_CLASS_RETRY);
    qsafp_cbor_put_int(&w, 3);
    qsafp_cbor_put_int(&w, code);
    qsafp_cbor_put_int(&w, 4);
    qsafp_cbor_put(&w, QSAFP_CBOR_TSTR, 2);
    qsafp_cbor_put_raw(&w, "no", 2);
    qsafp_cbor_put_int(&w, 5);
    qsafp_cbor_put_null(&w);
    toy_t t = {"qsafp/1/refusal", true, body, (size_t)(w.p - body)};
    return sign1_of(q, i, &t, out);
}

static inline size_t revocation_of(const qsafp_t *q, int i, uint64_t serial, uint8_t *out)
{
    uint8_t body[160];
    qsafp_cbor_w w = qsafp_cbor_writer(body, sizeof body);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 6);
    qsafp_cbor_put_int(&w, 1);
    qsafp_cbor_put_bstr(&w, q->cfg.ueid, 33);
    qsafp_cbor_put_int(&w, 2);
    qsafp_cbor_put_bstr(&w, q->set.set_id, 16);
    qsafp_cbor_put_int(&w, 3);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, q->set.epoch);
    qsafp_cbor_put_int(&w, 4);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, serial);
    qsafp_cbor_put_int(&w, 5);
    qsafp_cbor_put_int(&w, QSAFP_REFUSAL_REVOKED);
    qsafp_cbor_put_int(&w, 6);
    qsafp_cbor_put(&w, QSAFP_CBOR_TSTR, 0);
    toy_t t = {"qsafp/1/revocation", true, body, (size_t)(w.p - body)};
    return sign1_of(q, i, &t, out);
}

static inline bool open_now(bench_t *b) { return qsafp_gate_check_ns(&b->page, b->d.now_ns); }

/* Obtain a lease from validators 0..3 and tick once: the gate is open and the line high. */
static inline int obtain(bench_t *b)
{
    static const int who[M] = {0, 1, 2, 3};
    uint8_t token[QSAFP_RESPONSE_MAX];
    int err = qsafp_begin(&b->q);
    if (!err)
        err = qsafp_put(&b->q, token, lease_of(&b->q, who, M, 0, token));
    if (!err)
        (void)qsafp_tick(&b->q);
    return err;
}

static int tests_passed, tests_failed;
#define CHECK(x) do { if (x) { tests_passed++; } else { tests_failed++; printf("%s:%d: %s\n", __FILE__, __LINE__, #x); } } while (0)
#define DONE(name) (printf(name ": %d passed, %d failed\n", tests_passed, tests_failed), tests_failed != 0)

#endif
