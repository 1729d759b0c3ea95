/* SPDX-License-Identifier: Apache-2.0 */
/* A pin of the FU540 is moved under the monitor's lock: a deadline that comes at any moment before that is not undone (HW-13). */
#include <assert.h>
#include <stdio.h>

/* A board of this test's own, whose registers are memory. */
#define HIFIVE_UNLEASHED_MONITOR_MAP_H
#include <stdint.h>
static uint8_t gpio[0x40], other[0x1000];
#define HARTS 3
#define PIN_LEASE_VALID 0
#define PIN_FAILSAFE 1
#define PIN_VALIDATOR_REQ 2
#define PIN_LEASE_RENEW 5
#define CORE_HZ 1000000000u
#define GPIO_BASE ((uintptr_t)gpio)
#define UART0_BASE ((uintptr_t)other)
#define PLIC_BASE ((uintptr_t)other)
#define QSPI0_BASE ((uintptr_t)other)

#include "../../board_ports/hifive_unleashed/monitor_board.c"

enum { VALID = 1 << PIN_LEASE_VALID, FAILSAFE = 1 << PIN_FAILSAFE, REQ = 1 << PIN_VALIDATOR_REQ };
static int held;

/* The deadline's interrupt is taken at the last moment that lets it. */
bool arch_lock(void)
{
    uint32_t *out = (uint32_t *)(void *)(gpio + OUTPUT_VAL);
    *out = (*out & ~(uint32_t)VALID) | FAILSAFE;
    held++;
    return true;
}

void arch_unlock(bool was)
{
    assert(was && held == 1);
    held--;
}

int main(void)
{
    const uint32_t *out = (const uint32_t *)(const void *)(gpio + OUTPUT_VAL);
    memset(gpio, 0, sizeof gpio);
    gpio[OUTPUT_VAL] = VALID;
    board_pin(PIN_VALIDATOR_REQ, 1);
    assert(*out == (REQ | FAILSAFE) && !held);
    board_pin(PIN_VALIDATOR_REQ, 0);
    assert(*out == FAILSAFE && !held);
    printf("test_monitor_pins: 2 passed, 0 failed\n");
    return 0;
}
