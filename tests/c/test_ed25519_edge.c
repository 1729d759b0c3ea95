/* SPDX-License-Identifier: Apache-2.0 */
/* Which Ed25519 inputs may be asked of a library: a good one passes, each edge case is refused in A and in R alike. */
#include "device.h"
#include "qsafp_ed25519_edge.h"

/* RFC 8032 section 7.1, TEST 1. */
static const char *const GOOD_PK = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
static const char *const GOOD_SIG = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";

/* y of the points of order 1, 2, 4, 8 and 8; test_ed25519_edge.py computes them from the curve. */
static const char *const SMALL_ORDER_Y[] = {
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
};

static uint8_t pk[32], sig[64];

static void unhex(uint8_t *out, const char *hex)
{
    for (; *hex; hex += 2) {
        unsigned b;
        assert(sscanf(hex, "%2x", &b) == 1);
        *out++ = (uint8_t)b;
    }
}

static void good(void)
{
    unhex(pk, GOOD_PK);
    unhex(sig, GOOD_SIG);
}

/* Puts y with each sign into A, then into R: how many of the four are let through. */
static int passes(const uint8_t y[32])
{
    int n = 0;
    for (int sign = 0; sign < 2; sign++)
        for (int in_r = 0; in_r < 2; in_r++) {
            good();
            memcpy(in_r ? sig : pk, y, 32);
            (in_r ? sig : pk)[31] |= (uint8_t)(sign << 7);
            n += qsafp_ed25519_edge_ok(sig, pk);
        }
    return n;
}

static void points_of_small_order_are_refused(void)
{
    for (size_t i = 0; i < sizeof SMALL_ORDER_Y / sizeof *SMALL_ORDER_Y; i++) {
        uint8_t y[32];
        unhex(y, SMALL_ORDER_Y[i]);
        CHECK(passes(y) == 0);
        y[15] ^= 1; /* a neighbour is not */
        CHECK(passes(y) == 4);
    }
}

/* 2^255 - 19 is ed ff .. ff 7f. */
static void y_not_below_the_field_is_refused(void)
{
    uint8_t y[32];
    memset(y, 0xFF, sizeof y);
    y[31] = 0x7F;
    for (unsigned low = 0xED; low <= 0xFF; low++) {
        y[0] = (uint8_t)low;
        CHECK(passes(y) == 0);
    }
    y[0] = 0xEB; /* the largest y that is neither */
    CHECK(passes(y) == 4);
    y[0] = 0xFF;
    y[30] = 0xFE;
    CHECK(passes(y) == 4);
}

static int s_passes(const char *hex)
{
    good();
    unhex(sig + 32, hex);
    return qsafp_ed25519_edge_ok(sig, pk);
}

static void s_not_below_the_order_is_refused(void)
{
    CHECK(s_passes("ecd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")); /* L - 1 */
    CHECK(!s_passes("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")); /* L */
    CHECK(!s_passes("eed3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010"));
    CHECK(s_passes("ffffffffffffffffffffffffffffff1300000000000000000000000000000010")); /* byte 15 decides */
    CHECK(!s_passes("0000000000000000000000000000001500000000000000000000000000000010"));
    CHECK(!s_passes("0000000000000000000000000000000000000000000000000000000000000020"));
    CHECK(!s_passes("ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"));
    good(); /* S + L, the malleable twin of a good signature */
    unhex(sig + 32, "4c8c7872aa064e049dbb3013fbf29380d25bf5f0595bbe24655141438e7a101b");
    CHECK(!qsafp_ed25519_edge_ok(sig, pk));
}

static void blank_flash_is_refused(void)
{
    memset(pk, 0, sizeof pk);
    memset(sig, 0, sizeof sig);
    CHECK(!qsafp_ed25519_edge_ok(sig, pk));
    memset(pk, 0xFF, sizeof pk);
    memset(sig, 0xFF, sizeof sig);
    CHECK(!qsafp_ed25519_edge_ok(sig, pk));
}

int main(void)
{
    good();
    CHECK(qsafp_ed25519_edge_ok(sig, pk) == 1);
    points_of_small_order_are_refused();
    y_not_below_the_field_is_refused();
    s_not_below_the_order_is_refused();
    blank_flash_is_refused();
    return DONE("test_ed25519_edge");
}
