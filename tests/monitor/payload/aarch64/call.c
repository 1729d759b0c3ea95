/* SPDX-License-Identifier: Apache-2.0 */
/* A call of the monitor: a fast SMC among the OEM's, and the payload's own timer. */
#include "reach.h"

asked_t ask(uint64_t function, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    register uint64_t x0 __asm__("x0") = 0xC3000000u + function, x1 __asm__("x1") = a, x2 __asm__("x2") = b;
    register uint64_t x3 __asm__("x3") = c, x4 __asm__("x4") = d;
    __asm__ volatile("smc #0" : "+r"(x0), "+r"(x1) : "r"(x2), "r"(x3), "r"(x4) : "memory");
    return (asked_t){(int64_t)x0, x1};
}

void sleep_for(uint32_t ticks)
{
    __asm__ volatile("msr cntv_tval_el0, %0; msr cntv_ctl_el0, %1; isb; wfi" : : "r"((uint64_t)ticks), "r"(1ull) : "memory");
}
