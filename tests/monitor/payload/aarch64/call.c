/* SPDX-License-Identifier: Apache-2.0 */
/* A call of the monitor: a fast SMC among the OEM's; and what the payload does with its own timer and interrupts. */
#include "os.h"

asked_t ask(uint64_t function, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    register uint64_t x0 __asm__("x0") = 0xC3000000u + function, x1 __asm__("x1") = a, x2 __asm__("x2") = b;
    register uint64_t x3 __asm__("x3") = c, x4 __asm__("x4") = d;
    __asm__ volatile("smc #0" : "+r"(x0), "+r"(x1) : "r"(x2), "r"(x3), "r"(x4) : "memory");
    return (asked_t){(int64_t)x0, x1};
}

enum { MY_TIMER = 27, MS = 62500 };

void idle(void)
{
    *(volatile uint32_t *)GICD_BASE = 1;
    *(volatile uint32_t *)(GICD_BASE + 0x100) = 1u << MY_TIMER;
    *(volatile uint32_t *)(GICC_BASE + 4) = 0xFF;
    *(volatile uint32_t *)GICC_BASE = 1;
    __asm__ volatile("msr cntv_tval_el0, %0; msr cntv_ctl_el0, %1; isb; wfi" : : "r"((uint64_t)MS), "r"(1ull) : "memory");
}
