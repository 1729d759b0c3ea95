/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this architecture tell each other. */
#ifndef QSAFP_CPU_H
#define QSAFP_CPU_H

#include <stdint.h>

/* mmu.c: tables once, on the first core; then on each. */
void mmu_tables(void);
void mmu_on(void);

/* gic.c */
void gic_start(void);      /* of the whole board */
void gic_core_start(void); /* of this core */
void gic_serve(void);      /* takes one interrupt of the monitor's, if there is one */

/* trap.c: vectors, rights of the lower levels; before anything else on this core. */
void core_start(void);

#endif
