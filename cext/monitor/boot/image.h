/* SPDX-License-Identifier: Apache-2.0 */
/* Verify a firmware image (HW-2).  docs/formats.md, Image, has its bytes.  Public values only: time depends on them. */
#ifndef QSAFP_IMAGE_H
#define QSAFP_IMAGE_H

#include "qsafp.h"

enum {
    QSAFP_IMAGE_MAGIC = 0x314D4951, /* "QIM1" */
    QSAFP_IMAGE_FORMAT = 1,
    QSAFP_IMAGE_FRONT_BYTES = 5432, /* header, keys and signatures: all that stands before the body */
};

/* What may boot from here, and where it must run. */
typedef struct {
    uint64_t base; /* the only load address */
    uint32_t capacity_bytes;
    uint32_t board;   /* qsafp_board_t */
    uint32_t kind;    /* qsafp_image_kind_t */
    uint32_t counter; /* lowest security version */
    uint8_t root[32]; /* SHA-256 of the manufacturer root key: Ed25519 then ML-DSA-65, raw */
} qsafp_image_place_t;

typedef struct {
    uint64_t load, entry;
    uint32_t size, security_version;
    uint8_t sha256[32];
} qsafp_image_t;

/* Reads the header into *out.  GOOD: such an image may be copied here, that is out->size bytes to place->base; nothing is verified yet.
 * Else the reason. */
qsafp_image_verdict_t qsafp_image_header(qsafp_image_t *out, const qsafp_image_place_t *place, const uint8_t front[5432]);

/* The same, then what only the whole image can tell.  GOOD: both signatures by the root key and the hash of the body hold.  `front`
 * and the `out->size` bytes of `body` must be where nothing else writes, and `body` where it will run.  Needs less than 12 KB of stack. */
qsafp_image_verdict_t qsafp_image_verify(qsafp_image_t *out, const qsafp_image_place_t *place, const uint8_t front[5432], const uint8_t *body);

#endif
