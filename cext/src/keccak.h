/* SPDX-License-Identifier: Apache-2.0 */
/* Private: SHAKE128 and SHAKE256 (FIPS 202), streaming both ways. */
#ifndef QSAFP_KECCAK_H
#define QSAFP_KECCAK_H

#include <stddef.h>
#include <stdint.h>

enum { QSAFP_SHAKE128_RATE = 168, QSAFP_SHAKE256_RATE = 136 };

typedef struct {
    uint64_t lane[25];
    uint32_t rate; /* bytes per block */
    uint32_t pos;  /* bytes of the block taken in or given out */
} qsafp_shake_t;

void qsafp_shake_init(qsafp_shake_t *s, uint32_t rate_bytes);
void qsafp_shake_absorb(qsafp_shake_t *s, const void *p, size_t n);
/* Ends the input; absorb no more. */
void qsafp_shake_finish(qsafp_shake_t *s);
void qsafp_shake_squeeze(qsafp_shake_t *s, uint8_t *out, size_t n);

#endif
