/* SPDX-License-Identifier: Apache-2.0 */
/* Quorum: what validators answered, one vote per index (HW-7, decisions 6 and 8). */
#include "core.h"
#include "qsafp_mldsa65.h"
#include "qsafp_ed25519_edge.h"

static unsigned bits(unsigned v)
{
    unsigned n = 0;
    for (; v; v &= v - 1)
        n++;
    return n;
}

static uint16_t bit(int index) { return (uint16_t)(1u << index); }

/* Index of the validator with this kid for this algorithm, or -1. */
static int signer(const qsafp_set_t *set, const qsafp_cose_sig *s)
{
    for (int i = 0; i < set->n; i++) {
        const qsafp_validator_t *v = &set->v[i];
        bool ed = s->alg == QSAFP_ALG_ED25519 && set->suite != QSAFP_SUITE_MLDSA65 && !memcmp(v->kid_ed, s->kid, 8);
        bool ml = s->alg == QSAFP_ALG_MLDSA65 && set->suite != QSAFP_SUITE_ED25519 && v->mldsa65 && !memcmp(v->kid_ml, s->kid, 8);
        if (ed || ml)
            return i;
    }
    return -1;
}

typedef struct { const char *aad; bool sign1; qsafp_bytes payload; } what_t;

static int verify(qsafp_t *q, const what_t *what, const qsafp_cose_sig *s, int index)
{
    const qsafp_validator_t *v = &q->set.v[index];
    size_t len = 0;
    qsafp_tbs_t t = {.aad = what->aad, .sign1 = what->sign1, .protected_ = s->protected_, .payload = what->payload};
    int err = qsafp_tbs(&t, q->scratch, sizeof q->scratch, &len);
    if (err)
        return err;
    if (s->alg == QSAFP_ALG_MLDSA65) {
        if (s->sig.len != 3309)
            return QSAFP_E_BAD_SIGNATURE;
        qsafp_mldsa65_msg_t m = {.msg = q->scratch, .msg_len = len, .ctx = 0, .ctx_len = 0};
        return qsafp_mldsa65_verify(v->mldsa65, &m, s->sig.p) ? QSAFP_E_BAD_SIGNATURE : 0;
    }
    if (s->sig.len != 64 || !qsafp_ed25519_edge_ok(s->sig.p, v->ed25519))
        return QSAFP_E_BAD_SIGNATURE;
    return q->port->verify_ed25519(q->ctx, s->sig.p, v->ed25519, q->scratch, len) ? QSAFP_E_BAD_SIGNATURE : 0;
}

/* A failed verification: an anomaly record; the vote of that index is gone for this request (requirements note 10). */
static int forged(qsafp_t *q, int index)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_ANOMALY, .reason = QSAFP_REASON_INVALID_SIGNATURES};
    r.data[0] = (uint8_t)index;
    if (q->pending.active) {
        q->pending.spent |= bit(index);
        q->pending.forged = true;
    }
    int err = qsafp_note(q, &r);
    return err ? err : QSAFP_E_BAD_SIGNATURE;
}

static void too_few_left(qsafp_t *q)
{
    unsigned gone = bits((unsigned)(q->pending.spent | q->pending.denied));
    if (q->pending.active && q->pending.forged && q->set.n - gone < q->set.m)
        qsafp_trip(q, QSAFP_REASON_INVALID_SIGNATURES);
}

static void count_denial(qsafp_t *q)
{
    unsigned denied = bits((unsigned)(q->lease_denied | q->pending.denied));
    if (denied >= (unsigned)(q->set.n - q->set.m + 1))
        qsafp_trip(q, QSAFP_REASON_VALIDATOR_DENIED);
}

/* ---- leases ---- */

static int next_vote(qsafp_t *q, qsafp_cbor_r *sigs, const what_t *what, int *last)
{
    unsigned halves = q->set.suite == QSAFP_SUITE_HYBRID ? 2 : 1;
    int index = -1, bad = 0;
    for (unsigned h = 0; h < halves; h++) {
        qsafp_cose_sig s;
        int err = qsafp_sign_next(&s, sigs);
        if (err)
            return err;
        int i = signer(&q->set, &s);
        if (i < 0)
            return QSAFP_E_UNKNOWN_SIGNER;
        if (i <= *last)
            return QSAFP_E_DUPLICATE_SIGNER;
        int want = h == 1 || q->set.suite == QSAFP_SUITE_MLDSA65 ? QSAFP_ALG_MLDSA65 : QSAFP_ALG_ED25519;
        if (s.alg != want || (h == 1 && i != index))
            return QSAFP_E_NOT_CANONICAL;
        index = i;
        if (verify(q, what, &s, i))
            bad = 1;
    }
    *last = index;
    if (bad)
        return forged(q, index);
    bool gone = (q->pending.denied | q->pending.spent) & bit(index); /* said no to this request before, or spent its vote */
    return gone ? QSAFP_E_BAD_SIGNATURE : 0;
}

/* All signatures are looked at, so that every forged one leaves its record. */
static int count_votes(qsafp_t *q, qsafp_cbor_r *sigs, uint64_t count, const what_t *what)
{
    uint64_t halves = q->set.suite == QSAFP_SUITE_HYBRID ? 2 : 1;
    int last = -1, result = 0;
    if (count != halves * q->set.m)
        return count < halves * q->set.m ? QSAFP_E_TOO_FEW : QSAFP_E_NOT_CANONICAL;
    for (uint64_t i = 0; i < q->set.m; i++) {
        int err = next_vote(q, sigs, what, &last);
        if (err && err != QSAFP_E_BAD_SIGNATURE)
            return err;
        if (err)
            result = err;
    }
    too_few_left(q);
    int err = qsafp_cbor_done(sigs);
    return err ? err : result;
}

/* Arms the gate: the only place that does.  SAFETY: I3 a fail-safe since the request changed the generation, and the swap fails. */
static int arm(qsafp_t *q, uint32_t generation)
{
    if (load32(&q->generation) != generation || !cas32(&q->latch, q->st.latch, QSAFP_REASON_NONE))
        return QSAFP_E_LATCHED; /* only the latch that is on record, and answered, is cleared */
    if (load32(&q->page->armed) == QSAFP_ARMED)
        return 0; /* an open gate stays open: a renewal */
    return cas32(&q->page->armed, generation, QSAFP_ARMED) ? 0 : QSAFP_E_LATCHED;
}

/* SAFETY: I5 a latch is answered by its own record, or stays. */
static bool answers_latch(const qsafp_t *q, const qsafp_claims_t *c)
{
    if (!load32(&q->latch))
        return true;
    return !load32(&q->untold) && c->has_failsafe && c->failsafe_seq == q->st.latch_seq && qsafp_equal(c->failsafe_hash, q->st.latch_hash, 32);
}

static void adopt(qsafp_t *q, const uint8_t *token, size_t len)
{
    const qsafp_pending_t *p = &q->pending;
    port_lock(q);
    q->lease = p->claims;
    memcpy(q->lease_request_hash, p->request_hash, 32);
    q->lease_denied = p->denied;
    q->renewals = q->leased ? q->renewals + 1 : 0;
    q->leased = true;
    q->approvals = q->set.m;
    store32(&q->answered, 0);
    store64(&q->lease_end_ns, p->t0_ns + p->claims.duration_ms * 1000000u);
    port_unlock(q);
    q->st.lease_tree = p->tree;
    memcpy(q->lease_token, token, len);
    q->lease_token_len = len;
}

static int record_lease(qsafp_t *q, const uint8_t *token, size_t len, bool renewal, bool released)
{
    uint8_t hash[32];
    qsafp_sha256(hash, token, len);
    int err = q->port->evidence_put(q->ctx, hash, token, len);
    if (!err && released)
        err = note(q, QSAFP_EVENT_FAILSAFE_RELEASED, q->st.latch, hash);
    if (!err)
        err = note(q, renewal ? QSAFP_EVENT_LEASE_RENEWED : QSAFP_EVENT_LEASE_ISSUED, 0, hash);
    if (released && !err) {
        q->st.latch = 0;
        err = state_save(q);
    }
    q->pending.active = false;
    if (err)
        qsafp_trip(q, QSAFP_REASON_LOG_FULL);
    return err;
}

static int put_lease(qsafp_t *q, const uint8_t *token, size_t len)
{
    qsafp_bytes payload;
    qsafp_cbor_r sigs;
    uint64_t count = 0;
    if (!pending_live(q, port_now(q)))
        return QSAFP_E_NO_REQUEST;
    int err = qsafp_sign_parse(&payload, &sigs, &count, token, len);
    if (err)
        return err;
    if (payload.len != q->pending.payload_len || memcmp(payload.p, q->pending.payload, payload.len) != 0)
        return QSAFP_E_MISMATCH; /* SAFETY: I2 only bytes this guard proposed */
    const what_t what = {.aad = "qsafp/1/lease", .sign1 = false, .payload = payload};
    err = count_votes(q, &sigs, count, &what);
    if (err)
        return err;
    if (!answers_latch(q, &q->pending.claims))
        return QSAFP_E_LATCHED;
    bool renewal = q->leased, released = q->st.latch != 0;
    uint64_t was = load64(&q->lease_end_ns);
    adopt(q, token, len);
    err = arm(q, q->pending.generation);
    if (err) {
        store64(&q->lease_end_ns, was);
        q->leased = renewal;
        return err;
    }
    port_kick(q);
    return record_lease(q, token, len, renewal, released);
}

/* ---- refusals and revocations ---- */

static void key(qsafp_cbor_r *r, qsafp_bytes *prev, int64_t want)
{
    if (qsafp_cbor_key(r, prev) != want && !r->err)
        r->err = QSAFP_E_MALFORMED;
}

typedef struct { bool deny, of_pending, of_lease; uint64_t code; } verdict_t;

static int read_refusal(const qsafp_t *q, qsafp_cbor_r *r, verdict_t *v)
{
    qsafp_bytes prev = {0, 0};
    uint8_t hash[32];
    key(r, &prev, 1);
    qsafp_cbor_fixed(r, hash, 32);
    key(r, &prev, 2);
    uint64_t class = qsafp_cbor_head(r, QSAFP_CBOR_UINT);
    key(r, &prev, 3);
    v->code = qsafp_cbor_head(r, QSAFP_CBOR_UINT);
    key(r, &prev, 4);
    (void)qsafp_cbor_tstr(r);
    key(r, &prev, 5);
    (void)qsafp_cbor_skip(r);
    if (qsafp_cbor_done(r) || class < QSAFP_REFUSAL_CLASS_DENY || class > QSAFP_REFUSAL_CLASS_RETRY)
        return QSAFP_E_MALFORMED;
    if ((class == QSAFP_REFUSAL_CLASS_DENY) != (v->code < QSAFP_REFUSAL_STALE) || !v->code || v->code > QSAFP_REFUSAL_LIMITS)
        return QSAFP_E_MALFORMED; /* unknown codes, or one of the other class */
    v->deny = class == QSAFP_REFUSAL_CLASS_DENY;
    v->of_pending = q->pending.active && qsafp_equal(hash, q->pending.request_hash, 32);
    v->of_lease = q->leased && qsafp_equal(hash, q->lease_request_hash, 32);
    return v->of_pending || v->of_lease ? 0 : QSAFP_E_STALE;
}

static int read_revocation(const qsafp_t *q, qsafp_cbor_r *r, verdict_t *v)
{
    qsafp_bytes prev = {0, 0};
    uint8_t ueid[33], set_id[16];
    key(r, &prev, 1);
    qsafp_cbor_fixed(r, ueid, sizeof ueid);
    key(r, &prev, 2);
    qsafp_cbor_fixed(r, set_id, sizeof set_id);
    key(r, &prev, 3);
    uint64_t epoch = qsafp_cbor_head(r, QSAFP_CBOR_UINT);
    key(r, &prev, 4);
    uint64_t serial = qsafp_cbor_head(r, QSAFP_CBOR_UINT);
    key(r, &prev, 5);
    v->code = qsafp_cbor_head(r, QSAFP_CBOR_UINT);
    key(r, &prev, 6);
    (void)qsafp_cbor_tstr(r);
    if (qsafp_cbor_done(r))
        return QSAFP_E_MALFORMED;
    if (memcmp(ueid, q->cfg.ueid, sizeof ueid) != 0)
        return QSAFP_E_WRONG_DEVICE;
    if (epoch != q->set.epoch || memcmp(set_id, q->set.set_id, sizeof set_id) != 0)
        return QSAFP_E_WRONG_EPOCH;
    v->deny = true;
    v->of_pending = q->pending.active && serial >= q->pending.claims.serial;
    v->of_lease = q->leased && serial >= q->lease.serial;
    return v->of_pending || v->of_lease ? 0 : QSAFP_E_STALE;
}

/* A refusal's first value is 32 bytes, a revocation's 33. */
static bool is_revocation(qsafp_bytes payload)
{
    return payload.len > 4 && payload.p[2] == 0x58 && payload.p[3] == 33;
}

static int record_denial(qsafp_t *q, int index, const verdict_t *v, qsafp_bytes token)
{
    uint8_t hash[32];
    qsafp_record_t r = {.event = v->deny ? QSAFP_EVENT_LEASE_DENIED : QSAFP_EVENT_VALIDATOR_RESPONSE, .reason = (uint32_t)v->code, .flags = 4};
    r.data[0] = (uint8_t)index;
    qsafp_sha256(hash, token.p, token.len);
    if (q->port->evidence_put(q->ctx, hash, token.p, token.len))
        r.flags = 0; /* a denial counts even where its evidence cannot be kept */
    else
        memcpy(r.evidence, hash, 32);
    return qsafp_note(q, &r);
}

static int put_refusal(qsafp_t *q, const uint8_t *token, size_t len)
{
    qsafp_cose_sig s;
    qsafp_bytes payload;
    verdict_t v = {0};
    int err = qsafp_sign1_parse(&s, &payload, token, len);
    if (err)
        return err;
    int index = signer(&q->set, &s);
    if (index < 0)
        return QSAFP_E_UNKNOWN_SIGNER;
    bool revocation = is_revocation(payload);
    qsafp_cbor_r r = qsafp_cbor_reader(payload.p, payload.len);
    if (qsafp_cbor_head(&r, QSAFP_CBOR_MAP) != (revocation ? 6u : 5u))
        return QSAFP_E_MALFORMED;
    err = revocation ? read_revocation(q, &r, &v) : read_refusal(q, &r, &v);
    if (err)
        return err;
    const what_t what = {.aad = revocation ? "qsafp/1/revocation" : "qsafp/1/refusal", .sign1 = true, .payload = payload};
    if (verify(q, &what, &s, index)) {
        err = forged(q, index);
        too_few_left(q);
        return err;
    }
    store32(&q->answered, 1);
    if (v.deny && v.of_pending)
        q->pending.denied |= bit(index);
    if (v.deny && v.of_lease)
        q->lease_denied |= bit(index);
    if (v.deny)
        count_denial(q); /* latch and drive before the record */
    return record_denial(q, index, &v, (qsafp_bytes){token, len});
}

int qsafp_put(qsafp_t *q, const uint8_t *token, size_t len)
{
    if (len > QSAFP_RESPONSE_MAX)
        return QSAFP_E_TOO_LARGE;
    qsafp_cbor_r r = qsafp_cbor_reader(token, len);
    uint64_t tag = qsafp_cbor_head(&r, QSAFP_CBOR_TAG);
    if (r.err)
        return r.err;
    if (tag == 98)
        return put_lease(q, token, len);
    return tag == 18 ? put_refusal(q, token, len) : QSAFP_E_MALFORMED;
}
