/* SPDX-License-Identifier: Apache-2.0 */
/* A small operating system on two cores: Supervisor mode, flat map.  r0: core, from 1; r1: how often it was started before.  Attacks that have
 * bit 2 run with long descriptors, all else with short ones: the monitor reads what either translates to. */
#define ORDERS 0x407FF000
    .syntax unified
    .arch armv7-a
    .arm

    .section .text.start, "ax"
    .globl _start
_start:
    ldr r2, =stacks
    add sp, r2, r0, lsl #12
    ldr r2, =vectors
    mcr p15, 0, r2, c12, c0, 0
    ldr r2, =ORDERS
    ldr r2, [r2]
    tst r2, #4
    bne long
    mov r2, #0
    mcr p15, 0, r2, c2, c0, 2
    mov r2, #1
    mcr p15, 0, r2, c3, c0, 0
    ldr r2, =sections + 0x4A        /* tables are write-back, too */
    mcr p15, 0, r2, c2, c0, 0
    b mapped
long:
    ldr r2, =0xFF04                 /* 0: device; 1: write-back */
    mcr p15, 0, r2, c10, c2, 0
    ldr r2, =0x80803500             /* 4 GB from TTBR0 alone */
    mcr p15, 0, r2, c2, c0, 2
    ldr r2, =level1
    mov r3, #0
    mcrr p15, 0, r2, r3, c2
mapped:
    mcr p15, 0, r2, c8, c7, 0
    dsb
    isb
    ldr r2, =0x00C5187D             /* M, C, Z, I */
    mcr p15, 0, r2, c1, c0, 0
    isb
    bl payload_main
1:  b 1b

/* What the processor reports is counted and stepped over. */
    .macro report back
    sub lr, lr, #\back
    srsdb sp!, #0x13
    cps #0x13
    push {r0-r3}
    b on_trap
    .endm

    .balign 32
vectors:
    b .
    b on_undefined
    b .
    b on_fetch
    b on_data
    b .
    b .
    b .
on_undefined:
    report 4
on_fetch:
    report 4
on_data:
    report 8

on_trap:
    ldr r0, =traps + 8
    mrc p15, 0, r1, c0, c0, 5
    and r1, r1, #0xff
    add r0, r0, r1, lsl #3
    ldr r1, [r0]
    add r1, r1, #1
    str r1, [r0]
    ldr r0, [sp, #16]
    ldr r1, =_start
    cmp r0, r1
    addhs r0, r0, #4
    movlo r0, lr                    /* it jumped out: the way back */
    str r0, [sp, #16]
    pop {r0-r3}
    rfeia sp!

/* First GB: devices, and all that is not the payload's; second: its memory; third: the same, to be read alone; fourth: tables that lie where
 * the payload's bus has no memory. */
    .section .rodata
    .balign 16384
sections:
    .set at, 0
    .rept 1024
    .word at | 0x00406
    .set at, at + 0x100000
    .endr
    .rept 1024
    .word at | 0x1140E
    .set at, at + 0x100000
    .endr
    .set at, 0x40000000
    .rept 1024
    .word at | 0x1940E
    .set at, at + 0x100000
    .endr
    .rept 1024
    .word 0x0E000000 | 1
    .endr
level1:
    .quad 0x00000000 | 0x401
    .quad 0x40000000 | 0x705
    .quad 0x40000000 | 0x785
    .quad 0x0E000000 | 3

    .section .bss
    .balign 16
stacks: .space 4096 * 4
