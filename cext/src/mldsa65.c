/* SPDX-License-Identifier: Apache-2.0 */
/* ML-DSA-65 verification, FIPS 204 algorithms 3 and 8, one row of A at a time: what lives on the stack is NTT(z), NTT(c),
 * one row of w, two sponges and the powers of the root.  A is never stored: each coefficient is used as it is sampled.
 * Every coefficient is a uint32_t in [0, Q), unless a comment says otherwise. */
#include <string.h>

#include "keccak.h"
#include "qsafp_hash.h"
#include "qsafp_mldsa65.h"
#include "qsafp_tables.h"

enum {
    N = 256,
    Q = 8380417,
    K = 6,
    L = 5,
    TAU = 49,
    BETA = 196,
    OMEGA = 55,
    GAMMA1 = 1 << 19,
    GAMMA2 = (Q - 1) / 32,
    D = 13,
    CTILDE_BYTES = 48,
    T1_BYTES = 320,
    Z_BYTES = 640,
    CTX_MAX = 255,
    Q_NEG_INV = -58728449, /* -1/Q mod 2^32 */
    SCALE_BACK = 41978,  /* 2^64 / 256 mod Q: undoes the 256 of the inverse NTT and one Montgomery factor */
    ONE = 4193792,       /* 1 and 1753, a root of -1 of order 512, in Montgomery form: times 2^32 mod Q */
    ROOT = 2091667,
};

_Static_assert(CTILDE_BYTES + L * Z_BYTES + OMEGA + K == QSAFP_MLDSA65_SIG_BYTES, "signature layout");
_Static_assert(32 + K * T1_BYTES == QSAFP_MLDSA65_PK_BYTES, "public key layout");

typedef uint32_t poly[N];

typedef struct {
    const uint8_t *pk, *sig;
    poly zeta, z_hat[L], c_hat;
    qsafp_shake_t digest; /* of mu and the rows of w1 so far */
} work_t;

static uint32_t add(uint32_t a, uint32_t b) { return a + b >= Q ? a + b - Q : a + b; }
static uint32_t sub(uint32_t a, uint32_t b) { return a >= b ? a - b : a + Q - b; }

/* a * b / 2^32 mod Q (FIPS 204 appendix A). */
static uint32_t mul(uint32_t a, uint32_t b)
{
    uint64_t ab = (uint64_t)a * b;
    uint32_t m = (uint32_t)ab * (uint32_t)Q_NEG_INV;
    uint32_t t = (uint32_t)((ab + (uint64_t)m * Q) >> 32); /* < 2 Q */
    return t >= Q ? t - Q : t;
}

/* 1753^bitrev(i) * 2^32 mod Q (FIPS 204 appendix B, in Montgomery form). */
static void make_zeta(poly zeta)
{
    uint32_t power = ONE;
    for (unsigned i = 0, mirrored = 0; i < N; i++) {
        zeta[mirrored] = power;
        power = mul(power, ROOT);
        unsigned top = N / 2;
        for (; mirrored & top; top /= 2)
            mirrored ^= top; /* one is added from the other end */
        mirrored ^= top;
    }
}

/* Algorithm 41. */
static void ntt(const poly zeta, poly w)
{
    unsigned m = 0;
    for (unsigned len = N / 2; len; len /= 2)
        for (unsigned start = 0; start < N; start += 2 * len) {
            uint32_t z = zeta[++m];
            for (unsigned j = start; j < start + len; j++) {
                uint32_t t = mul(z, w[j + len]);
                w[j + len] = sub(w[j], t);
                w[j] = add(w[j], t);
            }
        }
}

/* Algorithm 42; also removes the factor 2^-32 that mul() left in each product. */
static void ntt_inverse(const poly zeta, poly w)
{
    unsigned m = N;
    for (unsigned len = 1; len < N; len *= 2)
        for (unsigned start = 0; start < N; start += 2 * len) {
            uint32_t z = zeta[--m];
            for (unsigned j = start; j < start + len; j++) {
                uint32_t t = w[j];
                w[j] = add(t, w[j + len]);
                w[j + len] = mul(z, sub(w[j + len], t)); /* -zeta (t - w) */
            }
        }
    for (unsigned j = 0; j < N; j++)
        w[j] = mul(w[j], SCALE_BACK);
}

/* The i-th number of `width` bits (10 or 20: neither crosses more than (width + 7) / 8 bytes). */
static uint32_t bits_at(const uint8_t *p, unsigned i, unsigned width)
{
    unsigned bit = i * width;
    uint32_t v = 0;
    for (unsigned k = 0; k < (width + 7) / 8; k++)
        v |= (uint32_t)p[bit / 8 + k] << 8 * k;
    return v >> bit % 8 & ((1u << width) - 1);
}

/* 1 if every z is decoded and smaller than GAMMA1 - BETA in absolute value (algorithm 27 and algorithm 8, line 13). */
static int take_z(work_t *s)
{
    for (unsigned n = 0; n < L * N; n++) {
        uint32_t v = bits_at(s->sig + CTILDE_BYTES, n, 20);
        if (v <= BETA || v >= 2 * GAMMA1 - BETA)
            return 0;
        s->z_hat[n / N][n % N] = sub(GAMMA1, v);
    }
    for (unsigned i = 0; i < L; i++)
        ntt(s->zeta, s->z_hat[i]);
    return 1;
}

/* 1 if the hint is the one encoding of its positions: rising within a row, counts in order, zeros after (algorithm 21). */
static int hint_ok(const uint8_t y[OMEGA + K])
{
    unsigned at = 0;
    for (unsigned i = 0; i < K; i++) {
        unsigned first = at, end = y[OMEGA + i];
        if (end < at || end > OMEGA)
            return 0;
        for (; at < end; at++)
            if (at > first && y[at - 1] >= y[at])
                return 0;
    }
    for (; at < OMEGA; at++)
        if (y[at])
            return 0;
    return 1;
}

/* SampleInBall (algorithm 29), then its NTT. */
static void take_c(work_t *s)
{
    uint8_t sign[8], j;
    qsafp_shake_t x;
    qsafp_shake_init(&x, QSAFP_SHAKE256_RATE);
    qsafp_shake_absorb(&x, s->sig, CTILDE_BYTES);
    qsafp_shake_finish(&x);
    qsafp_shake_squeeze(&x, sign, sizeof sign);
    memset(s->c_hat, 0, sizeof s->c_hat);
    for (unsigned i = N - TAU, bit = 0; i < N; i++, bit++) {
        do
            qsafp_shake_squeeze(&x, &j, 1);
        while (j > i);
        s->c_hat[i] = s->c_hat[j];
        s->c_hat[j] = sign[bit / 8] >> bit % 8 & 1 ? Q - 1 : 1;
    }
    ntt(s->zeta, s->c_hat);
}

/* w += A[row][col] z_hat[col], A being sampled here (algorithms 30 and 32). */
static void add_product(work_t *s, poly w, unsigned row, unsigned col)
{
    const uint8_t tail[2] = {(uint8_t)col, (uint8_t)row};
    uint8_t b[3];
    qsafp_shake_t x;
    qsafp_shake_init(&x, QSAFP_SHAKE128_RATE);
    qsafp_shake_absorb(&x, s->pk, 32);
    qsafp_shake_absorb(&x, tail, sizeof tail);
    qsafp_shake_finish(&x);
    for (unsigned j = 0; j < N;) {
        qsafp_shake_squeeze(&x, b, sizeof b);
        uint32_t a = (uint32_t)(b[2] & 0x7F) << 16 | (uint32_t)b[1] << 8 | b[0];
        if (a < Q) {
            w[j] = add(w[j], mul(a, s->z_hat[col][j]));
            j++;
        }
    }
}

/* One row of A z - c t1 2^D (algorithm 8, line 9). */
static void make_row(work_t *s, poly w, unsigned row)
{
    const uint8_t *t1 = s->pk + 32 + row * T1_BYTES;
    for (unsigned j = 0; j < N; j++)
        w[j] = bits_at(t1, j, 10) << D;
    ntt(s->zeta, w);
    for (unsigned j = 0; j < N; j++)
        w[j] = sub(0, mul(w[j], s->c_hat[j]));
    for (unsigned col = 0; col < L; col++)
        add_product(s, w, row, col);
    ntt_inverse(s->zeta, w);
}

/* UseHint (algorithm 40).  r1 = 16 is Q - 1, which wraps to 0 with r0 <= 0 (algorithm 36). */
static uint8_t use_hint(uint32_t r, int hinted)
{
    uint32_t r1 = (r + GAMMA2 - 1) / (2 * GAMMA2);
    int r0_positive = r > r1 * 2 * GAMMA2;
    uint32_t moved = r0_positive ? r1 + 1 : r1 + 15;
    return (uint8_t)((hinted ? moved : r1) & 15);
}

/* Corrects one row by its hints and hashes it, two coefficients a byte (algorithm 28). */
static void hash_row(work_t *s, const poly w, unsigned row)
{
    const uint8_t *y = s->sig + CTILDE_BYTES + L * Z_BYTES;
    unsigned at = row ? y[OMEGA + row - 1] : 0, end = y[OMEGA + row];
    uint8_t packed = 0;
    for (unsigned j = 0; j < N; j++) {
        int hinted = at < end && y[at] == j;
        at += (unsigned)hinted;
        packed = (uint8_t)(packed >> 4 | use_hint(w[j], hinted) << 4);
        if (j % 2)
            qsafp_shake_absorb(&s->digest, &packed, 1);
    }
}

/* Starts the digest with mu = H(H(pk) || 0 || |ctx| || ctx || msg) (algorithm 3, line 5; algorithm 8, line 7). */
static void start_digest(work_t *s, const qsafp_mldsa65_msg_t *m)
{
    const uint8_t head[2] = {0, (uint8_t)m->ctx_len};
    uint8_t hash[64];
    qsafp_shake_t *x = &s->digest;
    qsafp_shake_init(x, QSAFP_SHAKE256_RATE);
    qsafp_shake_absorb(x, s->pk, QSAFP_MLDSA65_PK_BYTES);
    qsafp_shake_finish(x);
    qsafp_shake_squeeze(x, hash, sizeof hash);
    qsafp_shake_init(x, QSAFP_SHAKE256_RATE);
    qsafp_shake_absorb(x, hash, sizeof hash);
    qsafp_shake_absorb(x, head, sizeof head);
    qsafp_shake_absorb(x, m->ctx, m->ctx_len);
    qsafp_shake_absorb(x, m->msg, m->msg_len);
    qsafp_shake_finish(x);
    qsafp_shake_squeeze(x, hash, sizeof hash);
    qsafp_shake_init(x, QSAFP_SHAKE256_RATE);
    qsafp_shake_absorb(x, hash, sizeof hash);
}

int qsafp_mldsa65_verify(const uint8_t pk[1952], const qsafp_mldsa65_msg_t *m, const uint8_t sig[3309])
{
    work_t s;
    poly w;
    uint8_t want[CTILDE_BYTES];
    if (m->ctx_len > CTX_MAX)
        return QSAFP_E_ARGUMENT;
    s.pk = pk;
    s.sig = sig;
    make_zeta(s.zeta);
    if (!hint_ok(sig + CTILDE_BYTES + L * Z_BYTES) || !take_z(&s))
        return QSAFP_E_BAD_SIGNATURE;
    take_c(&s);
    start_digest(&s, m);
    for (unsigned row = 0; row < K; row++) {
        make_row(&s, w, row);
        hash_row(&s, w, row);
    }
    qsafp_shake_finish(&s.digest);
    qsafp_shake_squeeze(&s.digest, want, sizeof want);
    return qsafp_equal(want, sig, sizeof want) ? 0 : QSAFP_E_BAD_SIGNATURE;
}
