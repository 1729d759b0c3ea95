/* SPDX-License-Identifier: Apache-2.0 */
/* Reads and writes CBOR structures by their tables (shape.h). */
#include "shape.h"

#include <string.h>

unsigned bit_count(uint32_t v)
{
    unsigned n = 0;
    for (; v; v >>= 1)
        n += v & 1;
    return n;
}

bool all_bytes(const void *p, size_t n, uint8_t are)
{
    const uint8_t *b = p;
    while (n && *b++ == are)
        n--;
    return n == 0;
}

bool duration_ok(uint64_t ms)
{
    return ms - 1 < 31ull * 24 * 3600 * 1000; /* 0 - 1 is beyond any */
}

void shape_want(qsafp_cbor_r *r, bool ok)
{
    if (!ok && !r->err)
        r->err = QSAFP_E_MALFORMED;
}

/* As it is on the wire. */
static int32_t key_of(const item_t *row)
{
    return row->key < 0 ? row->key - CLAIM(0) : row->key;
}

static int32_t get_int(qsafp_cbor_r *r)
{
    int64_t v = qsafp_cbor_int(r);
    shape_want(r, v == (int32_t)v);
    return (int32_t)v;
}

/* What is no more than a head: a number, or how many follow. */
static void get_head(qsafp_cbor_r *r, const item_t *row, uint8_t *to)
{
    uint64_t v = qsafp_cbor_head(r, row->kind == ITEM_LIST ? QSAFP_CBOR_ARRAY : row->kind);
    bool ok = v == row->size;
    if (row->kind == ITEM_UINT) {
        ok = row->size == sizeof v || v <= UINT8_MAX;
        memcpy(to, &v, row->size);
    } else if (row->kind == ITEM_LIST) {
        ok = v <= row->size;
        *to = (uint8_t)(ok ? v : 0);
    }
    shape_want(r, ok);
}

static void get_item(qsafp_cbor_r *r, const item_t *row, uint8_t *to)
{
    qsafp_bytes b;
    int32_t i;
    switch (row->kind) {
    case ITEM_BSTR:
        qsafp_cbor_fixed(r, to, row->size);
        return;
    case ITEM_TEXT:
        (void)qsafp_cbor_tstr(r);
        return;
    case ITEM_BOOL:
        *to = qsafp_cbor_bool(r);
        return;
    case ITEM_VIEW:
    case ITEM_ANY:
        b = (qsafp_bytes){0, 0};
        if (row->kind == ITEM_ANY)
            b = qsafp_cbor_skip(r);
        else if (!row->size || !qsafp_cbor_null(r))
            b = qsafp_cbor_bstr(r);
        __builtin_memcpy(to, &b, sizeof b);
        return;
    case ITEM_INT:
        i = get_int(r);
        __builtin_memcpy(to, &i, sizeof i);
        return;
    default:
        get_head(r, row, to);
    }
}

void shape_get(qsafp_cbor_r *r, const item_t *row, size_t rows, void *to)
{
    uint8_t *at, times = 1;
    for (; rows--; row++) {
        if (row->key)
            shape_want(r, get_int(r) == key_of(row)); /* in the order of the table, which rises */
        for (at = (uint8_t *)to + row->at; times; times--, at += row->size)
            get_item(r, row, at);
        times = row->kind == ITEM_LIST ? ((uint8_t *)to)[row->at] : 1;
    }
}

static void put_item(qsafp_cbor_w *w, const item_t *row, const uint8_t *from)
{
    uint64_t v = row->size;
    int32_t small;
    qsafp_bytes b;
    switch (row->kind) {
    case ITEM_BSTR:
        qsafp_cbor_put_bstr(w, from, row->size);
        return;
    case ITEM_BOOL:
        qsafp_cbor_put(w, QSAFP_CBOR_SIMPLE, 20u + *from);
        return;
    case ITEM_VIEW:
        __builtin_memcpy(&b, from, sizeof b);
        if (b.p)
            qsafp_cbor_put_bstr(w, b.p, b.len);
        else
            qsafp_cbor_put_null(w);
        return;
    case ITEM_INT:
        __builtin_memcpy(&small, from, sizeof small);
        qsafp_cbor_put_int(w, small);
        return;
    case ITEM_UINT:
        v = 0;
        memcpy(&v, from, row->size);
        break;
    default:
        break;
    }
    qsafp_cbor_put(w, row->kind, v);
}

void shape_put(qsafp_cbor_w *w, const item_t *row, size_t rows, const void *from)
{
    for (; rows--; row++) {
        if (row->key)
            qsafp_cbor_put_int(w, key_of(row));
        put_item(w, row, (const uint8_t *)from + row->at);
    }
}
