/* SPDX-License-Identifier: Apache-2.0 */
/* First instruction of every hart.  Hart 0 boots; the others wait until it has verified and released them. */
#include "map.h"

#define LOCKED_READ_EXECUTE 0x9D /* L, NAPOT, X, R */
#define REGION_BYTES (BOOT_BYTES + MONITOR_BYTES)
#define MSIE 8
#define ENTRY_OFFSET 24 /* of the monitor's entry in the table; boot.c asserts it */

    .section .text.start, "ax"
    .globl _start
_start:
    csrw mie, zero
    csrw mstatus, zero
    la t0, trap
    csrw mtvec, t0
    csrr a0, mhartid
    bnez a0, wait
    li sp, MONITOR_RAM + MONITOR_RAM_BYTES
    call boot_main
    fence rw, rw

    /* SPEC: HW-3 locked before the monitor's first instruction and before any other hart runs */
    jal s0, lock
    li t0, CLINT_BASE
    li t1, 1
    li t2, HARTS
release:
    slli t3, t1, 2
    add t3, t3, t0
    li t4, 1
    sw t4, 0(t3)
    addi t1, t1, 1
    bne t1, t2, release
    li a0, 0
    j hand_over

wait:
    li t0, MSIE
    csrw mie, t0
1:  wfi
    csrr t0, mip
    andi t0, t0, MSIE
    beqz t0, 1b
    csrw mie, zero
    li t0, CLINT_BASE
    slli t1, a0, 2
    add t0, t0, t1
    sw zero, 0(t0)
    jal s0, lock

hand_over:
    li a1, BOOT_TABLE
    ld t0, ENTRY_OFFSET(a1)
    fence.i
    jr t0

lock: /* returns through s0; a hart that does not take the lock runs nothing */
    li t0, (BOOT_BASE >> 2) | ((REGION_BYTES >> 3) - 1)
    csrw pmpaddr0, t0
    li t1, LOCKED_READ_EXECUTE
    csrw pmpcfg0, t1
    csrr t2, pmpcfg0
    bne t1, t2, trap
    csrr t2, pmpaddr0
    bne t0, t2, trap
    jr s0

    .balign 4
trap:
    csrw mie, zero
    csrr a0, mhartid
    bnez a0, boot_stop
    li sp, MONITOR_RAM + MONITOR_RAM_BYTES
    j boot_trap

    .globl boot_stop
boot_stop:
    csrw mie, zero
1:  wfi
    j 1b
