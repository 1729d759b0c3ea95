/* SPDX-License-Identifier: Apache-2.0 */
/* First instructions of every processor core, in the boot stage or in a monitor that stands alone.  The first core brings the image from flash
 * to secure RAM, boots, locks what it copied and releases the second; both hand over with r0 = core, in System mode of the secure
 * side and with its memory management on. */
#include "map.h"
#include "sysreg.h"

#define COUNT MONITOR_RAM           /* of cores that left the flash; the monitor's memory is not in use yet */
#define STACK (MONITOR_RAM + MONITOR_RAM_BYTES)
#define CODE_BLOCK (LEVEL2_TABLE + (CODE_AREA >> 21) * 8)
#define READ_ONLY 0x80
#define SCTLR 0x00C5187D            /* exceptions in ARM state; caches, branch prediction, memory management */
#define WXN 0x80000                 /* nothing that can be written is run */
#define TTBCR 0x80803500            /* long descriptors: 4 GB in pages of 4 KB, walked through the caches */
#define MAIR 0xFF04                 /* 0: device; 1: write-back */

    .syntax unified
    .arch armv7ve
    .arm

    .section .text.reset, "ax"
    .balign 32
    .globl reset
reset:
    b begin
    .rept 7
    b trap
    .endr

begin:
    cpsid aif, #MODE_SYS
    mrc p15, 0, r0, c0, c0, 5
    ands r0, r0, #0xff
    bne other
    adr r1, reset
    ldr r2, =reset
    ldr r3, =code_end
1:  ldm r1!, {r4-r7}
    stm r2!, {r4-r7}
    cmp r2, r3
    blo 1b
    ldr r6, =first
enter:
    mov r0, #0
    mcr p15, 0, r0, c7, c5, 0
    mcr p15, 0, r0, c7, c5, 6
    dsb
    isb
    bx r6

/* The second core sleeps until a secure interrupt from the first: nothing of an earlier life looks like one.  It stays masked. */
other:
    ldr r1, =GICC_BASE
    mov r2, #0xF0
    str r2, [r1, #4]                /* priority mask: open */
    mov r2, #1
    str r2, [r1]                    /* group 0: on */
    ldr r1, =GICD_BASE + 0x200
2:  wfi
    ldr r2, [r1]
    tst r2, #1 << SGI_POKE
    beq 2b
    ldr r6, =second
    b enter

first:
    ldr sp, =STACK
    bl mmu_tables
    ldr r0, =SCTLR
    bl mmu_on
    ldr r1, =COUNT
    mov r2, #0
    str r2, [r1]
    bl boot_main
    ldr r1, =MONITOR_BASE
    add r2, r1, #MONITOR_BYTES
    bl clean
    ldr r1, =PAYLOAD_BASE
    add r2, r1, #PAYLOAD_BYTES
    bl clean

    /* SPEC: HW-3 locked before the monitor's first instruction and before the second core runs */
    ldr r1, =CODE_BLOCK
    ldr r2, [r1]
    orr r2, r2, #READ_ONLY
    str r2, [r1]
    bl lock
    ldr r1, =GICD_BASE
    mov r2, #1
    str r2, [r1]
    ldr r2, =(1 << 17 | SGI_POKE)
    str r2, [r1, #0xF00]
    ldr r1, =COUNT
3:  ldr r2, [r1]                    /* nobody runs in flash when it takes its first command */
    cmp r2, #0
    beq 3b
    mov r0, #0
    b hand_over

second:
    bl lock
    ldr r1, =GICD_BASE + 0xF10
    mov r2, #1
    strb r2, [r1, #SGI_POKE]        /* this one is over; the monitor sends the next */
    ldr r1, =COUNT
    str r2, [r1]
    mov r0, #1
    b hand_over

clean:                              /* to memory, where no cache is asked */
    mcr p15, 0, r1, c7, c14, 1
    add r1, r1, #64
    cmp r1, r2
    blo clean
    bx lr

lock:
    ldr r0, =(SCTLR | WXN)
mmu_on:                             /* r0: SCTLR */
    ldr r1, =reset
    mcr p15, 0, r1, c12, c0, 0
    mrc p15, 0, r1, c1, c0, 1       /* Cortex-A15: coherent with the other cores before the caches are on */
    orr r1, r1, #0x40
    mcr p15, 0, r1, c1, c0, 1
    ldr r1, =MAIR
    mcr p15, 0, r1, c10, c2, 0
    ldr r1, =TTBCR
    mcr p15, 0, r1, c2, c0, 2
    ldr r1, =TABLES
    mov r2, #0
    mcrr p15, 0, r1, r2, c2
    dsb
    mcr p15, 0, r2, c8, c7, 0
    mcr p15, 0, r2, c7, c5, 0
    mcr p15, 0, r2, c7, c5, 6
    dsb
    isb
    mcr p15, 0, r0, c1, c0, 0
    isb
    bx lr

trap:
    cpsid aif, #MODE_SYS
    mrc p15, 0, r0, c0, c0, 5
    ands r0, r0, #0xff
    bne boot_stop
    ldr sp, =STACK
    bl boot_trap

    .globl boot_stop
    .type boot_stop, %function
boot_stop:
    wfi
    b boot_stop
