/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-512 (FIPS 180-4), for Ed25519 in firmware, where no library brings one. */
#ifndef QSAFP_SHA512_H
#define QSAFP_SHA512_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t h[8];
    uint64_t len; /* bytes so far: fewer than 2^64, the standard allows 2^125 */
    uint8_t buf[128];
} qsafp_sha512_t;

void qsafp_sha512_init(qsafp_sha512_t *s);
/* Takes n bytes; any split gives the same digest. */
void qsafp_sha512_update(qsafp_sha512_t *s, const void *p, size_t n);
/* Gives the digest and wipes the state: init before the next use. */
void qsafp_sha512_final(qsafp_sha512_t *s, uint8_t out[64]);
void qsafp_sha512(uint8_t out[64], const void *p, size_t n);

#endif
