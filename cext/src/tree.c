/* SPDX-License-Identifier: Apache-2.0 */
/* RFC 9162 Merkle tree as a compact range: the peaks of [0, size), left to right (decision 9). */
#include <string.h>

#include "shape.h"

static void node(uint8_t out[32], const uint8_t left[32], const uint8_t right[32])
{
    uint8_t m[65] = {0x01};
    memcpy(m + 1, left, 32);
    memcpy(m + 33, right, 32);
    qsafp_sha256(out, m, sizeof m);
}

void qsafp_tree_leaf(uint8_t out[32], const uint8_t record_hash[32])
{
    uint8_t m[33] = {0x00};
    memcpy(m + 1, record_hash, 32);
    qsafp_sha256(out, m, sizeof m);
}

/* Appends a perfect subtree of 2^level leaves, merging equal neighbours; size must be a multiple of 2^level. */
static int push(qsafp_tree_t *t, const uint8_t hash[32], unsigned level)
{
    uint8_t h[32];
    unsigned had = bit_count(t->size), n = had;
    uint32_t leaves = (uint32_t)1 << level;
    if (t->size & (leaves - 1) || leaves > QSAFP_SEQ_MAX - t->size)
        return QSAFP_E_RANGE;
    memcpy(h, hash, 32);
    for (uint32_t s = t->size >> level; s & 1; s >>= 1)
        node(h, t->peak[--n], h);
    memset(t->peak[n], 0, (had - n) * 32); /* what was merged leaves nothing: equal trees are equal bytes */
    memcpy(t->peak[n], h, 32);
    t->size += leaves;
    return 0;
}

int qsafp_tree_append(qsafp_tree_t *t, const uint8_t leaf[32])
{
    return push(t, leaf, 0);
}

int qsafp_tree_root(const qsafp_tree_t *t, uint8_t root[32])
{
    unsigned n = bit_count(t->size);
    if (!n)
        qsafp_sha256(root, "", 0);
    else
        memcpy(root, t->peak[--n], 32);
    while (n)
        node(root, t->peak[--n], root);
    return 0;
}

/* The level of the largest perfect subtree that starts at `at` and ends at or before `to`. */
APART static unsigned level_at(uint32_t at, uint32_t to)
{
    unsigned k = 0;
    while (k < 30 && !(at >> k & 1) && to - at >= (uint32_t)2 << k)
        k++;
    return k;
}

int qsafp_tree_range(qsafp_range_t *r, qsafp_leaf_fn leaf, void *ctx)
{
    qsafp_tree_t t;
    uint8_t hash[32];
    r->count = 0;
    if (r->from > r->to)
        return QSAFP_E_RANGE;
    for (uint32_t at = r->from; at < r->to;) {
        uint32_t end = at + ((uint32_t)1 << level_at(at, r->to));
        memset(&t, 0, sizeof t);
        while (at < end) {
            int err = leaf(ctx, at++, hash);
            if (!err)
                err = push(&t, hash, 0);
            if (err)
                return err;
        }
        memcpy(r->hash[r->count++], t.peak[0], 32);
    }
    return 0;
}

int qsafp_tree_extend(qsafp_tree_t *t, const qsafp_range_t *r)
{
    qsafp_tree_t next = *t;
    unsigned used = 0;
    if (t->size != r->from || r->from > r->to)
        return QSAFP_E_RANGE;
    while (next.size < r->to) {
        if (used == r->count)
            return QSAFP_E_TOO_FEW;
        int err = push(&next, r->hash[used++], level_at(next.size, r->to));
        if (err)
            return err;
    }
    if (used != r->count)
        return QSAFP_E_TRAILING;
    *t = next;
    return 0;
}
