/* SPDX-License-Identifier: Apache-2.0 */
/* First instructions of every processor core, in the boot stage or in a monitor that stands alone.  The first core brings the image from flash
 * to secure RAM, boots, locks what it copied and releases the second; both hand over with x0 = core and EL3's memory management on. */
#include "map.h"

#define COUNT MONITOR_RAM           /* of cores that left the flash; the monitor's memory is not in use yet */
#define STACK (MONITOR_RAM + MONITOR_RAM_BYTES)
#define CODE_BLOCK (LEVEL2_TABLE + (CODE_AREA >> 21) * 8)
#define READ_ONLY 0x80
#define SCTLR 0x30C5183D            /* caches, alignment of the stack, memory management */
#define WXN 0x80000                 /* nothing that can be written is run */
#define TCR 0x80803520              /* 4 GB in pages of 4 KB, walked through the caches */
#define MAIR 0xFF04                 /* 0: device; 1: write-back */

    .section .text.reset, "ax"
    .balign 2048                    /* vectors, too: those of a stack that EL3 never uses leave room for the way in */
    .globl reset
reset:
    msr daifset, #15
    mrs x0, mpidr_el1
    ands x0, x0, #0xff
    b.ne other
    adr x1, reset
    ldr x2, =reset
    ldr x3, =code_end
1:  ldp x4, x5, [x1], #16
    stp x4, x5, [x2], #16
    cmp x2, x3
    b.lo 1b
    ldr x6, =first
enter:
    ic iallu
    dsb sy
    isb
    br x6

/* The second core sleeps until a secure interrupt from the first: nothing of an earlier life looks like one.  It stays masked. */
other:
    ldr x1, =GICC_BASE
    mov w2, #0xF0
    str w2, [x1, #4]                /* priority mask: open */
    mov w2, #1
    str w2, [x1]                    /* group 0: on */
    ldr x1, =GICD_BASE + 0x200
2:  wfi
    ldr w2, [x1]
    tbz w2, #SGI_POKE, 2b
    ldr x6, =second
    b enter

first:
    ldr x1, =STACK
    mov sp, x1
    bl mmu_tables
    ldr w0, =SCTLR
    bl mmu_on
    ldr x1, =COUNT
    str wzr, [x1]
    bl boot_main
    ldr x1, =MONITOR_BASE
    add x2, x1, #MONITOR_BYTES
    bl clean
    ldr x1, =PAYLOAD_BASE
    add x2, x1, #PAYLOAD_BYTES
    bl clean

    /* SPEC: HW-3 locked before the monitor's first instruction and before the second core runs */
    ldr x1, =CODE_BLOCK
    ldr x2, [x1]
    orr x2, x2, #READ_ONLY
    str x2, [x1]
    bl lock
    ldr x1, =GICD_BASE
    mov w2, #1
    str w2, [x1]
    ldr w2, =(1 << 17 | SGI_POKE)
    str w2, [x1, #0xF00]
    ldr x1, =COUNT
3:  ldr w2, [x1]                    /* nobody runs in flash when it takes its first command */
    cbz w2, 3b
    mov x0, #0
    b hand_over
    .ltorg

    .globl boot_vectors
    .section .text.reset.vectors, "ax"
    .balign 512                     /* at 0x200 */
boot_vectors:
    b trap
clean:                              /* to memory, where no cache is asked */
    dc civac, x1
    add x1, x1, #64
    cmp x1, x2
    b.lo clean
    ret

    .org boot_vectors + 0x80
    b trap
second:
    bl lock
    ldr x1, =GICD_BASE + 0xF10
    mov w2, #1
    strb w2, [x1, #SGI_POKE]        /* this one is over; the monitor sends the next */
    ldr x1, =COUNT
    str w2, [x1]
    mov x0, #1
    b hand_over

    .org boot_vectors + 0x100
    b trap
lock:
    ldr w0, =(SCTLR | WXN)
mmu_on:                             /* w0: SCTLR_EL3 */
    adr x1, reset
    msr vbar_el3, x1
    mrs x1, s3_1_c15_c2_1           /* Cortex-A53: coherent with the other cores before the caches are on */
    orr x1, x1, #0x40
    msr s3_1_c15_c2_1, x1
    mov x1, #MAIR
    msr mair_el3, x1
    ldr w1, =TCR
    msr tcr_el3, x1
    ldr x1, =TABLES
    msr ttbr0_el3, x1
    dsb sy
    tlbi alle3
    ic iallu
    dsb sy
    isb
    msr sctlr_el3, x0
    isb
    ret

    .org boot_vectors + 0x180
trap:
    msr daifset, #15
    mrs x0, mpidr_el1
    ands x0, x0, #0xff
    b.ne boot_stop
    ldr x1, =STACK
    mov sp, x1
    b boot_trap

    .globl boot_stop
boot_stop:
    wfi
    b boot_stop
