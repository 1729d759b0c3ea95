/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's first instructions, vectors of Monitor mode and of the secure side, and the way between monitor and payload on the core
 * they share (HW-15).
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
    b begin
    b own
    b called
    b own
    b aborted
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

/* uint64_t translate(uintptr_t at, bool write): PAR.  Page tables of the payload's that lie in no memory abort here; it then answers a fault. */
    .globl translate
    .type translate, %function
translate:
    cmp r1, #0
    mcreq p15, 0, r0, c7, c8, 4     /* ATS12NSOPR */
    mcrne p15, 0, r0, c7, c8, 5     /* ATS12NSOPW */
    isb
    mrrc p15, 0, r0, r1, c7         /* PAR */
    bx lr
translated:

aborted:
    adr r2, translate + 8           /* lr is 8 behind what aborted */
    sub r2, lr, r2
    cmp r2, #translated - translate
    cpsid aif, #MODE_MON
    movlo r0, #1
    movlo r1, #0
    bxlo lr
own:
    cpsid aif, #MODE_MON
    bl fault

/* From reset.S, r0 = core. */
begin:
    cps #MODE_MON
    cmp r0, #0
    bne second
    ldr r1, =bss_start
    ldr r2, =bss_end
    mov r3, #0
1:  str r3, [r1], #4
    cmp r1, r2
    blo 1b
    ldr sp, =first_context
    cps #MODE_SYS
    ldr sp, =stack_0
    bl monitor_main

second:
    ldr sp, =stack_0 + 2 * STACK_N
    ldr r1, =GICD_BASE + 0x200
2:  wfi                             /* the first core's interrupt: state is there */
    ldr r2, [r1]
    tst r2, #1 << SGI_POKE
    beq 2b
    bl core_start
    mov r0, #2
    bl core_main

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
    .ltorg

    .section .bss.stacks, "aw", %nobits
    .balign 16
    .globl first_context
    .space STACK0
stack_0:
    .space STACK_N - CONTEXT
first_context:
    .space CONTEXT
    .space STACK_N * (HARTS - 2)
