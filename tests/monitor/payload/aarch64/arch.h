/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAYLOAD_ARCH_H
#define PAYLOAD_ARCH_H

#include "places.h"

static inline unsigned hart_here(void)
{
    uint64_t v;
    __asm__ volatile("mrs %0, mpidr_el1" : "=r"(v));
    return (v & 0xFF) + 1;
}

static inline uint64_t clock_now(void)
{
    uint64_t v;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(v) : : "memory");
    return v;
}

#endif
