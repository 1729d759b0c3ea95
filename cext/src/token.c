/* SPDX-License-Identifier: Apache-2.0 */
/* Claims (CWT, RFC 8392) and COSE objects (RFC 9052): views into the caller's bytes, one signature at a time. */
#include <string.h>

#include "qsafp.h"

enum {
    CLAIM_IAT = 6, CLAIM_CTI = 7, CLAIM_NONCE = 10, CLAIM_UEID = 256, CLAIM_DURATION = -65537, CLAIM_SERIAL = -65538, CLAIM_MODEL = -65539,
    CLAIM_LOG = -65540, CLAIM_POLICY = -65541, CLAIM_FAILSAFE = -65542, CLAIM_SCOPE = -65543, CLAIM_EPOCH = -65544, CLAIM_SET = -65545,
    SCOPE_LEVEL = 1, SCOPE_LAB = 3
};

static const uint64_t DURATION_MAX_MS = 31ull * 24 * 3600 * 1000;

static void put_uint(qsafp_cbor_w *w, int64_t key, uint64_t v)
{
    qsafp_cbor_put_int(w, key);
    qsafp_cbor_put(w, QSAFP_CBOR_UINT, v);
}

static void put_bytes(qsafp_cbor_w *w, int64_t key, const uint8_t *p, size_t n)
{
    qsafp_cbor_put_int(w, key);
    qsafp_cbor_put_bstr(w, p, n);
}

int qsafp_claims_encode(const qsafp_claims_t *c, uint8_t *out, size_t cap, size_t *len)
{
    qsafp_cbor_w w = qsafp_cbor_writer(out, cap);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, c->has_failsafe ? 13 : 12);
    put_uint(&w, CLAIM_IAT, c->iat);
    put_bytes(&w, CLAIM_CTI, c->lease_id, sizeof c->lease_id);
    put_bytes(&w, CLAIM_NONCE, c->nonce, sizeof c->nonce);
    put_bytes(&w, CLAIM_UEID, c->ueid, sizeof c->ueid);
    put_uint(&w, CLAIM_DURATION, c->duration_ms);
    put_uint(&w, CLAIM_SERIAL, c->serial);
    put_bytes(&w, CLAIM_MODEL, c->model, sizeof c->model);
    qsafp_cbor_put_int(&w, CLAIM_LOG);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 3);
    qsafp_cbor_put_bstr(&w, c->log_id, sizeof c->log_id);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, c->log_size);
    qsafp_cbor_put_bstr(&w, c->log_root, sizeof c->log_root);
    qsafp_cbor_put_int(&w, CLAIM_POLICY);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 4);
    for (int i = 0; i < 4; i++)
        qsafp_cbor_put(&w, QSAFP_CBOR_UINT, c->policy_ms[i]);
    if (c->has_failsafe) {
        qsafp_cbor_put_int(&w, CLAIM_FAILSAFE);
        qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 2);
        qsafp_cbor_put(&w, QSAFP_CBOR_UINT, c->failsafe_seq);
        qsafp_cbor_put_bstr(&w, c->failsafe_hash, sizeof c->failsafe_hash);
    }
    qsafp_cbor_put_int(&w, CLAIM_SCOPE);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 2);
    put_uint(&w, SCOPE_LEVEL, c->level);
    qsafp_cbor_put_int(&w, SCOPE_LAB);
    qsafp_cbor_put_raw(&w, c->lab ? "\xF5" : "\xF4", 1);
    put_uint(&w, CLAIM_EPOCH, c->epoch);
    put_bytes(&w, CLAIM_SET, c->set_id, sizeof c->set_id);
    *len = w.err ? 0 : (size_t)(w.p - out);
    return w.err;
}

static void want(qsafp_cbor_r *r, bool ok)
{
    if (!ok && !r->err)
        r->err = QSAFP_E_MALFORMED;
}

static void get_uint(qsafp_cbor_r *r, qsafp_bytes *prev, int64_t key, uint64_t *v)
{
    want(r, qsafp_cbor_key(r, prev) == key);
    *v = qsafp_cbor_head(r, QSAFP_CBOR_UINT);
}

static void get_bytes(qsafp_cbor_r *r, qsafp_bytes *prev, int64_t key, qsafp_bytes out)
{
    want(r, qsafp_cbor_key(r, prev) == key);
    qsafp_cbor_fixed(r, (uint8_t *)(uintptr_t)out.p, out.len);
}

#define FIELD(f) ((qsafp_bytes){(f), sizeof(f)})

static void get_log(qsafp_cbor_r *r, qsafp_bytes *prev, qsafp_claims_t *c)
{
    want(r, qsafp_cbor_key(r, prev) == CLAIM_LOG && qsafp_cbor_head(r, QSAFP_CBOR_ARRAY) == 3);
    qsafp_cbor_fixed(r, c->log_id, sizeof c->log_id);
    c->log_size = qsafp_cbor_head(r, QSAFP_CBOR_UINT);
    qsafp_cbor_fixed(r, c->log_root, sizeof c->log_root);
}

static void get_failsafe(qsafp_cbor_r *r, qsafp_bytes *prev, qsafp_claims_t *c)
{
    want(r, qsafp_cbor_key(r, prev) == CLAIM_FAILSAFE && qsafp_cbor_head(r, QSAFP_CBOR_ARRAY) == 2);
    c->failsafe_seq = qsafp_cbor_head(r, QSAFP_CBOR_UINT);
    qsafp_cbor_fixed(r, c->failsafe_hash, sizeof c->failsafe_hash);
}

static void get_scope(qsafp_cbor_r *r, qsafp_bytes *prev, qsafp_claims_t *c)
{
    qsafp_bytes inner = {0, 0};
    want(r, qsafp_cbor_key(r, prev) == CLAIM_SCOPE && qsafp_cbor_head(r, QSAFP_CBOR_MAP) == 2);
    get_uint(r, &inner, SCOPE_LEVEL, &c->level);
    want(r, qsafp_cbor_key(r, &inner) == SCOPE_LAB);
    c->lab = qsafp_cbor_bool(r);
}

int qsafp_claims_decode(qsafp_claims_t *c, const uint8_t *p, size_t n)
{
    qsafp_bytes prev = {0, 0};
    qsafp_cbor_r r = qsafp_cbor_reader(p, n);
    memset(c, 0, sizeof *c);
    uint64_t pairs = qsafp_cbor_head(&r, QSAFP_CBOR_MAP);
    want(&r, pairs == 12 || pairs == 13);
    c->has_failsafe = pairs == 13;
    get_uint(&r, &prev, CLAIM_IAT, &c->iat);
    get_bytes(&r, &prev, CLAIM_CTI, FIELD(c->lease_id));
    get_bytes(&r, &prev, CLAIM_NONCE, FIELD(c->nonce));
    get_bytes(&r, &prev, CLAIM_UEID, FIELD(c->ueid));
    get_uint(&r, &prev, CLAIM_DURATION, &c->duration_ms);
    get_uint(&r, &prev, CLAIM_SERIAL, &c->serial);
    get_bytes(&r, &prev, CLAIM_MODEL, FIELD(c->model));
    get_log(&r, &prev, c);
    want(&r, qsafp_cbor_key(&r, &prev) == CLAIM_POLICY && qsafp_cbor_head(&r, QSAFP_CBOR_ARRAY) == 4);
    for (int i = 0; i < 4; i++)
        c->policy_ms[i] = qsafp_cbor_head(&r, QSAFP_CBOR_UINT);
    if (c->has_failsafe)
        get_failsafe(&r, &prev, c);
    get_scope(&r, &prev, c);
    get_uint(&r, &prev, CLAIM_EPOCH, &c->epoch);
    get_bytes(&r, &prev, CLAIM_SET, FIELD(c->set_id));
    int err = qsafp_cbor_done(&r);
    if (!err && (c->duration_ms < 1 || c->duration_ms > DURATION_MAX_MS || c->ueid[0] != 0x01 || c->serial < 1))
        err = QSAFP_E_RANGE;
    return err;
}

static void put_text(qsafp_cbor_w *w, int major, const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    qsafp_cbor_put(w, major, n);
    qsafp_cbor_put_raw(w, s, n);
}

int qsafp_tbs(const qsafp_tbs_t *t, uint8_t *out, size_t cap, size_t *len)
{
    qsafp_cbor_w w = qsafp_cbor_writer(out, cap);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, t->sign1 ? 4 : 5);
    put_text(&w, QSAFP_CBOR_TSTR, t->sign1 ? "Signature1" : "Signature");
    if (!t->sign1)
        qsafp_cbor_put_bstr(&w, "", 0); /* body protected */
    qsafp_cbor_put_bstr(&w, t->protected_.p, t->protected_.len);
    put_text(&w, QSAFP_CBOR_BSTR, t->aad);
    qsafp_cbor_put_bstr(&w, t->payload.p, t->payload.len);
    *len = w.err ? 0 : (size_t)(w.p - out);
    return w.err;
}

/* protected {1: alg, 4: kid}, unprotected {}: any other header is one we would have to understand */
static void get_headers(qsafp_cbor_r *r, qsafp_cose_sig *s)
{
    qsafp_bytes prev = {0, 0};
    s->protected_ = qsafp_cbor_bstr(r);
    qsafp_cbor_r h = qsafp_cbor_reader(s->protected_.p, s->protected_.len);
    want(&h, qsafp_cbor_head(&h, QSAFP_CBOR_MAP) == 2 && qsafp_cbor_key(&h, &prev) == 1);
    int64_t alg = qsafp_cbor_int(&h);
    want(&h, qsafp_cbor_key(&h, &prev) == 4);
    qsafp_cbor_fixed(&h, s->kid, sizeof s->kid);
    int err = qsafp_cbor_done(&h);
    if (!err && alg != QSAFP_ALG_ED25519 && alg != QSAFP_ALG_MLDSA65 && alg != QSAFP_ALG_ESP256)
        err = QSAFP_E_UNKNOWN_ALGORITHM;
    s->alg = err ? 0 : (int)alg;
    if (err && !r->err)
        r->err = err;
    want(r, qsafp_cbor_head(r, QSAFP_CBOR_MAP) == 0);
}

int qsafp_sign1_parse(qsafp_cose_sig *s, qsafp_bytes *payload, const uint8_t *p, size_t n)
{
    qsafp_cbor_r r = qsafp_cbor_reader(p, n);
    want(&r, qsafp_cbor_head(&r, QSAFP_CBOR_TAG) == 18 && qsafp_cbor_head(&r, QSAFP_CBOR_ARRAY) == 4);
    get_headers(&r, s);
    *payload = qsafp_cbor_bstr(&r);
    s->sig = qsafp_cbor_bstr(&r);
    return qsafp_cbor_done(&r);
}

int qsafp_sign_parse(qsafp_bytes *payload, qsafp_cbor_r *sigs, uint64_t *count, const uint8_t *p, size_t n)
{
    qsafp_cbor_r r = qsafp_cbor_reader(p, n);
    want(&r, qsafp_cbor_head(&r, QSAFP_CBOR_TAG) == 98 && qsafp_cbor_head(&r, QSAFP_CBOR_ARRAY) == 4);
    want(&r, qsafp_cbor_bstr(&r).len == 0 && qsafp_cbor_head(&r, QSAFP_CBOR_MAP) == 0);
    *payload = qsafp_cbor_bstr(&r);
    *count = qsafp_cbor_head(&r, QSAFP_CBOR_ARRAY);
    *sigs = r;
    return r.err;
}

int qsafp_sign_next(qsafp_cose_sig *s, qsafp_cbor_r *sigs)
{
    want(sigs, qsafp_cbor_head(sigs, QSAFP_CBOR_ARRAY) == 3);
    get_headers(sigs, s);
    s->sig = qsafp_cbor_bstr(sigs);
    return sigs->err;
}
