/* SPDX-License-Identifier: Apache-2.0 */
/* First instructions of every processor core, vectors of Monitor mode and of the secure side, and the way between monitor and payload on
 * the core they share (HW-15).
 *
 * The monitor's loop runs in System mode, all that it does for a core of the payload in Monitor mode; the payload's registers of other
 * modes stay where they are, but for System mode's, which wait on the stack while the loop runs. */
#include "map.h"
#include "sysreg.h"

#define STACK0 0x6000
#define STACK_N 0x1000
#define CONTEXT 48
#define F_SCR 52

    .syntax unified
    .arch armv7-a
    .arch_extension sec
    .arm

    .macro enter kind
    srsdb sp!, #MODE_MON
    push {r0-r12, lr}
    mov r1, #\kind
    .endm

    .section .text.start, "ax"
    .balign 32
    .globl _start, vectors
vectors:
_start:
    b reset
    b own
    b called
    b own
    b own
    b own
    b own
    sub lr, lr, #4                  /* FIQ */
    enter 1
save:
    clrex
    mrc p15, 0, r0, c1, c1, 0
    str r0, [sp, #F_SCR]
    movw r2, #SCR_SECURE
    mcr p15, 0, r2, c1, c1, 0
    isb
    mov r0, sp
    bl trap
restore:
    ldr r0, [sp, #F_SCR]
    mcr p15, 0, r0, c1, c1, 0
    pop {r0-r12, lr}
    rfeia sp!

called:
    enter 0
    b save

own:
    cpsid aif, #MODE_MON
    bl fault

/* From reset, in secure flash: the first core brings the image to secure RAM and goes on there. */
reset:
    cpsid aif, #MODE_SYS
    mrc p15, 0, r0, c0, c0, 5
    ands r0, r0, #0xff
    bne other
    adr r1, _start
    ldr r2, =_start
    ldr r3, =code_end
    bl copy
    ldr r1, =bss_start
    ldr r2, =bss_end
    mov r3, #0
1:  str r3, [r1], #4
    cmp r1, r2
    blo 1b
    mcr p15, 0, r3, c7, c5, 0
    mcr p15, 0, r3, c7, c5, 6
    dsb
    isb
    cps #MODE_MON
    ldr sp, =first_context
    cps #MODE_SYS
    ldr sp, =stack_0
    ldr r1, =GICD_BASE
    mov r2, #1
    str r2, [r1]
    ldr r2, =(1 << 17 | SGI_POKE)
    str r2, [r1, #0xF00]
    ldr r1, =others_in
2:  ldr r2, [r1]                    /* nobody runs in flash when it takes its first command */
    cmp r2, #0
    beq 2b
    ldr r1, =boot_board_start
    blx r1
    ldr r1, =monitor_main
    bx r1

/* The second waits for a secure interrupt from it: nothing of an earlier life looks like one. */
other:
    ldr r1, =GICD_BASE + 0x200
3:  ldr r2, [r1]
    tst r2, #1 << SGI_POKE
    beq 3b
    mov r2, #0
    mcr p15, 0, r2, c7, c5, 0
    mcr p15, 0, r2, c7, c5, 6
    dsb
    isb
    ldr r1, =core_first
    bx r1

copy:
    ldm r1!, {r4-r7}
    stm r2!, {r4-r7}
    cmp r2, r3
    blo copy
    bx lr
    .ltorg

    .text
/* void context_switch(uintptr_t *from, uintptr_t to): the stacks of the two that share the first core, each in its own mode. */
    .globl context_switch
    .type context_switch, %function
context_switch:
    push {r3-r11, lr}
    mrs r2, cpsr
    eor r2, r2, #MODE_MON ^ MODE_SYS
    tst r2, #MODE_MON ^ MODE_SYS
    bne 1f
    str sp, [r0]                    /* from the loop */
    msr cpsr_c, r2
    mov sp, r1
    ldm sp, {sp, lr}^
    nop
    add sp, sp, #8
    pop {r3-r11, pc}
1:  sub sp, sp, #8
    stm sp, {sp, lr}^
    str sp, [r0]
    msr cpsr_c, r2
    mov sp, r1
    pop {r3-r11, pc}

/* To the payload for the first time, with registers from the frame in r0; what lies below its end is this core's stack for traps. */
    .globl core_enter
    .type core_enter, %function
core_enter:
    mov sp, r0
    b restore

/* The first switch to the payload returns to here. */
    .globl core_begin
    .type core_begin, %function
core_begin:
    mov r0, #1
    bl core_main

core_first:
    cps #MODE_MON
    ldr sp, =stack_0 + 2 * STACK_N
    ldr r1, =GICD_BASE + 0xF10
    mov r2, #1
    strb r2, [r1, #SGI_POKE]        /* the first one is over */
    dsb
    ldr r1, =others_in
    str r2, [r1]
    dsb
    ldr r1, =GICD_BASE + 0x200
4:  ldr r2, [r1]                    /* the next one: tables and state are there */
    tst r2, #1 << SGI_POKE
    beq 4b
    bl core_start
    mov r0, #2
    bl core_main
    .ltorg

    .section .bss.others_in, "aw", %nobits
    .balign 4
others_in:
    .space 4

    .section .bss.stacks, "aw", %nobits
    .balign 16
    .globl first_context
    .space STACK0
stack_0:
    .space STACK_N - CONTEXT
first_context:
    .space CONTEXT
    .space STACK_N * (HARTS - 2)
