/* SPDX-License-Identifier: Apache-2.0 */
/* Works as a payload should: a check per batch, a checkpoint, a status now and then; then attacks as it was told to. */
#include "os.h"

#include <string.h>

volatile uint64_t traps[HARTS];
_Alignas(4096) volatile uint8_t region[4096];
static volatile uint32_t warm;

void payload_main(uintptr_t hart, uintptr_t again);

/* The fast check: the gate page and the clock, wherever this payload may read them. */
__attribute__((noinline)) bool gate_open(void)
{
    uint32_t armed = __atomic_load_n(&gate_page->armed, __ATOMIC_ACQUIRE);
    return armed == QSAFP_ARMED && qsafp_gate_open(armed, gate_page->deadline, gate_page->window, clock_now());
}

static uint16_t crc16(const uint8_t *p, size_t n)
{
    uint32_t crc = 0xFFFF;
    for (size_t i = 0; i < n; i++) {
        crc ^= (uint32_t)p[i] << 8;
        for (int b = 0; b < 8; b++)
            crc = crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1;
        crc &= 0xFFFF;
    }
    return (uint16_t)crc;
}

int64_t frame(uint8_t opcode, const void *payload, size_t n, uint8_t *answer)
{
    static uint8_t tag;
    uint8_t f[4 + 1024 + 2] = {++tag, opcode, (uint8_t)n, (uint8_t)(n >> 8)};
    memcpy(f + 4, payload, n);
    uint16_t crc = crc16(f, 4 + n);
    memcpy(f + 4 + n, &crc, 2);
    asked_t r = ask(FRAME, (uintptr_t)f, 4 + n + 2, (uintptr_t)answer, 1031);
    return r.err ? r.err : (int64_t)r.value;
}

void work(void)
{
    if (gate_open()) {
        orders->batches++;
        region[orders->batches % sizeof region]++;
    } else {
        orders->refused++;
        idle();
    }
}

/* Which lease it was. */
static uint64_t work_under_a_lease(uint64_t batches)
{
    for (uint64_t n = 0; n < batches || !gate_page->serial; n += gate_open())
        work();
    return gate_page->serial;
}

void payload_main(uintptr_t hart, uintptr_t again)
{
    __atomic_fetch_add(&orders->started, hart == 1 ? 1 : 1ull << 32, __ATOMIC_SEQ_CST);
    if (hart != 1)
        for (;;) {
            idle();
            if (warm && orders->attack)
                help(orders->attack);
        }
    if (!again) {
        memset((void *)region, 0x11, sizeof region);
        (void)ask(CHECKPOINT, (uintptr_t)region, sizeof region, 0, 0);
        ask_early(orders->attack);
    }
    uint64_t serial = work_under_a_lease(2000);
    if (!again) {
        orders->under = TOLD | ask(VALIDATE, 0, 0, 0, 0).value;
        while (orders->renews && gate_page->serial == serial)
            work();
    }
    warm = 1;
    if (orders->attack && !again)
        attack(orders->attack);
    orders->finished++;
    for (;;)
        work();
}
