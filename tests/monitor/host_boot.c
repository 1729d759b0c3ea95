/* SPDX-License-Identifier: Apache-2.0 */
/* The boot stage on this machine, under sanitizers: its flash is memory that others write to, and its halt ends the process.
 * host_boot MONITOR PAYLOAD SEED ROUNDS: two images, signed for the addresses below, then ROUNDS of damaged flash, none of which may boot. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "boot.h"
#include "map.h"

/* Below the sanitizer's shadow. */
#define HOST_MONITOR 0x10008000
#define HOST_PAYLOAD 0x20400000

enum { SLOT = QSAFP_IMAGE_FRONT_BYTES + MONITOR_BYTES };

static uint8_t flash[4][SLOT], good[2][SLOT];
static size_t size[2];
static jmp_buf stopped;
static unsigned failsafe, counter, scribbled, scribble;
static char said[65536];
static size_t said_len;

const boot_kind_t boot_monitor = {
    "monitor", {.base = HOST_MONITOR, .capacity_bytes = MONITOR_BYTES, .board = BOARD_ID, .kind = QSAFP_IMAGE_KIND_MONITOR}, {flash[0], flash[1]}};
const boot_kind_t boot_payload = {
    "payload", {.base = HOST_PAYLOAD, .capacity_bytes = MONITOR_BYTES, .board = BOARD_ID, .kind = QSAFP_IMAGE_KIND_PAYLOAD}, {flash[2], flash[3]}};

void boot_board_start(void) { failsafe = 0, said_len = 0; }
void boot_board_failsafe(void) { failsafe = 1; }
void boot_board_put(char c)
{
    if (said_len < sizeof said - 1)
        said[said_len++] = c;
    said[said_len] = 0;
}
uint32_t boot_board_counter(uint32_t kind) { return kind == QSAFP_IMAGE_KIND_MONITOR ? counter : 0; }
void boot_board_raise(uint32_t kind, uint32_t to) { (void)kind, (void)to; }
void boot_stop(void) { longjmp(stopped, 1); }

/* Whoever writes to flash does it when everything was copied: from here on the boot stage must not look there. */
qsafp_image_verdict_t __real_qsafp_image_verify(qsafp_image_t *, const qsafp_image_place_t *, const uint8_t *, const uint8_t *);
qsafp_image_verdict_t __wrap_qsafp_image_verify(qsafp_image_t *, const qsafp_image_place_t *, const uint8_t *, const uint8_t *);
qsafp_image_verdict_t __wrap_qsafp_image_verify(qsafp_image_t *out, const qsafp_image_place_t *place, const uint8_t *front, const uint8_t *body)
{
    if (scribble) {
        memset(flash, 0x5A, sizeof flash);
        scribbled++;
    }
    return __real_qsafp_image_verify(out, place, front, body);
}

static void fail(const char *what)
{
    printf("FAIL %s\n%s", what, said);
    exit(1);
}

static void restore(void)
{
    memset(flash, 0xFF, sizeof flash);
    memcpy(flash[0], good[0], size[0]);
    memcpy(flash[2], good[1], size[1]);
}

/* 1: it handed over; 0: it halted, FAILSAFE high. */
static int boots(void)
{
    if (setjmp(stopped)) {
        if (!failsafe || !strstr(said, "; halted\n"))
            fail("it stopped without FAILSAFE or a word");
        return 0;
    }
    boot_main();
    return !failsafe;
}

static void what_runs_is_what_was_read_first(void)
{
    const uint8_t *body = good[0] + QSAFP_IMAGE_FRONT_BYTES;
    size_t n = size[0] - QSAFP_IMAGE_FRONT_BYTES;
    restore();
    memcpy(flash[3], good[1], size[1]);
    memset((void *)HOST_MONITOR, 0xA5, MONITOR_BYTES);
    scribble = 1;
    (void)boots(); /* the payload's slots are spoilt by then: it halts at those */
    scribble = 0;
    if (!scribbled || !strstr(said, "monitor slot 0: GOOD") || memcmp((void *)HOST_MONITOR, body, n))
        fail("flash was read again after the copy");
    for (size_t i = n; i < MONITOR_BYTES; i++)
        if (*((uint8_t *)HOST_MONITOR + i))
            fail("bytes behind the image were left");
}

static void damage(unsigned which)
{
    unsigned how = (unsigned)rand() % 3;
    for (unsigned i = 0, n = 1 + (unsigned)rand() % 4; i < n; i++) {
        size_t at = (size_t)rand() % (rand() % 2 ? 72 : size[which]);
        if (how == 0)
            flash[2 * which][at] ^= (uint8_t)(1u << rand() % 8);
        else if (how == 1)
            flash[2 * which][at] = (uint8_t)rand();
        else
            memset(flash[2 * which] + at, rand() % 2 ? 0xFF : 0, (size_t)rand() % (size[which] - at) + 1);
    }
}

static void load(unsigned which, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || !(size[which] = fread(good[which], 1, SLOT, f)))
        fail(path);
    fclose(f);
}

static void map(uintptr_t base)
{
    if (mmap((void *)base, MONITOR_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != (void *)base)
        fail("the address is taken on this machine");
}

int main(int argc, char **argv)
{
    unsigned refused = 0, rounds = argc == 5 ? (unsigned)atoi(argv[4]) : 0;
    if (!rounds)
        return 2;
    load(0, argv[1]), load(1, argv[2]), srand((unsigned)atoi(argv[3]));
    map(HOST_MONITOR), map(HOST_PAYLOAD);
    restore();
    if (!boots() || boot_table.monitor.slot || boot_table.payload.slot)
        fail("good images do not boot");
    counter = 2;
    if (boots())
        fail("an older image boots");
    counter = 0;
    what_runs_is_what_was_read_first();
    for (unsigned i = 0; i < rounds; i++) {
        unsigned which = i % 2;
        restore();
        damage(which);
        if (!memcmp(flash[2 * which], good[which], size[which]))
            continue;
        if (boots())
            fail("damaged flash boots");
        refused++;
    }
    printf("host_boot: %u refused\n", refused);
    return 0;
}
