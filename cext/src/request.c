/* SPDX-License-Identifier: Apache-2.0 */
/* Requests and envelopes: the bytes this guard proposes (HW-6, decisions 5, 6, 7, 9). */
#include "core.h"

static const char AAD_REQUEST[] = "qsafp/1/request";

/* A request is pending until finish, abandonment or half its duration. */
bool pending_live(const qsafp_t *q, uint64_t now)
{
    return q->pending.active && now - q->pending.t0_ns < q->pending.claims.duration_ms * 500000u;
}

static int draw(qsafp_t *q, uint64_t serial, uint8_t out[32])
{
    uint8_t msg[4 + 8 + 32];
    for (unsigned i = 0; i < 4; i++)
        msg[i] = (uint8_t)(q->st.boot >> (8 * i));
    for (unsigned i = 0; i < 8; i++)
        msg[4 + i] = (uint8_t)(serial >> (8 * i));
    int err = q->port->entropy(q->ctx, msg + 12, 32);
    if (!err)
        err = q->port->nonce_mac(q->ctx, out, msg, sizeof msg);
    qsafp_wipe(msg, sizeof msg);
    return err ? QSAFP_E_ENTROPY : 0;
}

static void claim_static(const qsafp_t *q, qsafp_claims_t *c)
{
    c->iat = q->port->wall_ms(q->ctx) / 1000;
    memcpy(c->ueid, q->cfg.ueid, sizeof c->ueid);
    memcpy(c->model, q->cfg.model, sizeof c->model);
    memcpy(c->policy_ms, q->cfg.policy_ms, sizeof c->policy_ms);
    memcpy(c->set_id, q->set.set_id, sizeof c->set_id);
    c->epoch = q->set.epoch;
    c->lab = q->set.lab;
    c->level = q->cfg.level;
    c->duration_ms = q->cfg.duration_ms;
    if (q->set.max_duration_ms && c->duration_ms > q->set.max_duration_ms)
        c->duration_ms = q->set.max_duration_ms;
    c->has_failsafe = q->st.latch != 0;
    c->failsafe_seq = q->st.latch_seq;
    memcpy(c->failsafe_hash, q->st.latch_hash, 32);
}

/* The log up to this request's own record, durable, and the tree over it (I8). */
static int claim_log(qsafp_t *q, qsafp_pending_t *p)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_VALIDATOR_QUERY};
    memcpy(r.data, p->claims.nonce, 16);
    memcpy(r.data + 16, p->claims.lease_id, 16);
    int err = qsafp_note(q, &r);
    if (!err)
        err = qsafp_audit_tree(&q->log);
    if (!err)
        err = qsafp_tree_root(&q->log.tree, p->claims.log_root);
    p->tree = q->log.tree;
    p->claims.log_size = q->log.tree.size;
    memcpy(p->claims.log_id, q->log.log_id, 32);
    return err;
}

static void put_state(qsafp_t *q, qsafp_cbor_w *w)
{
    qsafp_phase_t phase;
    qsafp_status_t status = status_of(q, port_now(q), &phase);
    qsafp_cbor_put(w, QSAFP_CBOR_ARRAY, 5);
    qsafp_cbor_put(w, QSAFP_CBOR_UINT, (uint64_t)status);
    qsafp_cbor_put(w, QSAFP_CBOR_UINT, (uint64_t)phase);
    qsafp_cbor_put(w, QSAFP_CBOR_UINT, q->lease.serial);
    qsafp_cbor_put(w, QSAFP_CBOR_UINT, q->st.boot);
    qsafp_cbor_put(w, QSAFP_CBOR_UINT, q->workloads);
}

/* {1: lease payload, 2: input hash, 3: state, 4: [evidence kind 0 = none, h'']} */
static size_t request_payload(qsafp_t *q, const qsafp_pending_t *p, uint8_t *out, size_t cap)
{
    qsafp_cbor_w w = qsafp_cbor_writer(out, cap);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 4);
    qsafp_cbor_put_int(&w, 1);
    qsafp_cbor_put_bstr(&w, p->payload, p->payload_len);
    qsafp_cbor_put_int(&w, 2);
    qsafp_cbor_put_bstr(&w, q->input_hash, sizeof q->input_hash);
    qsafp_cbor_put_int(&w, 3);
    put_state(q, &w);
    qsafp_cbor_put_int(&w, 4);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 2);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, 0);
    qsafp_cbor_put_bstr(&w, "", 0);
    return w.err ? 0 : (size_t)(w.p - out);
}

static size_t protected_header(const qsafp_t *q, uint8_t *out, size_t cap)
{
    qsafp_cbor_w w = qsafp_cbor_writer(out, cap);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 2);
    qsafp_cbor_put_int(&w, 1);
    qsafp_cbor_put_int(&w, QSAFP_ALG_ED25519);
    qsafp_cbor_put_int(&w, 4);
    qsafp_cbor_put_bstr(&w, q->cfg.kid, sizeof q->cfg.kid);
    return w.err ? 0 : (size_t)(w.p - out);
}

static int sign_request(qsafp_t *q, qsafp_pending_t *p)
{
    uint8_t body[640], prot[32], sig[64];
    size_t tbs_len = 0, body_len = request_payload(q, p, body, sizeof body), prot_len = protected_header(q, prot, sizeof prot);
    if (!body_len || !prot_len)
        return QSAFP_E_TOO_LARGE;
    qsafp_tbs_t t = {.aad = AAD_REQUEST, .sign1 = true, .protected_ = {prot, prot_len}, .payload = {body, body_len}};
    int err = qsafp_tbs(&t, q->scratch, sizeof q->scratch, &tbs_len);
    if (!err)
        err = q->port->sign(q->ctx, sig, q->scratch, tbs_len);
    if (err)
        return err;
    qsafp_sha256(p->request_hash, body, body_len);
    qsafp_cbor_w w = qsafp_cbor_writer(p->request, sizeof p->request);
    qsafp_cbor_put(&w, QSAFP_CBOR_TAG, 18);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 4);
    qsafp_cbor_put_bstr(&w, prot, prot_len);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 0);
    qsafp_cbor_put_bstr(&w, body, body_len);
    qsafp_cbor_put_bstr(&w, sig, sizeof sig);
    p->request_len = (size_t)(w.p - p->request);
    return w.err;
}

static int build(qsafp_t *q, qsafp_pending_t *p)
{
    uint8_t random[32];
    p->generation = load32(&q->generation);
    p->t0_ns = port_now(q); /* SAFETY: I7 before the nonce */
    p->claims.serial = q->st.serial + 1;
    int err = draw(q, p->claims.serial, random);
    if (err)
        return err;
    memcpy(p->claims.nonce, random, 16);
    memcpy(p->claims.lease_id, random + 16, 16);
    claim_static(q, &p->claims);
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
    if (pending_live(q, port_now(q)))
        return 0;
    qsafp_pending_t *p = &q->pending;
    p->active = false;
    memset(p, 0, sizeof *p);
    err = build(q, p);
    if (err)
        return err;
    q->st.serial = p->claims.serial;
    err = q->port->log_sync(q->ctx);
    if (!err)
        err = state_save(q); /* SAFETY: I6 serial and head are durable before the request leaves */
    if (err)
        return err;
    p->active = true;
    (void)q->port->toggle_validator_req(q->ctx);
    return 0;
}

static int leaf_of(void *ctx, uint64_t index, uint8_t out[32])
{
    uint8_t rec[QSAFP_RECORD_BYTES];
    int err = qsafp_audit_read(ctx, index, rec);
    if (!err)
        qsafp_tree_leaf(out, rec + 208);
    return err;
}

static void put_hashes(qsafp_cbor_w *w, const uint8_t *hash, uint64_t n)
{
    qsafp_cbor_put(w, QSAFP_CBOR_ARRAY, n);
    for (uint64_t i = 0; i < n; i++)
        qsafp_cbor_put_bstr(w, hash + 32 * i, 32);
}

static unsigned bits64(uint64_t v)
{
    unsigned n = 0;
    for (; v; v &= v - 1)
        n++;
    return n;
}

int qsafp_envelope(qsafp_t *q, uint64_t old, uint8_t *out, size_t cap, size_t *len)
{
    const qsafp_tree_t *lt = &q->st.lease_tree;
    bool usual = old == QSAFP_OLD_DEFAULT || old == lt->size;
    if (!pending_live(q, port_now(q)))
        return QSAFP_E_NO_REQUEST;
    if (old == QSAFP_OLD_DEFAULT)
        old = lt->size;
    if (old > q->pending.claims.log_size)
        return QSAFP_E_RANGE;
    qsafp_range_t range = {.from = old, .to = q->pending.claims.log_size};
    int err = qsafp_tree_range(&range, leaf_of, &q->log);
    if (err)
        return err;
    qsafp_cbor_w w = qsafp_cbor_writer(out, cap);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 7);
    qsafp_cbor_put_int(&w, 1);
    qsafp_cbor_put_bstr(&w, q->pending.request, q->pending.request_len);
    qsafp_cbor_put_int(&w, 2);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, old);
    qsafp_cbor_put_int(&w, 3);
    if (usual && old)
        put_hashes(&w, lt->peak[0], bits64(lt->size));
    else
        qsafp_cbor_put_null(&w);
    qsafp_cbor_put_int(&w, 4);
    put_hashes(&w, range.hash[0], range.count);
    qsafp_cbor_put_int(&w, 5);
    if (q->lease_token_len)
        qsafp_cbor_put_bstr(&w, q->lease_token, q->lease_token_len);
    else
        qsafp_cbor_put_null(&w);
    qsafp_cbor_put_int(&w, 6);
    if (q->pending.claims.has_failsafe)
        qsafp_cbor_put_bstr(&w, q->failsafe_record, sizeof q->failsafe_record);
    else
        qsafp_cbor_put_null(&w);
    qsafp_cbor_put_int(&w, 7);
    qsafp_cbor_put_null(&w);
    *len = (size_t)(w.p - out);
    return w.err;
}
