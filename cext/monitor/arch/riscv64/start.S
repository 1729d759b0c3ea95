/* SPDX-License-Identifier: Apache-2.0 */
/* First instructions of every hart, trap vector, copies under the payload's rights (HW-15). */
#include "map.h"

#define STACK0 0x6000
#define STACK_N 0x800
#define MPRV 0x20000
#define MSIE 8

#define FRAME 160
#define F_SP 128
#define F_EPC 136
#define F_STATUS 144

    .section .text.start, "ax"
    .globl _start
_start:
    csrw mie, zero
    csrw mscratch, zero
    csrr a0, mhartid
    li t0, HARTS
1:  bgeu a0, t0, 1b
    la t0, trap_vector
    csrw mtvec, t0
    la sp, stack0_top
    bnez a0, secondary
    la t0, bss_start
    la t1, bss_end
2:  sd zero, 0(t0)
    addi t0, t0, 8
    bltu t0, t1, 2b
    call monitor_main

secondary:
    li t0, STACK_N
    mul t0, t0, a0
    add sp, sp, t0
    li t0, MSIE
    csrw mie, t0
    la t0, monitor_ready
    li t1, 0x52454459
3:  wfi                             /* poked once it is so */
    lw t2, 0(t0)
    bne t1, t2, 3b
    fence
    call core_main

    .text
    .balign 4
    .globl trap_vector
trap_vector:
    csrrw sp, mscratch, sp
    bnez sp, 1f
    csrrw sp, mscratch, sp          /* from the monitor itself: its own stack */
1:  addi sp, sp, -FRAME
    sd ra, 0(sp)
    sd t0, 8(sp)
    sd t1, 16(sp)
    sd t2, 24(sp)
    sd a0, 32(sp)
    sd a1, 40(sp)
    sd a2, 48(sp)
    sd a3, 56(sp)
    sd a4, 64(sp)
    sd a5, 72(sp)
    sd a6, 80(sp)
    sd a7, 88(sp)
    sd t3, 96(sp)
    sd t4, 104(sp)
    sd t5, 112(sp)
    sd t6, 120(sp)
    csrr t0, mscratch
    csrw mscratch, zero
    csrr t1, mepc
    csrr t2, mstatus
    sd t0, F_SP(sp)
    sd t1, F_EPC(sp)
    sd t2, F_STATUS(sp)
    csrr a1, mcause
    bgez a1, 3f
    slli t0, a1, 1                  /* the sign says that it is an interrupt */
    addi t0, t0, -2 * 7
    bnez t0, 3f
    call monitor_timer
    j 4f
3:  mv a0, sp
    call trap
4:
    ld t1, F_EPC(sp)
    ld t2, F_STATUS(sp)
    csrw mepc, t1
    csrw mstatus, t2
    srli t2, t2, 11
    andi t2, t2, 3
    li t1, 3
    addi t0, sp, FRAME
    beq t1, t2, 2f
    csrw mscratch, t0
    ld t0, F_SP(sp)                 /* to the payload: its stack */
2:  ld ra, 0(sp)
    ld t1, 16(sp)
    ld t2, 24(sp)
    ld a0, 32(sp)
    ld a1, 40(sp)
    ld a2, 48(sp)
    ld a3, 56(sp)
    ld a4, 64(sp)
    ld a5, 72(sp)
    ld a6, 80(sp)
    ld a7, 88(sp)
    ld t3, 96(sp)
    ld t4, 104(sp)
    ld t5, 112(sp)
    ld t6, 120(sp)
    sd t0, F_SP(sp)
    ld t0, 8(sp)
    ld sp, F_SP(sp)
    mret

/* To the payload for the first time, with registers from the frame in a0; what lies below its end is this hart's stack for traps. */
    .globl core_enter
core_enter:
    mv sp, a0
    ld t1, F_EPC(sp)
    ld t2, F_STATUS(sp)
    csrw mepc, t1
    csrw mstatus, t2
    addi t0, sp, FRAME
    csrw mscratch, t0
    li t0, 0
    .irp r, gp, tp, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11
    li \r, 0
    .endr
    j 2b

/* int arch_copy_in(void *to, uint64_t from, size_t n), arch_copy_out(uint64_t to, const void *from, size_t n) */
    .globl arch_copy_in, arch_copy_out, copy_load, copy_store, copy_fault
arch_copy_in:
    li t0, MPRV
    add a2, a2, a0
1:  bgeu a0, a2, copy_done
    csrs mstatus, t0
copy_load:
    lbu t1, 0(a1)
    csrc mstatus, t0
    sb t1, 0(a0)
    addi a0, a0, 1
    addi a1, a1, 1
    j 1b

arch_copy_out:
    li t0, MPRV
    add a2, a2, a1
1:  bgeu a1, a2, copy_done
    lbu t1, 0(a1)
    csrs mstatus, t0
copy_store:
    sb t1, 0(a0)
    csrc mstatus, t0
    addi a0, a0, 1
    addi a1, a1, 1
    j 1b

copy_done:
    li a0, 0
    ret
copy_fault:
    li a0, -1
    ret

    .section .bss.stacks, "aw", @nobits
    .balign 16
    .space STACK0
stack0_top:
    .space STACK_N * (HARTS - 1)
