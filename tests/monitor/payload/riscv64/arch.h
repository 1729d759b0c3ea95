/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAYLOAD_ARCH_H
#define PAYLOAD_ARCH_H

#include "monitor_map.h"

#define CODE_START BOOT_BASE
/* What this payload may do with an address of the monitor's by its own rights. */
#define READABLE(at) ((at) == GATE_PAGE || (at) == BOOT_BASE)
#define WRITABLE(at) false

/* tp: what it was started with (start.S). */
static inline unsigned hart_here(void)
{
    uint64_t v;
    __asm__ volatile("mv %0, tp" : "=r"(v));
    return (unsigned)v;
}

static inline void idle(void) {} /* no interrupt of its own would end it */
static inline uint64_t clock_now(void) { return *(const volatile uint64_t *)MTIME; }

#endif
