/* SPDX-License-Identifier: Apache-2.0 */
/* Private: a CBOR structure as a const table, one row per item in wire order, read and written by the same rows. */
#ifndef QSAFP_SHAPE_PRIVATE_H
#define QSAFP_SHAPE_PRIVATE_H

#include "qsafp.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "wire structs are copied, not converted");

/* What a row reads into `at`, and writes from there.  ARRAY, MAP and TAG have the one count or number `size`. */
enum {
    ITEM_UINT = QSAFP_CBOR_UINT,   /* an unsigned field of `size` bytes, to read 1 or 8 */
    ITEM_INT = QSAFP_CBOR_NEG,     /* int32_t */
    ITEM_BSTR = QSAFP_CBOR_BSTR,   /* exactly `size` bytes */
    ITEM_TEXT = QSAFP_CBOR_TSTR,   /* checked and dropped; read only */
    ITEM_ARRAY = QSAFP_CBOR_ARRAY,
    ITEM_MAP = QSAFP_CBOR_MAP,
    ITEM_TAG = QSAFP_CBOR_TAG,
    ITEM_BOOL = QSAFP_CBOR_SIMPLE,
    ITEM_VIEW,                     /* qsafp_bytes of a byte string; written as null where its p is 0, read so if `size` is 1 */
    ITEM_ANY,                      /* qsafp_bytes of one whole item; read only */
    ITEM_LIST,                     /* an array of at most `size`, counted in a byte; the next row, if any, is read for each; read only */
};

/* key 0: no key, an array element or a header; below 0: CLAIM(a key below -65536, for private use), in 16 bits. */
typedef struct { int16_t key; uint16_t at; uint8_t kind, size; } item_t;

#define CLAIM(key) ((key) + 65536)

#define ROWS(table) (table), sizeof(table) / sizeof *(table)

#define APART __attribute__((noinline)) /* called twice; inlined, both calls are larger */

/* Sets the reader's first error to MALFORMED unless `ok`. */
void shape_want(qsafp_cbor_r *r, bool ok);
/* Reads the rows into the struct at `to`; a miss is the reader's error, and what was read so far stays. */
void shape_get(qsafp_cbor_r *r, const item_t *row, size_t rows, void *to);
void shape_put(qsafp_cbor_w *w, const item_t *row, size_t rows, const void *from);

unsigned bit_count(uint32_t v);
bool all_bytes(const void *p, size_t n, uint8_t are);
/* Of a lease: 1 ms to 31 days. */
bool duration_ok(uint64_t ms);

/* Of a qsafp_cose_sig, in token.c: protected header {1: alg, 4: kid}, and COSE_Sign1. */
/* 0, BAD_SIGNATURE, or TOO_LARGE for the scratch; sets what->protected_.  The caller has matched s->alg and the key. */
QSAFP_MUST_USE int cose_verify(const qsafp_set_io_t *io, qsafp_tbs_t *what, const qsafp_cose_sig *s, const uint8_t *pk);
extern const item_t SHAPE_HEADERS[3], SHAPE_SIGN1[6];

#endif
