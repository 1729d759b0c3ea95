/* SPDX-License-Identifier: Apache-2.0 */
/* Answers at their edges: which refusal and revocation counts for what, what it leaves in the log, what a release must answer. */
#include "device.h"

static uint8_t token[QSAFP_RESPONSE_MAX + 1];
static const int FIRST[M] = {0, 1, 2, 3};

typedef struct { uint64_t class, code; uint8_t hash[32]; } refusal_t;

static size_t refuse(const qsafp_t *q, int i, const refusal_t *f)
{
    uint8_t body[128];
    qsafp_cbor_w w = qsafp_cbor_writer(body, sizeof body);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 5);
    qsafp_cbor_put_int(&w, 1);
    qsafp_cbor_put_bstr(&w, f->hash, 32);
    qsafp_cbor_put_int(&w, 2);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, f->class);
    qsafp_cbor_put_int(&w, 3);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, f->code);
    qsafp_cbor_put_int(&w, 4);
    qsafp_cbor_put(&w, QSAFP_CBOR_TSTR, 0);
    qsafp_cbor_put_int(&w, 5);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, 1);
    toy_t t = {"qsafp/1/refusal", true, body, (size_t)(w.p - body)};
    return sign1_of(q, i, &t, token);
}

static int put(bench_t *b, size_t len) { return qsafp_put(&b->q, token, len); }

static qsafp_record_t last_record(bench_t *b, uint32_t back)
{
    qsafp_record_t r;
    uint8_t raw[256];
    CHECK(qsafp_audit_read(&b->q.log, b->q.log.next - 1 - back, raw) == 0 && qsafp_record_decode(&r, raw) == 0);
    return r;
}

/* A lease runs whose request had the hash that comes back, and a second request is pending. */
static bench_t *running(uint8_t lease_hash[32])
{
    bench_t *b = fresh();
    CHECK(qsafp_begin(&b->q) == 0);
    memcpy(lease_hash, b->q.pending.request_hash, 32);
    CHECK(put(b, lease_of(&b->q, FIRST, M, 0, token)) == 0);
    b->d.now_ns += S / 2;
    (void)qsafp_tick(&b->q);
    CHECK(qsafp_begin(&b->q) == 0 && open_now(b) && memcmp(lease_hash, b->q.pending.request_hash, 32) != 0);
    return b;
}

static void refusals_of_an_unknown_class_or_code_are_refused(void)
{
    uint8_t hash[32];
    bench_t *b = running(hash);
    for (uint64_t class = 0; class < 4; class++)
        for (uint64_t code = 0; code < 44; code++) {
            refusal_t f = {.class = class, .code = code};
            memcpy(f.hash, b->q.pending.request_hash, 32);
            bool known = code >= 1 && code <= QSAFP_REFUSAL_LIMITS && class == (code < QSAFP_REFUSAL_STALE ? QSAFP_REFUSAL_CLASS_DENY : QSAFP_REFUSAL_CLASS_RETRY);
            int err = put(b, refuse(&b->q, 0, &f));
            CHECK(known ? err == 0 || err == QSAFP_E_STALE : err == QSAFP_E_MALFORMED);
        }
    static const uint64_t wide[] = {1 + 256, 1 + ((uint64_t)1 << 32), 1 + ((uint64_t)1 << 56), UINT64_MAX};
    for (size_t i = 0; i < 4; i++) {
        refusal_t f = {.class = QSAFP_REFUSAL_CLASS_DENY, .code = wide[i]}, g = {.class = wide[i], .code = QSAFP_REFUSAL_POLICY};
        memcpy(f.hash, hash, 32), memcpy(g.hash, hash, 32);
        CHECK(put(b, refuse(&b->q, 1, &f)) == QSAFP_E_MALFORMED && put(b, refuse(&b->q, 1, &g)) == QSAFP_E_MALFORMED);
    }
    CHECK(open_now(b) && b->q.lease_denied == 0 && b->q.pending.denied == 1);
    free(b);
}

static void a_denial_counts_for_the_request_it_names_and_no_other(void)
{
    uint8_t hash[32];
    bench_t *b = running(hash);
    refusal_t f = {.class = QSAFP_REFUSAL_CLASS_DENY, .code = QSAFP_REFUSAL_MODEL};
    memcpy(f.hash, b->q.pending.request_hash, 32);
    CHECK(put(b, refuse(&b->q, 4, &f)) == 0 && b->q.pending.denied == 1 << 4 && b->q.lease_denied == 0);
    memcpy(f.hash, hash, 32);
    CHECK(put(b, refuse(&b->q, 5, &f)) == 0 && b->q.pending.denied == 1 << 4 && b->q.lease_denied == 1 << 5);
    for (unsigned i = 0; i < 32; i++) { /* the hash of nothing here */
        memcpy(f.hash, hash, 32);
        f.hash[i] ^= 1;
        CHECK(put(b, refuse(&b->q, 0, &f)) == QSAFP_E_STALE);
        memcpy(f.hash, b->q.pending.request_hash, 32);
        f.hash[i] ^= 0x80;
        CHECK(put(b, refuse(&b->q, 0, &f)) == QSAFP_E_STALE);
    }
    memset(f.hash, 0, 32);
    CHECK(put(b, refuse(&b->q, 0, &f)) == QSAFP_E_STALE && open_now(b));
    free(b);
    b = fresh(); /* nothing asked, nothing leased: zeros name nothing */
    CHECK(put(b, refuse(&b->q, 0, &f)) == QSAFP_E_STALE && put(b, revocation_of(&b->q, 0, 5, token)) == QSAFP_E_STALE);
    CHECK(b->q.pending.denied == 0 && b->q.lease_denied == 0);
    free(b);
}

static void denials_of_lease_and_pending_add_up_by_validator(void)
{
    uint8_t hash[32];
    bench_t *b = running(hash);
    refusal_t lease = {.class = QSAFP_REFUSAL_CLASS_DENY, .code = 1}, pending = lease;
    memcpy(lease.hash, hash, 32);
    memcpy(pending.hash, b->q.pending.request_hash, 32);
    CHECK(put(b, refuse(&b->q, 0, &lease)) == 0 && put(b, refuse(&b->q, 0, &pending)) == 0 && put(b, refuse(&b->q, 1, &pending)) == 0);
    CHECK(open_now(b) && !b->q.latch); /* two validators said no, one of them twice */
    CHECK(put(b, refuse(&b->q, 2, &lease)) == 0);
    CHECK(!open_now(b) && b->q.latch == QSAFP_REASON_VALIDATOR_DENIED && !b->d.valid);
    free(b);
}

static void a_denial_is_recorded_once_with_its_evidence_and_signer(void)
{
    uint8_t hash[32], evidence[32];
    bench_t *b = running(hash);
    refusal_t f = {.class = QSAFP_REFUSAL_CLASS_DENY, .code = QSAFP_REFUSAL_MEASUREMENT};
    memcpy(f.hash, hash, 32);
    size_t len = refuse(&b->q, 3, &f);
    qsafp_sha256(evidence, token, len);
    uint32_t next = (uint32_t)b->q.log.next;
    CHECK(put(b, len) == 0 && b->q.log.next == next + 1);
    qsafp_record_t r = last_record(b, 0);
    CHECK(r.event == QSAFP_EVENT_LEASE_DENIED && r.reason == QSAFP_REFUSAL_MEASUREMENT && r.data[0] == 3 && (r.flags & 4) && memcmp(r.evidence, evidence, 32) == 0);
    CHECK(put(b, len) == 0 && b->q.log.next == next + 1);
    f.class = QSAFP_REFUSAL_CLASS_RETRY, f.code = QSAFP_REFUSAL_RATE;
    CHECK(put(b, refuse(&b->q, 2, &f)) == 0);
    r = last_record(b, 0);
    CHECK(r.event == QSAFP_EVENT_VALIDATOR_RESPONSE && r.reason == QSAFP_REFUSAL_RATE && r.data[0] == 2 && b->q.lease_denied == 1 << 3);
    b->d.fail_at = b->d.calls + 1; /* the evidence store */
    f.class = QSAFP_REFUSAL_CLASS_DENY, f.code = QSAFP_REFUSAL_POLICY;
    CHECK(put(b, refuse(&b->q, 1, &f)) == 0);
    r = last_record(b, 0);
    CHECK(r.event == QSAFP_EVENT_LEASE_DENIED && !(r.flags & 4) && r.evidence[0] == 0 && b->q.lease_denied == (1 << 3 | 1 << 1));
    free(b);
}

static void a_repeated_denial_adds_nothing_to_the_log(void)
{
    static const int who[] = {0, 5};
    uint8_t hash[32];
    for (size_t k = 0; k < 2; k++)
        for (int of_lease = 0; of_lease < 2; of_lease++) {
            bench_t *b = running(hash);
            refusal_t f = {.class = QSAFP_REFUSAL_CLASS_DENY, .code = 1};
            memcpy(f.hash, of_lease ? hash : b->q.pending.request_hash, 32);
            uint64_t next = b->q.log.next;
            for (int n = 0; n < 3; n++)
                CHECK(put(b, refuse(&b->q, who[k], &f)) == 0 && b->q.log.next == next + 1);
            CHECK(put(b, revocation_of(&b->q, who[k], 1, token)) == 0 && b->q.log.next == next + (of_lease ? 1 : 2)); /* it names the lease */
            free(b);
        }
}

/* Whatever byte of it is changed, cut or added, and even if it is signed as it stands, it is refused by name and counts for nothing. */
static void spoiled_answers_are_refused(void)
{
    uint8_t hash[32];
    bench_t *b = running(hash);
    refusal_t f = {.class = QSAFP_REFUSAL_CLASS_DENY, .code = 1};
    memcpy(f.hash, hash, 32);
    for (int revocation = 0; revocation < 2; revocation++) {
        size_t len = revocation ? revocation_of(&b->q, 0, 1, token) : refuse(&b->q, 0, &f), taken = 0;
        for (size_t i = 0; i < len; i++) {
            token[i] ^= 0x10;
            taken += put(b, len) == 0;
            token[i] ^= 0x10;
        }
        for (size_t n = 0; n < len; n++)
            taken += put(b, n) == 0;
        token[len] = 0;
        CHECK(taken == 0 && put(b, len + 1) == QSAFP_E_TRAILING && b->q.lease_denied == 0);
        b->q.pending.spent = 0, b->q.pending.forged = false; /* the flips that were forgeries */
        qsafp_cose_sig s;
        CHECK(qsafp_sign1_parse(&s, token, len) == 0);
        for (size_t n = 0; n <= s.payload.len + 1; n++) { /* signed, but cut or one byte too long */
            uint8_t body[256] = {0};
            memcpy(body, s.payload.p, s.payload.len);
            toy_t t = {revocation ? "qsafp/1/revocation" : "qsafp/1/refusal", true, body, n};
            static uint8_t out[QSAFP_RESPONSE_MAX];
            int err = qsafp_put(&b->q, out, sign1_of(&b->q, 4, &t, out));
            CHECK(n == s.payload.len ? err == 0 : err == QSAFP_E_MALFORMED);
        }
        CHECK(b->q.lease_denied == 1 << 4 && !b->q.latch);
        b->q.lease_denied = 0;
    }
    free(b);
}

static void revocations_of_another_device_set_or_epoch_are_refused(void)
{
    uint8_t hash[32];
    bench_t *b = running(hash);
    qsafp_t *other = malloc(sizeof *other);
    assert(other);
    for (unsigned i = 0; i < 33; i++) {
        *other = b->q;
        other->cfg.ueid[i] ^= 1;
        CHECK(put(b, revocation_of(other, 0, 9, token)) == QSAFP_E_WRONG_DEVICE);
    }
    for (unsigned i = 0; i < 16; i++) {
        *other = b->q;
        other->set.set_id[i] ^= 1;
        CHECK(put(b, revocation_of(other, 0, 9, token)) == QSAFP_E_WRONG_EPOCH);
    }
    static const uint64_t epochs[] = {0, 2, 257, 1 + ((uint64_t)1 << 56), UINT64_MAX};
    for (size_t i = 0; i < 5; i++) {
        *other = b->q;
        other->set.epoch = epochs[i];
        CHECK(put(b, revocation_of(other, 0, 9, token)) == QSAFP_E_WRONG_EPOCH);
    }
    CHECK(open_now(b) && b->q.lease_denied == 0 && b->q.pending.denied == 0);
    free(other);
    free(b);
}

static void a_revocation_denies_every_serial_up_to_its_own(void)
{
    static const struct { uint64_t serial; int err; uint16_t lease, pending; } row[] = {
        {0, QSAFP_E_STALE, 0, 0}, {299, QSAFP_E_STALE, 0, 0}, {300, 0, 1, 0}, {301, 0, 1, 1}, {302, 0, 1, 1}, {(uint64_t)1 << 60, 0, 1, 1}, {UINT64_MAX, 0, 1, 1},
    };
    uint8_t hash[32];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        bench_t *b = running(hash);
        b->q.lease.serial = 300;
        b->q.pending.claims.serial = 301;
        CHECK(put(b, revocation_of(&b->q, 0, row[i].serial, token)) == row[i].err);
        CHECK(b->q.lease_denied == row[i].lease && b->q.pending.denied == row[i].pending && open_now(b));
        free(b);
    }
    bench_t *b = running(hash); /* a long epoch is compared whole */
    b->q.set.epoch = 300;
    CHECK(put(b, revocation_of(&b->q, 0, 1, token)) == 0 && b->q.lease_denied == 1);
    free(b);
}

static void I3_forged_refusals_spend_votes_and_then_latch(void)
{
    uint8_t hash[32];
    bench_t *b = running(hash);
    for (int i = 0; i < 3; i++) {
        refusal_t f = {.class = QSAFP_REFUSAL_CLASS_DENY, .code = 1};
        memcpy(f.hash, b->q.pending.request_hash, 32);
        size_t len = refuse(&b->q, i, &f);
        token[len - 60] ^= 1;
        CHECK(open_now(b) && put(b, len) == QSAFP_E_BAD_SIGNATURE);
        CHECK(b->q.pending.spent == (1 << (i + 1)) - 1 && b->q.pending.denied == 0 && b->q.lease_denied == 0);
        if (i < 2) {
            qsafp_record_t r = last_record(b, 0);
            CHECK(r.event == QSAFP_EVENT_ANOMALY && r.reason == QSAFP_REASON_INVALID_SIGNATURES && r.data[0] == i);
        }
    }
    CHECK(b->q.latch == QSAFP_REASON_INVALID_SIGNATURES && !open_now(b)); /* three of six are left, four are needed */
    free(b);
    b = fresh();
    refusal_t f = {.class = 1, .code = 1};
    CHECK(obtain(b) == 0);
    memcpy(f.hash, b->q.lease_request_hash, 32);
    for (int i = 0; i < 6; i++) { /* no request pending: no vote to spend */
        size_t len = refuse(&b->q, i, &f);
        token[len - 60] ^= 1;
        CHECK(put(b, len) == QSAFP_E_BAD_SIGNATURE && open_now(b) && !b->q.latch);
    }
    free(b);
}

static void only_forgery_latches_invalid_signatures(void)
{
    uint8_t hash[32];
    bench_t *b = running(hash);
    refusal_t f = {.class = 1, .code = 1};
    memcpy(f.hash, b->q.pending.request_hash, 32);
    CHECK(put(b, refuse(&b->q, 0, &f)) == 0 && put(b, refuse(&b->q, 1, &f)) == 0); /* two true denials */
    static const int others[M] = {2, 3, 4, 5};
    CHECK(put(b, lease_of(&b->q, others, M, 1u << 2, token)) == QSAFP_E_BAD_SIGNATURE); /* and one forged vote: three are left */
    CHECK(b->q.latch == QSAFP_REASON_INVALID_SIGNATURES);
    free(b);
}

static void tokens_of_the_greatest_size_are_looked_at(void)
{
    bench_t *b = fresh();
    CHECK(qsafp_begin(&b->q) == 0);
    memset(token, 0, sizeof token);
    CHECK(put(b, QSAFP_RESPONSE_MAX) != QSAFP_E_TOO_LARGE && put(b, QSAFP_RESPONSE_MAX + 1) == QSAFP_E_TOO_LARGE && put(b, 0) != 0);
    size_t len = lease_of(&b->q, FIRST, M, 0, token);
    token[0] = 0xC0; /* tag 0 */
    CHECK(put(b, len) == QSAFP_E_MALFORMED && !open_now(b));
    free(b);
}

static void an_answer_makes_expiry_an_expiry_and_a_new_lease_forgets_it(void)
{
    for (int answered = 0; answered < 3; answered++) {
        uint8_t hash[32];
        bench_t *b = running(hash);
        if (answered) {
            refusal_t f = {.class = QSAFP_REFUSAL_CLASS_RETRY, .code = QSAFP_REFUSAL_RATE};
            memcpy(f.hash, hash, 32);
            CHECK(put(b, refuse(&b->q, 0, &f)) == 0);
        }
        if (answered == 2)
            CHECK(put(b, lease_of(&b->q, FIRST, M, 0, token)) == 0); /* after it silence */
        b->d.now_ns += 66 * S;
        (void)qsafp_tick(&b->q);
        CHECK(b->d.now_ns >= 166 * S && b->q.latch == (answered == 1 ? QSAFP_REASON_LEASE_EXPIRED : QSAFP_REASON_NETWORK_TIMEOUT));
        free(b);
    }
}

/* A fail-safe is on record and a request answers it; then one thing is off. */
static void I5_a_release_answers_exactly_the_latch_on_record(void)
{
    for (int off = 0; off < 10; off++) {
        bench_t *b = fresh();
        CHECK(obtain(b) == 0);
        qsafp_trip(&b->q, QSAFP_REASON_BUS);
        b->d.now_ns += S;
        CHECK(qsafp_service(&b->q) == 0 && qsafp_begin(&b->q) == 0 && b->q.pending.claims.has_failsafe);
        uint64_t end = b->q.lease_end_ns;
        bool leased = b->q.leased;
        switch (off) {
        case 1: b->q.st.latch_seq++; break;
        case 2: b->q.st.latch_hash[0] ^= 1; break;
        case 3: b->q.st.latch_hash[31] ^= 0x80; break;
        case 4: b->q.untold = 1; break;
        case 5: b->q.pending.claims.has_failsafe = false; break;
        case 6: b->q.generation++; break;                       /* a stop since the request */
        case 7: b->q.st.latch = QSAFP_REASON_MANUAL; break;     /* another latch than the one that holds */
        case 8: b->q.latch = QSAFP_REASON_MANUAL; break;        /* a stronger stop whose generation is still to come */
        case 9: b->page.armed = 77; break;                      /* armed is not what the request saw */
        default: break;
        }
        int err = put(b, lease_of(&b->q, FIRST, M, 0, token));
        (void)qsafp_tick(&b->q);
        CHECK(off ? err == QSAFP_E_LATCHED && !open_now(b) && !b->d.valid : err == 0 && open_now(b) && b->d.valid);
        if (off)
            CHECK(b->q.lease_end_ns == end && b->q.leased == leased && (off == 9 || b->q.latch != 0));
        if (!off)
            CHECK(b->q.st.latch == 0 && b->q.latch == 0 && last_record(b, 1).event == QSAFP_EVENT_FAILSAFE_RELEASED && last_record(b, 1).reason == QSAFP_REASON_BUS);
        free(b);
    }
}

static void a_lease_that_a_stop_ended_is_nobodys_to_deny_or_renew(void)
{
    uint8_t hash[32];
    bench_t *b = running(hash);
    CHECK(put(b, lease_of(&b->q, FIRST, M, 0, token)) == 0 && b->q.renewals == 1);
    qsafp_trip(&b->q, QSAFP_REASON_BUS);
    CHECK(qsafp_service(&b->q) == 0 && !b->q.leased && !b->q.pending.active);
    CHECK(put(b, revocation_of(&b->q, 0, 99, token)) == QSAFP_E_STALE);
    CHECK(obtain(b) == 0 && b->q.renewals == 0 && last_record(b, 0).event == QSAFP_EVENT_LEASE_ISSUED);
    free(b);
}

static void a_renewal_that_lost_to_a_stop_leaves_the_old_end(void)
{
    uint8_t hash[32];
    bench_t *b = running(hash);
    b->d.now_ns += 5 * S;
    b->q.generation++;
    uint64_t end = b->q.lease_end_ns;
    CHECK(put(b, lease_of(&b->q, FIRST, M, 0, token)) == QSAFP_E_LATCHED && b->q.lease_end_ns == end && b->q.leased);
    free(b);
}

/* Two signatures make one vote in suite hybrid, Ed25519 first, of one validator; the wrong shape is refused before any is verified. */
static void I2_hybrid_votes_of_another_shape_are_refused(void)
{
    static const struct { int who[2], alg[2], want; } row[] = {
        {{0, 0}, {QSAFP_ALG_MLDSA65, QSAFP_ALG_ED25519}, QSAFP_E_NOT_CANONICAL}, {{0, 0}, {QSAFP_ALG_ED25519, QSAFP_ALG_ED25519}, QSAFP_E_NOT_CANONICAL},
        {{0, 0}, {QSAFP_ALG_MLDSA65, QSAFP_ALG_MLDSA65}, QSAFP_E_NOT_CANONICAL}, {{0, 1}, {QSAFP_ALG_ED25519, QSAFP_ALG_MLDSA65}, QSAFP_E_NOT_CANONICAL},
        {{0, 0}, {QSAFP_ALG_ED25519, QSAFP_ALG_MLDSA65}, QSAFP_E_BAD_SIGNATURE}, {{0, 0}, {-9, QSAFP_ALG_MLDSA65}, QSAFP_E_UNKNOWN_ALGORITHM},
    };
    static uint8_t pk[N][1952];
    for (size_t k = 0; k < sizeof row / sizeof *row; k++) {
        bench_t *b = fresh();
        b->q.set.suite = QSAFP_SUITE_HYBRID;
        for (int i = 0; i < N; i++) {
            b->q.set.v[i].mldsa65 = pk[i];
            memcpy(b->q.set.kid[2 * i + 1], "ml-kid-", 8);
            b->q.set.kid[2 * i + 1][7] = (uint8_t)i;
        }
        CHECK(qsafp_begin(&b->q) == 0);
        qsafp_cbor_w w = qsafp_cbor_writer(token, sizeof token);
        qsafp_cbor_put(&w, QSAFP_CBOR_TAG, 98);
        qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 4);
        qsafp_cbor_put_bstr(&w, "", 0);
        qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 0);
        qsafp_cbor_put_bstr(&w, b->q.pending.payload, b->q.pending.payload_len);
        qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 2 * M);
        for (int v = 0; v < M; v++)
            for (int h = 0; h < 2; h++) {
                uint8_t prot[32], sig[64] = {0};
                int who = v + row[k].who[h];
                qsafp_cbor_w p = qsafp_cbor_writer(prot, sizeof prot);
                qsafp_cbor_put(&p, QSAFP_CBOR_MAP, 2);
                qsafp_cbor_put_int(&p, 1);
                qsafp_cbor_put_int(&p, row[k].alg[h]);
                qsafp_cbor_put_int(&p, 4);
                qsafp_cbor_put_bstr(&p, b->q.set.kid[2 * who + (row[k].alg[h] == QSAFP_ALG_MLDSA65)], 8);
                qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 3);
                qsafp_cbor_put_bstr(&w, prot, (size_t)(p.p - prot));
                qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 0);
                qsafp_cbor_put_bstr(&w, sig, sizeof sig);
            }
        uint64_t before = b->q.log.next;
        int err = put(b, (size_t)(w.p - token));
        CHECK(err == row[k].want && !open_now(b) && b->q.log.next == before + (err == QSAFP_E_BAD_SIGNATURE ? M : 0)); /* one record a validator */
        if (err != row[k].want)
            printf("  row %zu: %d\n", k, err);
        free(b);
    }
}

/* Whatever a library would say: another length than 64, or a key of small order, is refused before it is asked. */
static void I2_signatures_at_the_edge_are_refused(void)
{
    uint8_t hash[32], h[32];
    bench_t *b = running(hash);
    refusal_t f = {.class = 1, .code = 1};
    memcpy(f.hash, hash, 32);
    for (int more = -1; more <= 1; more++) {
        size_t len = refuse(&b->q, 0, &f);
        token[len - 65] = (uint8_t)(64 + more);
        token[len] = 0;
        CHECK(put(b, more < 0 ? len - 1 : len + (size_t)more) == (more ? QSAFP_E_BAD_SIGNATURE : 0) && b->q.lease_denied == !more);
        b->q.lease_denied = 0;
    }
    uint8_t *pk = b->q.set.v[1].ed25519;
    memset(pk, 0, 32);
    pk[0] = 1; /* the neutral element */
    qsafp_sha256(h, pk, 32);
    memcpy(b->q.set.kid[2], h, 8);
    CHECK(put(b, refuse(&b->q, 1, &f)) == QSAFP_E_BAD_SIGNATURE && b->q.lease_denied == 0);
    free(b);
}

/* Ed25519 alone says nothing in suite ml-dsa-65, and the reverse. */
static void I2_votes_of_another_suite_are_unknown(void)
{
    bench_t *b = fresh();
    CHECK(qsafp_begin(&b->q) == 0);
    size_t len = lease_of(&b->q, FIRST, M, 0, token);
    b->q.set.suite = QSAFP_SUITE_MLDSA65;
    CHECK(put(b, len) == QSAFP_E_UNKNOWN_SIGNER);
    refusal_t f = {.class = 1, .code = 1};
    memcpy(f.hash, b->q.pending.request_hash, 32);
    CHECK(put(b, refuse(&b->q, 0, &f)) == QSAFP_E_UNKNOWN_SIGNER && b->q.pending.denied == 0);
    b->q.set.suite = QSAFP_SUITE_ED25519;
    for (unsigned i = 0; i < 8; i++) { /* every byte of the key id names the signer */
        b->q.set.kid[0][i] ^= 1;
        size_t n = refuse(&b->q, 0, &f);
        b->q.set.kid[0][i] ^= 1;
        CHECK(put(b, n) == QSAFP_E_UNKNOWN_SIGNER);
    }
    b->q.set.n = 5, b->q.set.m = 3; /* a member beyond n is none */
    CHECK(put(b, refuse(&b->q, 5, &f)) == QSAFP_E_UNKNOWN_SIGNER && put(b, refuse(&b->q, 4, &f)) == 0);
    free(b);
}

int main(void)
{
    refusals_of_an_unknown_class_or_code_are_refused();
    a_denial_counts_for_the_request_it_names_and_no_other();
    denials_of_lease_and_pending_add_up_by_validator();
    a_denial_is_recorded_once_with_its_evidence_and_signer();
    a_repeated_denial_adds_nothing_to_the_log();
    spoiled_answers_are_refused();
    revocations_of_another_device_set_or_epoch_are_refused();
    a_revocation_denies_every_serial_up_to_its_own();
    I3_forged_refusals_spend_votes_and_then_latch();
    only_forgery_latches_invalid_signatures();
    tokens_of_the_greatest_size_are_looked_at();
    an_answer_makes_expiry_an_expiry_and_a_new_lease_forgets_it();
    I5_a_release_answers_exactly_the_latch_on_record();
    a_lease_that_a_stop_ended_is_nobodys_to_deny_or_renew();
    a_renewal_that_lost_to_a_stop_leaves_the_old_end();
    I2_hybrid_votes_of_another_shape_are_refused();
    I2_signatures_at_the_edge_are_refused();
    I2_votes_of_another_suite_are_unknown();
    return DONE("test_quorum");
}
