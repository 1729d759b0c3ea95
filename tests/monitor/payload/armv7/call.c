/* SPDX-License-Identifier: Apache-2.0 */
/* A call of the monitor: a fast SMC among the OEM's, and the payload's own timer. */
#include "reach.h"

asked_t ask(uint64_t function, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    register uint32_t r0 __asm__("r0") = 0x83000000u + (uint32_t)function, r1 __asm__("r1") = (uint32_t)a, r2 __asm__("r2") = (uint32_t)b;
    register uint32_t r3 __asm__("r3") = (uint32_t)c, r4 __asm__("r4") = (uint32_t)d;
    __asm__ volatile(".arch_extension sec\n\tsmc #0" : "+r"(r0), "+r"(r1) : "r"(r2), "r"(r3), "r"(r4) : "memory");
    return (asked_t){(int32_t)r0, r1};
}

void sleep_for(uint32_t ticks)
{
    __asm__ volatile("mcr p15, 0, %0, c14, c3, 0; mcr p15, 0, %1, c14, c3, 1; isb; wfi" : : "r"(ticks), "r"(1) : "memory");
}
