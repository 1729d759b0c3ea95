/* SPDX-License-Identifier: Apache-2.0 */
/* What a payload may try on any board; reach.c of each architecture has the rest.  Every access is made for real; what gets through is
 * written down in `orders`, and the test looks there. */
#include "os.h"

#include <string.h>

enum {
    MASK = 1, TIMER, MEMORY, GPIO, FLASH, PROTECTION, DMA, JUMP, RACE, POINTERS, BEGIN, REPLAY, FLOOD, SPIN, STORM, IMITATE, MEASURE, INTERRUPT,
};

#define REPLAYED (PAYLOAD_BASE + 0x400000u) /* length u32, then a lease of an earlier life */

static uint8_t answer[1031];

/* ---- single accesses: 1 if nothing stopped them ---- */

uint64_t reads(uint64_t at)
{
    uint64_t before = trapped();
    uint32_t v = *(volatile uint32_t *)(uintptr_t)at;
    __asm__ volatile("" : : "r"(v));
    return trapped() == before;
}

uint64_t writes(uint64_t at, uint32_t v)
{
    uint64_t before = trapped();
    *(volatile uint32_t *)(uintptr_t)at = v;
    return trapped() == before;
}

void each(const uint64_t *at, unsigned n, uint32_t v)
{
    for (unsigned i = 0; i < n; i++) {
        orders->leaked += reads(at[i]);
        orders->moved += writes(at[i], v);
    }
}

/* ---- attacks ---- */

/* A whole frame that asks for the version; hart 2 turns it to the status and back while hart 1 has it carried.  Its checksum never fits
 * the status: whoever answers that one has checked other bytes than he obeyed. */
static uint8_t raced[6] = {7, 0, 0, 0, 0xED, 0xD5};

static void race(void)
{
    for (;;) {
        asked_t r = ask(FRAME, (uintptr_t)raced, sizeof raced, (uintptr_t)answer, sizeof answer);
        bool refused = answer[2] == QSAFP_COMMAND_STATUS_BAD_CRC && r.value == 7;
        bool version = answer[2] == 0 && r.value == 7 + 7;
        orders->answers += refused;
        orders->odd += r.err || (!refused && !version);
    }
}

static void race_along(void)
{
    for (unsigned i = 0;; i++)
        *(volatile uint8_t *)&raced[1] = i & 1;
}

static void pointers(void)
{
    static const uint64_t bad[] = {0, 4, CODE_START, GATE_PAGE, GATE_PAGE + 0x9000, FUSES_BASE, PAYLOAD_RAM - 4, RAM_END - 3, RAM_END, GPIO_BASE, NOWHERE, UINT64_MAX, UINT64_MAX - 5, 1ull << 63};
    static const uint64_t sizes[] = {0, 1, FRAME_MAX, FRAME_MAX + 1, 0x10000, UINT64_MAX};
    static uint8_t good[6] = {1, 1};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        orders->odd += !READABLE(bad[i]) && ask(FRAME, bad[i], 6, (uintptr_t)answer, sizeof answer).err == 0;
        orders->odd += !WRITABLE(bad[i]) && ask(FRAME, (uintptr_t)good, 6, bad[i], sizeof answer).err == 0;
        orders->odd += !WRITABLE(bad[i]) && ask(CHECKPOINT, bad[i], 64, 0, 0).err == 0;
    }
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        asked_t r = ask(FRAME, (uintptr_t)good, sizes[i], (uintptr_t)answer, sizeof answer);
        orders->odd += sizes[i] > FRAME_MAX ? r.err == 0 : r.err != 0;
        orders->odd += ask(FRAME, (uintptr_t)good, 6, (uintptr_t)answer, sizes[i] > 1030 ? 1030 : sizes[i]).err == 0;
    }
    orders->odd += ask(CHECKPOINT, (uintptr_t)region, UINT64_MAX, 0, 0).err == 0;
    orders->odd += ask(CHECKPOINT, RAM_END - 64, 65, 0, 0).err == 0;
    orders->odd += ask(CHECKPOINT, (uintptr_t)region, 0, 0, 0).err == 0;
    orders->odd += ask(77, 0, 0, 0, 0).err == 0;
}

static void begin(void)
{
    const uint8_t sub = 0;
    for (unsigned i = 0; i < 300; i++)
        orders->answers += frame(2, &sub, 1, answer) > 0;
}

static void replay(void)
{
    uint32_t total = *(volatile uint32_t *)REPLAYED;
    const uint8_t finish = 3;
    for (unsigned i = 0; i < 5; i++) {
        uint8_t put[1024] = {2};
        uint32_t n = total < 1000 ? total : 1000;
        memcpy(put + 5, &total, 4);
        memcpy(put + 9, (const void *)(uintptr_t)(REPLAYED + 4), n);
        orders->answers += frame(2, put, 9 + n, answer) > 0 && answer[2] == 0;
        orders->odd += frame(2, &finish, 1, answer) > 0 && answer[2] == 0; /* a lease that counts */
    }
}

static void flood(void)
{
    static const uint8_t event[7] = {16, 0, 0, 0, 0, 0, 1};
    for (;;) {
        orders->answers += ask(VALIDATE, 0, 0, 0, 0).err == 0;
        orders->answers += frame(1, 0, 0, answer) > 0;
        orders->answers += frame(6, event, sizeof event, answer) > 0;
    }
}

static void spin(void)
{
    mask();
    for (;;)
        ;
}

static void storm(void)
{
    for (;;)
        orders->moved += writes(GPIO_BASE + 12, 1);
}

/* Where the page that it reads is a copy in its own memory: open for ever, until the monitor's next tick. */
static void forge(void)
{
    if (!WRITABLE(GATE_PAGE))
        return;
    gate_page->window = gate_page->window_ns = UINT64_MAX;
    gate_page->deadline = clock_now() + UINT64_MAX / 4;
    gate_page->deadline_ns = UINT64_MAX / 2;
    gate_page->status = QSAFP_STATUS_VALID;
    __atomic_store_n(&gate_page->armed, QSAFP_ARMED, __ATOMIC_RELEASE);
}

/* There is no lease before the host has seen the answer; after the end of one no hart runs that could ask. */
void ask_early(uint32_t which)
{
    bool forges = which == IMITATE && WRITABLE(GATE_PAGE), shown;
    uint64_t said;
    do {
        if (forges)
            forge();
        shown = gate_open();
        said = ask(VALIDATE, 0, 0, 0, 0).value;
        shown &= gate_open();
    } while (forges && !shown && said != QSAFP_STATUS_VALID); /* a tick came between */
    while (forges && gate_open())
        ;
    orders->early = TOLD | said;
}

/* A page of its own that looks armed for ever fools only itself: no pin and no other reader follows it. */
static void imitate(void)
{
    static qsafp_gate_page_t mine = {.magic = QSAFP_GATE_MAGIC, .armed = QSAFP_ARMED};
    mine.deadline = clock_now() + 1000000;
    mine.window = UINT64_MAX;
    orders->odd += ask(VALIDATE, (uintptr_t)&mine, 0, 0, 0).value != QSAFP_STATUS_VALID;
    forge();
}

/* Words for a fail-safe between the two that a host sends; no two of these are the same, so that they stop nothing. */
static void interrupt(void)
{
    const uint8_t reasons[2][4] = {{QSAFP_REASON_MANUAL}, {QSAFP_REASON_ANOMALY}};
    for (unsigned i = 0;; i ^= 1)
        orders->answers += frame(4, reasons[i], sizeof reasons[i], answer) > 0;
}

/* No attack: what the figures are taken from. */
static void measure(void)
{
    for (;;) {
        work();
        orders->answers += ask(VALIDATE, 0, 0, 0, 0).err == 0;
    }
}

/* What one hart may not reach the other may not either: each has protection of its own.  One after the other. */
static volatile enum { FIRST, SECOND, BOTH } turn;

static void one(uint32_t which)
{
    static void (*const all[])(void) = {
        [MASK] = mask, [TIMER] = timer, [MEMORY] = memory, [GPIO] = gpio, [FLASH] = flash, [PROTECTION] = protection, [DMA] = dma,
        [JUMP] = jump, [RACE] = race, [POINTERS] = pointers, [BEGIN] = begin, [REPLAY] = replay, [FLOOD] = flood, [SPIN] = spin, [STORM] = storm, [IMITATE] = imitate, [MEASURE] = measure,
        [INTERRUPT] = interrupt,
    };
    if (which < sizeof all / sizeof *all && all[which])
        all[which]();
}

void attack(uint32_t which)
{
    one(which);
    if (which > JUMP)
        return;
    __atomic_store_n(&turn, SECOND, __ATOMIC_RELEASE);
    while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != BOTH)
        ;
}

void help(uint32_t which)
{
    if (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) == SECOND) {
        one(which);
        __atomic_store_n(&turn, BOTH, __ATOMIC_RELEASE);
    }
    if (which == RACE)
        race_along();
    if (which == SPIN)
        spin();
    if (which == FLOOD)
        for (;;)
            orders->answers += ask(VALIDATE, 0, 0, 0, 0).err == 0;
}
