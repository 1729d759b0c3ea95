/* SPDX-License-Identifier: Apache-2.0 */
#include "image.h"

#include <string.h>

#include "qsafp_ed25519.h"
#include "qsafp_hash.h"
#include "qsafp_mldsa65.h"

enum { SIGNED = 72, KEYS = SIGNED, KEYS_BYTES = 32 + 1952, SIGNATURE = KEYS + KEYS_BYTES, SIGNATURE2 = SIGNATURE + 64, END = SIGNATURE2 + 3309 };

static const char label[] = "qsafp/1/image";

static uint64_t get(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    while (n--)
        v = v << 8 | p[n];
    return v;
}

static int zero(const uint8_t *p, const uint8_t *end)
{
    uint8_t bits = 0;
    while (p < end)
        bits |= *p++;
    return !bits;
}

qsafp_image_verdict_t qsafp_image_header(qsafp_image_t *out, const qsafp_image_place_t *place, const uint8_t front[5432])
{
    out->security_version = (uint32_t)get(front + 12, 4);
    out->load = get(front + 16, 8);
    out->entry = get(front + 24, 8);
    out->size = (uint32_t)get(front + 32, 4);
    memcpy(out->sha256, front + 40, sizeof out->sha256);
    if (get(front, 4) != QSAFP_IMAGE_MAGIC)
        return QSAFP_IMAGE_VERDICT_MAGIC;
    if (get(front + 4, 2) != QSAFP_IMAGE_FORMAT)
        return QSAFP_IMAGE_VERDICT_FORMAT;
    if (get(front + 6, 2) != place->kind)
        return QSAFP_IMAGE_VERDICT_KIND;
    if (get(front + 8, 4) != place->board)
        return QSAFP_IMAGE_VERDICT_BOARD;
    if (out->security_version < place->counter)
        return QSAFP_IMAGE_VERDICT_OLD;
    if (out->load != place->base)
        return QSAFP_IMAGE_VERDICT_LOAD;
    if (!out->size || out->size > place->capacity_bytes)
        return QSAFP_IMAGE_VERDICT_SIZE;
    if (out->entry - out->load >= out->size || out->entry & 3)
        return QSAFP_IMAGE_VERDICT_ENTRY;
    if (!zero(front + 36, front + 40) || !zero(front + END, front + QSAFP_IMAGE_FRONT_BYTES))
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
