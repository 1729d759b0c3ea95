/* SPDX-License-Identifier: Apache-2.0 */
/* Ed25519 (RFC 8032 section 5.1): SHA-512 of the core around Monocypher's field and point arithmetic; what is above them is here, where it
 * may be small rather than fast.  A check compares R byte for byte, as libsodium does, so that firmware and host agree on keys and
 * signatures of mixed order too. */
#include <string.h>

#include <monocypher.c> /* a system header by its place: its functions are wanted, its style is not checked */

#include "qsafp.h"
#include "qsafp_ed25519.h"
#include "qsafp_ed25519_edge.h"
#include "qsafp_hash.h"
#include "qsafp_sha512.h"

/* ---- numbers modulo the order of the base point, little-endian; time depends on their length alone ---- */

typedef struct {
    uint32_t w[8];
} scalar_t;

static unsigned bit(const void *k, unsigned i) { return ((const uint8_t *)k)[i / 8] >> i % 8 & 1; }

static void sum_of(scalar_t *r, const scalar_t *a, const scalar_t *b)
{
    static const uint32_t order[8] = {0x5cf5d3ed, 0x5812631a, 0xa2f79cd6, 0x14def9de, 0, 0, 0, 0x10000000};
    scalar_t less;
    uint64_t sum = 0;
    int64_t left = 0;
    for (unsigned i = 0; i < 8; i++) {
        sum += (uint64_t)a->w[i] + b->w[i];
        r->w[i] = (uint32_t)sum;
        sum >>= 32;
        left += (int64_t)r->w[i] - order[i];
        less.w[i] = (uint32_t)left;
        left >>= 32; /* -1 while it is below the order */
    }
    for (unsigned i = 0; i < 8; i++)
        r->w[i] = less.w[i] ^ ((less.w[i] ^ r->w[i]) & (uint32_t)left);
}

/* n x, n being any number of `bits` bits. */
static void product_of(scalar_t *r, const uint8_t *n, unsigned bits, const scalar_t *x)
{
    scalar_t part;
    memset(r, 0, sizeof *r);
    for (unsigned i = bits; i--;) {
        sum_of(r, r, r);
        for (unsigned j = 0; j < 8; j++)
            part.w[j] = x->w[j] & (0 - (uint32_t)bit(n, i));
        sum_of(r, r, &part);
    }
}

typedef struct {
    const void *p;
    size_t n;
} part_t;

/* SHA-512 of three parts, as a scalar. */
static void hash_scalar(scalar_t *out, part_t a, part_t b, part_t c)
{
    static const scalar_t one = {{1}};
    qsafp_sha512_t s;
    uint8_t wide[64];
    qsafp_sha512_init(&s);
    qsafp_sha512_update(&s, a.p, a.n);
    qsafp_sha512_update(&s, b.p, b.n);
    qsafp_sha512_update(&s, c.p, c.n);
    qsafp_sha512_final(&s, wide);
    product_of(out, wide, 512, &one);
    qsafp_wipe(wide, sizeof wide);
}

/* ---- points ---- */

static void squares(fe x, unsigned n)
{
    while (n--)
        fe_sq(x, x);
}

/* z^(2^252 - 3), which gives roots and inverses: x is z^(2^n - 1) as n grows. */
static void root(fe out, const fe z)
{
    static const uint8_t by[10] = {1, 2, 1, 5, 10, 20, 10, 50, 100, 50};
    struct { fe x, y, kept; } t;
    fe_copy(t.x, z);
    fe_copy(t.kept, z);
    for (unsigned i = 0, n = 1; i < sizeof by; n += by[i++]) {
        if (n == 10 || n == 50)
            fe_copy(t.kept, t.x);
        fe_copy(t.y, by[i] == n ? t.x : t.kept);
        squares(t.x, by[i]);
        fe_mul(t.x, t.x, t.y);
    }
    squares(t.x, 2);
    fe_mul(out, t.x, z);
    qsafp_wipe(&t, sizeof t);
}

static void encode(uint8_t out[32], const ge *p)
{
    uint8_t x_bytes[32];
    fe x, y;
    root(x, p->Z);
    squares(x, 3);
    fe_sq(y, p->Z);
    fe_mul(y, y, p->Z);
    fe_mul(y, x, y); /* 1 / z */
    fe_mul(x, p->X, y);
    fe_mul(y, p->Y, y);
    fe_tobytes(out, y);
    fe_tobytes(x_bytes, x);
    out[31] ^= (uint8_t)(x_bytes[0] << 7);
}

static int is_zero(const fe f)
{
    static const uint8_t zero[32];
    uint8_t bytes[32];
    fe_tobytes(bytes, f);
    return qsafp_equal(bytes, zero, sizeof zero);
}

/* The negative of an encoded point.  0, or -1 if there is none. */
static int decode_negative(ge *p, const uint8_t in[32])
{
    uint8_t bytes[32];
    fe u, v, t;
    fe_frombytes(p->Y, in);
    fe_1(p->Z);
    fe_sq(t, p->Y);
    fe_sub(u, t, p->Z);
    fe_mul(v, t, d);
    fe_add(v, v, p->Z);
    fe_mul(t, u, v);
    root(t, t);
    fe_mul(p->X, t, u); /* sqrt(u / v), or that times sqrt(-1), or u / v has no root */
    fe_sq(t, p->X);
    fe_mul(v, t, v);
    fe_sub(t, v, u);
    if (!is_zero(t)) {
        fe_add(t, v, u);
        if (!is_zero(t))
            return -1;
        fe_mul(p->X, p->X, sqrtm1);
    }
    fe_tobytes(bytes, p->X);
    if ((bytes[0] & 1) == in[31] >> 7)
        fe_neg(p->X, p->X);
    fe_mul(p->T, p->X, p->Y);
    return 0;
}

static void base_point(ge *p, ge_cached *cached)
{
    uint8_t bytes[32]; /* of its negative: y = 4 / 5 */
    memset(bytes, 0x66, sizeof bytes);
    bytes[0] = 0x58;
    bytes[31] = 0xE6;
    (void)decode_negative(p, bytes);
    ge_cache(cached, p);
}

/* The encoded multiple of the base point, by a secret. */
static void times_base(uint8_t out[32], const void *k)
{
    ge p[2];
    ge_cached base;
    base_point(p, &base);
    ge_zero(p);
    for (unsigned i = 256; i--;) {
        int32_t mask = 0 - (int32_t)bit(k, i), *to = (int32_t *)p;
        const int32_t *from = (const int32_t *)(p + 1);
        ge_double(p, p, p + 1);
        ge_add(p + 1, p, &base);
        for (unsigned j = 0; j < sizeof *p / sizeof *to; j++)
            to[j] ^= (to[j] ^ from[j]) & mask;
    }
    encode(out, p);
    qsafp_wipe(p, sizeof p);
}

/* ---- what the header promises ---- */

/* Secret scalar and prefix of a seed. */
static void expand(uint8_t out[64], const uint8_t seed[32])
{
    qsafp_sha512(out, seed, 32);
    out[0] &= 248;
    out[31] = (uint8_t)((out[31] & 127) | 64);
}

/* s B - h A, bit by bit: time depends on both, which are public here. */
int qsafp_ed25519_verify(const uint8_t sig[64], const uint8_t pk[32], const uint8_t *msg, size_t len)
{
    ge minus_a, base, sum;
    ge_cached add[3]; /* B, -A, B - A */
    scalar_t h;
    uint8_t r[32];
    if (!qsafp_ed25519_edge_ok(sig, pk) || decode_negative(&minus_a, pk))
        return QSAFP_E_BAD_SIGNATURE;
    hash_scalar(&h, (part_t){sig, 32}, (part_t){pk, 32}, (part_t){msg, len});
    base_point(&base, &add[0]);
    ge_cache(&add[1], &minus_a);
    ge_add(&sum, &base, &add[1]);
    ge_cache(&add[2], &sum);
    ge_zero(&sum);
    for (unsigned i = 253; i--;) {
        unsigned both = bit(sig + 32, i) | bit(&h, i) << 1;
        ge_double(&sum, &sum, &base);
        if (both)
            ge_add(&sum, &sum, &add[both - 1]);
    }
    encode(r, &sum);
    return qsafp_equal(r, sig, 32) ? 0 : QSAFP_E_BAD_SIGNATURE;
}

void qsafp_ed25519_public(uint8_t pk[32], const uint8_t seed[32])
{
    uint8_t a[64];
    expand(a, seed);
    times_base(pk, a);
    qsafp_wipe(a, sizeof a);
}

void qsafp_ed25519_sign(uint8_t sig[64], const uint8_t secret[64], const uint8_t *msg, size_t len)
{
    uint8_t a[64];
    scalar_t r, h, s;
    expand(a, secret);
    hash_scalar(&r, (part_t){a + 32, 32}, (part_t){0, 0}, (part_t){msg, len});
    times_base(sig, &r);
    hash_scalar(&h, (part_t){sig, 32}, (part_t){secret + 32, 32}, (part_t){msg, len});
    product_of(&s, a, 256, &h);
    sum_of(&s, &s, &r);
    memcpy(sig + 32, &s, sizeof s);
    qsafp_wipe(a, sizeof a);
    qsafp_wipe(&r, sizeof r);
}
