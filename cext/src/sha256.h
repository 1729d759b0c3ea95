/* SPDX-License-Identifier: Apache-2.0 */
/* Private: what the portable and the accelerated SHA-256 share. */
#ifndef QSAFP_SHA256_PRIVATE_H
#define QSAFP_SHA256_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

extern const uint32_t qsafp_sha256_k[64];
void qsafp_sha256_blocks_portable(uint32_t h[8], const uint8_t *p, size_t nblocks);

#endif
