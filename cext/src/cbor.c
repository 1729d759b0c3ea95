/* SPDX-License-Identifier: Apache-2.0 */
/* Strict deterministic CBOR (RFC 8949 4.2.1): one encoding for each value, everything else refused. */
#include <string.h>

#include "qsafp.h"

enum { DEPTH_MAX = 8 };

static uint64_t fail(qsafp_cbor_r *r, int err)
{
    if (!r->err)
        r->err = err;
    return 0;
}

static uint64_t head(qsafp_cbor_r *r, int *major)
{
    if (r->err)
        return 0;
    if (r->p >= r->end)
        return fail(r, QSAFP_E_MALFORMED);
    unsigned info = *r->p & 31u;
    *major = *r->p++ >> 5;
    if (info < 24)
        return info;
    if (info > 27)
        return fail(r, QSAFP_E_NOT_CANONICAL); /* reserved, or indefinite length */
    unsigned n = 1u << (info - 24);
    if ((size_t)(r->end - r->p) < n)
        return fail(r, QSAFP_E_MALFORMED);
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | *r->p++;
    uint32_t half = (uint32_t)(n == 8 ? v >> 32 : n == 1 ? v / 24 : v >> 4 * n); /* 0: fewer bytes would do */
    return half ? v : fail(r, QSAFP_E_NOT_CANONICAL);
}

qsafp_cbor_r qsafp_cbor_reader(const void *p, size_t n)
{
    return (qsafp_cbor_r){.p = p, .end = (const uint8_t *)p + n};
}

int qsafp_cbor_peek(const qsafp_cbor_r *r)
{
    if (r->err)
        return r->err;
    return r->p < r->end ? *r->p >> 5 : QSAFP_E_MALFORMED;
}

uint64_t qsafp_cbor_head(qsafp_cbor_r *r, int major)
{
    int got = -1;
    uint64_t v = head(r, &got);
    return r->err || got == major ? v : fail(r, QSAFP_E_MALFORMED);
}

int64_t qsafp_cbor_int(qsafp_cbor_r *r)
{
    int major = -1;
    uint64_t v = head(r, &major);
    if (r->err)
        return 0;
    if (major > QSAFP_CBOR_NEG)
        return (int64_t)fail(r, QSAFP_E_MALFORMED);
    if (v > INT64_MAX)
        return (int64_t)fail(r, QSAFP_E_RANGE);
    return major == QSAFP_CBOR_NEG ? -1 - (int64_t)v : (int64_t)v;
}

static qsafp_bytes string(qsafp_cbor_r *r, int major)
{
    uint64_t n = qsafp_cbor_head(r, major);
    if (!r->err && n > (uint64_t)(r->end - r->p))
        (void)fail(r, QSAFP_E_MALFORMED);
    if (r->err)
        return (qsafp_bytes){r->end, 0};
    qsafp_bytes b = {r->p, (size_t)n};
    r->p += n;
    return b;
}

qsafp_bytes qsafp_cbor_bstr(qsafp_cbor_r *r)
{
    return string(r, QSAFP_CBOR_BSTR);
}

/* Length of the well-formed UTF-8 sequence at p (RFC 3629), 0 if there is none. */
static size_t utf8(const uint8_t *p, size_t left)
{
    if (*p < 0x80)
        return 1;
    size_t n = *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : 4;
    if (*p < 0xC2 || *p > 0xF4 || left < n)
        return 0;
    uint32_t c = *p & 0x7Fu >> n;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3Fu);
    }
    bool overlong = n > 2 && c >> (5 * n - 4) == 0;
    return overlong || c - 0xD800 < 0x800 || c > 0x10FFFF ? 0 : n;
}

qsafp_bytes qsafp_cbor_tstr(qsafp_cbor_r *r)
{
    qsafp_bytes b = string(r, QSAFP_CBOR_TSTR);
    for (size_t i = 0, n; i < b.len; i += n) {
        n = utf8(b.p + i, b.len - i);
        if (!n) {
            (void)fail(r, QSAFP_E_MALFORMED);
            return (qsafp_bytes){r->end, 0};
        }
    }
    return b;
}

void qsafp_cbor_fixed(qsafp_cbor_r *r, void *out, size_t n)
{
    qsafp_bytes b = qsafp_cbor_bstr(r);
    if (!r->err && b.len != n)
        (void)fail(r, QSAFP_E_MALFORMED);
    if (r->err)
        memset(out, 0, n);
    else
        memcpy(out, b.p, n);
}

static bool simple(qsafp_cbor_r *r, uint8_t byte)
{
    bool is = !r->err && r->p < r->end && *r->p == byte;
    r->p += is;
    return is;
}

bool qsafp_cbor_null(qsafp_cbor_r *r)
{
    return simple(r, 0xF6);
}

bool qsafp_cbor_bool(qsafp_cbor_r *r)
{
    if (simple(r, 0xF5))
        return true;
    if (!simple(r, 0xF4))
        (void)fail(r, QSAFP_E_MALFORMED);
    return false;
}

/* Deterministic order is bytewise over the encoded keys; equal keys are duplicates. */
static bool rises(qsafp_bytes a, qsafp_bytes b)
{
    int c = memcmp(a.p, b.p, a.len < b.len ? a.len : b.len);
    return c < 0 || (c == 0 && a.len < b.len);
}

int64_t qsafp_cbor_key(qsafp_cbor_r *r, qsafp_bytes *prev)
{
    qsafp_bytes key = {r->p, 0};
    int64_t v = qsafp_cbor_int(r);
    if (r->err)
        return 0;
    key.len = (size_t)(r->p - key.p);
    if (prev->len && !rises(*prev, key))
        return (int64_t)fail(r, QSAFP_E_NOT_CANONICAL);
    *prev = key;
    return v;
}

/* One item: a stack of how many items each open container still wants, so there is no recursion. */
qsafp_bytes qsafp_cbor_skip(qsafp_cbor_r *r)
{
    struct { uint64_t left; bool map; qsafp_bytes prev; } open[DEPTH_MAX];
    size_t depth = 0;
    const uint8_t *start = r->p;
    do {
        qsafp_bytes item = {r->p, 0};
        int major = qsafp_cbor_peek(r);
        uint64_t n = 0;
        if (major == QSAFP_CBOR_ARRAY || major == QSAFP_CBOR_MAP)
            n = qsafp_cbor_head(r, major);
        else if (major == QSAFP_CBOR_UINT || major == QSAFP_CBOR_NEG)
            (void)qsafp_cbor_head(r, major);
        else if (major == QSAFP_CBOR_BSTR)
            (void)qsafp_cbor_bstr(r);
        else if (major == QSAFP_CBOR_TSTR)
            (void)qsafp_cbor_tstr(r);
        else if (!qsafp_cbor_null(r))
            (void)qsafp_cbor_bool(r);
        item.len = (size_t)(r->p - item.p);
        if (depth) {
            if (open[depth - 1].map && open[depth - 1].left % 2 == 0) { /* a key, and a scalar one */
                if (n || major == QSAFP_CBOR_ARRAY || major == QSAFP_CBOR_MAP || (open[depth - 1].prev.len && !rises(open[depth - 1].prev, item)))
                    (void)fail(r, QSAFP_E_NOT_CANONICAL);
                open[depth - 1].prev = item;
            }
            open[depth - 1].left--;
        }
        if (n && (depth == DEPTH_MAX || n > (uint64_t)(r->end - r->p)))
            (void)fail(r, QSAFP_E_TOO_LARGE);
        if (n && !r->err) {
            open[depth].left = major == QSAFP_CBOR_MAP ? 2 * n : n;
            open[depth].map = major == QSAFP_CBOR_MAP;
            open[depth++].prev = (qsafp_bytes){0, 0};
        }
        while (depth && !open[depth - 1].left)
            depth--;
    } while (depth && !r->err);
    return (qsafp_bytes){start, r->err ? 0 : (size_t)(r->p - start)};
}

int qsafp_cbor_done(const qsafp_cbor_r *r)
{
    if (r->err)
        return r->err;
    return r->p == r->end ? 0 : QSAFP_E_TRAILING;
}

qsafp_cbor_w qsafp_cbor_writer(void *p, size_t n)
{
    return (qsafp_cbor_w){.p = p, .end = (uint8_t *)p + n};
}

void qsafp_cbor_put_raw(qsafp_cbor_w *w, const void *p, size_t n)
{
    if (w->err || (size_t)(w->end - w->p) < n) {
        w->err = QSAFP_E_TOO_LARGE;
        return;
    }
    if (n)
        memcpy(w->p, p, n);
    w->p += n;
}

void qsafp_cbor_put(qsafp_cbor_w *w, int major, uint64_t arg)
{
    uint8_t b[9];
    unsigned info = arg < 24 ? (unsigned)arg : arg < 0x100 ? 24 : arg < 0x10000 ? 25 : arg < 0x100000000 ? 26 : 27;
    size_t n = info < 24 ? 0 : (size_t)1 << (info - 24);
    b[0] = (uint8_t)((unsigned)major << 5 | info);
    for (size_t i = 0; i < n; i++)
        b[1 + i] = (uint8_t)(arg >> (8 * (n - 1 - i)));
    qsafp_cbor_put_raw(w, b, n + 1);
}

void qsafp_cbor_put_int(qsafp_cbor_w *w, int64_t v)
{
    if (v < 0)
        qsafp_cbor_put(w, QSAFP_CBOR_NEG, (uint64_t)(-1 - v));
    else
        qsafp_cbor_put(w, QSAFP_CBOR_UINT, (uint64_t)v);
}

void qsafp_cbor_put_bstr(qsafp_cbor_w *w, const void *p, size_t n)
{
    qsafp_cbor_put(w, QSAFP_CBOR_BSTR, n);
    qsafp_cbor_put_raw(w, p, n);
}

void qsafp_cbor_put_null(qsafp_cbor_w *w)
{
    qsafp_cbor_put_raw(w, "\xF6", 1);
}
