/* SPDX-License-Identifier: Apache-2.0 */
/* Clock, mask, addresses: what EL3 does by its own registers (HW-4, HW-15). */
#include "cpu.h"
#include "sysreg.h"

unsigned core_here(void) { return SYS_READ(mpidr_el1) & 0xFF; }

uint64_t arch_ticks(void)
{
    ISB();
    return SYS_READ(cntpct_el0);
}

void arch_alarm(uint64_t ticks)
{
    SYS_WRITE(cntps_cval_el1, ticks);
    ISB();
}

void alarm_start(void)
{
    SYS_WRITE(cntfrq_el0, 1000000000u / NS_PER_TICK);
    arch_alarm(UINT64_MAX);
    SYS_WRITE(cntps_ctl_el1, 1);
}

bool arch_lock(void)
{
    uint64_t was = SYS_READ(daif);
    __asm__ volatile("msr daifset, #1" : : : "memory");
    return !(was & SPSR_F);
}

void arch_unlock(bool was)
{
    if (was)
        __asm__ volatile("msr daifclr, #1" : : : "memory");
}

uint64_t place_of(uintptr_t at, bool write)
{
    uint64_t kept = SYS_READ(par_el1), par = translate(at, write);
    SYS_WRITE(par_el1, kept);
    return par & 1 ? 0 : (par & 0xFFFFFFFFF000u) | (at & 0xFFF);
}
