/* SPDX-License-Identifier: Apache-2.0 */
/* The pinned validator set: COSE_Sign by the set keys, k of the old document's and k of the new one's (docs/formats.md). */
#include <string.h>

#include "qsafp_ed25519_edge.h"
#include "shape.h"

enum { ENDPOINTS_MAX = 4, PINS_MAX = 4, SET_KEYS_MAX = 4, MLDSA65_PK = 1952 };

static uint64_t count_upto(qsafp_cbor_r *r, uint64_t max)
{
    uint64_t n = qsafp_cbor_head(r, QSAFP_CBOR_ARRAY);
    shape_want(r, n <= max);
    return r->err ? 0 : n;
}

static void kid_of(uint8_t kid[8], const uint8_t *pk, size_t len)
{
    uint8_t h[32];
    qsafp_sha256(h, pk, len);
    memcpy(kid, h, 8);
}

/* [index, [endpoint], [SPKI hash], ed25519 / null, mldsa65 / null] */
static void get_validator(qsafp_cbor_r *r, qsafp_validator_t *v, uint64_t index, unsigned suite)
{
    shape_want(r, qsafp_cbor_head(r, QSAFP_CBOR_ARRAY) == 5 && qsafp_cbor_head(r, QSAFP_CBOR_UINT) == index);
    for (uint64_t n = count_upto(r, ENDPOINTS_MAX); n; n--)
        (void)qsafp_cbor_tstr(r);
    for (uint64_t n = count_upto(r, PINS_MAX); n; n--)
        shape_want(r, qsafp_cbor_bstr(r).len == 32);
    if (!qsafp_cbor_null(r)) {
        shape_want(r, suite != QSAFP_SUITE_MLDSA65);
        qsafp_cbor_fixed(r, v->ed25519, sizeof v->ed25519);
        kid_of(v->kid_ed, v->ed25519, sizeof v->ed25519);
    } else {
        shape_want(r, suite == QSAFP_SUITE_MLDSA65);
    }
    if (!qsafp_cbor_null(r)) {
        qsafp_bytes pk = qsafp_cbor_bstr(r);
        shape_want(r, pk.len == MLDSA65_PK && suite != QSAFP_SUITE_ED25519);
        v->mldsa65 = pk.p;
        if (!r->err)
            kid_of(v->kid_ml, pk.p, pk.len);
    } else {
        shape_want(r, suite == QSAFP_SUITE_ED25519);
    }
}

/* [k, [set key]] */
static void get_set_keys(qsafp_cbor_r *r, qsafp_set_t *s)
{
    shape_want(r, qsafp_cbor_head(r, QSAFP_CBOR_ARRAY) == 2);
    uint64_t k = qsafp_cbor_head(r, QSAFP_CBOR_UINT);
    s->set_k = (uint8_t)k;
    s->set_r = (uint8_t)count_upto(r, SET_KEYS_MAX);
    for (unsigned i = 0; i < s->set_r; i++)
        qsafp_cbor_fixed(r, s->set_keys[i], sizeof s->set_keys[i]);
    shape_want(r, k >= 1 && k <= s->set_r);
}

static bool same_kid(const uint8_t a[8], const uint8_t b[8])
{
    static const uint8_t none[8];
    return memcmp(a, b, 8) == 0 && memcmp(a, none, 8) != 0;
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

typedef struct { qsafp_set_t s; qsafp_bytes validators, keys; } document_t;

#define AT(field) offsetof(document_t, field)

static const item_t DOCUMENT[] = {
    {0, 0, ITEM_MAP, 8},
    {1, AT(s.set_id), ITEM_BSTR, 16},
    {2, AT(s.epoch), ITEM_UINT, 8},
    {3, AT(s.m), ITEM_UINT, 1},
    {4, AT(validators), ITEM_ANY, 0},
    {5, AT(s.suite), ITEM_UINT, 1},
    {6, AT(s.lab), ITEM_BOOL, 1},
    {7, AT(keys), ITEM_ANY, 0},
    {8, 0, ITEM_MAP, 1},
    {1, AT(s.max_duration_ms), ITEM_UINT, 8},
};

static void get_validators(qsafp_cbor_r *r, qsafp_set_t *s)
{
    s->n = (uint8_t)count_upto(r, QSAFP_VALIDATORS_MAX);
    for (unsigned i = 0; i < s->n; i++)
        get_validator(r, &s->v[i], i, s->suite);
    shape_want(r, 2 * s->m > s->n && s->m <= s->n);
}

static int parse(document_t *d, qsafp_bytes payload)
{
    qsafp_cbor_r r = qsafp_cbor_reader(payload.p, payload.len);
    shape_get(&r, ROWS(DOCUMENT), d);
    shape_want(&r, d->s.suite >= QSAFP_SUITE_ED25519 && d->s.suite <= QSAFP_SUITE_HYBRID);
    if (qsafp_cbor_done(&r))
        return qsafp_cbor_done(&r);
    qsafp_cbor_r validators = qsafp_cbor_reader(d->validators.p, d->validators.len);
    get_validators(&validators, &d->s);
    qsafp_cbor_r keys = qsafp_cbor_reader(d->keys.p, d->keys.len);
    get_set_keys(&keys, &d->s);
    if (validators.err || keys.err)
        return QSAFP_E_MALFORMED;
    return keys_differ(&d->s) ? 0 : QSAFP_E_DUPLICATE_SIGNER;
}

/* The set key with this kid that verifies, as a bit, or 0. */
static unsigned signed_by(const qsafp_set_t *s, const qsafp_cose_sig *sig, qsafp_bytes tbs, const qsafp_set_io_t *io)
{
    for (unsigned i = 0; i < s->set_r; i++) {
        uint8_t kid[8];
        kid_of(kid, s->set_keys[i], 32);
        if (memcmp(kid, sig->kid, 8) != 0 || sig->alg != QSAFP_ALG_ED25519 || sig->sig.len != 64)
            continue;
        if (qsafp_ed25519_edge_ok(sig->sig.p, s->set_keys[i]) && io->port->verify_ed25519(io->ctx, sig->sig.p, s->set_keys[i], tbs.p, tbs.len) == 0)
            return 1u << i;
    }
    return 0;
}

typedef struct { const qsafp_set_t *now, *old; unsigned by_now, by_old; } signers_t;

static int count_signers(signers_t *who, qsafp_cbor_r *sigs, uint64_t count, qsafp_bytes payload, const qsafp_set_io_t *io)
{
    for (; count; count--) {
        qsafp_cose_sig sig;
        size_t len = 0;
        int err = qsafp_sign_next(&sig, sigs);
        if (err)
            return err;
        qsafp_tbs_t t = {.aad = "qsafp/1/set", .sign1 = false, .protected_ = sig.protected_, .payload = payload};
        err = qsafp_tbs(&t, io->scratch, io->cap, &len);
        if (err)
            return err;
        qsafp_bytes tbs = {io->scratch, len};
        who->by_now |= signed_by(who->now, &sig, tbs, io);
        if (who->old)
            who->by_old |= signed_by(who->old, &sig, tbs, io);
    }
    return qsafp_cbor_done(sigs);
}

int qsafp_set_load(qsafp_set_t *out, const qsafp_set_t *old, qsafp_bytes doc, const qsafp_set_io_t *io)
{
    document_t d;
    qsafp_bytes payload;
    qsafp_cbor_r sigs;
    uint64_t count = 0;
    memset(&d, 0, sizeof d);
    if (doc.len > QSAFP_SET_MAX)
        return QSAFP_E_TOO_LARGE;
    int err = qsafp_sign_parse(&payload, &sigs, &count, doc.p, doc.len);
    if (!err)
        err = parse(&d, payload);
    if (!err && old && (d.s.epoch != old->epoch + 1 || memcmp(d.s.set_id, old->set_id, sizeof d.s.set_id) != 0))
        err = QSAFP_E_WRONG_EPOCH;
    if (!err && old && !follows(&d.s, old))
        err = QSAFP_E_RANGE;
    if (err)
        return err;
    signers_t who = {.now = &d.s, .old = old};
    err = count_signers(&who, &sigs, count, payload, io);
    if (!err && (bit_count(who.by_now) < d.s.set_k || (old && bit_count(who.by_old) < old->set_k)))
        err = QSAFP_E_TOO_FEW;
    if (!err)
        *out = d.s;
    return err;
}
