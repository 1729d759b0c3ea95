/* SPDX-License-Identifier: Apache-2.0 */
/* CBOR: what the reader accepts encodes back to the same bytes and to no others; what the writer makes, the reader accepts. */
#include "fuzz.h"

/* Writes again, by major types alone, what was accepted. */
static void again(qsafp_cbor_r *r, qsafp_cbor_w *w)
{
    qsafp_bytes b;
    uint64_t n;
    int major = qsafp_cbor_peek(r);
    WANT(major >= 0);
    switch (major) {
    case QSAFP_CBOR_UINT:
    case QSAFP_CBOR_NEG:
        qsafp_cbor_put(w, major, qsafp_cbor_head(r, major));
        return;
    case QSAFP_CBOR_BSTR:
    case QSAFP_CBOR_TSTR:
        b = major == QSAFP_CBOR_BSTR ? qsafp_cbor_bstr(r) : qsafp_cbor_tstr(r);
        qsafp_cbor_put(w, major, b.len);
        qsafp_cbor_put_raw(w, b.p, b.len);
        return;
    case QSAFP_CBOR_ARRAY:
    case QSAFP_CBOR_MAP:
        n = qsafp_cbor_head(r, major);
        qsafp_cbor_put(w, major, n);
        for (n = major == QSAFP_CBOR_MAP ? 2 * n : n; n; n--)
            again(r, w);
        return;
    default:
        WANT(major == QSAFP_CBOR_SIMPLE);
        if (qsafp_cbor_null(r))
            qsafp_cbor_put_null(w);
        else
            qsafp_cbor_put(w, QSAFP_CBOR_SIMPLE, 20u + qsafp_cbor_bool(r));
    }
}

static void accepted_is_canonical(const uint8_t *p, size_t n)
{
    static uint8_t out[1 << 16];
    qsafp_cbor_r r = qsafp_cbor_reader(p, n);
    qsafp_bytes item = qsafp_cbor_skip(&r);
    WANT(r.err <= 0 && item.len <= n && (r.err || item.p == p));
    if (r.err)
        return;
    qsafp_cbor_r one = qsafp_cbor_reader(item.p, item.len);
    qsafp_cbor_w w = qsafp_cbor_writer(out, sizeof out);
    again(&one, &w);
    WANT(qsafp_cbor_done(&one) == 0 && !w.err && (size_t)(w.p - out) == item.len && !memcmp(out, item.p, item.len));
    for (size_t cut = item.len > 40 ? item.len - 40 : 0; cut < item.len; cut++) { /* an item has no prefix that is one */
        qsafp_cbor_r part = qsafp_cbor_reader(item.p, cut);
        (void)qsafp_cbor_skip(&part);
        WANT(qsafp_cbor_done(&part) < 0);
    }
    qsafp_cbor_w tight = qsafp_cbor_writer(out, item.len - 1); /* a writer that is full says so and stays inside */
    one = qsafp_cbor_reader(item.p, item.len);
    again(&one, &tight);
    WANT(tight.err == QSAFP_E_TOO_LARGE && tight.p <= tight.end);
}

/* Numbers and strings as the input says, in the one order that a map allows; the reader takes each back. */
static void written_is_accepted(const uint8_t *p, size_t n)
{
    static uint8_t out[4096];
    int64_t v[16] = {0};
    size_t count = 0;
    qsafp_cbor_w w = qsafp_cbor_writer(out, sizeof out);
    for (; n >= 8 && count < 16; p += 8, n -= 8)
        memcpy(&v[count++], p, 8);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, count + 1);
    for (size_t i = 0; i < count; i++)
        qsafp_cbor_put_int(&w, v[i] >> (i * 4));
    qsafp_cbor_put_bstr(&w, p, n < 2000 ? n : 2000);
    WANT(!w.err);
    qsafp_cbor_r r = qsafp_cbor_reader(out, (size_t)(w.p - out));
    WANT(qsafp_cbor_head(&r, QSAFP_CBOR_ARRAY) == count + 1);
    for (size_t i = 0; i < count; i++)
        WANT(qsafp_cbor_int(&r) == v[i] >> (i * 4));
    WANT(qsafp_cbor_bstr(&r).len == (n < 2000 ? n : 2000) && qsafp_cbor_done(&r) == 0);
    accepted_is_canonical(out, (size_t)(w.p - out));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 4096)
        return 0;
    if (data[0] == 'w')
        written_is_accepted(data + 1, size - 1);
    else
        accepted_is_canonical(data + 1, size - 1);
    return 0;
}

static void seeds(void)
{
    static const char *const items[] = {
        "r\x00", "r\x18\x18", "r\x19\x01\x00", "r\x1A\x00\x01\x00\x00", "r\x3B\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF", "r\xA2\x01\xF5\x20\xF6",
        "r\x82\x44\x01\x02\x03\x04\x63\xE2\x82\xAC", "r\x81\x81\x81\x81\x81\x81\x81\x80", "r\xA2\x61\x61\x01\x61\x62\x64\xF0\x90\x8D\x88", "w01234567abcdefghxyz",
    };
    static const uint8_t lengths[] = {2, 3, 4, 6, 10, 6, 11, 9, 12, 20};
    uint8_t token[QSAFP_RESPONSE_MAX];
    static const int who[M] = {0, 1, 2, 3};
    for (size_t i = 0; i < sizeof lengths; i++)
        seed(items[i], lengths[i]);
    bench_t *b = fresh();
    WANT(qsafp_begin(&b->q) == 0);
    seed_as("r", b->q.pending.payload, b->q.pending.payload_len);
    seed_as("r", token + 2, lease_of(&b->q, who, M, 0, token) - 2); /* behind the tag */
    free(b);
}
