/* SPDX-License-Identifier: Apache-2.0 */
#include "map.h"

    .section .text.start, "ax"
    .balign 2048
    .globl _start
vectors:
_start:
    adr x2, vectors
    msr vbar_el3, x2
    isb
    ldr x2, =MONITOR_RAM + MONITOR_RAM_BYTES
    cbz x0, 1f
    mov sp, x2
    b other_hart
1:  sub x2, x2, #0x1000
    mov sp, x2
    b first_hart

    .org vectors + 0x200 /* the store is skipped */
    mrs x0, esr_el3
    lsr x0, x0, #26
    mrs x1, elr_el3
    add x1, x1, #4
    msr elr_el3, x1
    eret

/* uint64_t try_store(volatile uint32_t *p) */
    .globl try_store
try_store:
    mov x2, x0
    mov x0, #0
    ldr w1, [x2]
    str w1, [x2]
    ret
