/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 (FIPS 180-4 section 6.2) and HMAC (FIPS 198-1). */
#include <string.h>

#include "qsafp_hash.h"
#include "sha256.h"

const uint32_t qsafp_sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t ror(uint32_t x, unsigned n) { return x >> n | x << (32 - n); }
static uint32_t get32be(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

static void schedule(uint32_t w[64], const uint8_t *p)
{
    for (unsigned i = 0; i < 16; i++)
        w[i] = get32be(p + 4 * i);
    for (unsigned i = 16; i < 64; i++) {
        uint32_t s0 = ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
}

static void block(uint32_t h[8], const uint8_t *p)
{
    uint32_t w[64], v[8];
    schedule(w, p);
    memcpy(v, h, sizeof v);
    for (unsigned i = 0; i < 64; i++) {
        uint32_t s1 = ror(v[4], 6) ^ ror(v[4], 11) ^ ror(v[4], 25);
        uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + qsafp_sha256_k[i] + w[i];
        uint32_t s0 = ror(v[0], 2) ^ ror(v[0], 13) ^ ror(v[0], 22);
        uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
#pragma GCC unroll 7
        for (unsigned k = 7; k; k--)
            v[k] = v[k - 1]; /* registers, once it is unrolled */
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (unsigned i = 0; i < 8; i++)
        h[i] += v[i];
}

void qsafp_sha256_blocks_portable(uint32_t h[8], const uint8_t *p, size_t nblocks)
{
    for (; nblocks; nblocks--, p += 64)
        block(h, p);
}

void qsafp_sha256_init(qsafp_sha256_t *s)
{
    static const uint32_t iv[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s->h, iv, sizeof iv);
    s->len = 0;
}

void qsafp_sha256_update(qsafp_sha256_t *s, const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t have = s->len % 64;
    s->len += n;
    if (have) {
        size_t take = 64 - have < n ? 64 - have : n;
        memcpy(s->buf + have, p, take);
        p += take;
        n -= take;
        if (have + take < 64)
            return;
        qsafp_sha256_blocks(s->h, s->buf, 1);
    }
    qsafp_sha256_blocks(s->h, p, n / 64);
    if (n % 64)
        memcpy(s->buf, p + n / 64 * 64, n % 64);
}

/* Word by word: what compilers turn into byte swaps. */
static void put_be(uint8_t out[32], const uint32_t h[8])
{
    for (unsigned i = 0; i < 8; i++) {
        out[4 * i] = (uint8_t)(h[i] >> 24);
        out[4 * i + 1] = (uint8_t)(h[i] >> 16);
        out[4 * i + 2] = (uint8_t)(h[i] >> 8);
        out[4 * i + 3] = (uint8_t)h[i];
    }
}

void qsafp_sha256_final(qsafp_sha256_t *s, uint8_t out[32])
{
    size_t have = s->len % 64;
    uint64_t bits = s->len * 8;
    s->buf[have++] = 0x80;
    if (have > 56) {
        memset(s->buf + have, 0, 64 - have);
        qsafp_sha256_blocks(s->h, s->buf, 1);
        have = 0;
    }
    memset(s->buf + have, 0, 56 - have);
    for (unsigned i = 0; i < 8; i++)
        s->buf[56 + i] = (uint8_t)(bits >> (56 - 8 * i));
    qsafp_sha256_blocks(s->h, s->buf, 1);
    put_be(out, s->h);
}

void qsafp_sha256_240(uint8_t out[32], const uint8_t head[32], const uint8_t tail[208])
{
    uint8_t m[256];
    qsafp_sha256_t s;
    memcpy(m, head, 32);
    memcpy(m + 32, tail, 208);
    memset(m + 240, 0, 16);
    m[240] = 0x80;
    m[254] = 240 * 8 >> 8;
    m[255] = (uint8_t)(240 * 8);
    qsafp_sha256_init(&s);
    qsafp_sha256_blocks(s.h, m, 4);
    put_be(out, s.h);
}

void qsafp_sha256(uint8_t out[32], const void *p, size_t n)
{
    qsafp_sha256_t s;
    qsafp_sha256_init(&s);
    qsafp_sha256_update(&s, p, n);
    qsafp_sha256_final(&s, out);
}

void qsafp_hmac_sha256(uint8_t out[32], const uint8_t *key, size_t klen, const void *msg, size_t n)
{
    uint8_t pad[64] = {0};
    qsafp_sha256_t s;
    if (klen > sizeof pad)
        qsafp_sha256(pad, key, klen);
    else
        memcpy(pad, key, klen);
    for (unsigned i = 0; i < sizeof pad; i++)
        pad[i] ^= 0x36;
    qsafp_sha256_init(&s);
    qsafp_sha256_update(&s, pad, sizeof pad);
    qsafp_sha256_update(&s, msg, n);
    qsafp_sha256_final(&s, out);
    for (unsigned i = 0; i < sizeof pad; i++)
        pad[i] ^= 0x36 ^ 0x5c;
    qsafp_sha256_init(&s);
    qsafp_sha256_update(&s, pad, sizeof pad);
    qsafp_sha256_update(&s, out, 32);
    qsafp_sha256_final(&s, out);
    qsafp_wipe(pad, sizeof pad);
    qsafp_wipe(&s, sizeof s);
}

int qsafp_equal(const uint8_t *a, const uint8_t *b, size_t n)
{
    size_t diff = 0, x, y;
    for (; n >= sizeof x; n -= sizeof x, a += sizeof x, b += sizeof y) {
        memcpy(&x, a, sizeof x);
        memcpy(&y, b, sizeof y);
        diff |= x ^ y;
    }
    for (size_t i = 0; i < n; i++)
        diff |= (size_t)(a[i] ^ b[i]);
    return diff == 0;
}

void qsafp_wipe(void *p, size_t n)
{
    volatile uint8_t *v = p;
    while (n--)
        *v++ = 0;
}
