/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-512 against the examples of FIPS 180-4 (abc, two blocks, a million a), the empty string, and every split of every length. */
#include "device.h"
#include "qsafp_sha512.h"

static int is(const uint8_t *got, const char *hex)
{
    char s[129];
    for (int i = 0; i < 64; i++)
        snprintf(s + 2 * i, 3, "%02x", got[i]);
    return !strcmp(s, hex);
}

static int hashes_to(const char *text, const char *hex)
{
    uint8_t out[64];
    qsafp_sha512(out, text, strlen(text));
    return is(out, hex);
}

static void published_examples(void)
{
    static uint8_t data[1000000];
    uint8_t out[64];
    CHECK(hashes_to("abc", "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
                           "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"));
    CHECK(hashes_to("", "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
                        "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"));
    CHECK(hashes_to("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
                    "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018"
                    "501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909"));
    memset(data, 'a', sizeof data);
    qsafp_sha512(out, data, sizeof data);
    CHECK(is(out, "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb"
                  "de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b"));
}

/* Lengths 0 to 300 pass each padding case (111 and 112 bytes in the last block) and each split of two. */
static void any_split_gives_the_same_digest(void)
{
    uint8_t data[300], whole[64], parts[64];
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 24);
    for (size_t n = 0; n <= sizeof data; n++) {
        size_t same = 0;
        qsafp_sha512(whole, data, n);
        for (size_t cut = 0; cut <= n; cut++) {
            qsafp_sha512_t s;
            qsafp_sha512_init(&s);
            qsafp_sha512_update(&s, data, cut);
            qsafp_sha512_update(&s, data + cut, n - cut);
            qsafp_sha512_final(&s, parts);
            same += !memcmp(whole, parts, 64);
        }
        CHECK(same == n + 1);
    }
}

/* 2^61 bytes are 2^64 bits: the length needs its upper half.  Nobody hashes that much, so the state is set to it. */
static void the_upper_half_of_the_length_counts(void)
{
    uint8_t out[64], want[64], last[128] = {[0] = 0x80, [119] = 1};
    qsafp_sha512_t s;
    qsafp_sha512_init(&s);
    s.len = 1ull << 61;
    qsafp_sha512_final(&s, out);
    qsafp_sha512_init(&s);
    qsafp_sha512_update(&s, last, sizeof last);
    for (unsigned i = 0; i < 64; i++)
        want[i] = (uint8_t)(s.h[i / 8] >> (56 - 8 * (i % 8)));
    CHECK(memcmp(out, want, 64) == 0);
    qsafp_sha512_init(&s);
    s.len = 0x1122334455667780; /* each byte of the bit count, 0x00..0089119A22AB33BC00 */
    qsafp_sha512_final(&s, out);
    static const uint8_t bits[9] = {0x00, 0x89, 0x11, 0x9A, 0x22, 0xAB, 0x33, 0xBC, 0x00};
    last[119] = 0;
    memcpy(last + 119, bits, 9);
    qsafp_sha512_init(&s);
    qsafp_sha512_update(&s, last, sizeof last);
    for (unsigned i = 0; i < 64; i++)
        want[i] = (uint8_t)(s.h[i / 8] >> (56 - 8 * (i % 8)));
    CHECK(memcmp(out, want, 64) == 0);
}

static void final_leaves_nothing_behind(void)
{
    uint8_t out[64];
    qsafp_sha512_t s, zero;
    memset(&zero, 0, sizeof zero);
    qsafp_sha512_init(&s);
    qsafp_sha512_update(&s, "secret", 6);
    CHECK(memcmp(&s, &zero, sizeof s) != 0);
    qsafp_sha512_final(&s, out);
    CHECK(memcmp(&s, &zero, sizeof s) == 0);
}

int main(void)
{
    published_examples();
    any_split_gives_the_same_digest();
    the_upper_half_of_the_length_counts();
    final_leaves_nothing_behind();
    return DONE("test_sha512");
}
