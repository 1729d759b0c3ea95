/* SPDX-License-Identifier: Apache-2.0 */
/* The boot stage: copy, verify what was copied, hand over; or say why not and stop (HW-2). */
#include "boot.h"

#include <stddef.h>
#include <string.h>

#include "qsafp_ed25519.h"
#include "qsafp_ed25519_edge.h"
#include "qsafp_sha512.h"

static int counter_raise(void)
{
    const qsafp_boot_image_t *m = &boot_table.monitor, *p = &boot_table.payload;
    boot_board_raise(QSAFP_IMAGE_KIND_MONITOR, m->security_version);
    boot_board_raise(QSAFP_IMAGE_KIND_PAYLOAD, p->security_version);
    return boot_board_counter(QSAFP_IMAGE_KIND_MONITOR) < m->security_version || boot_board_counter(QSAFP_IMAGE_KIND_PAYLOAD) < p->security_version
               ? QSAFP_E_STORE
               : 0;
}

__attribute__((section(".boot_table"))) qsafp_boot_table_t boot_table = {
    .magic = QSAFP_BOOT_MAGIC,
    .version = QSAFP_BOOT_VERSION,
    .bytes = sizeof boot_table,
    .sha256_init = qsafp_sha256_init,
    .sha256_update = qsafp_sha256_update,
    .sha256_final = qsafp_sha256_final,
    .sha256 = qsafp_sha256,
    .sha256_240 = qsafp_sha256_240,
    .hmac_sha256 = qsafp_hmac_sha256,
    .sha512 = qsafp_sha512,
    .equal = qsafp_equal,
    .wipe = qsafp_wipe,
    .mldsa65_verify = qsafp_mldsa65_verify,
    .ed25519_edge_ok = qsafp_ed25519_edge_ok,
    .ed25519_verify = qsafp_ed25519_verify,
    .ed25519_public = qsafp_ed25519_public,
    .ed25519_sign = qsafp_ed25519_sign,
    .counter_raise = counter_raise,
};

static void say(const char *text)
{
    while (*text)
        boot_board_put(*text++);
}

static _Noreturn void halt(const char *why)
{
    boot_board_failsafe();
    say("boot: ");
    say(why);
    say("; halted\n");
    boot_stop();
}

void boot_trap(void) { halt("trap"); }

static void say_verdict(const char *kind, unsigned slot, qsafp_image_verdict_t v)
{
    static const char names[] = "GOOD\0MAGIC\0FORMAT\0KIND\0BOARD\0OLD\0LOAD\0SIZE\0ENTRY\0RESERVED\0ROOT_KEY\0HASH\0ED25519\0ML_DSA_65";
    const char *name = names;
    for (unsigned n = v == QSAFP_IMAGE_VERDICT_GOOD ? 0 : (unsigned)v; n; n--)
        while (*name++)
            ;
    say("boot: ");
    say(kind);
    say(slot ? " slot 1: " : " slot 0: ");
    say(name);
    say("\n");
}

/* Flash is read once: everything after the copy looks at the copy, and bytes behind the image are zeroed. */
static qsafp_image_verdict_t take(qsafp_image_t *image, const qsafp_image_place_t *place, const uint8_t *slot)
{
    uint8_t front[QSAFP_IMAGE_FRONT_BYTES], *body = (uint8_t *)(uintptr_t)place->base;
    memcpy(front, slot, sizeof front);
    qsafp_image_verdict_t verdict = qsafp_image_header(image, place, front);
    if (verdict != QSAFP_IMAGE_VERDICT_GOOD)
        return verdict;
    memcpy(body, slot + sizeof front, image->size);
    memset(body + image->size, 0, place->capacity_bytes - image->size);
    return qsafp_image_verify(image, place, front, body);
}

/* The version that a slot claims: it decides which of the two is tried first, nothing else. */
static uint32_t claimed(const uint8_t *slot)
{
    uint32_t version;
    memcpy(&version, slot + 12, sizeof version);
    return version == UINT32_MAX ? 0 : version; /* erased */
}

static void boot(qsafp_boot_image_t *out, const boot_kind_t *kind)
{
    qsafp_image_place_t place = kind->place;
    qsafp_image_t image;
    unsigned first = claimed(kind->slots[1]) > claimed(kind->slots[0]);
    place.counter = boot_board_counter(place.kind);
    memcpy(place.root, boot_root, sizeof place.root);
    for (unsigned i = 0; i < 2; i++) {
        unsigned slot = first ^ i;
        qsafp_image_verdict_t verdict = take(&image, &place, kind->slots[slot]);
        say_verdict(kind->name, slot, verdict);
        if (verdict == QSAFP_IMAGE_VERDICT_GOOD) {
            *out = (qsafp_boot_image_t){image.load, image.entry, image.size, image.security_version, slot, place.counter, {0}};
            memcpy(out->sha256, image.sha256, sizeof out->sha256);
            return;
        }
    }
    halt("no image verifies");
}

void boot_main(void)
{
    boot_board_start();
    boot_table.board = boot_monitor.place.board;
    boot(&boot_table.monitor, &boot_monitor);
    boot(&boot_table.payload, &boot_payload);
}

_Static_assert(offsetof(qsafp_boot_table_t, monitor.entry) == 24, "the hand-over in assembly reads it there");
