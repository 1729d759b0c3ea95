/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAYLOAD_ARCH_H
#define PAYLOAD_ARCH_H

#include "places.h"

#pragma GCC target("arm") /* its handler steps over instructions of one size */

static inline unsigned hart_here(void)
{
    uint32_t v;
    __asm__ volatile("mrc p15, 0, %0, c0, c0, 5" : "=r"(v));
    return (v & 0xFF) + 1;
}

static inline uint64_t clock_now(void)
{
    uint64_t v;
    __asm__ volatile("mrrc p15, 0, %Q0, %R0, c14" : "=r"(v) : : "memory");
    return v;
}

#endif
