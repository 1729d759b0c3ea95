/* SPDX-License-Identifier: Apache-2.0 */
/* A small operating system on two harts: S-mode, no paging.  a0: hart, a1: how often it was started before. */
    .section .text.start, "ax"
    .globl _start
_start:
    la sp, stacks
    slli t0, a0, 12
    add sp, sp, t0
    mv tp, a0
    la t0, on_trap
    csrw stvec, t0
    call payload_main
1:  j 1b

/* What the monitor reflects is counted and stepped over: compressed or not. */
    .balign 4
on_trap:
    addi sp, sp, -32
    sd t0, 0(sp)
    sd t1, 8(sp)
    sd t2, 16(sp)
    la t0, traps
    slli t1, tp, 3
    add t0, t0, t1
    ld t1, 0(t0)
    addi t1, t1, 1
    sd t1, 0(t0)
    csrr t0, sepc
    li t1, 0x80400000
    bltu t0, t1, 3f                 /* it jumped out: the way back is in ra */
    lhu t1, 0(t0)
    andi t1, t1, 3
    li t2, 3
    addi t0, t0, 2
    bne t1, t2, 2f
    addi t0, t0, 2
2:  csrw sepc, t0
    j 4f
3:  csrw sepc, ra
4:  ld t0, 0(sp)
    ld t1, 8(sp)
    ld t2, 16(sp)
    addi sp, sp, 32
    sret

    .section .bss
    .balign 16
stacks: .space 4096 * 5
