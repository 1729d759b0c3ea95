/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 (FIPS 180-4), HMAC-SHA-256 (FIPS 198-1), constant-time comparison and wiping. */
#ifndef QSAFP_HASH_H
#define QSAFP_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t h[8];
    uint64_t len; /* bytes so far */
    uint8_t buf[64];
} qsafp_sha256_t;

void qsafp_sha256_init(qsafp_sha256_t *s);
void qsafp_sha256_update(qsafp_sha256_t *s, const void *p, size_t n);
void qsafp_sha256_final(qsafp_sha256_t *s, uint8_t out[32]);
void qsafp_sha256(uint8_t out[32], const void *p, size_t n);
/* Of 32 and 208 bytes in a row, in one go: what chains audit records. */
void qsafp_sha256_240(uint8_t out[32], const uint8_t head[32], const uint8_t tail[208]);
/* The compression function over whole blocks: hardware instructions where the processor has them. */
void qsafp_sha256_blocks(uint32_t h[8], const uint8_t *p, size_t nblocks);
void qsafp_hmac_sha256(uint8_t out[32], const uint8_t *key, size_t klen, const void *msg, size_t n);

/* 1 if equal, in time that depends on n alone. */
int qsafp_equal(const uint8_t *a, const uint8_t *b, size_t n);
/* Zeroes in a way the compiler keeps. */
void qsafp_wipe(void *p, size_t n);

#endif
