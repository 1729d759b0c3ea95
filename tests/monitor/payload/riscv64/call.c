/* SPDX-License-Identifier: Apache-2.0 */
/* A call of the monitor: an SBI extension. */
#include "os.h"

asked_t ask(uint64_t function, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    register uint64_t a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c, a3 __asm__("a3") = d;
    register uint64_t a6 __asm__("a6") = function, a7 __asm__("a7") = 0x09515341;
    __asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a2), "r"(a3), "r"(a6), "r"(a7) : "memory");
    return (asked_t){(int64_t)a0, a1};
}
