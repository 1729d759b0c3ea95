/* SPDX-License-Identifier: Apache-2.0 */
/* Deterministic CBOR: heads of every length and no longer form of any, UTF-8 against its definition, items skipped whole or refused. */
#include "device.h"

static void heads_round_trip_and_long_forms_are_refused(void)
{
    static const uint64_t edge[] = {0, 23, 24, 255, 256, 65535, 65536, UINT32_MAX, (uint64_t)UINT32_MAX + 1, UINT64_MAX};
    for (size_t k = 0; k < 10; k++)
        for (int major = QSAFP_CBOR_UINT; major <= QSAFP_CBOR_TAG; major++) {
            uint8_t b[9];
            qsafp_cbor_w w = qsafp_cbor_writer(b, sizeof b);
            qsafp_cbor_put(&w, major, edge[k]);
            size_t n = (size_t)(w.p - b);
            CHECK(!w.err && n == (k < 2 ? 1u : k < 4 ? 2u : k < 6 ? 3u : k < 8 ? 5u : 9u));
            qsafp_cbor_r r = qsafp_cbor_reader(b, n);
            CHECK(qsafp_cbor_head(&r, major) == edge[k] && qsafp_cbor_done(&r) == 0);
            r = qsafp_cbor_reader(b, n - 1);
            CHECK(qsafp_cbor_head(&r, major) == 0 && r.err == QSAFP_E_MALFORMED);
            CHECK(qsafp_cbor_head(&r, major) == 0); /* and nothing is read after an error */
            for (unsigned form = 0; form < 4; form++) {
                size_t bytes = (size_t)1 << form;
                if (bytes < n)
                    continue;
                b[0] = (uint8_t)((unsigned)major << 5 | (24 + form));
                for (size_t i = 0; i < bytes; i++)
                    b[1 + i] = (uint8_t)(edge[k] >> 8 * (bytes - 1 - i));
                r = qsafp_cbor_reader(b, 1 + bytes);
                CHECK(qsafp_cbor_head(&r, major) == 0 && r.err == QSAFP_E_NOT_CANONICAL);
            }
        }
}

static int text_error(const uint8_t *p, size_t n)
{
    uint8_t b[5] = {(uint8_t)(0x60 + n)};
    memcpy(b + 1, p, n);
    qsafp_cbor_r r = qsafp_cbor_reader(b, 1 + n);
    (void)qsafp_cbor_tstr(&r);
    return r.err;
}

static void text_is_utf8_and_nothing_else(void)
{
    unsigned long wrong = 0, accepted = 0;
    for (uint32_t c = 0x80; c < 0x200000; c += c < 0x11000 ? 1 : 61) {
        uint8_t two[2] = {(uint8_t)(0xC0 | (c >> 6 & 31)), (uint8_t)(0x80 | (c & 63))};
        uint8_t three[3] = {(uint8_t)(0xE0 | (c >> 12 & 15)), (uint8_t)(0x80 | (c >> 6 & 63)), two[1]};
        uint8_t four[4] = {(uint8_t)(0xF0 | c >> 18), (uint8_t)(0x80 | (c >> 12 & 63)), three[1], two[1]};
        bool surrogate = c >= 0xD800 && c < 0xE000;
        wrong += c < 0x800 && text_error(two, 2);
        wrong += c < 0x10000 && !text_error(three, 3) != (c >= 0x800 && !surrogate);
        wrong += !text_error(four, 4) != (c >= 0x10000 && c <= 0x10FFFF);
    }
    for (uint32_t v = 0; v < 0x10000; v++) {
        const uint8_t pair[2] = {(uint8_t)(v >> 8), (uint8_t)v};
        accepted += !text_error(pair, 2);
    }
    CHECK(wrong == 0);
    CHECK(accepted == 128 * 128 + 1920); /* two ASCII, or one of U+0080..U+07FF */
}

static int skip_error(const char *bytes, size_t n)
{
    qsafp_cbor_r r = qsafp_cbor_reader(bytes, n);
    qsafp_bytes b = qsafp_cbor_skip(&r);
    return r.err ? r.err : b.len == n && r.p == r.end ? 0 : QSAFP_E_TRAILING;
}

#define ITEM(s) s, sizeof(s) - 1

static void whole_items_are_skipped_and_bad_ones_refused(void)
{
    static const struct { const char *p; size_t n; int want; } cases[] = {
        {ITEM("\x00"), 0},
        {ITEM("\x80"), 0},
        {ITEM("\xF4"), 0},
        {ITEM("\xF6"), 0},
        {ITEM("\x83\x01\x41z\xA1\x01\x80"), 0},
        {ITEM("\xA2\x01\xF6\x20\xF5"), 0},
        {ITEM("\xA2\x61" "a\x01\x61" "b\x02"), 0},
        {ITEM("\x88\x81\x81\x81\x81\x81\x81\x81\x00\x00\x00\x00\x00\x00\x00\x00"), 0}, /* eight deep */
        {ITEM("\x81\x81\x81\x81\x81\x81\x81\x81\x80"), 0},
        {ITEM("\x81\x81\x81\x81\x81\x81\x81\x81\x81\x00"), QSAFP_E_TOO_LARGE},
        {ITEM("\xA2\x01\x00\x01\x00"), QSAFP_E_NOT_CANONICAL}, /* twice */
        {ITEM("\xA2\x02\x00\x01\x00"), QSAFP_E_NOT_CANONICAL}, /* falls */
        {ITEM("\xA2\x20\x00\x18\x18\x00"), QSAFP_E_NOT_CANONICAL}, /* to a longer one */
        {ITEM("\xA1\x80\x00"), QSAFP_E_NOT_CANONICAL}, /* a container as key */
        {ITEM("\xA1\x81\x00\x00\x00"), QSAFP_E_NOT_CANONICAL},
        {ITEM("\xA1\xA0\x00"), QSAFP_E_NOT_CANONICAL},
        {ITEM("\xA1\xF5\x00"), QSAFP_E_NOT_CANONICAL}, /* true as key: Python would take it for 1 */
        {ITEM("\xA2\x01\x00\xF6\x00"), QSAFP_E_NOT_CANONICAL},
        {ITEM("\x9F\xFF"), QSAFP_E_NOT_CANONICAL}, /* no end given */
        {ITEM("\x82\x00"), QSAFP_E_TOO_LARGE},
        {ITEM("\xA1\x00"), QSAFP_E_TOO_LARGE},
        {ITEM("\x9B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), QSAFP_E_TOO_LARGE},
        {ITEM("\xBB\x80\x00\x00\x00\x00\x00\x00\x00"), QSAFP_E_TOO_LARGE},
        {ITEM("\x5B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), QSAFP_E_MALFORMED},
        {ITEM("\x42z"), QSAFP_E_MALFORMED},
        {ITEM("\x61\xFF"), QSAFP_E_MALFORMED},
        {ITEM("\xC1\x00"), QSAFP_E_MALFORMED}, /* a tag */
        {ITEM("\xF9\x3C\x00"), QSAFP_E_MALFORMED}, /* a float */
        {ITEM("\xF7"), QSAFP_E_MALFORMED}, /* undefined */
        {ITEM("\xF3"), QSAFP_E_MALFORMED},
        {ITEM(""), QSAFP_E_MALFORMED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(skip_error(cases[i].p, cases[i].n) == cases[i].want);
        for (size_t cut = 0; !cases[i].want && cut < cases[i].n; cut++)
            CHECK(skip_error(cases[i].p, cut) != 0);
    }
}

static void reserved_heads_and_other_types_are_refused(void)
{
    for (unsigned b = 0; b < 256; b++) {
        uint8_t item[10] = {(uint8_t)b, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
        qsafp_cbor_r r = qsafp_cbor_reader(item, sizeof item);
        CHECK(qsafp_cbor_peek(&r) == (int)(b >> 5));
        (void)qsafp_cbor_head(&r, (int)(b >> 5));
        CHECK(r.err == ((b & 31) > 27 ? QSAFP_E_NOT_CANONICAL : 0));
        for (int other = 0; other < 8; other++) {
            r = qsafp_cbor_reader(item, sizeof item);
            (void)qsafp_cbor_head(&r, other);
            CHECK((b & 31) > 27 || (r.err == QSAFP_E_MALFORMED) == (other != (int)(b >> 5)));
        }
        r = qsafp_cbor_reader(item, sizeof item);
        int64_t v = qsafp_cbor_int(&r);
        CHECK((b & 31) > 26 || (r.err == 0) == (b >> 5 <= 1));
        CHECK(!r.err || v == 0);
        CHECK((b & 31) != 27 || r.err == (b >> 5 <= 1 ? QSAFP_E_RANGE : QSAFP_E_MALFORMED)); /* beyond 63 bits */
    }
    qsafp_cbor_r end = qsafp_cbor_reader("\xF6", 0), cut = qsafp_cbor_reader("\x61\xC3\xA9", 2); /* what lies past the end is not looked at */
    CHECK(!qsafp_cbor_null(&end) && !end.err && qsafp_cbor_int(&end) == 0 && end.err == QSAFP_E_MALFORMED);
    CHECK(qsafp_cbor_tstr(&cut).len == 0 && cut.err == QSAFP_E_MALFORMED);
    qsafp_cbor_r none = qsafp_cbor_reader("", 0);
    CHECK(qsafp_cbor_peek(&none) == QSAFP_E_MALFORMED && !qsafp_cbor_null(&none) && !none.err && !qsafp_cbor_bool(&none) && none.err == QSAFP_E_MALFORMED);
    CHECK(qsafp_cbor_peek(&none) == QSAFP_E_MALFORMED && qsafp_cbor_skip(&none).len == 0 && qsafp_cbor_done(&none) == QSAFP_E_MALFORMED);
}

static void numbers_round_trip_at_their_edges(void)
{
    static const int64_t edge[] = {0, 1, -1, 23, 24, -24, -25, 255, 256, -256, -257, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, INT64_MIN + 1};
    for (size_t i = 0; i < sizeof edge / sizeof *edge; i++) {
        uint8_t b[9];
        qsafp_cbor_w w = qsafp_cbor_writer(b, sizeof b);
        qsafp_cbor_put_int(&w, edge[i]);
        qsafp_cbor_r r = qsafp_cbor_reader(b, (size_t)(w.p - b));
        CHECK(!w.err && b[0] >> 5 == (edge[i] < 0) && qsafp_cbor_int(&r) == edge[i] && qsafp_cbor_done(&r) == 0);
    }
    CHECK(text_error((const uint8_t *)"\xF4\x8F\xBF\xBF", 4) == 0 && text_error((const uint8_t *)"\xF4\x90\x80\x80", 4) != 0); /* U+10FFFF is the last */
    uint8_t six[6] = {0x45, 1, 2, 3, 4, 5}, out[6] = {9, 9, 9, 9, 9, 9};
    qsafp_cbor_r r = qsafp_cbor_reader(six, 5);
    qsafp_bytes cut = qsafp_cbor_bstr(&r);
    CHECK(r.err == QSAFP_E_MALFORMED && cut.len == 0); /* of a string that is cut nothing is handed out */
    r = qsafp_cbor_reader(six, 6);
    qsafp_cbor_fixed(&r, out, 5);
    CHECK(r.err == 0 && memcmp(out, six + 1, 5) == 0 && out[5] == 9);
    for (size_t n = 0; n < 7; n++) {
        r = qsafp_cbor_reader(six, 6);
        memset(out, 9, sizeof out);
        if (n == 5 || n == 6)
            continue;
        qsafp_cbor_fixed(&r, out, n);
        CHECK(r.err == QSAFP_E_MALFORMED && (n == 0 || out[0] == 0)); /* another length: nothing is kept */
    }
}

int main(void)
{
    reserved_heads_and_other_types_are_refused();
    numbers_round_trip_at_their_edges();
    heads_round_trip_and_long_forms_are_refused();
    text_is_utf8_and_nothing_else();
    whole_items_are_skipped_and_bad_ones_refused();
    return DONE("test_cbor");
}
