/* SPDX-License-Identifier: Apache-2.0 */
/* Quorum: what validators answered, one vote per index (HW-7, decisions 6 and 8). */
#include "core.h"
#include "record.h"
#include "shape.h"

static uint16_t bit(int index) { return (uint16_t)(1u << index); }

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
    if (q->pending.active && q->pending.forged && !votes_left(q))
        qsafp_trip(q, QSAFP_REASON_INVALID_SIGNATURES);
}

/* ---- leases ---- */

typedef struct { int last; bool second, bad; } votes_t;

/* One signature: of a validator above the last one, or in hybrid the second of the last one. */
static int next_signature(qsafp_t *q, qsafp_cbor_r *sigs, qsafp_tbs_t *what, votes_t *v)
{
    qsafp_cose_sig s;
    int err = qsafp_sign_next(&s, sigs);
    if (err)
        return err;
    int index = qsafp_set_signer(&q->set, &s);
    if (index < 0)
        return QSAFP_E_UNKNOWN_SIGNER;
    if (!v->second && index <= v->last)
        return QSAFP_E_DUPLICATE_SIGNER;
    bool ml = v->second || q->set.suite == QSAFP_SUITE_MLDSA65;
    if ((s.alg == QSAFP_ALG_MLDSA65) != ml || (v->second && index != v->last))
        return QSAFP_E_NOT_CANONICAL;
    v->last = index;
    if (vote_verify(q, what, &s, index))
        v->bad = true;
    return 0;
}

/* All signatures are looked at, so that every forged one leaves its record. */
static int count_votes(qsafp_t *q, qsafp_cbor_r *sigs, uint64_t count, qsafp_tbs_t *what)
{
    unsigned hybrid = q->set.suite == QSAFP_SUITE_HYBRID, n = (unsigned)q->set.m << hybrid;
    votes_t v = {.last = -1};
    int err, result = 0;
    if (count != n)
        return count < n ? QSAFP_E_TOO_FEW : QSAFP_E_NOT_CANONICAL;
    while (n--) {
        v.second = hybrid && !(n & 1);
        err = next_signature(q, sigs, what, &v);
        if (!err && (v.second || !hybrid)) {
            bool gone = (q->pending.denied | q->pending.spent) & bit(v.last); /* said no to this request before, or spent its vote */
            if (v.bad)
                err = forged(q, v.last);
            if (v.bad || gone)
                result = QSAFP_E_BAD_SIGNATURE;
            v.bad = false;
        }
        if (err && err != QSAFP_E_BAD_SIGNATURE)
            return err;
    }
    too_few_left(q);
    err = qsafp_cbor_done(sigs);
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
    memcpy(&q->st.lease_tree, &p->tree, sizeof q->st.lease_tree);
    q->log.tree = p->tree;
    q->log.tree.from = p->tree.size;
    q->log.tree.kept = 0;
    (void)!qsafp_audit_tree(&q->log); /* grown again from the lease on; a read that fails shows at the next request */
    memcpy(q->lease_token, token, len);
    q->lease_token_len = len;
}

static int record_lease(qsafp_t *q, const uint8_t *token, size_t len, bool renewal, bool released)
{
    uint8_t hash[32];
    int err = keep_evidence(q, token, len, hash);
    if (!err && released)
        err = note(q, QSAFP_EVENT_FAILSAFE_RELEASED, q->st.latch, hash, 0);
    if (!err)
        err = note(q, renewal ? QSAFP_EVENT_LEASE_RENEWED : QSAFP_EVENT_LEASE_ISSUED, 0, hash, 0);
    if (released && !err) {
        q->st.latch = 0;
        err = state_save(q);
    }
    set_pending(q, false);
    if (err)
        qsafp_trip(q, QSAFP_REASON_LOG_FULL);
    return err;
}

static int put_lease(qsafp_t *q, const uint8_t *token, size_t len)
{
    qsafp_bytes payload;
    qsafp_cbor_r sigs;
    uint64_t count = 0;
    int err = qsafp_sign_parse(&payload, &sigs, &count, token, len);
    if (err)
        return err;
    if (!pending_live(q) || q->log.first > q->pending.tree.size) /* the log must hold what came after it */
        return QSAFP_E_NO_REQUEST;
    if (payload.len != q->pending.payload_len || memcmp(payload.p, q->pending.payload, payload.len) != 0)
        return QSAFP_E_MISMATCH; /* SAFETY: I2 only bytes this guard proposed */
    qsafp_tbs_t what;
    what.aad = "qsafp/1/lease";
    what.sign1 = false;
    what.payload = payload;
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

/* What a refusal or a revocation says. */
typedef struct {
    uint8_t request_hash[32], ueid[33], set_id[16], class, code;
    uint64_t epoch, serial;
    qsafp_bytes data;
} answer_t;
enum { OF_PENDING = 1, OF_LEASE = 2 }; /* what it is about */

#define AT(field) offsetof(answer_t, field)

static const item_t REFUSAL[] = {
    {0, 0, ITEM_MAP, 5},
    {1, AT(request_hash), ITEM_BSTR, 32},
    {2, AT(class), ITEM_UINT, 1},
    {3, AT(code), ITEM_UINT, 1},
    {4, 0, ITEM_TEXT, 0},
    {5, AT(data), ITEM_ANY, 0}, /* for the agent */
};
static const item_t REVOCATION[] = {
    {0, 0, ITEM_MAP, 6},
    {1, AT(ueid), ITEM_BSTR, 33},
    {2, AT(set_id), ITEM_BSTR, 16},
    {3, AT(epoch), ITEM_UINT, 8},
    {4, AT(serial), ITEM_UINT, 8},
    {5, AT(code), ITEM_UINT, 1},
    {6, 0, ITEM_TEXT, 0},
};

APART static int about(const qsafp_t *q, bool pending, bool lease)
{
    int of = (q->pending.active && pending ? OF_PENDING : 0) | (q->leased && lease ? OF_LEASE : 0);
    return of ? of : QSAFP_E_STALE;
}

static int judge_refusal(const qsafp_t *q, qsafp_cbor_r *r, answer_t *a)
{
    shape_get(r, ROWS(REFUSAL), a);
    uint8_t class = a->code < QSAFP_REFUSAL_STALE ? QSAFP_REFUSAL_CLASS_DENY : QSAFP_REFUSAL_CLASS_RETRY;
    if (qsafp_cbor_done(r) || a->class != class || !a->code || a->code > QSAFP_REFUSAL_LIMITS)
        return QSAFP_E_MALFORMED; /* unknown codes too, or one of the other class */
    return about(q, qsafp_equal(a->request_hash, q->pending.request_hash, 32), qsafp_equal(a->request_hash, q->lease_request_hash, 32));
}

static int judge_revocation(const qsafp_t *q, qsafp_cbor_r *r, answer_t *a)
{
    shape_get(r, ROWS(REVOCATION), a);
    a->class = QSAFP_REFUSAL_CLASS_DENY;
    if (qsafp_cbor_done(r))
        return QSAFP_E_MALFORMED;
    if (memcmp(a->ueid, q->cfg.ueid, sizeof a->ueid) != 0)
        return QSAFP_E_WRONG_DEVICE;
    if (a->epoch != q->set.epoch || memcmp(a->set_id, q->set.set_id, sizeof a->set_id) != 0)
        return QSAFP_E_WRONG_EPOCH;
    return about(q, a->serial >= q->pending.claims.serial, a->serial >= q->lease.serial);
}

static int record_denial(qsafp_t *q, int index, const answer_t *a, qsafp_bytes token)
{
    bool deny = a->class == QSAFP_REFUSAL_CLASS_DENY;
    uint8_t hash[32];
    bool kept = keep_evidence(q, token.p, token.len, hash) == 0; /* a denial counts even where its evidence cannot be kept */
    return note(q, deny ? QSAFP_EVENT_LEASE_DENIED : QSAFP_EVENT_VALIDATOR_RESPONSE, a->code, kept ? hash : 0, index);
}

/* False if all of it was said before: the log is not filled by repeating it. */
static bool count_denial(qsafp_t *q, int of, uint16_t who)
{
    unsigned said = (of & OF_PENDING ? q->pending.denied : 0xFFFFu) & (of & OF_LEASE ? q->lease_denied : 0xFFFFu);
    if (said & who)
        return false;
    if (of & OF_PENDING)
        q->pending.denied |= who;
    if (of & OF_LEASE)
        q->lease_denied |= who;
    if (bit_count((unsigned)(q->lease_denied | q->pending.denied)) > (unsigned)(q->set.n - q->set.m))
        qsafp_trip(q, QSAFP_REASON_VALIDATOR_DENIED); /* latch and drive before the record */
    return true;
}

static int put_refusal(qsafp_t *q, const uint8_t *token, size_t len)
{
    qsafp_cose_sig s;
    answer_t a;
    qsafp_tbs_t what;
    int err = qsafp_sign1_parse(&s, token, len);
    if (err)
        return err;
    what.sign1 = true;
    what.payload = s.payload;
    int index = qsafp_set_signer(&q->set, &s);
    if (index < 0)
        return QSAFP_E_UNKNOWN_SIGNER;
    qsafp_cbor_r r = qsafp_cbor_reader(what.payload.p, what.payload.len);
    bool revocation = what.payload.len && what.payload.p[0] == 0xA6; /* a map of six; a refusal has five */
    what.aad = revocation ? "qsafp/1/revocation" : "qsafp/1/refusal";
    int of = revocation ? judge_revocation(q, &r, &a) : judge_refusal(q, &r, &a);
    if (of < 0)
        return of;
    err = vote_verify(q, &what, &s, index);
    if (err == QSAFP_E_BAD_SIGNATURE) {
        err = forged(q, index);
        too_few_left(q);
    }
    if (err)
        return err; /* too long to be looked at is no forgery */
    store32(&q->answered, 1);
    if (a.class == QSAFP_REFUSAL_CLASS_DENY && !count_denial(q, of, bit(index)))
        return 0;
    return record_denial(q, index, &a, (qsafp_bytes){token, len});
}

int qsafp_put(qsafp_t *q, const uint8_t *token, size_t len)
{
    if (len > QSAFP_RESPONSE_MAX)
        return QSAFP_E_TOO_LARGE;
    bool sign1 = len && token[0] == 0xD2; /* tag 18; anything else must be a lease, tag 98 */
    return sign1 ? put_refusal(q, token, len) : put_lease(q, token, len);
}
