/* SPDX-License-Identifier: Apache-2.0 */
#include "image.h"

#include <string.h>

#include "qsafp_ed25519.h"
#include "qsafp_hash.h"
#include "qsafp_mldsa65.h"

enum { SIGNED = 72, KEYS = SIGNED, KEYS_BYTES = 32 + 1952, SIGNATURE = KEYS + KEYS_BYTES, SIGNATURE2 = SIGNATURE + 64, END = SIGNATURE2 + 3309 };

static const char label[] = "qsafp/1/image";

/* The first bytes as they lie there: every processor that boots from here is little-endian. */
typedef struct {
    uint32_t magic;
    uint16_t format, kind;
    uint32_t board, security_version;
    uint64_t load, entry;
    uint32_t size, zero;
    uint8_t sha256[32];
} header_t;
_Static_assert(sizeof(header_t) == SIGNED, "docs/formats.md, Image");

static int zero(const uint8_t *p, const uint8_t *end)
{
    uint8_t bits = 0;
    while (p < end)
        bits |= *p++;
    return !bits;
}

qsafp_image_verdict_t qsafp_image_header(qsafp_image_t *out, const qsafp_image_place_t *place, const uint8_t front[5432])
{
    header_t h;
    memcpy(&h, front, sizeof h);
    out->security_version = h.security_version;
    out->load = h.load;
    out->entry = h.entry;
    out->size = h.size;
    memcpy(out->sha256, h.sha256, sizeof out->sha256);
    if (h.magic != QSAFP_IMAGE_MAGIC)
        return QSAFP_IMAGE_VERDICT_MAGIC;
    if (h.format != QSAFP_IMAGE_FORMAT)
        return QSAFP_IMAGE_VERDICT_FORMAT;
    if (h.kind != place->kind)
        return QSAFP_IMAGE_VERDICT_KIND;
    if (h.board != place->board)
        return QSAFP_IMAGE_VERDICT_BOARD;
    if (h.security_version < place->counter)
        return QSAFP_IMAGE_VERDICT_OLD;
    if (h.load != place->base)
        return QSAFP_IMAGE_VERDICT_LOAD;
    if (!h.size || h.size > place->capacity_bytes)
        return QSAFP_IMAGE_VERDICT_SIZE;
    if (h.entry - h.load >= (h.kind == QSAFP_IMAGE_KIND_PAYLOAD ? 1 : h.size) || h.entry & 3) /* the monitor starts a payload at its first byte */
        return QSAFP_IMAGE_VERDICT_ENTRY;
    if (h.zero || !zero(front + END, front + QSAFP_IMAGE_FRONT_BYTES))
        return QSAFP_IMAGE_VERDICT_RESERVED;
    return QSAFP_IMAGE_VERDICT_GOOD;
}

static int hash_is(const uint8_t want[32], const uint8_t *p, size_t n)
{
    uint8_t got[32];
    qsafp_sha256(got, p, n);
    return qsafp_equal(got, want, sizeof got);
}

qsafp_image_verdict_t qsafp_image_verify(qsafp_image_t *out, const qsafp_image_place_t *place, const uint8_t front[5432], const uint8_t *body)
{
    uint8_t msg[sizeof label - 1 + SIGNED];
    const qsafp_mldsa65_msg_t m = {.msg = msg, .msg_len = sizeof msg};
    const uint8_t *keys = front + KEYS;
    qsafp_image_verdict_t verdict = qsafp_image_header(out, place, front);
    if (verdict != QSAFP_IMAGE_VERDICT_GOOD)
        return verdict;
    memcpy(msg, label, sizeof label - 1);
    memcpy(msg + sizeof label - 1, front, SIGNED);
    if (!hash_is(place->root, keys, KEYS_BYTES))
        return QSAFP_IMAGE_VERDICT_ROOT_KEY;
    if (!hash_is(out->sha256, body, out->size))
        return QSAFP_IMAGE_VERDICT_HASH;
    if (qsafp_ed25519_verify(front + SIGNATURE, keys, msg, sizeof msg))
        return QSAFP_IMAGE_VERDICT_ED25519;
    if (qsafp_mldsa65_verify(keys + 32, &m, front + SIGNATURE2))
        return QSAFP_IMAGE_VERDICT_ML_DSA_65;
    return QSAFP_IMAGE_VERDICT_GOOD;
}
