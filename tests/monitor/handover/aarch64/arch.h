/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANDOVER_ARCH_H
#define HANDOVER_ARCH_H

#include "machine.h"

enum { STORE_FAULT = 0x25 };

/* Memory management is on, nothing that can be written is run. */
static uint64_t locked(void)
{
    uint64_t control, wanted = 1u << 19 | 1u;
    __asm__ volatile("mrs %0, sctlr_el3" : "=r"(control));
    return (control & wanted) == wanted;
}

#endif
