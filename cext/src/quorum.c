/* SPDX-License-Identifier: Apache-2.0 */
/* Quorum: what validators answered, one vote per index (HW-7, decisions 6 and 8). */
#include "core.h"
#include "record.h"
#include "shape.h"

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

static int verify(qsafp_t *q, qsafp_tbs_t *what, const qsafp_cose_sig *s, int index)
{
    const qsafp_validator_t *v = &q->set.v[index];
    const qsafp_set_io_t io = {.port = q->port, .ctx = q->ctx, .scratch = q->scratch, .cap = sizeof q->scratch};
    return cose_verify(&io, what, s, s->alg == QSAFP_ALG_MLDSA65 ? v->mldsa65 : v->ed25519);
}

/* A failed verification: an anomaly record; the vote of that index is gone for this request (requirements note 10). */
static int forged(qsafp_t *q, int index)
{
    if (q->pending.active) {
        q->pending.spent |= bit(index);
        q->pending.forged = true;
    }
    int err = note(q, QSAFP_EVENT_ANOMALY, QSAFP_REASON_INVALID_SIGNATURES, 0, index);
    return err ? err : QSAFP_E_BAD_SIGNATURE;
}

static void too_few_left(qsafp_t *q)
{
    unsigned gone = bit_count((unsigned)(q->pending.spent | q->pending.denied));
    if (q->pending.active && q->pending.forged && q->set.n - gone < q->set.m)
        qsafp_trip(q, QSAFP_REASON_INVALID_SIGNATURES);
}

static void count_denial(qsafp_t *q)
{
    unsigned denied = bit_count((unsigned)(q->lease_denied | q->pending.denied));
    if (denied >= (unsigned)(q->set.n - q->set.m + 1))
        qsafp_trip(q, QSAFP_REASON_VALIDATOR_DENIED);
}

/* ---- leases ---- */

static int next_vote(qsafp_t *q, qsafp_cbor_r *sigs, qsafp_tbs_t *what, int *last)
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
static int count_votes(qsafp_t *q, qsafp_cbor_r *sigs, uint64_t count, qsafp_tbs_t *what)
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
    if (armed(q))
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
    store64(&q->lease_end_ns, p->t0_ns + ns_of(p->claims.duration_ms));
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
        err = note(q, QSAFP_EVENT_FAILSAFE_RELEASED, q->st.latch, hash, 0);
    if (!err)
        err = note(q, renewal ? QSAFP_EVENT_LEASE_RENEWED : QSAFP_EVENT_LEASE_ISSUED, 0, hash, 0);
    if (released && !err) {
        q->st.latch = 0;
        err = state_save(q);
    }
    port_lock(q);
    q->pending.active = false;
    port_unlock(q);
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
    qsafp_tbs_t what = {.aad = "qsafp/1/lease", .sign1 = false, .payload = payload};
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

/* What a refusal or a revocation says; the fields that the other one has stay zero. */
typedef struct {
    uint8_t request_hash[32], ueid[33], set_id[16];
    uint64_t class, code, epoch, serial;
    qsafp_bytes data;
} answer_t;
typedef struct { bool deny, of_pending, of_lease; } verdict_t;

#define AT(field) offsetof(answer_t, field)

static const item_t REFUSAL[] = {
    {0, 0, ITEM_MAP, 5},
    {1, AT(request_hash), ITEM_BSTR, 32},
    {2, AT(class), ITEM_UINT, 8},
    {3, AT(code), ITEM_UINT, 8},
    {4, 0, ITEM_TEXT, 0},
    {5, AT(data), ITEM_ANY, 0}, /* for the agent */
};
static const item_t REVOCATION[] = {
    {0, 0, ITEM_MAP, 6},
    {1, AT(ueid), ITEM_BSTR, 33},
    {2, AT(set_id), ITEM_BSTR, 16},
    {3, AT(epoch), ITEM_UINT, 8},
    {4, AT(serial), ITEM_UINT, 8},
    {5, AT(code), ITEM_UINT, 8},
    {6, 0, ITEM_TEXT, 0},
};

static int judge_refusal(const qsafp_t *q, const answer_t *a, verdict_t *v)
{
    v->deny = a->class == QSAFP_REFUSAL_CLASS_DENY;
    if ((!v->deny && a->class != QSAFP_REFUSAL_CLASS_RETRY) || v->deny != (a->code < QSAFP_REFUSAL_STALE) || !a->code || a->code > QSAFP_REFUSAL_LIMITS)
        return QSAFP_E_MALFORMED; /* unknown codes, or one of the other class */
    v->of_pending = q->pending.active && qsafp_equal(a->request_hash, q->pending.request_hash, 32);
    v->of_lease = q->leased && qsafp_equal(a->request_hash, q->lease_request_hash, 32);
    return 0;
}

static int judge_revocation(const qsafp_t *q, const answer_t *a, verdict_t *v)
{
    if (memcmp(a->ueid, q->cfg.ueid, sizeof a->ueid) != 0)
        return QSAFP_E_WRONG_DEVICE;
    if (a->epoch != q->set.epoch || memcmp(a->set_id, q->set.set_id, sizeof a->set_id) != 0)
        return QSAFP_E_WRONG_EPOCH;
    v->deny = true;
    v->of_pending = q->pending.active && a->serial >= q->pending.claims.serial;
    v->of_lease = q->leased && a->serial >= q->lease.serial;
    return 0;
}

static int judge(const qsafp_t *q, qsafp_bytes payload, bool revocation, answer_t *a, verdict_t *v)
{
    qsafp_cbor_r r = qsafp_cbor_reader(payload.p, payload.len);
    memset(a, 0, sizeof *a);
    if (revocation)
        shape_get(&r, ROWS(REVOCATION), a);
    else
        shape_get(&r, ROWS(REFUSAL), a);
    if (qsafp_cbor_done(&r))
        return QSAFP_E_MALFORMED;
    int err = revocation ? judge_revocation(q, a, v) : judge_refusal(q, a, v);
    return err || v->of_pending || v->of_lease ? err : QSAFP_E_STALE;
}

static int record_denial(qsafp_t *q, int index, const answer_t *a, bool deny, qsafp_bytes token)
{
    uint8_t hash[32];
    qsafp_sha256(hash, token.p, token.len);
    bool kept = q->port->evidence_put(q->ctx, hash, token.p, token.len) == 0; /* a denial counts even where its evidence cannot be kept */
    return note(q, deny ? QSAFP_EVENT_LEASE_DENIED : QSAFP_EVENT_VALIDATOR_RESPONSE, (uint32_t)a->code, kept ? hash : 0, index);
}

static int put_refusal(qsafp_t *q, const uint8_t *token, size_t len)
{
    qsafp_cose_sig s;
    answer_t a;
    verdict_t v = {false, false, false};
    qsafp_tbs_t what = {.aad = "qsafp/1/refusal", .sign1 = true};
    int err = qsafp_sign1_parse(&s, &what.payload, token, len);
    if (err)
        return err;
    int index = signer(&q->set, &s);
    if (index < 0)
        return QSAFP_E_UNKNOWN_SIGNER;
    bool revocation = what.payload.len && what.payload.p[0] == 0xA6; /* a map of six; a refusal has five */
    if (revocation)
        what.aad = "qsafp/1/revocation";
    err = judge(q, what.payload, revocation, &a, &v);
    if (err)
        return err;
    err = verify(q, &what, &s, index);
    if (err == QSAFP_E_BAD_SIGNATURE) {
        err = forged(q, index);
        too_few_left(q);
    }
    if (err)
        return err; /* too long to be looked at is no forgery */
    store32(&q->answered, 1);
    const unsigned said = (v.of_pending ? q->pending.denied : 0xFFFFu) & (v.of_lease ? q->lease_denied : 0xFFFFu);
    if (v.deny && (said & bit(index)))
        return 0; /* said before: the log is not filled by repeating it */
    if (v.deny && v.of_pending)
        q->pending.denied |= bit(index);
    if (v.deny && v.of_lease)
        q->lease_denied |= bit(index);
    if (v.deny)
        count_denial(q); /* latch and drive before the record */
    return record_denial(q, index, &a, v.deny, (qsafp_bytes){token, len});
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
