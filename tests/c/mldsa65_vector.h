/* SPDX-License-Identifier: Apache-2.0 */
/* tests/vectors/mldsa65_valid.bin: the public key of seed 00 01 .. 1f, then its signature of "message" under context "context". */
#ifndef MLDSA65_VECTOR_H
#define MLDSA65_VECTOR_H

#include <stdio.h>

#include "qsafp_mldsa65.h"

typedef struct {
    uint8_t pk[QSAFP_MLDSA65_PK_BYTES], sig[QSAFP_MLDSA65_SIG_BYTES];
} mldsa65_vector_t;

static const qsafp_mldsa65_msg_t MLDSA65_MSG = {(const uint8_t *)"message", 7, (const uint8_t *)"context", 7};

/* 1 if the file was there, whole. */
static inline int mldsa65_vector_read(mldsa65_vector_t *v)
{
    FILE *f = fopen("tests/vectors/mldsa65_valid.bin", "rb");
    int whole = f && fread(v, sizeof *v, 1, f) == 1 && fgetc(f) == EOF;
    if (f)
        fclose(f);
    return whole;
}

#endif
