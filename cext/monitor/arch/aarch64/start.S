/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's first instructions, vectors of EL3, and the way between monitor and payload on the core they share (HW-15).
 *
 * The image begins with the vectors: those of a stack that EL3 never uses leave room for the start, the others for what all share and for
 * what monitor.ld puts there. */
#include "map.h"

#define STACK0 0x6000
#define STACK_N 0x1000

#define FRAME 176
#define F_ELR 160
#define CONTEXT 96

/* x0: frame, x1: what it is */
    .macro enter kind
    .balign 128
    sub sp, sp, #FRAME
    stp x0, x1, [sp]
    mov w1, #\kind
    b save
    .endm

/* From reset.S, x0 = core. */
    .section .text.start, "ax"
    .balign 2048
    .globl _start, vectors, last_vector
vectors:
_start:
    cbnz x0, second
    ldr x1, =bss_start
    ldr x2, =bss_end
1:  stp xzr, xzr, [x1], #16
    cmp x1, x2
    b.lo 1b
    ldr x1, =stack_0
    mov sp, x1
    b monitor_main

second:
    ldr x1, =stack_0 + 2 * STACK_N
    mov sp, x1
    ldr x1, =GICD_BASE + 0x200
2:  wfi                             /* the first core's interrupt: state is there */
    ldr w2, [x1]
    tbz w2, #SGI_POKE, 2b
    bl core_start
    mov x0, #2
    b core_main

/* uint64_t translate(uintptr_t at, bool write): PAR_EL1.  Page tables of the payload's that lie in no memory abort here; trap() then goes on
 * behind it, with a fault for an answer. */
    .globl translate, untranslated
translate:
    cbnz w1, 1f
    at s1e1r, x0
    b 2f
1:  at s1e1w, x0
2:  isb
    mrs x0, par_el1
    ret
untranslated:
    mov x0, #1
    ret

/* The first switch to the payload returns to here. */
    .globl core_begin
core_begin:
    mov x0, #1
    b core_main
    .ltorg

    .section .text.vectors.0, "ax"
    .balign 512
    enter 0
save:
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    stp x18, x30, [sp, #144]
    mrs x2, elr_el3
    mrs x3, spsr_el3
    stp x2, x3, [sp, #F_ELR]
    mov x0, sp
    bl trap
    b restore

    enter 0
restore:
    ldp x2, x3, [sp, #F_ELR]
    msr elr_el3, x2
    msr spsr_el3, x3
    ldp x18, x30, [sp, #144]
    ldp x16, x17, [sp, #128]
    ldp x14, x15, [sp, #112]
    ldp x12, x13, [sp, #96]
    ldp x10, x11, [sp, #80]
    ldp x8, x9, [sp, #64]
    ldp x6, x7, [sp, #48]
    ldp x4, x5, [sp, #32]
    ldp x2, x3, [sp, #16]
    ldp x0, x1, [sp]
    add sp, sp, #FRAME
    eret


    enter 1                /* FIQ in the monitor */
/* void context_switch(uint64_t *from, uint64_t to): the stack pointers of the two that share the first core. */
    .globl context_switch
context_switch:
    stp x19, x20, [sp, #-CONTEXT]!
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    mov x2, sp
    str x2, [x0]
    mov sp, x1
    ldp x29, x30, [sp, #80]
    ldp x27, x28, [sp, #64]
    ldp x25, x26, [sp, #48]
    ldp x23, x24, [sp, #32]
    ldp x21, x22, [sp, #16]
    ldp x19, x20, [sp], #CONTEXT
    ret

    enter 0
/* To the payload for the first time, with registers from the frame in x0; what lies below its end is this core's stack for traps. */
    .globl core_enter
core_enter:
    mov sp, x0
    .irp n, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29
    mov x\n, xzr
    .endr
    b restore

/* From below, where AArch64 runs at EL1 whatever the payload does (SCR_EL3.RW): nothing comes to the last four vectors. */
    enter 2
    .section .text.vectors.1, "ax"
    enter 2
    .section .text.vectors.2, "ax"
    enter 1
    .section .text.vectors.3, "ax"
    enter 2
last_vector = . - 16

    .section .bss.stacks, "aw", @nobits
    .balign 16
    .globl first_context
    .space STACK0
stack_0:
    .space STACK_N - CONTEXT
first_context:
    .space CONTEXT
    .space STACK_N * (HARTS - 2)
