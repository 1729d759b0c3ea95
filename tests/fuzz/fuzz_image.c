/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware images in the boot stage: whatever a header says and whichever signatures hold, nothing beyond the image is read, and GOOD means
 * that everything the place demands is so (HW-2). */
#include "fuzz.h"

#define qsafp_mldsa65_verify mldsa65_as_told /* signatures are fuzzed elsewhere; here the input says whether they hold */
#include "../../cext/monitor/boot/image.c"

enum { HEADER = SIGNED, TAIL = QSAFP_IMAGE_FRONT_BYTES - END, CAPACITY = 600, BEFORE = 1 + HEADER + TAIL };
enum { ED25519 = 1, ML_DSA_65 = 2, KEYS_KNOWN = 4, HASH_FITS = 8, ALL = 15 };
static const qsafp_image_place_t there = {.base = 0x80008000, .capacity_bytes = CAPACITY, .board = 1, .kind = 1, .counter = 2};
static uint8_t told;

int qsafp_ed25519_verify(const uint8_t sig[64], const uint8_t pk[32], const uint8_t *msg, size_t len)
{
    (void)sig;
    (void)pk;
    WANT(len == sizeof label - 1 + SIGNED && !memcmp(msg, label, sizeof label - 1));
    return told & ED25519 ? 0 : -1;
}

int mldsa65_as_told(const uint8_t pk[1952], const qsafp_mldsa65_msg_t *msg, const uint8_t sig[3309])
{
    (void)pk;
    (void)sig;
    WANT(msg->msg_len == sizeof label - 1 + SIGNED);
    return told & ML_DSA_65 ? 0 : -1;
}

/* What a header must say, read apart from the code under test. */
typedef struct {
    uint32_t magic;
    uint16_t format, kind;
    uint32_t board, version;
    uint64_t load, entry;
    uint32_t size, reserved;
    uint8_t sha256[32];
} told_t;
_Static_assert(sizeof(told_t) == HEADER, "as docs/formats.md has it");

static bool allowed(const told_t *h, const uint8_t *tail)
{
    bool right = h->magic == 0x314D4951 && h->format == 1 && h->kind == there.kind && h->board == there.board && h->version >= there.counter;
    for (int i = 0; i < TAIL; i++)
        right &= !tail[i];
    return right && h->load == there.base && h->size && h->size <= CAPACITY && h->entry >= h->load && h->entry < h->load + h->size &&
           !(h->entry % 4) && !h->reserved;
}

static void check(uint8_t *front, uint8_t *body, const told_t *h)
{
    qsafp_image_place_t place = there;
    qsafp_image_t out;
    uint8_t hash[32];
    if (told & KEYS_KNOWN)
        qsafp_sha256(place.root, front + KEYS, KEYS_BYTES);
    qsafp_image_verdict_t first = qsafp_image_header(&out, &place, front), all = qsafp_image_verify(&out, &place, front, body);
    WANT((first == QSAFP_IMAGE_VERDICT_GOOD) == allowed(h, front + END));
    WANT(first == QSAFP_IMAGE_VERDICT_GOOD || all == first);
    if (first != QSAFP_IMAGE_VERDICT_GOOD)
        return;
    qsafp_sha256(hash, body, h->size);
    bool fits = !memcmp(hash, h->sha256, sizeof hash);
    WANT(fits || !(told & HASH_FITS));
    WANT((all == QSAFP_IMAGE_VERDICT_GOOD) == (fits && (told | HASH_FITS) == ALL));
}

/* One byte that says what holds, header, reserved bytes, body: each in memory of exactly its size. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    told_t h;
    if (size < BEFORE || size > BEFORE + CAPACITY)
        return 0;
    uint8_t *front = calloc(1, QSAFP_IMAGE_FRONT_BYTES), *body = calloc(1, CAPACITY);
    WANT(front && body);
    told = data[0] & ALL;
    memcpy(&h, data + 1, HEADER);
    memcpy(front + END, data + 1 + HEADER, TAIL);
    memcpy(body, data + BEFORE, size - BEFORE);
    if (told & HASH_FITS && h.size <= CAPACITY)
        qsafp_sha256(h.sha256, body, h.size);
    memcpy(front, &h, HEADER);
    check(front, body, &h);
    free(front);
    free(body);
    return 0;
}

static void seeds(void)
{
    uint8_t in[BEFORE + CAPACITY] = {0};
    const uint32_t sizes[] = {4, 64, CAPACITY};
    for (unsigned i = 0; i < 3; i++)
        for (in[0] = 0; in[0] <= ALL; in[0]++) {
            told_t h = {0x314D4951, 1, 1, 1, 2 + i, there.base, there.base + sizes[i] - 4, sizes[i], 0, {0}};
            memcpy(in + 1, &h, sizeof h);
            seed(in, BEFORE + sizes[i]);
        }
}
