/* SPDX-License-Identifier: Apache-2.0 */
/* Claims and COSE objects at their edges: each field, each bound, each length, each header. */
#include "device.h"

static const uint64_t MONTH_MS = 31ull * 24 * 3600 * 1000;

static qsafp_claims_t claims(void)
{
    qsafp_claims_t c;
    memset(&c, 0, sizeof c);
    c.iat = 1700000000, c.duration_ms = 60000, c.serial = 7, c.log_size = 300, c.failsafe_seq = 70000, c.level = (uint64_t)1 << 60, c.lab = true, c.epoch = 3;
    for (unsigned i = 0; i < 4; i++)
        c.policy_ms[i] = 1000 * (i + 1);
    memset(c.lease_id, 0x11, 16), memset(c.nonce, 0x12, 16), memset(c.ueid, 0x13, 33), memset(c.model, 0x14, 32), memset(c.log_id, 0x15, 32);
    memset(c.log_root, 0x16, 32), memset(c.set_id, 0x18, 16);
    c.ueid[0] = 1;
    return c;
}

static int round_trip(const qsafp_claims_t *c, qsafp_claims_t *back)
{
    uint8_t out[QSAFP_PAYLOAD_MAX];
    size_t len = 0;
    int err = qsafp_claims_encode(c, out, sizeof out, &len);
    return err ? err : qsafp_claims_decode(back, out, len);
}

static void claims_round_trip_with_and_without_a_fail_safe(void)
{
    qsafp_claims_t c = claims(), back;
    c.failsafe_seq = 0; /* absent: not on the wire */
    CHECK(round_trip(&c, &back) == 0 && memcmp(&c, &back, sizeof c) == 0);
    c = claims();
    c.has_failsafe = true;
    memset(c.failsafe_hash, 0x17, 32);
    CHECK(round_trip(&c, &back) == 0 && memcmp(&c, &back, sizeof c) == 0);
    c.lab = false;
    CHECK(round_trip(&c, &back) == 0 && !back.lab);
}

static void claims_outside_their_bounds_are_refused(void)
{
    static const struct { uint64_t duration, serial; uint8_t first; int want; } row[] = {
        {1, 1, 1, 0}, {60000, UINT64_MAX, 1, 0}, {0, 1, 1, QSAFP_E_RANGE}, {60000, 0, 1, QSAFP_E_RANGE}, {UINT64_MAX, 1, 1, QSAFP_E_RANGE},
        {(uint64_t)1 << 63, 1, 1, QSAFP_E_RANGE}, {60000, 1, 0, QSAFP_E_RANGE}, {60000, 1, 2, QSAFP_E_RANGE},
    };
    qsafp_claims_t back;
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        qsafp_claims_t c = claims();
        c.duration_ms = row[i].duration, c.serial = row[i].serial, c.ueid[0] = row[i].first;
        CHECK(round_trip(&c, &back) == row[i].want);
    }
    qsafp_claims_t c = claims();
    c.duration_ms = MONTH_MS;
    CHECK(round_trip(&c, &back) == 0);
    c.duration_ms = MONTH_MS + 1;
    CHECK(round_trip(&c, &back) == QSAFP_E_RANGE);
}

static void claims_need_all_their_room_and_no_more(void)
{
    for (int failsafe = 0; failsafe < 2; failsafe++) {
        qsafp_claims_t c = claims(), back;
        uint8_t out[QSAFP_PAYLOAD_MAX];
        size_t len = 99, whole = 0, taken = 0;
        c.has_failsafe = failsafe;
        CHECK(qsafp_claims_encode(&c, out, sizeof out, &whole) == 0);
        for (size_t cap = 0; cap < whole; cap++) {
            taken += qsafp_claims_encode(&c, out, cap, &len) == 0 || len != 0;
            taken += qsafp_claims_decode(&back, out, cap) == 0;
        }
        CHECK(taken == 0 && qsafp_claims_encode(&c, out, whole, &len) == 0 && len == whole);
        CHECK(qsafp_claims_decode(&back, out, whole + 1) == QSAFP_E_TRAILING);
        out[0] ^= 1; /* a map of another count */
        CHECK(qsafp_claims_decode(&back, out, whole) != 0);
    }
}

static void another_kind_of_value_for_any_claim_is_refused(void)
{
    qsafp_claims_t c = claims(), back;
    uint8_t out[QSAFP_PAYLOAD_MAX];
    size_t len = 0, taken = 0;
    c.has_failsafe = true;
    CHECK(qsafp_claims_encode(&c, out, sizeof out, &len) == 0);
    for (size_t i = 0; i < len; i++)
        for (unsigned v = 0; v < 256; v++) {
            uint8_t was = out[i], again[QSAFP_PAYLOAD_MAX];
            size_t n = 0;
            out[i] = (uint8_t)v;
            if (qsafp_claims_decode(&back, out, len) == 0) /* a value changed, never the shape: it encodes back to the same bytes */
                taken += qsafp_claims_encode(&back, again, sizeof again, &n) != 0 || n != len || memcmp(again, out, len) != 0;
            out[i] = was;
        }
    CHECK(taken == 0);
}

static void the_bytes_that_are_signed_are_those_of_the_rfc(void)
{
    static const uint8_t one[] = "\x84\x6ASignature1\x42\xA1\xA2\x45qsafp\x43\x01\x02\x03";
    static const uint8_t many[] = "\x85\x69Signature\x40\x42\xA1\xA2\x45qsafp\x43\x01\x02\x03";
    const uint8_t prot[] = {0xA1, 0xA2}, payload[] = {1, 2, 3};
    uint8_t out[64];
    size_t len = 0;
    qsafp_tbs_t t = {.aad = "qsafp", .sign1 = true, .protected_ = {prot, 2}, .payload = {payload, 3}};
    CHECK(qsafp_tbs(&t, out, sizeof out, &len) == 0 && len == sizeof one - 1 && memcmp(out, one, len) == 0);
    CHECK(qsafp_tbs(&t, out, sizeof one - 2, &len) == QSAFP_E_TOO_LARGE && len == 0 && qsafp_tbs(&t, out, sizeof one - 1, &len) == 0);
    t.sign1 = false;
    CHECK(qsafp_tbs(&t, out, sizeof out, &len) == 0 && len == sizeof many - 1 && memcmp(out, many, len) == 0);
}

/* {1: alg, 4: kid} around a payload and a signature of two bytes. */
static size_t sign1(uint8_t *out, const uint8_t *prot, size_t n)
{
    qsafp_cbor_w w = qsafp_cbor_writer(out, 256);
    qsafp_cbor_put(&w, QSAFP_CBOR_TAG, 18);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 4);
    qsafp_cbor_put_bstr(&w, prot, n);
    qsafp_cbor_put(&w, QSAFP_CBOR_MAP, 0);
    qsafp_cbor_put_bstr(&w, "pay", 3);
    qsafp_cbor_put_bstr(&w, "si", 2);
    return (size_t)(w.p - out);
}

static void headers_are_alg_and_kid_and_nothing_else(void)
{
    static const struct { const char *prot; size_t n; int want, alg; } row[] = {
        {"\xA2\x01\x32\x04\x48" "abcdefgh", 13, 0, QSAFP_ALG_ED25519}, {"\xA2\x01\x38\x30\x04\x48" "abcdefgh", 14, 0, QSAFP_ALG_MLDSA65},
        {"\xA2\x01\x28\x04\x48" "abcdefgh", 13, QSAFP_E_UNKNOWN_ALGORITHM, 0}, {"\xA2\x01\x27\x04\x48" "abcdefgh", 13, QSAFP_E_UNKNOWN_ALGORITHM, 0},
        {"\xA2\x01\x12\x04\x48" "abcdefgh", 13, QSAFP_E_UNKNOWN_ALGORITHM, 0}, {"\xA2\x01\x32\x04\x47" "abcdefg", 12, QSAFP_E_MALFORMED, 0},
        {"\xA2\x01\x32\x04\x49" "abcdefghi", 14, QSAFP_E_MALFORMED, 0}, {"\xA1\x01\x32", 3, QSAFP_E_MALFORMED, 0},
        {"\xA3\x01\x32\x04\x48" "abcdefgh\x05\x00", 15, QSAFP_E_MALFORMED, 0}, {"\xA2\x04\x48" "abcdefgh\x01\x32", 13, QSAFP_E_MALFORMED, 0},
        {"\xA2\x01\x32\x04\x48" "abcdefgh\x00", 14, QSAFP_E_TRAILING, 0}, {"", 0, QSAFP_E_MALFORMED, 0},
        {"\xA2\x01\x3A\xFF\xFF\xFF\xED\x04\x48" "abcdefgh", 17, QSAFP_E_MALFORMED, 0}, /* -19 were it cut to 32 bits */
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        uint8_t out[256];
        qsafp_cose_sig s;
        size_t n = sign1(out, (const uint8_t *)row[i].prot, row[i].n);
        int err = qsafp_sign1_parse(&s, out, n);
        CHECK(err == row[i].want && s.alg == row[i].alg);
        if (err != row[i].want)
            printf("  row %zu: %d\n", i, err);
        if (err)
            continue;
        CHECK(memcmp(s.kid, "abcdefgh", 8) == 0 && s.protected_.len == row[i].n && s.sig.len == 2 && memcmp(s.sig.p, "si", 2) == 0);
        CHECK(s.payload.len == 3 && memcmp(s.payload.p, "pay", 3) == 0);
        out[n] = 0;
        CHECK(qsafp_sign1_parse(&s, out, n + 1) == QSAFP_E_TRAILING);
        for (size_t cut = 0; cut < n; cut++)
            CHECK(qsafp_sign1_parse(&s, out, cut) != 0);
        out[0] = 0xD3; /* tag 19 */
        CHECK(qsafp_sign1_parse(&s, out, n) == QSAFP_E_MALFORMED);
    }
}

static void a_sign_object_is_read_one_signature_at_a_time(void)
{
    static const uint8_t object[] = "\xD8\x62\x84\x40\xA0\x43pay\x82\x83\x4D\xA2\x01\x32\x04\x48" "abcdefgh\xA0\x42s1\x83\x4D\xA2\x01\x27\x04\x48" "abcdefgh\xA0\x42s2";
    qsafp_cose_sig s;
    qsafp_bytes payload;
    qsafp_cbor_r sigs;
    uint64_t count = 0;
    const size_t n = sizeof object - 1;
    CHECK(qsafp_sign_parse(&payload, &sigs, &count, object, n) == 0 && count == 2 && payload.len == 3);
    CHECK(qsafp_sign_next(&s, &sigs) == 0 && s.alg == QSAFP_ALG_ED25519 && s.sig.len == 2 && memcmp(s.sig.p, "s1", 2) == 0);
    CHECK(qsafp_sign_next(&s, &sigs) == QSAFP_E_UNKNOWN_ALGORITHM && s.alg == 0);
    CHECK(qsafp_sign_next(&s, &sigs) == QSAFP_E_UNKNOWN_ALGORITHM); /* the first error stays */
    size_t refused = 0;
    for (size_t cut = 0; cut < n; cut++) {
        int err = qsafp_sign_parse(&payload, &sigs, &count, object, cut);
        refused += err || qsafp_sign_next(&s, &sigs) || qsafp_sign_next(&s, &sigs);
    }
    CHECK(refused == n);
    uint8_t bad[sizeof object];
    static const struct { size_t at; uint8_t v; } spoil[] = {{1, 0x61}, {2, 0x83}, {3, 0x41}, {4, 0xA1}, {9, 0xA2}};
    for (size_t i = 0; i < sizeof spoil / sizeof *spoil; i++) {
        memcpy(bad, object, sizeof bad);
        bad[spoil[i].at] = spoil[i].v;
        CHECK(qsafp_sign_parse(&payload, &sigs, &count, bad, n) != 0);
    }
}

int main(void)
{
    claims_round_trip_with_and_without_a_fail_safe();
    claims_outside_their_bounds_are_refused();
    claims_need_all_their_room_and_no_more();
    another_kind_of_value_for_any_claim_is_refused();
    the_bytes_that_are_signed_are_those_of_the_rfc();
    headers_are_alg_and_kid_and_nothing_else();
    a_sign_object_is_read_one_signature_at_a_time();
    return DONE("test_token");
}
