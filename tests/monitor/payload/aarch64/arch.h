/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAYLOAD_ARCH_H
#define PAYLOAD_ARCH_H

#include "monitor_map.h"

#define CODE_START BOOT_BASE
/* What this payload may do with an address of the monitor's by its own rights: the copy of the gate page lies in its memory. */
#define READABLE(at) ((at) == GATE_PAGE || (at) == GATE_PAGE + 0x9000)
#define WRITABLE(at) READABLE(at)

static inline uint64_t clock_now(void)
{
    uint64_t v;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(v) : : "memory");
    return v;
}

/* Waits a millisecond for this core's own timer. */
void idle(void);

#endif
