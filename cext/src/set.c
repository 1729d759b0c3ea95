/* SPDX-License-Identifier: Apache-2.0 */
/* The pinned validator set: COSE_Sign by the set keys, k of the old document's and k of the new one's (docs/formats.md). */
#include <string.h>

#include "shape.h"

enum { ENDPOINTS_MAX = 4, PINS_MAX = 4, MLDSA65_PK = 1952, FIRST_SET_KID = 2 * QSAFP_VALIDATORS_MAX };

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
    {0, AT(set_r), ITEM_LIST, QSAFP_SET_KEYS_MAX},
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

/* The first key among the set's first `end` that has this id, or `end`. */
static unsigned find(const qsafp_set_t *s, const uint8_t kid[8], unsigned end)
{
    unsigned k = 0;
    while (k < end && (memcmp(s->kid[k], kid, 8) != 0 || all_bytes(kid, 8, 0)))
        k++;
    return k;
}

int qsafp_set_signer(const qsafp_set_t *set, const qsafp_cose_sig *s)
{
    unsigned end = 2u * set->n, k = find(set, s->kid, end), ml = s->alg == QSAFP_ALG_MLDSA65;
    return k < end && (k & 1) == ml && set->suite >> ml & 1 ? (int)(k / 2) : -1;
}

/* Returns the suite that the keys of this validator make. */
static unsigned get_validator(qsafp_cbor_r *r, qsafp_set_t *s, unsigned index)
{
    entry_t e;
    shape_get(r, ROWS(VALIDATOR), &e);
    shape_want(r, e.index == index && (!e.ed25519.p || e.ed25519.len == 32) && (!e.mldsa65.p || e.mldsa65.len == MLDSA65_PK));
    if (r->err)
        return 0;
    unsigned suite = 0;
    if (e.ed25519.p) {
        memcpy(s->v[index].ed25519, e.ed25519.p, 32);
        kid_of(s->kid[2 * index], e.ed25519.p, 32);
        suite = QSAFP_SUITE_ED25519;
    }
    if (e.mldsa65.p) {
        s->v[index].mldsa65 = e.mldsa65.p;
        kid_of(s->kid[2 * index + 1], e.mldsa65.p, MLDSA65_PK);
        suite |= QSAFP_SUITE_MLDSA65;
    }
    return suite;
}

/* How many members of one set have no key in the other. */
static int strangers(const qsafp_set_t *s, const qsafp_set_t *to)
{
    int count = 0;
    unsigned end = 2u * to->n;
    for (unsigned k = 0; k < 2u * s->n; k += 2)
        count += find(to, s->kid[k], end) == end && find(to, s->kid[k + 1], end) == end;
    return count;
}

/* One epoch replaces at most max(1, 2m-n-1) members (decision 6). */
static bool follows(const qsafp_set_t *s, const qsafp_set_t *old)
{
    int spare = 2 * old->m - old->n - 1, most = spare > 1 ? spare : 1;
    return strangers(s, old) <= most && strangers(old, s) <= most;
}

/* A key twice would be one validator with two votes, or one that says who the others are. */
static bool keys_differ(const qsafp_set_t *s)
{
    unsigned k = 0;
    while (k < QSAFP_KIDS && find(s, s->kid[k], k) == k)
        k++;
    return k == QSAFP_KIDS;
}

static int parse(qsafp_set_t *s, qsafp_bytes payload)
{
    qsafp_cbor_r r = qsafp_cbor_reader(payload.p, payload.len);
    unsigned some = 0, all = QSAFP_SUITE_HYBRID;
    memset(s, 0, sizeof *s);
    shape_get(&r, ROWS(DOCUMENT_FIRST), s);
    for (unsigned i = 0; i < s->n; i++) {
        unsigned suite = get_validator(&r, s, i);
        some |= suite;
        all &= suite;
    }
    shape_get(&r, ROWS(DOCUMENT_LAST), s);
    for (unsigned i = 0; i < s->set_r; i++)
        kid_of(s->kid[FIRST_SET_KID + i], s->set_keys[i], 32);
    shape_want(&r, some == s->suite && all == s->suite && s->set_k >= 1 && s->set_k <= s->set_r && 2 * s->m > s->n && s->m <= s->n);
    shape_want(&r, (int64_t)s->epoch > 0 && duration_ok(s->max_duration_ms));
    int err = qsafp_cbor_done(&r);
    return err || keys_differ(s) ? err : QSAFP_E_DUPLICATE_SIGNER;
}

typedef struct { const qsafp_set_io_t *io; qsafp_tbs_t what; } signed_t;

/* 0 if at least k of the set keys of `s` signed, and none of them badly. */
static int check_signers(const qsafp_set_t *s, qsafp_cbor_r sigs, uint64_t count, signed_t *by)
{
    unsigned signers = 0;
    for (; count; count--) {
        qsafp_cose_sig sig;
        int err = qsafp_sign_next(&sig, &sigs);
        if (err)
            return err;
        unsigned i = find(s, sig.kid, QSAFP_KIDS) - FIRST_SET_KID; /* a validator's key is beyond any */
        if (i >= QSAFP_SET_KEYS_MAX || sig.alg != QSAFP_ALG_ED25519)
            continue; /* of nobody here */
        err = cose_verify(by->io, &by->what, &sig, s->set_keys[i]);
        if (err)
            return err;
        signers |= 1u << i;
    }
    int err = qsafp_cbor_done(&sigs);
    return err || bit_count(signers) >= s->set_k ? err : QSAFP_E_TOO_FEW;
}

int qsafp_set_load(qsafp_set_t *out, const qsafp_set_t *old, qsafp_bytes doc, const qsafp_set_io_t *io)
{
    qsafp_set_t s;
    signed_t by = {.io = io, .what = {.aad = "qsafp/1/set"}};
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
        err = check_signers(&s, sigs, count, &by);
    if (!err && old)
        err = check_signers(old, sigs, count, &by);
    if (!err)
        *out = s;
    return err;
}
