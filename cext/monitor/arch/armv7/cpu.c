/* SPDX-License-Identifier: Apache-2.0 */
/* Clock, mask, addresses: what the secure side does by its own registers (HW-4, HW-15).  SCR.NS is 0 whenever C runs, so that of
 * registers that both worlds have it is the secure one that is meant. */
#include "cpu.h"
#include "sysreg.h"

unsigned core_here(void) { return CP_READ(MPIDR) & 0xFF; }

uint64_t arch_ticks(void)
{
    ISB();
    return CP_READ64(CNTPCT_64);
}

void arch_alarm(uint64_t ticks)
{
    CP_WRITE64(CNTP_CVAL_64, ticks);
    ISB();
}

void alarm_start(void)
{
    CP_WRITE(CNTFRQ, 1000000000u / NS_PER_TICK);
    arch_alarm(UINT64_MAX);
    CP_WRITE(CNTP_CTL, 1);
}

bool arch_lock(void)
{
    uint32_t was;
    __asm__ volatile("mrs %0, cpsr; cpsid f" : "=r"(was) : : "memory");
    return !(was & PSR_F);
}

void arch_unlock(bool was)
{
    if (was)
        __asm__ volatile("cpsie f" : : : "memory");
}

/* The answer has the form of the payload's own page tables: bit 11 tells which.  A supersection is refused. */
uint64_t place_of(uintptr_t at, bool write)
{
    enum { FAULT = 1, SUPERSECTION = 2, LONG = 1 << 11 };
    uint64_t par = translate(at, write), frame = par & LONG ? par & 0xFFFFFFF000u : par & 0xFFFFF000u;
    return par & FAULT || (par & (SUPERSECTION | LONG)) == SUPERSECTION ? 0 : frame | (at & 0xFFF);
}
