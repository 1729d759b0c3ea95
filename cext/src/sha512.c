/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-512 (FIPS 180-4 section 6.4), with a schedule of sixteen words that turns in place. */
#include <string.h>

#include "qsafp_hash.h"
#include "qsafp_sha512.h"

static const uint64_t k[80] = {
    0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc, 0x3956c25bf348b538,
    0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118, 0xd807aa98a3030242, 0x12835b0145706fbe,
    0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2, 0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235,
    0xc19bf174cf692694, 0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
    0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5, 0x983e5152ee66dfab,
    0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4, 0xc6e00bf33da88fc2, 0xd5a79147930aa725,
    0x06ca6351e003826f, 0x142929670a0e6e70, 0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed,
    0x53380d139d95b3df, 0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
    0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30, 0xd192e819d6ef5218,
    0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8, 0x19a4c116b8d2d0c8, 0x1e376c085141ab53,
    0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8, 0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373,
    0x682e6ff3d6b2b8a3, 0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
    0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b, 0xca273eceea26619c,
    0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178, 0x06f067aa72176fba, 0x0a637dc5a2c898a6,
    0x113f9804bef90dae, 0x1b710b35131c471b, 0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc,
    0x431d67c49c100d4c, 0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
};

static uint64_t ror(uint64_t x, unsigned n) { return x >> n | x << (64 - n); }

static uint64_t get64be(const uint8_t *p)
{
    uint64_t x = 0;
    for (unsigned i = 0; i < 8; i++)
        x = x << 8 | p[i];
    return x;
}

/* Word i of the schedule; w holds words i - 16 to i - 1. */
static uint64_t next_word(uint64_t w[16], unsigned i)
{
    uint64_t a = w[(i + 1) % 16], b = w[(i + 14) % 16];
    uint64_t s0 = ror(a, 1) ^ ror(a, 8) ^ a >> 7;
    uint64_t s1 = ror(b, 19) ^ ror(b, 61) ^ b >> 6;
    return w[i % 16] += s0 + w[(i + 9) % 16] + s1;
}

static void step(uint64_t v[8], uint64_t kw)
{
    uint64_t s1 = ror(v[4], 14) ^ ror(v[4], 18) ^ ror(v[4], 41);
    uint64_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + kw;
    uint64_t s0 = ror(v[0], 28) ^ ror(v[0], 34) ^ ror(v[0], 39);
    uint64_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
    memmove(v + 1, v, 7 * sizeof *v);
    v[4] += t1;
    v[0] = t1 + t2;
}

static void block(uint64_t h[8], const uint8_t *p)
{
    uint64_t w[16], v[8];
    memcpy(v, h, sizeof v);
    for (unsigned i = 0; i < 80; i++) {
        if (i < 16)
            w[i] = get64be(p + 8 * i);
        step(v, k[i] + (i < 16 ? w[i] : next_word(w, i)));
    }
    for (unsigned i = 0; i < 8; i++)
        h[i] += v[i];
    qsafp_wipe(w, sizeof w); /* Ed25519 hashes its secret */
    qsafp_wipe(v, sizeof v);
}

void qsafp_sha512_init(qsafp_sha512_t *s)
{
    static const uint64_t iv[8] = {
        0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
        0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
    };
    memcpy(s->h, iv, sizeof iv);
    s->len = 0;
}

void qsafp_sha512_update(qsafp_sha512_t *s, const void *data, size_t n)
{
    const uint8_t *p = data;
    for (; n; n--) {
        s->buf[s->len++ % 128] = *p++;
        if (s->len % 128 == 0)
            block(s->h, s->buf);
    }
}

void qsafp_sha512_final(qsafp_sha512_t *s, uint8_t out[64])
{
    static const uint8_t one = 0x80, zero;
    uint8_t bits[16] = {0};
    for (unsigned i = 0; i < 8; i++)
        bits[15 - i] = (uint8_t)(s->len << 3 >> 8 * i);
    bits[7] = (uint8_t)(s->len >> 61);
    qsafp_sha512_update(s, &one, 1);
    while (s->len % 128 != 112) /* up to the last 16 bytes of a block */
        qsafp_sha512_update(s, &zero, 1);
    qsafp_sha512_update(s, bits, sizeof bits);
    for (unsigned i = 0; i < 64; i++)
        out[i] = (uint8_t)(s->h[i / 8] >> (56 - 8 * (i % 8)));
    qsafp_wipe(s, sizeof *s);
}

void qsafp_sha512(uint8_t out[64], const void *p, size_t n)
{
    qsafp_sha512_t s;
    qsafp_sha512_init(&s);
    qsafp_sha512_update(&s, p, n);
    qsafp_sha512_final(&s, out);
}
