/* SPDX-License-Identifier: Apache-2.0 */
/* Registers that a payload at non-secure EL1 may try. */
#include "reach.h"

void mask(void)
{
    __asm__ volatile("msr daifset, #15");
}

void secure_timer(void)
{
    TRY("msr cntps_ctl_el1, %0");
    TRY("msr cntps_cval_el1, %0");
    TRY("msr cntfrq_el0, %0");
    __asm__ volatile("msr cntp_ctl_el0, xzr; msr cntv_ctl_el0, xzr");
}

/* Registers of EL3 do not exist here; debug and counters belong to the monitor and are reported. */
void secure_registers(void)
{
    TRY("msr scr_el3, %0");
    TRY("msr vbar_el3, %0");
    TRY("msr sctlr_el3, %0");
    TRY("msr ttbr0_el3, %0");
    TRY("msr elr_el3, %0");
    TRY("msr cptr_el3, %0");
    TRY("msr mdcr_el3, %0");
    TRY("msr sp_el1, %0");
    TRY("msr pmcr_el0, %0");
    TRY("msr mdscr_el1, %0");
    TRY("msr osdlr_el1, %0");
}
