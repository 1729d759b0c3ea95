/* SPDX-License-Identifier: Apache-2.0 */
/* ML-DSA-65 verification (FIPS 204, pure variant), row by row: no heap, no globals, under 12 KB of stack. */
#ifndef QSAFP_MLDSA65_H
#define QSAFP_MLDSA65_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *msg;
    size_t msg_len;
    const uint8_t *ctx; /* FIPS 204 context string; may be 0 if ctx_len is 0 */
    size_t ctx_len;     /* at most 255 */
} qsafp_mldsa65_msg_t;

enum { QSAFP_MLDSA65_PK_BYTES = 1952, QSAFP_MLDSA65_SIG_BYTES = 3309 };

/* 0: the signature is valid for this key, context and message.
 * QSAFP_E_ARGUMENT: ctx_len > 255.
 * QSAFP_E_BAD_SIGNATURE: anything else, be it a hint that is not encoded strictly, a z out of range, or another digest.
 * The caller checks the lengths of pk and sig.  Reads public values only: its time depends on them. */
int qsafp_mldsa65_verify(const uint8_t pk[1952], const qsafp_mldsa65_msg_t *m, const uint8_t sig[3309]);

#endif
