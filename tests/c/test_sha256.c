/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 against FIPS 180-4 examples and RFC 4231, and the accelerated path against the portable one. */
#include "device.h"
#include "../../cext/src/sha256.h"

static int is(const uint8_t *got, const char *hex)
{
    char s[65];
    for (int i = 0; i < 32; i++)
        snprintf(s + 2 * i, 3, "%02x", got[i]);
    return !strcmp(s, hex);
}

int main(void)
{
    static uint8_t data[1000000];
    uint8_t out[32], key[20];
    qsafp_sha256(out, "abc", 3);
    CHECK(is(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    qsafp_sha256(out, "", 0);
    CHECK(is(out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    memset(data, 'a', sizeof data);
    qsafp_sha256(out, data, sizeof data);
    CHECK(is(out, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"));
    memset(key, 0x0b, sizeof key);
    qsafp_hmac_sha256(out, key, 20, "Hi There", 8);
    CHECK(is(out, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"));
    qsafp_hmac_sha256(out, (const uint8_t *)"Jefe", 4, "what do ya want for nothing?", 28);
    CHECK(is(out, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"));
    uint8_t long_key[131]; /* longer than a block: hashed first */
    memset(long_key, 0xaa, sizeof long_key);
    qsafp_hmac_sha256(out, long_key, sizeof long_key, "Test Using Larger Than Block-Size Key - Hash Key First", 54);
    CHECK(is(out, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"));
    for (unsigned i = 0; i < 64; i++) /* a whole block is not; the digest is hashlib's */
        long_key[i] = (uint8_t)(i * 7 + 3);
    qsafp_hmac_sha256(out, long_key, 64, "", 0);
    CHECK(is(out, "58c7e63111455c2bf96038a7f89d0b8003da9a940571640f70d14f4f3f983fc1"));
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 24);
    for (size_t n = 0; n < 40; n++) {
        uint32_t a[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, b[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
        qsafp_sha256_blocks(a, data + n, n);
        qsafp_sha256_blocks_portable(b, data + n, n);
        CHECK(memcmp(a, b, sizeof a) == 0);
    }
    uint8_t chain[64] = {0}; /* the digests of 0 to 300 bytes, each hashed onto the one before; the end is hashlib's */
    for (unsigned i = 0; i < 300; i++)
        data[i] = (uint8_t)(i * 7 + 3);
    for (size_t n = 0; n <= 300; n++) {
        qsafp_sha256(chain + 32, data, n);
        qsafp_sha256(chain, chain, 64);
    }
    CHECK(is(chain, "a1ffdcdd67ac09feb460db0e221bebad6abc7cf4e8d23ee7aa25f89363992757"));
    for (size_t n = 0; n < 200; n++) { /* any split gives the same digest */
        uint8_t whole[32];
        qsafp_sha256_t s;
        qsafp_sha256(whole, data, n);
        qsafp_sha256_init(&s);
        qsafp_sha256_update(&s, data, n / 3);
        qsafp_sha256_update(&s, data + n / 3, n - n / 3);
        qsafp_sha256_final(&s, out);
        CHECK(memcmp(out, whole, 32) == 0);
    }
    for (size_t n = 0; n < 64; n++) { /* in one go, at any alignment */
        uint8_t whole[32], both[240];
        memcpy(both, data + n, 32);
        memcpy(both + 32, data + 3 * n, 208);
        qsafp_sha256(whole, both, sizeof both);
        qsafp_sha256_240(out, data + n, data + 3 * n);
        CHECK(memcmp(out, whole, 32) == 0);
    }
    uint8_t room[34];
    memset(room, 9, sizeof room);
    qsafp_sha256(room + 1, data, 3); /* 32 bytes and no more */
    CHECK(room[0] == 9 && room[33] == 9);
    qsafp_wipe(room + 1, 32);
    CHECK(room[0] == 9 && room[1] == 0 && memcmp(room + 1, room + 2, 31) == 0 && room[33] == 9);
    CHECK(qsafp_equal(data, data, 32) && !qsafp_equal(data, data + 1, 32));
    for (size_t n = 0; n < 40; n++) { /* every length, every bit */
        uint8_t same[40], other[40];
        memcpy(same, data, n);
        CHECK(qsafp_equal(data, same, n));
        for (size_t bit = 0; bit < 8 * n; bit++) {
            memcpy(other, data, n);
            other[bit / 8] ^= (uint8_t)(1u << bit % 8);
            CHECK(!qsafp_equal(data, other, n));
        }
    }
    return DONE("test_sha256");
}
