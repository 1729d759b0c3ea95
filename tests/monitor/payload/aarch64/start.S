/* SPDX-License-Identifier: Apache-2.0 */
/* A small operating system on two cores: EL1, flat map.  x0: core, from 1; x1: how often it was started before. */
    .section .text.start, "ax"
    .globl _start
_start:
    ldr x2, =stacks
    add x2, x2, x0, lsl #12
    mov sp, x2
    ldr x2, =vectors
    msr vbar_el1, x2
    ldr x2, =0xFF04                 /* 0: device; 1: write-back */
    msr mair_el1, x2
    ldr x2, =0x80803520             /* 4 GB from TTBR0 alone */
    msr tcr_el1, x2
    ldr x2, =level1
    msr ttbr0_el1, x2
    dsb sy
    tlbi vmalle1
    dsb sy
    isb
    ldr x2, =0x30D0180D             /* M, C, SA, I */
    msr sctlr_el1, x2
    isb
    bl payload_main
1:  b 1b

/* What the processor reports is counted and stepped over. */
    .balign 2048
vectors:
    .rept 16
    .balign 128
    b on_trap
    .endr

on_trap:
    stp x0, x1, [sp, #-32]!
    stp x2, x3, [sp, #16]
    ldr x0, =traps + 8
    mrs x1, mpidr_el1
    and x1, x1, #0xff
    add x0, x0, x1, lsl #3
    ldr x1, [x0]
    add x1, x1, #1
    str x1, [x0]
    mrs x0, elr_el1
    ldr x2, =_start
    cmp x0, x2
    b.lo 2f                         /* it jumped out: the way back is in x30 */
    add x0, x0, #4
    b 3f
2:  mov x0, x30
3:  msr elr_el1, x0
    ldp x2, x3, [sp, #16]
    ldp x0, x1, [sp], #32
    eret

/* First GB: devices, and all that is not the payload's; second: its memory; third: the same, to be read alone; fourth: tables that lie where
 * the payload's bus has no memory. */
    .section .rodata
    .balign 4096
level1:
    .quad 0x00000000 | 0x401
    .quad 0x40000000 | 0x705
    .quad 0x40000000 | 0x785
    .quad 0x0E000000 | 3

    .section .bss
    .balign 16
stacks: .space 4096 * 4
