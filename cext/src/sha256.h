/* SPDX-License-Identifier: Apache-2.0 */
/* Private: what the portable and the accelerated SHA-256 share. */
#ifndef QSAFP_SHA256_PRIVATE_H
#define QSAFP_SHA256_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

extern const uint32_t qsafp_sha256_k[64];
void qsafp_sha256_blocks_portable(uint32_t h[8], const uint8_t *p, size_t nblocks);

/* PORTABILITY: hosted 64-bit ARM Linux only, so that firmware never meets an ifunc; clang before 16 has no such target. */
#if defined(__AARCH64EL__) && defined(__linux__) && __STDC_HOSTED__ && (!defined(__clang__) || __clang_major__ >= 16)
#define QSAFP_SHA256_ARMV8 1
void qsafp_sha256_blocks_armv8(uint32_t h[8], const uint8_t *p, size_t nblocks);
#endif

#endif
