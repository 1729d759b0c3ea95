/* SPDX-License-Identifier: Apache-2.0 */
/* Registers and modes that a non-secure payload may try. */
#include "reach.h"

void mask(void)
{
    __asm__ volatile("cpsid aif");
}

/* Of the timer's registers it has those of its own world alone. */
void secure_timer(void)
{
    TRY("mcr p15, 0, %0, c14, c0, 0"); /* CNTFRQ */
    __asm__ volatile("mcr p15, 0, %0, c14, c2, 1; mcr p15, 0, %0, c14, c3, 1" : : "r"(0));
}

static void enter_monitor_mode(void)
{
    uint32_t was, is;
    __asm__ volatile("mrs %0, cpsr; cps #0x16; mrs %1, cpsr; msr cpsr_c, %0" : "=&r"(was), "=&r"(is) : : "memory");
    orders->moved += (was & 31) != (is & 31);
}

void secure_registers(void)
{
    TRY("mcr p15, 0, %0, c1, c1, 0");  /* SCR */
    TRY("mcr p15, 0, %0, c1, c1, 1");  /* SDER */
    TRY("mcr p15, 0, %0, c1, c1, 2");  /* NSACR */
    TRY("mcr p15, 0, %0, c12, c0, 1"); /* MVBAR */
    TRY("mcr p15, 0, %0, c7, c8, 4");  /* ATS12NSOPR */
    enter_monitor_mode();
}
