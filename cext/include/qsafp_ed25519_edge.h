/* SPDX-License-Identifier: Apache-2.0 */
/* The Ed25519 inputs on which libraries disagree, refused before any library is asked, so that all homes agree. */
#ifndef QSAFP_ED25519_EDGE_H
#define QSAFP_ED25519_EDGE_H

#include <stdint.h>

/* 1: the signature may be given to a library; it is NOT verified.
 * 0: refused.  S >= L (RFC 8032 section 5.1.7), or A or R has y >= 2^255 - 19 (section 5.1.3), or A or R is one of the
 * eight points of small order, under either sign bit (x = 0 with sign bit 1 is among these).
 * Reads public values only: its time depends on them. */
int qsafp_ed25519_edge_ok(const uint8_t sig[64], const uint8_t pk[32]);

#endif
