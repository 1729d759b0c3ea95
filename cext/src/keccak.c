/* SPDX-License-Identifier: Apache-2.0 */
/* Keccak-f[1600] and SHAKE (FIPS 202), in the small form: 24 rounds in a loop. */
#include <string.h>

#include "keccak.h"

/* FIPS 202 section 3.2.5: bit j stands for bit 2^j - 1, and no others are ever set. */
static const uint8_t iota[24] = {
    0x01, 0x1a, 0x5e, 0x70, 0x1f, 0x21, 0x79, 0x55, 0x0e, 0x0c, 0x35, 0x26,
    0x3f, 0x4f, 0x5d, 0x53, 0x52, 0x48, 0x16, 0x66, 0x79, 0x58, 0x21, 0x74,
};

/* FIPS 202 sections 3.2.2 and 3.2.3 walked as one cycle from lane (1, 0): where each lane goes, and how far it turns. */
static const uint8_t pi_to[24] = {10, 7, 11, 17, 18, 3, 5, 16, 8, 21, 24, 4, 15, 23, 19, 13, 12, 2, 20, 14, 22, 9, 6, 1};
static const uint8_t rho_by[24] = {1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 2, 14, 27, 41, 56, 8, 25, 43, 62, 18, 39, 61, 20, 44};

static uint64_t rol(uint64_t x, unsigned n) { return x << n | x >> (64 - n); }

static void theta(uint64_t a[25])
{
    uint64_t c[5];
    for (unsigned x = 0; x < 5; x++)
        c[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
    for (unsigned x = 0; x < 5; x++) {
        uint64_t d = c[(x + 4) % 5] ^ rol(c[(x + 1) % 5], 1);
        for (unsigned y = 0; y < 25; y += 5)
            a[y + x] ^= d;
    }
}

static void chi(uint64_t row[5])
{
    uint64_t a0 = row[0], a1 = row[1];
    for (unsigned x = 0; x < 3; x++)
        row[x] ^= ~row[x + 1] & row[x + 2];
    row[3] ^= ~row[4] & a0;
    row[4] ^= ~a0 & a1;
}

static uint64_t spread(uint64_t b)
{
    return (b & 3) | (b & 4) << 1 | (b & 8) << 4 | (b & 16) << 11 | (b & 32) << 26 | (b & 64) << 57;
}

static void permute(uint64_t a[25])
{
    for (unsigned round = 0; round < 24; round++) {
        theta(a);
        uint64_t moving = a[1];
        for (unsigned i = 0; i < 24; i++) {
            uint64_t next = a[pi_to[i]];
            a[pi_to[i]] = rol(moving, rho_by[i]);
            moving = next;
        }
        for (unsigned y = 0; y < 25; y += 5)
            chi(a + y);
        a[0] ^= spread(iota[round]);
    }
}

static void xor_byte(qsafp_shake_t *s, uint32_t at, uint8_t b) { s->lane[at / 8] ^= (uint64_t)b << 8 * (at % 8); }

void qsafp_shake_init(qsafp_shake_t *s, uint32_t rate_bytes)
{
    memset(s, 0, sizeof *s);
    s->rate = rate_bytes;
}

void qsafp_shake_absorb(qsafp_shake_t *s, const void *data, size_t n)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++) {
        xor_byte(s, s->pos++, p[i]);
        if (s->pos == s->rate) {
            permute(s->lane);
            s->pos = 0;
        }
    }
}

void qsafp_shake_finish(qsafp_shake_t *s)
{
    xor_byte(s, s->pos, 0x1F);
    xor_byte(s, s->rate - 1, 0x80);
    s->pos = s->rate;
}

void qsafp_shake_squeeze(qsafp_shake_t *s, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s->pos == s->rate) {
            permute(s->lane);
            s->pos = 0;
        }
        out[i] = (uint8_t)(s->lane[s->pos / 8] >> 8 * (s->pos % 8));
        s->pos++;
    }
}
