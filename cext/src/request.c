/* SPDX-License-Identifier: Apache-2.0 */
/* Requests and envelopes: the bytes this guard proposes (HW-6, decisions 5, 6, 7, 9). */
#include "core.h"
#include "record.h"
#include "shape.h"

/* A request is pending until finish, abandonment or half its duration. */
bool pending_live(const qsafp_t *q)
{
    return q->pending.active && port_now(q) - q->pending.t0_ns < ns_of(q->pending.claims.duration_ms) / 2;
}

bool votes_left(const qsafp_t *q)
{
    return q->set.n - bit_count((unsigned)(q->pending.spent | q->pending.denied)) >= q->set.m;
}

static int draw(qsafp_t *q, uint64_t serial, uint8_t out[32])
{
    uint8_t msg[4 + 8 + 32];
    __builtin_memcpy(msg, &q->st.boot, 4);
    __builtin_memcpy(msg + 4, &serial, 8);
    int err = q->port->entropy(q->ctx, msg + 12, 32);
    if (!err)
        err = q->port->nonce_mac(q->ctx, out, msg, sizeof msg);
    qsafp_wipe(msg, sizeof msg);
    return err ? QSAFP_E_ENTROPY : 0;
}

/* What a claim takes from the guard as it stands. */
#define MOVE(to, from) {offsetof(qsafp_t, pending.claims.to), offsetof(qsafp_t, from), sizeof(((qsafp_t *)0)->from)}
static const struct { uint16_t to, from, size; } MOVES[] = {
    MOVE(ueid, cfg.ueid), MOVE(model, cfg.model), MOVE(policy_ms, cfg.policy_ms), MOVE(level, cfg.level), MOVE(duration_ms, cfg.duration_ms),
    MOVE(set_id, set.set_id), MOVE(epoch, set.epoch), MOVE(lab, set.lab), MOVE(failsafe_seq, st.latch_seq), MOVE(failsafe_hash, st.latch_hash),
    MOVE(log_id, log.log_id), {offsetof(qsafp_t, pending.claims.nonce), offsetof(qsafp_t, pending.random), 16},
    {offsetof(qsafp_t, pending.claims.lease_id), offsetof(qsafp_t, pending.random) + 16, 16},
};

static void claim_static(qsafp_t *q)
{
    qsafp_claims_t *c = &q->pending.claims;
    for (size_t i = 0; i < sizeof MOVES / sizeof *MOVES; i++)
        memcpy((uint8_t *)q + MOVES[i].to, (const uint8_t *)q + MOVES[i].from, MOVES[i].size);
    c->iat = q->port->wall_ms(q->ctx) / 1000;
    if (c->duration_ms > q->set.max_duration_ms)
        c->duration_ms = q->set.max_duration_ms;
    c->has_failsafe = q->st.latch != 0;
}

/* The log up to this request's own record, durable, and the tree over it (I8). */
static int claim_log(qsafp_t *q, qsafp_pending_t *p)
{
    qsafp_record_t r;
    record_new(&r, QSAFP_EVENT_VALIDATOR_QUERY, 0);
    memcpy(r.data, p->random, sizeof p->random);
    int err = qsafp_note(q, &r);
    if (!err)
        err = qsafp_audit_tree(&q->log);
    qsafp_tree_root(&q->log.tree, p->claims.log_root);
    p->tree = q->log.tree;
    p->claims.log_size = q->log.tree.size;
    return err;
}

/* {1: lease payload, 2: input hash, 3: state, 4: [evidence kind, measurement]}, all but first and last from the guard */
static const item_t BODY[] = {
    {2, offsetof(qsafp_t, input_hash), ITEM_BSTR, 32},
    {3, 0, ITEM_ARRAY, 5},
    {0, offsetof(qsafp_t, view.status), ITEM_UINT, 4},
    {0, offsetof(qsafp_t, view.phase), ITEM_UINT, 2},
    {0, offsetof(qsafp_t, lease.serial), ITEM_UINT, 8},
    {0, offsetof(qsafp_t, st.boot), ITEM_UINT, 4},
    {0, offsetof(qsafp_t, workloads), ITEM_UINT, 4},
    {4, 0, ITEM_ARRAY, 2},
    {0, offsetof(qsafp_t, evidence), ITEM_UINT, 1},
};

/* The rows as bytes; none if they do not fit. */
static qsafp_bytes encode(uint8_t *out, size_t cap, const item_t *row, size_t rows, const void *from)
{
    qsafp_cbor_w w = qsafp_cbor_writer(out, cap);
    shape_put(&w, row, rows, from);
    return (qsafp_bytes){out, w.err ? 0 : (size_t)(w.p - out)};
}

static qsafp_bytes request_body(qsafp_t *q, uint8_t *out, size_t cap)
{
    qsafp_cbor_w w = qsafp_cbor_writer(out, cap);
    look_at(q, port_now(q), &q->view);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 4);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, 1);
    qsafp_cbor_put_bstr(&w, q->pending.payload, q->pending.payload_len);
    shape_put(&w, ROWS(BODY), q);
    qsafp_cbor_put_bstr(&w, q->measurement, q->evidence * sizeof q->measurement);
    return (qsafp_bytes){out, w.err ? 0 : (size_t)(w.p - out)};
}

static int sign_request(qsafp_t *q, qsafp_pending_t *p)
{
    uint8_t body[640], prot[32], sig[64];
    size_t len = 0;
    qsafp_cose_sig o = {.alg = q->cfg.alg, .sig = {sig, sizeof sig}};
    memcpy(o.kid, q->cfg.kid, sizeof o.kid);
    o.protected_ = encode(prot, sizeof prot, ROWS(SHAPE_HEADERS), &o);
    o.payload = request_body(q, body, sizeof body);
    const qsafp_tbs_t t = {.aad = "qsafp/1/request", .sign1 = true, .protected_ = o.protected_, .payload = o.payload};
    if (!o.protected_.len || !o.payload.len)
        return QSAFP_E_TOO_LARGE;
    int err = qsafp_tbs(&t, q->scratch, sizeof q->scratch, &len);
    if (!err)
        err = q->port->sign(q->ctx, sig, q->scratch, len);
    if (err)
        return err;
    qsafp_sha256(p->request_hash, o.payload.p, o.payload.len);
    p->request_len = encode(p->request, sizeof p->request, ROWS(SHAPE_SIGN1), &o).len;
    return p->request_len ? 0 : QSAFP_E_TOO_LARGE;
}

static int build(qsafp_t *q, qsafp_pending_t *p)
{
    p->generation = load32(&q->generation);
    p->t0_ns = port_now(q); /* SAFETY: I7 before the nonce */
    p->claims.serial = q->st.serial + 1;
    int err = draw(q, p->claims.serial, p->random);
    if (err)
        return err;
    claim_static(q);
    err = claim_log(q, p);
    if (!err)
        err = qsafp_claims_encode(&p->claims, p->payload, sizeof p->payload, &p->payload_len);
    return err ? err : sign_request(q, p);
}

int qsafp_begin(qsafp_t *q)
{
    int err = qsafp_service(q); /* a fail-safe that is not yet a record cannot be answered */
    if (err)
        return err;
    if (pending_live(q) && votes_left(q))
        return 0;
    qsafp_pending_t *p = &q->pending;
    port_lock(q); /* the deadline thread shows whether a request is pending */
    memset(p, 0, sizeof *p);
    port_unlock(q);
    err = build(q, p);
    if (err)
        return err;
    q->st.serial = p->claims.serial;
    err = sync_and_save(q); /* SAFETY: I6 serial and head are durable before the request leaves */
    if (err)
        return err;
    set_pending(q, true);
    (void)q->port->toggle_validator_req(q->ctx);
    return 0;
}

static void put_hashes(qsafp_cbor_w *w, const uint8_t *hash, unsigned n)
{
    qsafp_cbor_put(w, QSAFP_CBOR_ARRAY, n);
    for (; n; n--, hash += 32)
        qsafp_cbor_put_bstr(w, hash, 32);
}

typedef struct { qsafp_bytes request, lease, failsafe, quote; uint32_t old; } envelope_t;

static const item_t ENVELOPE_HEAD[] = {
    {0, 0, ITEM_MAP, 7},
    {1, offsetof(envelope_t, request), ITEM_VIEW, 0},
    {2, offsetof(envelope_t, old), ITEM_UINT, 4},
};
static const item_t ENVELOPE_TAIL[] = {
    {5, offsetof(envelope_t, lease), ITEM_VIEW, 0},
    {6, offsetof(envelope_t, failsafe), ITEM_VIEW, 0},
    {7, offsetof(envelope_t, quote), ITEM_VIEW, 0},
};

int qsafp_envelope(qsafp_t *q, uint64_t old, uint8_t *out, size_t cap, size_t *len)
{
    const qsafp_pending_t *p = &q->pending;
    const qsafp_peaks_t *lt = &q->st.lease_tree;
    envelope_t e = {.lease = {0, 0}};
    if (!pending_live(q))
        return QSAFP_E_NO_REQUEST;
    int err = q->port->quote ? q->port->quote(q->ctx, p->request_hash, &e.quote) : 0; /* first: a host may serve others while it waits */
    if (err)
        return err;
    if (old == QSAFP_OLD_DEFAULT)
        old = lt->size;
    if (old > p->tree.size)
        return QSAFP_E_RANGE;
    qsafp_range_t range;
    range.from = (uint32_t)old;
    range.to = p->tree.size;
    if (range.from == p->tree.from)
        qsafp_tree_since(&range, &p->tree);
    else
        err = qsafp_tree_range(&range, qsafp_audit_leaf, &q->log);
    if (err)
        return err;
    e.request = (qsafp_bytes){p->request, p->request_len};
    e.old = range.from;
    if (q->lease_token_len)
        e.lease = (qsafp_bytes){q->lease_token, q->lease_token_len};
    if (p->claims.has_failsafe)
        e.failsafe = (qsafp_bytes){q->failsafe_record, sizeof q->failsafe_record};
    qsafp_cbor_w w = qsafp_cbor_writer(out, cap);
    shape_put(&w, ROWS(ENVELOPE_HEAD), &e);
    qsafp_cbor_put_int(&w, 3);
    if (range.from && range.from == lt->size)
        put_hashes(&w, lt->peak[0], bit_count(lt->size));
    else
        qsafp_cbor_put_null(&w);
    qsafp_cbor_put_int(&w, 4);
    put_hashes(&w, range.hash[0], range.count);
    shape_put(&w, ROWS(ENVELOPE_TAIL), &e);
    *len = (size_t)(w.p - out);
    return w.err;
}
