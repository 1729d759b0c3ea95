/* SPDX-License-Identifier: Apache-2.0 */
/* Set documents for tests: a body by parts, signed by toy set keys. */
#ifndef SETDOC_H
#define SETDOC_H

#include "device.h"

enum { SETDOC_MAX = 8192, MLDSA65_PK_BYTES = 1952 };

/* What a test may want otherwise; setdoc() gives a sound 4 of 6. */
typedef struct {
    uint64_t epoch, m, n, suite, k, r, max_duration_ms;
    unsigned swap_from, swap_count;  /* members swap_from.. have other keys */
    int twin, set_twin, set_member;  /* this member repeats member 0's key; this set key repeats the first; this one the last member's */
    uint8_t set_id;
    bool drop_ed, drop_ml, extra_key; /* no Ed25519 key, no ML-DSA-65 key for member 0; a ninth pair */
    unsigned endpoints, pins, pin_bytes, ed_bytes, ml_bytes, index_of; /* of each member; member 1 says it is this one */
} setdoc_t;

static inline setdoc_t setdoc(void)
{
    return (setdoc_t){.epoch = 1, .m = 4, .n = 6, .suite = QSAFP_SUITE_ED25519, .k = 1, .r = 2, .max_duration_ms = 3600000, .twin = -1, .set_twin = -1, .set_member = -1, .set_id = 5,
                       .endpoints = 1, .pins = 1, .pin_bytes = 32, .ed_bytes = 32, .ml_bytes = MLDSA65_PK_BYTES, .index_of = 1};
}

static inline void set_key(unsigned i, uint8_t pk[32]) { memset(pk, 0x61 + (int)i, 32); pk[31] = 0x21; }
static inline void member_key(unsigned i, uint8_t pk[32]) { memset(pk, 0x11 + (int)i, 32); pk[31] = 0x11; }

static inline void put_member(qsafp_cbor_w *w, const setdoc_t *d, unsigned i)
{
    uint8_t pk[MLDSA65_PK_BYTES + 1], pin[40] = {(uint8_t)i};
    unsigned key = (int)i == d->twin ? 0 : i >= d->swap_from && i < d->swap_from + d->swap_count ? i + 100 : i;
    memset(pk, 0x11 + (int)key, sizeof pk);
    pk[31] = 0x11;
    qsafp_cbor_put(w, QSAFP_CBOR_ARRAY, 5);
    qsafp_cbor_put(w, QSAFP_CBOR_UINT, i == 1 ? d->index_of : i);
    qsafp_cbor_put(w, QSAFP_CBOR_ARRAY, d->endpoints);
    for (unsigned k = 0; k < d->endpoints; k++) {
        qsafp_cbor_put(w, QSAFP_CBOR_TSTR, 6);
        qsafp_cbor_put_raw(w, "a:8443", 6);
    }
    qsafp_cbor_put(w, QSAFP_CBOR_ARRAY, d->pins);
    for (unsigned k = 0; k < d->pins; k++)
        qsafp_cbor_put_bstr(w, pin, d->pin_bytes);
    if (d->suite == QSAFP_SUITE_MLDSA65 || (d->drop_ed && i == 0))
        qsafp_cbor_put_null(w);
    else
        qsafp_cbor_put_bstr(w, pk, d->ed_bytes);
    if (d->suite == QSAFP_SUITE_ED25519 || (d->drop_ml && i == 0))
        qsafp_cbor_put_null(w);
    else
        qsafp_cbor_put_bstr(w, pk, d->ml_bytes);
}

static inline size_t setdoc_body(const setdoc_t *d, uint8_t *out)
{
    uint8_t id[16] = {d->set_id}, pk[32];
    qsafp_cbor_w w = qsafp_cbor_writer(out, SETDOC_MAX);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, d->extra_key ? 9 : 8);
    qsafp_cbor_put_int(&w, 1);
    qsafp_cbor_put_bstr(&w, id, 16);
    qsafp_cbor_put_int(&w, 2);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, d->epoch);
    qsafp_cbor_put_int(&w, 3);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, d->m);
    qsafp_cbor_put_int(&w, 4);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, d->n);
    for (unsigned i = 0; i < d->n; i++)
        put_member(&w, d, i);
    qsafp_cbor_put_int(&w, 5);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, d->suite);
    qsafp_cbor_put_int(&w, 6);
    qsafp_cbor_put(&w, QSAFP_CBOR_SIMPLE, 21); /* true: LAB */
    qsafp_cbor_put_int(&w, 7);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 2);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, d->k);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, d->r);
    for (unsigned i = 0; i < d->r; i++) {
        set_key((int)i == d->set_twin ? 0 : i, pk);
        if ((int)i == d->set_member)
            member_key((unsigned)d->n - 1, pk);
        qsafp_cbor_put_bstr(&w, pk, 32);
    }
    qsafp_cbor_put_int(&w, 8);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 1);
    qsafp_cbor_put_int(&w, 1);
    qsafp_cbor_put(&w, QSAFP_CBOR_UINT, d->max_duration_ms);
    if (d->extra_key) {
        qsafp_cbor_put_int(&w, 9);
        qsafp_cbor_put_null(&w);
    }
    assert(!w.err);
    return (size_t)(w.p - out);
}

/* The document over a body, signed by the set keys whose bits are in `by`. */
static inline size_t setdoc_sign(const uint8_t *body, size_t n, unsigned by, uint8_t *out)
{
    static uint8_t tbs[SETDOC_MAX + 64];
    unsigned signers = 0;
    for (unsigned i = 0; i < 8; i++)
        signers += by >> i & 1;
    qsafp_cbor_w w = qsafp_cbor_writer(out, SETDOC_MAX);
    qsafp_cbor_put(&w, QSAFP_CBOR_TAG, 98);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 4);
    qsafp_cbor_put_bstr(&w, "", 0);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 0);
    qsafp_cbor_put_bstr(&w, body, n);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, signers);
    for (unsigned i = 0; i < 8; i++) {
        uint8_t pk[32], kid[32], prot[32], sig[64];
        size_t len = 0;
        if (!(by >> i & 1))
            continue;
        set_key(i, pk);
        qsafp_sha256(kid, pk, 32);
        qsafp_cbor_w h = qsafp_cbor_writer(prot, sizeof prot);
        qsafp_cbor_put(&h, QSAFP_CBOR_MAP, 2);
        qsafp_cbor_put_int(&h, 1);
        qsafp_cbor_put_int(&h, QSAFP_ALG_ED25519);
        qsafp_cbor_put_int(&h, 4);
        qsafp_cbor_put_bstr(&h, kid, 8);
        qsafp_tbs_t t = {.aad = "qsafp/1/set", .sign1 = false, .protected_ = {prot, (size_t)(h.p - prot)}, .payload = {body, n}};
        assert(qsafp_tbs(&t, tbs, sizeof tbs, &len) == 0);
        toy_sign(sig, pk, tbs, len);
        qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 3);
        qsafp_cbor_put_bstr(&w, prot, t.protected_.len);
        qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 0);
        qsafp_cbor_put_bstr(&w, sig, 64);
    }
    return w.err ? 0 : (size_t)(w.p - out);
}

static inline size_t setdoc_of(const setdoc_t *d, unsigned by, uint8_t *out)
{
    static uint8_t body[SETDOC_MAX];
    return setdoc_sign(body, setdoc_body(d, body), by, out);
}

static inline int set_load(qsafp_set_t *s, const qsafp_set_t *old, const uint8_t *doc, size_t n)
{
    static uint8_t scratch[SETDOC_MAX + 64];
    const qsafp_set_io_t io = {.port = &PORT, .ctx = 0, .scratch = scratch, .cap = sizeof scratch};
    return qsafp_set_load(s, old, (qsafp_bytes){doc, n}, &io);
}

/* Members of `s` that `old` does not have, by key. */
static inline unsigned set_strangers(const qsafp_set_t *s, const qsafp_set_t *old)
{
    unsigned strangers = 0;
    for (unsigned i = 0; i < s->n; i++) {
        bool known = false;
        for (unsigned j = 0; j < old->n; j++)
            known = known || (s->suite != QSAFP_SUITE_MLDSA65 && !memcmp(s->v[i].ed25519, old->v[j].ed25519, 32)) ||
                    (s->v[i].mldsa65 && old->v[j].mldsa65 && !memcmp(s->v[i].mldsa65, old->v[j].mldsa65, MLDSA65_PK_BYTES));
        strangers += !known;
    }
    return strangers;
}

static inline unsigned set_bound(const qsafp_set_t *old)
{
    return 2u * old->m > old->n + 2u ? 2u * old->m - old->n - 1u : 1u;
}

#endif
