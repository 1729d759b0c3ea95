/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of an ARM processor tell each other; sysreg.h has its registers. */
#ifndef QSAFP_CPU_H
#define QSAFP_CPU_H

#include "monitor.h"

/* Into the room that vectors leave which are never taken (monitor.ld). */
#define BEFORE_VECTORS __attribute__((noinline, section(".text.start.c")))

/* cpu.c of the architecture, beside arch_ticks, arch_alarm, arch_lock, arch_unlock */
unsigned core_here(void);
void alarm_start(void); /* it fires at no time, until it is told one */
/* Where an address of the payload's gets to by its own rights; 0 where it would fault. */
uint64_t place_of(uintptr_t at, bool write);
/* start.S: the answer of AT in PAR, odd if it is a fault. */
uint64_t translate(uintptr_t at, bool write);

/* gic.c */
void gic_start(void);      /* of the whole board */
void gic_core_start(void); /* of this core */
void gic_serve(void);      /* takes one interrupt of the monitor's, if there is one */

/* smc.c: a service call, by its number and arguments as SMCCC has them */
result_t smc(core_t *c, uint32_t number, const uintptr_t arg[4]);

/* trap.c of the architecture: vectors, rights of the payload; before anything else on this core. */
void core_start(void);

#endif
