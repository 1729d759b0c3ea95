/* SPDX-License-Identifier: Apache-2.0 */
/* ML-DSA-65: one signature that is valid, and every way we know to spoil it.  The published vectors run from Python. */
#include "device.h"
#include "mldsa65_vector.h"
#include "../../cext/src/keccak.h"

enum { Z_AT = 48, HINT_AT = 48 + 5 * 640, COUNTS_AT = HINT_AT + 55 };

static mldsa65_vector_t v;

static int verify(void) { return qsafp_mldsa65_verify(v.pk, &MLDSA65_MSG, v.sig); }
static int refused(void) { return verify() == QSAFP_E_BAD_SIGNATURE; }

static void keccak_gives_the_published_empty_digests(void)
{
    /* FIPS 202 example values, message of 0 bits */
    static const uint8_t want128[8] = {0x7f, 0x9c, 0x2b, 0xa4, 0xe8, 0x8f, 0x82, 0x7d}, want256[8] = {0x46, 0xb9, 0xdd, 0x2b, 0x0b, 0xa8, 0x8d, 0x13};
    uint8_t out[8];
    qsafp_shake_t s;
    qsafp_shake_init(&s, QSAFP_SHAKE128_RATE);
    qsafp_shake_finish(&s);
    qsafp_shake_squeeze(&s, out, sizeof out);
    CHECK(!memcmp(out, want128, sizeof out));
    qsafp_shake_init(&s, QSAFP_SHAKE256_RATE);
    qsafp_shake_finish(&s);
    qsafp_shake_squeeze(&s, out, sizeof out);
    CHECK(!memcmp(out, want256, sizeof out));
}

static void another_message_or_context_is_refused(void)
{
    const uint8_t *msg = MLDSA65_MSG.msg, *ctx = MLDSA65_MSG.ctx;
    static const uint8_t long_ctx[256];
    const qsafp_mldsa65_msg_t other[] = {
        {(const uint8_t *)"massage", 7, ctx, 7}, {msg, 6, ctx, 7}, {msg, 0, ctx, 7}, {0, 0, ctx, 7},
        {msg, 7, (const uint8_t *)"Context", 7}, {msg, 7, ctx, 6}, {msg, 7, 0, 0},   {msg, 7, long_ctx, 255},
    };
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        CHECK(qsafp_mldsa65_verify(v.pk, &other[i], v.sig) == QSAFP_E_BAD_SIGNATURE);
    const qsafp_mldsa65_msg_t too_long = {msg, 7, long_ctx, 256};
    CHECK(qsafp_mldsa65_verify(v.pk, &too_long, v.sig) == QSAFP_E_ARGUMENT);
}

static void every_spoilt_byte_of_the_signature_is_refused(void)
{
    for (size_t i = 0; i < sizeof v.sig; i++) {
        v.sig[i] ^= (uint8_t)(1u << i % 8);
        CHECK(refused());
        v.sig[i] ^= (uint8_t)(1u << i % 8);
    }
    CHECK(verify() == 0);
}

static void spoilt_bytes_of_the_key_are_refused(void)
{
    for (size_t i = 0; i < sizeof v.pk; i += 31) {
        v.pk[i] ^= 0x10;
        CHECK(refused());
        v.pk[i] ^= 0x10;
    }
    CHECK(verify() == 0);
}

static void blank_flash_is_refused(void)
{
    mldsa65_vector_t good = v;
    static const uint8_t blank[] = {0x00, 0xFF};
    for (size_t i = 0; i < sizeof blank; i++) {
        memset(v.sig, blank[i], sizeof v.sig);
        CHECK(refused());
        memset(v.pk, blank[i], sizeof v.pk);
        CHECK(refused());
        memcpy(v.sig, good.sig, sizeof v.sig);
        CHECK(refused());
        v = good;
    }
    CHECK(verify() == 0);
}

/* Each of these names the same positions as the valid hint: only a strict reader refuses it. */
static void a_hint_that_is_spelled_otherwise_is_refused(void)
{
    mldsa65_vector_t good = v;
    unsigned used = v.sig[COUNTS_AT + 5];
    CHECK(used >= 2 && used < 55 && v.sig[COUNTS_AT] >= 2);
    uint8_t first = v.sig[HINT_AT];
    v.sig[HINT_AT] = v.sig[HINT_AT + 1];
    v.sig[HINT_AT + 1] = first;
    CHECK(refused()); /* order */
    v = good;
    v.sig[HINT_AT + 54] = 1;
    CHECK(refused()); /* padding */
    v = good;
    memmove(v.sig + HINT_AT + v.sig[COUNTS_AT], good.sig + HINT_AT + v.sig[COUNTS_AT] - 1, used - v.sig[COUNTS_AT] + 1u);
    for (unsigned i = 0; i < 6; i++)
        v.sig[COUNTS_AT + i]++;
    CHECK(refused()); /* the last of row 0 twice */
    v = good;
    v.sig[COUNTS_AT + 5] = 56;
    CHECK(refused()); /* more than 55 */
    v = good;
    v.sig[COUNTS_AT] = (uint8_t)(v.sig[COUNTS_AT + 1] + 1);
    CHECK(refused()); /* counts that fall */
    v = good;
    CHECK(verify() == 0);
}

int main(void)
{
    CHECK(mldsa65_vector_read(&v));
    CHECK(verify() == 0);
    keccak_gives_the_published_empty_digests();
    another_message_or_context_is_refused();
    every_spoilt_byte_of_the_signature_is_refused();
    spoilt_bytes_of_the_key_are_refused();
    blank_flash_is_refused();
    a_hint_that_is_spelled_otherwise_is_refused();
    return DONE("test_mldsa65");
}
