/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANDOVER_ARCH_H
#define HANDOVER_ARCH_H

#include "machine.h"

enum { STORE_FAULT = 0xA0E }; /* a write, denied by a block, told in the long format */

/* Memory management is on, nothing that can be written is run. */
static uint64_t locked(void)
{
    uint32_t control, wanted = 1u << 19 | 1u;
    __asm__ volatile("mrc p15, 0, %0, c1, c0, 0" : "=r"(control));
    return (control & wanted) == wanted;
}

#endif
