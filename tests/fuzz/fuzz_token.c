/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens: claims and COSE objects decode to what encodes back; nothing but a lease of m true votes opens the gate, and no single
 * refusal or revocation, true or not, closes it.  The first byte chooses. */
#include "fuzz.h"

/* A request pending; a lease running and a request pending; a fail-safe recorded and a request that answers it. */
static snapshot_t asked, running, latched;

enum { SUBSETS = 15 };
typedef struct { size_t len; uint8_t p[SUBSETS][800]; } leases_t;
static leases_t for_asked, for_latched;

/* The leases that four of six validators can give this request. */
static void make_leases(leases_t *made, const qsafp_t *q)
{
    static uint8_t t[QSAFP_RESPONSE_MAX];
    size_t k = 0;
    for (unsigned set = 0; set < 1u << N; set++) {
        int who[N], count = 0;
        for (int i = 0; i < N; i++)
            if (set >> i & 1)
                who[count++] = i;
        if (count != M)
            continue;
        made->len = lease_of(q, who, M, 0, t);
        WANT(made->len <= sizeof made->p[0] && k < SUBSETS);
        memcpy(made->p[k++], t, made->len);
    }
}

static bool is_lease(const leases_t *made, const uint8_t *p, size_t n)
{
    bool is = false;
    for (size_t k = 0; k < SUBSETS; k++)
        is = is || (n == made->len && !memcmp(p, made->p[k], n));
    return is;
}

static void claims_round_trip(const uint8_t *p, size_t n)
{
    qsafp_claims_t c;
    uint8_t out[QSAFP_PAYLOAD_MAX];
    size_t len = 0;
    if (n > sizeof out || qsafp_claims_decode(&c, p, n))
        return;
    WANT(qsafp_claims_encode(&c, out, sizeof out, &len) == 0 && len == n && !memcmp(out, p, n));
    WANT(c.serial >= 1 && c.duration_ms >= 1 && c.duration_ms <= 31ull * 24 * 3600 * 1000 && c.ueid[0] == 1);
    WANT(qsafp_claims_encode(&c, out, n - 1, &len) == QSAFP_E_TOO_LARGE && len == 0);
}

static void cose_round_trips(const uint8_t *p, size_t n)
{
    static uint8_t out[1 << 15];
    qsafp_cose_sig s;
    qsafp_bytes payload;
    qsafp_cbor_r sigs;
    uint64_t count = 0;
    qsafp_cbor_w w = qsafp_cbor_writer(out, sizeof out);
    if (qsafp_sign1_parse(&s, p, n) == 0) {
        qsafp_cbor_put(&w, QSAFP_CBOR_TAG, 18);
        qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 4);
        qsafp_cbor_put_bstr(&w, s.protected_.p, s.protected_.len);
        qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 0);
        qsafp_cbor_put_bstr(&w, s.payload.p, s.payload.len);
        qsafp_cbor_put_bstr(&w, s.sig.p, s.sig.len);
        WANT(!w.err && (size_t)(w.p - out) == n && !memcmp(out, p, n));
    }
    if (qsafp_sign_parse(&payload, &sigs, &count, p, n) == 0) {
        int err = 0;
        qsafp_cbor_put(&w, QSAFP_CBOR_TAG, 98);
        qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 4);
        qsafp_cbor_put_bstr(&w, "", 0);
        qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 0);
        qsafp_cbor_put_bstr(&w, payload.p, payload.len);
        qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, count);
        for (uint64_t i = 0; i < count && !err; i++) {
            err = qsafp_sign_next(&s, &sigs);
            qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 3);
            qsafp_cbor_put_bstr(&w, s.protected_.p, err ? 0 : s.protected_.len);
            qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 0);
            qsafp_cbor_put_bstr(&w, s.sig.p, err ? 0 : s.sig.len);
        }
        if (!err && qsafp_cbor_done(&sigs) == 0)
            WANT(!w.err && (size_t)(w.p - out) == n && !memcmp(out, p, n));
    }
}

static void put_with_a_closed_gate(const snapshot_t *at, const leases_t *made, const uint8_t *p, size_t n)
{
    bench_t *b = restored(at);
    bool truly = is_lease(made, p, n);
    WANT(!open_now(b));
    int err = qsafp_put(&b->q, p, n);
    want_safe(b);
    WANT(open_now(b) == truly && (!truly || (err == 0 && b->q.latch == 0)));
}

/* One answer with a lease running: one vote at most is counted, and one vote decides nothing. */
static void one_answer_decides_nothing(const uint8_t *p, size_t n)
{
    bench_t *b = restored(&running);
    int err = qsafp_put(&b->q, p, n);
    want_safe(b);
    bool lease = n > 1 && p[0] == 0xD8 && p[1] == 98; /* four forged votes in one lease do latch: too few are left */
    WANT(b->q.latch == 0 ? open_now(b) : lease && err < 0 && b->q.latch == QSAFP_REASON_INVALID_SIGNATURES);
    unsigned denied = b->q.lease_denied;
    WANT((denied & (denied - 1)) == 0 && (err == 0 || denied == 0));
}

static void prepare(void)
{
    if (asked.b)
        return;
    bench_t *b = fresh();
    WANT(qsafp_begin(&b->q) == 0);
    make_leases(&for_asked, &b->q);
    keep(&asked, b);
    b = fresh();
    WANT(obtain(b) == 0 && qsafp_begin(&b->q) == 0);
    keep(&running, b);
    b = fresh();
    WANT(obtain(b) == 0);
    qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
    WANT(qsafp_service(&b->q) == 0 && qsafp_begin(&b->q) == 0);
    make_leases(&for_latched, &b->q);
    keep(&latched, b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    prepare();
    if (size == 0 || size > 4096)
        return 0;
    const uint8_t *p = data + 1;
    size_t n = size - 1;
    switch (data[0]) {
    case 'c': claims_round_trip(p, n); break;
    case 's': cose_round_trips(p, n); break;
    case 'a': put_with_a_closed_gate(&asked, &for_asked, p, n); break;
    case 'l': put_with_a_closed_gate(&latched, &for_latched, p, n); break;
    case 'r': one_answer_decides_nothing(p, n); break;
    default: break;
    }
    return 0;
}

static void seeds(void)
{
    static const int who[M] = {0, 1, 2, 3}, others[M] = {1, 2, 4, 5};
    static uint8_t t[QSAFP_RESPONSE_MAX];
    prepare();
    const qsafp_t *q = &asked.b->q;
    seed_as("c", q->pending.payload, q->pending.payload_len);
    seed_as("c", latched.b->q.pending.payload, latched.b->q.pending.payload_len);
    seed_as("s", q->pending.request, q->pending.request_len);
    seed_as("s", t, lease_of(q, who, M, 0, t));
    seed_as("a", t, lease_of(q, others, M, 0, t));
    seed_as("a", t, lease_of(q, who, M, 1, t));
    seed_as("a", t, lease_of(q, who, 3, 0, t));
    qsafp_t *other = malloc(sizeof *other); /* four true votes over a payload that was not asked for */
    WANT(other);
    *other = *q;
    other->pending.payload[30] ^= 1;
    seed_as("a", t, lease_of(other, who, M, 0, t));
    free(other);
    seed_as("l", t, lease_of(&latched.b->q, who, M, 0, t));
    q = &running.b->q;
    seed_as("r", t, lease_of(q, who, M, 15, t));
    seed_as("r", t, refusal_of(q, 1, q->pending.request_hash, QSAFP_REFUSAL_POLICY, t));
    seed_as("r", t, refusal_of(q, 2, q->lease_request_hash, QSAFP_REFUSAL_RATE, t));
    seed_as("r", t, revocation_of(q, 3, 1, t));
    seed_as("r", t, revocation_of(q, 4, 9, t));
    seed_as("s", t, revocation_of(q, 0, 2, t));
}
