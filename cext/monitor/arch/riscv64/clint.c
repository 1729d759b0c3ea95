/* SPDX-License-Identifier: Apache-2.0 */
/* Clock, timer and interrupts between harts: the CLINT (HW-4). */
#include "csr.h"
#include "monitor.h"
#include "protect.h"

static volatile uint64_t *reg64(uint64_t at) { return (volatile uint64_t *)at; }
static volatile uint32_t *reg32(uint64_t at) { return (volatile uint32_t *)at; }

uint64_t arch_ticks(void) { return *reg64(MTIME); }
void arch_alarm(uint64_t ticks) { *reg64(CLINT_BASE + 0x4000) = ticks; }
void arch_unpoke(unsigned core) { *reg32(CLINT_BASE + 4u * core) = 0; }
void arch_wait(void) { __asm__ volatile("wfi" : : : "memory"); }
void arch_yield(void) { __asm__ volatile("" : : : "memory"); }

void arch_poke(unsigned core)
{
    __asm__ volatile("fence w, o" : : : "memory"); /* it sees what we wrote before it sees us */
    *reg32(CLINT_BASE + 4u * core) = 1;
}

void arch_halt(void)
{
    for (;;)
        arch_wait();
}

bool arch_lock(void)
{
    uint64_t was;
    __asm__ volatile("csrrci %0, mstatus, 8" : "=r"(was) : : "memory");
    return was & STATUS_MIE;
}

void arch_unlock(bool was)
{
    if (was)
        CSR_SET(mstatus, STATUS_MIE);
}

void arch_start(void)
{
    protect();
    arch_alarm(UINT64_MAX);
    board_irq_start();
    CSR_WRITE(mie, 1u << IRQ_TIMER);
    CSR_SET(mstatus, STATUS_MIE);
}

/* A poke or a byte ends it, though neither is ever taken as an interrupt. */
void arch_wait_line(void)
{
    const uint64_t also = 1u << IRQ_SOFTWARE | 1u << IRQ_EXTERNAL;
    CSR_SET(mie, also);
    arch_wait();
    CSR_CLEAR(mie, also);
    arch_unpoke(0);
    board_irq_done();
}
