/* SPDX-License-Identifier: Apache-2.0 */
/* Claims (CWT, RFC 8392) and COSE objects (RFC 9052): views into the caller's bytes, one signature at a time. */
#include <string.h>

#include "shape.h"

#define AT(field) offsetof(qsafp_claims_t, field)

static const item_t CLAIMS_FIRST[] = {
    {6, AT(iat), ITEM_UINT, 8},
    {7, AT(lease_id), ITEM_BSTR, 16},
    {10, AT(nonce), ITEM_BSTR, 16},
    {256, AT(ueid), ITEM_BSTR, 33},
    {CLAIM(-65537), AT(duration_ms), ITEM_UINT, 8},
    {CLAIM(-65538), AT(serial), ITEM_UINT, 8},
    {CLAIM(-65539), AT(model), ITEM_BSTR, 32},
    {CLAIM(-65540), 0, ITEM_ARRAY, 3},
    {0, AT(log_id), ITEM_BSTR, 32},
    {0, AT(log_size), ITEM_UINT, 8},
    {0, AT(log_root), ITEM_BSTR, 32},
    {CLAIM(-65541), 0, ITEM_ARRAY, 4},
    {0, AT(policy_ms[0]), ITEM_UINT, 8},
    {0, AT(policy_ms[1]), ITEM_UINT, 8},
    {0, AT(policy_ms[2]), ITEM_UINT, 8},
    {0, AT(policy_ms[3]), ITEM_UINT, 8},
};
static const item_t CLAIMS_FAILSAFE[] = {
    {CLAIM(-65542), 0, ITEM_ARRAY, 2},
    {0, AT(failsafe_seq), ITEM_UINT, 8},
    {0, AT(failsafe_hash), ITEM_BSTR, 32},
};
static const item_t CLAIMS_LAST[] = {
    {CLAIM(-65543), 0, ITEM_MAP, 2},
    {1, AT(level), ITEM_UINT, 8},
    {3, AT(lab), ITEM_BOOL, 1},
    {CLAIM(-65544), AT(epoch), ITEM_UINT, 8},
    {CLAIM(-65545), AT(set_id), ITEM_BSTR, 16},
};

int qsafp_claims_encode(const qsafp_claims_t *c, uint8_t *out, size_t cap, size_t *len)
{
    qsafp_cbor_w w = qsafp_cbor_writer(out, cap);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, c->has_failsafe ? 13 : 12);
    shape_put(&w, ROWS(CLAIMS_FIRST), c);
    if (c->has_failsafe)
        shape_put(&w, ROWS(CLAIMS_FAILSAFE), c);
    shape_put(&w, ROWS(CLAIMS_LAST), c);
    *len = w.err ? 0 : (size_t)(w.p - out);
    return w.err;
}

int qsafp_claims_decode(qsafp_claims_t *c, const uint8_t *p, size_t n)
{
    qsafp_cbor_r r = qsafp_cbor_reader(p, n);
    memset(c, 0, sizeof *c);
    uint64_t pairs = qsafp_cbor_head(&r, QSAFP_CBOR_MAP);
    shape_want(&r, pairs == 12 || pairs == 13);
    c->has_failsafe = pairs == 13;
    shape_get(&r, ROWS(CLAIMS_FIRST), c);
    if (c->has_failsafe)
        shape_get(&r, ROWS(CLAIMS_FAILSAFE), c);
    shape_get(&r, ROWS(CLAIMS_LAST), c);
    int err = qsafp_cbor_done(&r);
    if (!err && (!duration_ok(c->duration_ms) || c->ueid[0] != 0x01 || !c->serial))
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

const item_t SHAPE_HEADERS[3] = {
    {0, 0, ITEM_MAP, 2},
    {1, offsetof(qsafp_cose_sig, alg), ITEM_INT, 4},
    {4, offsetof(qsafp_cose_sig, kid), ITEM_BSTR, 8},
};
const item_t SHAPE_SIGN1[6] = {
    {0, 0, ITEM_TAG, 18},
    {0, 0, ITEM_ARRAY, 4},
    {0, offsetof(qsafp_cose_sig, protected_), ITEM_VIEW, 0},
    {0, 0, ITEM_MAP, 0},
    {0, offsetof(qsafp_cose_sig, payload), ITEM_VIEW, 0},
    {0, offsetof(qsafp_cose_sig, sig), ITEM_VIEW, 0},
};
static const item_t SIGN[] = {
    {0, 0, ITEM_TAG, 98},
    {0, 0, ITEM_ARRAY, 4},
    {0, 0, ITEM_BSTR, 0},
    {0, 0, ITEM_MAP, 0},
    {0, 0, ITEM_VIEW, 0},
};
static const item_t SIGNATURE[] = {
    {0, 0, ITEM_ARRAY, 3},
    {0, offsetof(qsafp_cose_sig, protected_), ITEM_VIEW, 0},
    {0, 0, ITEM_MAP, 0},
    {0, offsetof(qsafp_cose_sig, sig), ITEM_VIEW, 0},
};

/* protected {1: alg, 4: kid}, unprotected {}: any other header is one we would have to understand */
static int headers(qsafp_cose_sig *s)
{
    qsafp_cbor_r r = qsafp_cbor_reader(s->protected_.p, s->protected_.len);
    shape_get(&r, ROWS(SHAPE_HEADERS), s);
    int err = qsafp_cbor_done(&r);
    if (!err && s->alg != QSAFP_ALG_ED25519 && s->alg != QSAFP_ALG_MLDSA65)
        err = QSAFP_E_UNKNOWN_ALGORITHM;
    if (err)
        s->alg = 0;
    return err;
}

int qsafp_sign1_parse(qsafp_cose_sig *s, const uint8_t *p, size_t n)
{
    qsafp_cbor_r r = qsafp_cbor_reader(p, n);
    shape_get(&r, ROWS(SHAPE_SIGN1), s);
    int err = qsafp_cbor_done(&r);
    return err ? err : headers(s);
}

int qsafp_sign_parse(qsafp_bytes *payload, qsafp_cbor_r *sigs, uint64_t *count, const uint8_t *p, size_t n)
{
    *sigs = qsafp_cbor_reader(p, n);
    shape_get(sigs, ROWS(SIGN), payload);
    *count = qsafp_cbor_head(sigs, QSAFP_CBOR_ARRAY);
    return sigs->err;
}

int qsafp_sign_next(qsafp_cose_sig *s, qsafp_cbor_r *sigs)
{
    shape_get(sigs, ROWS(SIGNATURE), s);
    if (!sigs->err)
        sigs->err = headers(s);
    return sigs->err;
}
