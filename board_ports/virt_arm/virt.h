/* SPDX-License-Identifier: Apache-2.0 */
/* Where things lie on QEMU's virt machine with a secure world, for C, assembly and linker scripts alike: numbers alone; the same
 * for each processor that it is given. */
#ifndef VIRT_ARM_H
#define VIRT_ARM_H

/* Secure memory: code and page tables in the first 2 MB, which nothing writes once they are there; data follows close behind, so
 * that code reaches it in one instruction. */
#define CODE_AREA 0x0E000000
#define CODE_AREA_BYTES 0x200000
#define TABLES 0x0E1EEFC0 /* four entries of 1 GB, then 512 of 2 MB */
#define LEVEL2_TABLE 0x0E1EF000
#define TABLES_BYTES 0x1040
#define BOOT_BASE 0x0E1F0000
#define BOOT_BYTES 0x8000
#define BOOT_TABLE 0x0E1F7E00
#define MONITOR_BASE 0x0E1F8000 /* load address of every monitor image; at most MONITOR_BYTES */
#define MONITOR_BYTES 0x8000
#define SECURE_RAM 0x0E200000
#define SECURE_RAM_BYTES 0xE00000
#define MONITOR_RAM 0x0E200000 /* the boot stage's stack until the hand-over */
#define MONITOR_RAM_BYTES 0x30000
#define PAYLOAD_BASE 0x40400000 /* load address of every payload image, in the payload's own memory */
#define PAYLOAD_BYTES 0x400000

/* Flash: parallel NOR, two 16-bit parts side by side, secure alone.  The first instruction is at 0; cfi.c has the middle. */
#define FLASH_BASE 0x00000000
#define FLASH_BYTES 0x04000000
#define COUNTERS_OFF 0x1FC0000 /* stands for fuses: lowest security versions, one bit a step; no code of ours erases this block */
#define SLOT_MONITOR_OFF(n) (0x2000000 + 0x40000 * (n))
#define SLOT_PAYLOAD_OFF(n) (0x2400000 + 0x500000 * (n))

/* Stands for fuses: one sector of flash that a factory writes; copied at reset. */
#define FUSES_FLASH 0x00040000
#define FUSES_BASE 0x0E3E0000
#define FUSES_BYTES 0x12000

/* Devices; the secure ones beside the payload's. */
#define DEVICES_BASE 0x08000000
#define DEVICES_BYTES 0x02000000
#define GICD_BASE 0x08000000
#define GICC_BASE 0x08010000
#define UART_BASE 0x09040000 /* secure alone */
#define GPIO_BASE 0x090B0000 /* PL061, secure alone: pin 0 switches the board off, 1 resets it */

/* Interrupts. */
#define SGI_POKE 8
#define TIMER_IRQ 29 /* CNTPS */
#define LINE_IRQ 40

#define PIN_LEASE_VALID 2
#define PIN_FAILSAFE 3
#define PIN_VALIDATOR_REQ 4
#define PIN_LEASE_RENEW 5

/* 0 is the monitor itself, on the first core; 1 and 2 are the payload's, on the first and the second. */
#define HARTS 3

#define RAM_BASE 0x40000000
#define RAM_BYTES 0x8000000

#endif
