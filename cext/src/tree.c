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

/* Appends a perfect subtree of so many leaves, a power of two that divides size, merging equal neighbours. */
static int push(qsafp_tree_t *t, const uint8_t hash[32], uint32_t leaves)
{
    unsigned n = bit_count(t->size);
    uint32_t at = t->size, width = leaves;
    if (at & (leaves - 1) || leaves > QSAFP_SEQ_MAX - at)
        return QSAFP_E_RANGE;
    memcpy(t->peak[n], hash, 32);
    for (; at & width; width <<= 1, n--) {
        uint8_t *right = t->peak[n];
        if (at - t->from < width) /* it starts at or after `from`, its left neighbour before */
            memcpy(t->since[t->kept++], right, 32);
        node(right - 32, right - 32, right);
        memset(right, 0, 32); /* what was merged leaves nothing: equal trees are equal bytes */
        at -= width;
    }
    t->size += leaves;
    return 0;
}

int qsafp_tree_append(qsafp_tree_t *t, const uint8_t leaf[32])
{
    return push(t, leaf, 1);
}

void qsafp_tree_root(const qsafp_tree_t *t, uint8_t root[32])
{
    unsigned n = bit_count(t->size);
    if (!n)
        qsafp_sha256(root, "", 0);
    else
        memcpy(root, t->peak[--n], 32);
    while (n)
        node(root, t->peak[--n], root);
}

/* The leaves of the largest perfect subtree that starts at `at` and ends at or before `to`. */
static uint32_t width_at(uint32_t at, uint32_t to)
{
    uint32_t width = 1;
    while (!(at & width) && to - at >= 2 * width)
        width *= 2;
    return width;
}

int qsafp_tree_grow(qsafp_tree_t *t, uint32_t to, qsafp_leaf_fn leaf, void *ctx)
{
    uint8_t hash[32];
    int err = 0;
    while (!err && t->size < to) {
        err = leaf(ctx, t->size, hash);
        if (!err)
            err = push(t, hash, 1);
    }
    return err;
}

void qsafp_tree_since(qsafp_range_t *r, const qsafp_tree_t *t)
{
    uint32_t at = t->size;
    unsigned n = bit_count(at), first = n;
    for (; first && (at & (at - 1)) >= t->from; at &= at - 1)
        first--;
    r->from = t->from;
    r->to = t->size;
    r->count = (uint8_t)(t->kept + n - first);
    memcpy(r->hash, t->since, t->kept * 32);
    memcpy(r->hash[t->kept], t->peak[first], (n - first) * 32);
}

int qsafp_tree_range(qsafp_range_t *r, qsafp_leaf_fn leaf, void *ctx)
{
    qsafp_tree_t t;
    if (r->from > r->to)
        return QSAFP_E_RANGE;
    memset(&t, 0, sizeof t); /* of what lies before `from` nothing is known, and nothing of it gets into the range */
    t.size = t.from = r->from;
    int err = qsafp_tree_grow(&t, r->to, leaf, ctx);
    if (!err)
        qsafp_tree_since(r, &t);
    return err;
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
        int err = push(&next, r->hash[used++], width_at(next.size, r->to));
        if (err)
            return err;
    }
    if (used != r->count)
        return QSAFP_E_TRAILING;
    *t = next;
    return 0;
}
