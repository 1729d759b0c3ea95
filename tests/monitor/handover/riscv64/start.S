/* SPDX-License-Identifier: Apache-2.0 */
#include "map.h"

    .section .text.start, "ax"
    .globl _start
_start:
    la t0, trapped
    csrw mtvec, t0
    li sp, MONITOR_RAM + MONITOR_RAM_BYTES
    slli t0, a0, 12
    sub sp, sp, t0
    beqz a0, 1f
    j other_hart
1:  li t0, 0x10000 /* hart 0 signs and verifies: below the stacks of the others */
    sub sp, sp, t0
    j first_hart

/* uint64_t try_store(volatile uint32_t *p): cause of the trap that storing to *p took, 0 if it took none */
    .globl try_store
try_store:
    csrw mscratch, zero
    .option norvc
    lw t0, 0(a0)
    sw t0, 0(a0)
    .option rvc
    csrr a0, mscratch
    ret

    .balign 4
trapped: /* the store is skipped */
    csrr t1, mcause
    csrw mscratch, t1
    csrr t0, mepc
    addi t0, t0, 4
    csrw mepc, t0
    mret
