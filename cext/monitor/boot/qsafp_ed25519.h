/* SPDX-License-Identifier: Apache-2.0 */
/* Ed25519 (RFC 8032) for firmware: Monocypher's curve arithmetic with the core's SHA-512. */
#ifndef QSAFP_ED25519_H
#define QSAFP_ED25519_H

#include <stddef.h>
#include <stdint.h>

/* 0: the signature is valid.  QSAFP_E_BAD_SIGNATURE: anything else, every input that qsafp_ed25519_edge_ok refuses included. */
int qsafp_ed25519_verify(const uint8_t sig[64], const uint8_t pk[32], const uint8_t *msg, size_t len);
/* The public key of a seed. */
void qsafp_ed25519_public(uint8_t pk[32], const uint8_t seed[32]);
/* secret is the seed followed by its public key.  The caller keeps the two together: a signature made with another public key gives
 * the secret away. */
void qsafp_ed25519_sign(uint8_t sig[64], const uint8_t secret[64], const uint8_t *msg, size_t len);

#endif
