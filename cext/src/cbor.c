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
    uint32_t high = 0, low = *r->p & 31u;
    *major = *r->p++ >> 5;
    if (low < 24)
        return low;
    if (low > 27)
        return fail(r, QSAFP_E_NOT_CANONICAL); /* reserved, or indefinite length */
    unsigned n = 1u << (low - 24);
    if ((size_t)(r->end - r->p) < n)
        return fail(r, QSAFP_E_MALFORMED);
    low = 0;
    for (unsigned i = 0; i < n; i++) {
        high = high << 8 | low >> 24;
        low = low << 8 | *r->p++;
    }
    uint32_t half = n == 8 ? high : n == 1 ? low / 24 : low >> 4 * n; /* 0: fewer bytes would do */
    return half ? (uint64_t)high << 32 | low : fail(r, QSAFP_E_NOT_CANONICAL);
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

/* Well-formed UTF-8 (RFC 3629): no overlong form, no surrogate, nothing above U+10FFFF. */
static bool utf8(const uint8_t *p, const uint8_t *end)
{
    while (p < end) {
        uint32_t c = *p++;
        if (c < 0x80)
            continue;
        unsigned more = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
        if (c < 0xC2 || c > 0xF4 || (size_t)(end - p) < more)
            return false;
        c &= 0x3Fu >> more;
        for (unsigned i = 0; i < more; i++, p++) {
            if (*p >> 6 != 2)
                return false;
            c = c << 6 | (*p & 0x3Fu);
        }
        if (!(c >> (5 * more + 1)) || c - 0xD800 < 0x800 || c > 0x10FFFF)
            return false;
    }
    return true;
}

/* The n bytes of a string whose head was read. */
static qsafp_bytes body(qsafp_cbor_r *r, int major, uint64_t n)
{
    if (!r->err && (n > (size_t)(r->end - r->p) || (major == QSAFP_CBOR_TSTR && !utf8(r->p, r->p + n))))
        (void)fail(r, QSAFP_E_MALFORMED);
    if (r->err)
        return (qsafp_bytes){r->end, 0};
    qsafp_bytes b = {r->p, (size_t)n};
    r->p += n;
    return b;
}

qsafp_bytes qsafp_cbor_bstr(qsafp_cbor_r *r)
{
    return body(r, QSAFP_CBOR_BSTR, qsafp_cbor_head(r, QSAFP_CBOR_BSTR));
}

qsafp_bytes qsafp_cbor_tstr(qsafp_cbor_r *r)
{
    return body(r, QSAFP_CBOR_TSTR, qsafp_cbor_head(r, QSAFP_CBOR_TSTR));
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

/* The head and body of one item; returns how many items a container wants. */
static size_t item(qsafp_cbor_r *r, int *major)
{
    uint64_t n = head(r, major);
    bool pairs = *major == QSAFP_CBOR_MAP;
    switch (r->err ? QSAFP_CBOR_UINT : *major) {
    case QSAFP_CBOR_UINT:
    case QSAFP_CBOR_NEG:
        return 0;
    case QSAFP_CBOR_BSTR:
    case QSAFP_CBOR_TSTR:
        (void)body(r, *major, n);
        return 0;
    case QSAFP_CBOR_SIMPLE:
        return n >= 20 && n <= 22 ? 0 : (size_t)fail(r, QSAFP_E_MALFORMED); /* false, true, null */
    case QSAFP_CBOR_ARRAY:
    case QSAFP_CBOR_MAP:
        return n <= (size_t)(r->end - r->p) >> pairs ? (size_t)n << pairs : (size_t)fail(r, QSAFP_E_TOO_LARGE);
    default: /* no tags */
        return (size_t)fail(r, QSAFP_E_MALFORMED);
    }
}

typedef struct { size_t left; bool map; qsafp_bytes prev; } level_t;

/* One item less for its container; a key is a number or a string above the one before. */
static void count(qsafp_cbor_r *r, level_t *in, qsafp_bytes key, int major)
{
    if (in->map && in->left % 2 == 0) {
        if (major > QSAFP_CBOR_TSTR || (in->prev.len && !rises(in->prev, key)))
            (void)fail(r, QSAFP_E_NOT_CANONICAL);
        in->prev = key;
    }
    in->left--;
}

/* One item: a stack of how many items each open container still wants, so there is no recursion. */
qsafp_bytes qsafp_cbor_skip(qsafp_cbor_r *r)
{
    level_t open[DEPTH_MAX + 1] = {{.left = 1}}, *in = open; /* the outermost wants this one item */
    const uint8_t *start = r->p;
    do {
        const uint8_t *at = r->p;
        int major = QSAFP_CBOR_SIMPLE;
        size_t n = item(r, &major);
        count(r, in, (qsafp_bytes){at, (size_t)(r->p - at)}, major);
        if (n && in == open + DEPTH_MAX)
            (void)fail(r, QSAFP_E_TOO_LARGE);
        else if (n)
            *++in = (level_t){n, major == QSAFP_CBOR_MAP, {0, 0}};
        while (in > open && !in->left)
            in--;
    } while (in->left && !r->err);
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
    uint32_t low = (uint32_t)arg;
    unsigned info = arg >> 32 ? 27 : low >> 16 ? 26 : low >> 8 ? 25 : low >= 24 ? 24 : (unsigned)low;
    size_t n = info < 24 ? 0 : (size_t)1 << (info - 24);
    b[0] = (uint8_t)((unsigned)major << 5 | info);
    for (size_t i = n; i; i--, arg >>= 8)
        b[i] = (uint8_t)arg;
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
