/* SPDX-License-Identifier: Apache-2.0 */
/* Ed25519 (RFC 8032 section 5.1), SHA-512 of the core around Monocypher's curve.  Its own check multiplies by the cofactor; ours compares
 * R byte for byte, as libsodium does, so that firmware and host agree on keys and signatures of mixed order too. */
#include <string.h>

#include <monocypher.c> /* a system header by its place: its functions are wanted, its style is not checked */

#include "qsafp.h"
#include "qsafp_ed25519.h"
#include "qsafp_ed25519_edge.h"
#include "qsafp_hash.h"
#include "qsafp_sha512.h"

typedef struct {
    const uint8_t *p;
    size_t n;
} part_t;

/* SHA-512 of three parts, as a scalar. */
static void hash_scalar(uint8_t out[32], part_t a, part_t b, part_t c)
{
    qsafp_sha512_t s;
    uint8_t wide[64];
    qsafp_sha512_init(&s);
    qsafp_sha512_update(&s, a.p, a.n);
    qsafp_sha512_update(&s, b.p, b.n);
    qsafp_sha512_update(&s, c.p, c.n);
    qsafp_sha512_final(&s, wide);
    crypto_eddsa_reduce(out, wide);
    qsafp_wipe(wide, sizeof wide);
}

/* Secret scalar and prefix of a seed. */
static void expand(uint8_t out[64], const uint8_t seed[32])
{
    qsafp_sha512(out, seed, 32);
    crypto_eddsa_trim_scalar(out, out);
}

/* [k]P bit by bit: time depends on k, which is public here. */
static void times(ge *out, const uint8_t k[32], const ge *p)
{
    ge_cached cached;
    ge tmp;
    ge_cache(&cached, p);
    ge_zero(out);
    for (int i = 252; i >= 0; i--) {
        ge_double(out, out, &tmp);
        if (k[i / 8] >> i % 8 & 1)
            ge_add(out, out, &cached);
    }
}

int qsafp_ed25519_verify(const uint8_t sig[64], const uint8_t pk[32], const uint8_t *msg, size_t len)
{
    ge minus_a, sum, base;
    ge_cached cached;
    uint8_t h[32], r[32];
    if (!qsafp_ed25519_edge_ok(sig, pk) || ge_frombytes_neg_vartime(&minus_a, pk))
        return QSAFP_E_BAD_SIGNATURE;
    hash_scalar(h, (part_t){sig, 32}, (part_t){pk, 32}, (part_t){msg, len});
    times(&sum, h, &minus_a);
    ge_scalarmult_base(&base, sig + 32);
    ge_cache(&cached, &base);
    ge_add(&sum, &sum, &cached);
    ge_tobytes(r, &sum);
    return qsafp_equal(r, sig, 32) ? 0 : QSAFP_E_BAD_SIGNATURE;
}

void qsafp_ed25519_public(uint8_t pk[32], const uint8_t seed[32])
{
    uint8_t a[64];
    expand(a, seed);
    crypto_eddsa_scalarbase(pk, a);
    qsafp_wipe(a, sizeof a);
}

void qsafp_ed25519_sign(uint8_t sig[64], const uint8_t secret[64], const uint8_t *msg, size_t len)
{
    uint8_t a[64], r[32], h[32], first[32];
    expand(a, secret);
    hash_scalar(r, (part_t){a + 32, 32}, (part_t){0, 0}, (part_t){msg, len});
    crypto_eddsa_scalarbase(first, r);
    hash_scalar(h, (part_t){first, 32}, (part_t){secret + 32, 32}, (part_t){msg, len});
    crypto_eddsa_mul_add(sig + 32, h, a, r);
    memcpy(sig, first, 32);
    qsafp_wipe(a, sizeof a);
    qsafp_wipe(r, sizeof r);
}
