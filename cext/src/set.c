/* SPDX-License-Identifier: Apache-2.0 */
/* The pinned validator set: COSE_Sign by the set keys, k of the old document's and k of the new one's (docs/formats.md). */
#include <string.h>

#include "shape.h"

enum { ENDPOINTS_MAX = 4, PINS_MAX = 4, SET_KEYS_MAX = 4, MLDSA65_PK = 1952 };

#define AT(field) offsetof(qsafp_set_t, field)

static const item_t DOCUMENT_FIRST[] = {
    {0, 0, ITEM_MAP, 8},
    {1, AT(set_id), ITEM_BSTR, 16},
    {2, AT(epoch), ITEM_UINT, 8},
    {3, AT(m), ITEM_UINT, 1},
    {4, AT(n), ITEM_LIST, QSAFP_VALIDATORS_MAX},
};
static const item_t DOCUMENT_LAST[] = {
    {5, AT(suite), ITEM_UINT, 1},
    {6, AT(lab), ITEM_BOOL, 1},
    {7, 0, ITEM_ARRAY, 2},
    {0, AT(set_k), ITEM_UINT, 1},
    {0, AT(set_r), ITEM_LIST, SET_KEYS_MAX},
    {0, AT(set_keys), ITEM_BSTR, 32},
    {8, 0, ITEM_MAP, 1},
    {1, AT(max_duration_ms), ITEM_UINT, 8},
};

/* [index, [endpoint], [SPKI hash], ed25519 / null, mldsa65 / null] */
typedef struct { uint8_t index, count, pins[PINS_MAX][32]; qsafp_bytes ed25519, mldsa65; } entry_t;

static const item_t VALIDATOR[] = {
    {0, 0, ITEM_ARRAY, 5},
    {0, offsetof(entry_t, index), ITEM_UINT, 1},
    {0, offsetof(entry_t, count), ITEM_LIST, ENDPOINTS_MAX},
    {0, 0, ITEM_TEXT, 0},
    {0, offsetof(entry_t, count), ITEM_LIST, PINS_MAX},
    {0, offsetof(entry_t, pins), ITEM_BSTR, 32},
    {0, offsetof(entry_t, ed25519), ITEM_VIEW, 1},
    {0, offsetof(entry_t, mldsa65), ITEM_VIEW, 1},
};

static void kid_of(uint8_t kid[8], const uint8_t *pk, size_t len)
{
    uint8_t h[32];
    qsafp_sha256(h, pk, len);
    memcpy(kid, h, 8);
}

/* Returns the suite that the keys of this validator make. */
static unsigned get_validator(qsafp_cbor_r *r, qsafp_validator_t *v, unsigned index)
{
    entry_t e;
    shape_get(r, ROWS(VALIDATOR), &e);
    shape_want(r, e.index == index && (!e.ed25519.p || e.ed25519.len == 32) && (!e.mldsa65.p || e.mldsa65.len == MLDSA65_PK));
    if (r->err)
        return 0;
    v->mldsa65 = e.mldsa65.p;
    if (e.mldsa65.p)
        kid_of(v->kid_ml, e.mldsa65.p, MLDSA65_PK);
    if (!e.ed25519.p)
        return QSAFP_SUITE_MLDSA65;
    memcpy(v->ed25519, e.ed25519.p, 32);
    kid_of(v->kid_ed, e.ed25519.p, 32);
    return e.mldsa65.p ? QSAFP_SUITE_HYBRID : QSAFP_SUITE_ED25519;
}

static bool same_kid(const uint8_t a[8], const uint8_t b[8])
{
    return memcmp(a, b, 8) == 0 && !all_bytes(a, 8, 0);
}

static bool same_member(const qsafp_validator_t *a, const qsafp_validator_t *b)
{
    return same_kid(a->kid_ed, b->kid_ed) || same_kid(a->kid_ml, b->kid_ml);
}

/* How many members of one set have no key in the other. */
static int strangers(const qsafp_set_t *s, const qsafp_set_t *to)
{
    int count = 0;
    for (unsigned i = 0; i < s->n; i++) {
        unsigned j = 0;
        while (j < to->n && !same_member(&s->v[i], &to->v[j]))
            j++;
        count += j == to->n;
    }
    return count;
}

/* One epoch replaces at most max(1, 2m-n-1) members (decision 6). */
static bool follows(const qsafp_set_t *s, const qsafp_set_t *old)
{
    int spare = 2 * old->m - old->n - 1, most = spare > 1 ? spare : 1;
    return strangers(s, old) <= most && strangers(old, s) <= most;
}

/* A key twice would be one validator with two votes. */
static bool keys_differ(const qsafp_set_t *s)
{
    for (unsigned i = 0; i < s->n; i++)
        for (unsigned j = 0; j < i; j++)
            if (same_member(&s->v[i], &s->v[j]))
                return false;
    for (unsigned i = 0; i < s->set_r; i++)
        for (unsigned j = 0; j < i; j++)
            if (memcmp(s->set_keys[i], s->set_keys[j], 32) == 0)
                return false;
    return true;
}

static int parse(qsafp_set_t *s, qsafp_bytes payload)
{
    qsafp_cbor_r r = qsafp_cbor_reader(payload.p, payload.len);
    unsigned some = 0, all = QSAFP_SUITE_HYBRID;
    memset(s, 0, sizeof *s);
    shape_get(&r, ROWS(DOCUMENT_FIRST), s);
    for (unsigned i = 0; i < s->n; i++) {
        unsigned suite = get_validator(&r, &s->v[i], i);
        some |= suite;
        all &= suite;
    }
    shape_get(&r, ROWS(DOCUMENT_LAST), s);
    shape_want(&r, some == s->suite && all == s->suite && s->set_k >= 1 && s->set_k <= s->set_r && 2 * s->m > s->n && s->m <= s->n);
    int err = qsafp_cbor_done(&r);
    return err || keys_differ(s) ? err : QSAFP_E_DUPLICATE_SIGNER;
}

typedef struct { const qsafp_set_io_t *io; qsafp_tbs_t what; qsafp_cose_sig sig; } signature_t;

/* Adds the set key with this kid, as a bit, if it verifies. */
static int count_signer(const qsafp_set_t *s, signature_t *by, unsigned *signers)
{
    for (unsigned i = 0; i < s->set_r; i++) {
        uint8_t kid[8];
        kid_of(kid, s->set_keys[i], 32);
        if (memcmp(kid, by->sig.kid, 8) != 0 || by->sig.alg != QSAFP_ALG_ED25519)
            continue;
        int err = cose_verify(by->io, &by->what, &by->sig, s->set_keys[i]);
        if (!err)
            *signers |= 1u << i;
        else if (err != QSAFP_E_BAD_SIGNATURE)
            return err;
    }
    return 0;
}

/* 0 if at least k of the set keys of `s`, and of `old`, signed. */
static int check_signers(const qsafp_set_t *s, const qsafp_set_t *old, qsafp_cbor_r *sigs, uint64_t count, signature_t *by)
{
    unsigned by_new = 0, by_old = 0;
    for (; count; count--) {
        int err = qsafp_sign_next(&by->sig, sigs);
        if (!err)
            err = count_signer(s, by, &by_new);
        if (!err && old)
            err = count_signer(old, by, &by_old);
        if (err)
            return err;
    }
    bool enough = bit_count(by_new) >= s->set_k && (!old || bit_count(by_old) >= old->set_k);
    int err = qsafp_cbor_done(sigs);
    return err || enough ? err : QSAFP_E_TOO_FEW;
}

int qsafp_set_load(qsafp_set_t *out, const qsafp_set_t *old, qsafp_bytes doc, const qsafp_set_io_t *io)
{
    qsafp_set_t s;
    signature_t by = {.io = io, .what = {.aad = "qsafp/1/set"}};
    qsafp_cbor_r sigs;
    uint64_t count = 0;
    if (doc.len > QSAFP_SET_MAX)
        return QSAFP_E_TOO_LARGE;
    int err = qsafp_sign_parse(&by.what.payload, &sigs, &count, doc.p, doc.len);
    if (!err)
        err = parse(&s, by.what.payload);
    if (!err && old && (s.epoch != old->epoch + 1 || memcmp(s.set_id, old->set_id, sizeof s.set_id) != 0))
        err = QSAFP_E_WRONG_EPOCH;
    if (!err && old && !follows(&s, old))
        err = QSAFP_E_RANGE;
    if (!err)
        err = check_signers(&s, old, &sigs, count, &by);
    if (!err)
        *out = s;
    return err;
}
