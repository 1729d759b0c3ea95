/* SPDX-License-Identifier: Apache-2.0 */
/* Where things lie on the HiFive Unleashed (FU540), for C, assembly and linker scripts alike: numbers alone. */
#ifndef HIFIVE_UNLEASHED_MAP_H
#define HIFIVE_UNLEASHED_MAP_H

#define BOARD_ID 1 /* in image headers; 0 is never a board */

/* Memory.  Boot stage and monitor image are one naturally aligned region, so that one PMP entry locks both. */
#define BOOT_BASE 0x80000000
#define BOOT_BYTES 0x8000
#define BOOT_TABLE 0x80007E00
#define MONITOR_BASE 0x80008000 /* load address of every monitor image; at most MONITOR_BYTES */
#define MONITOR_BYTES 0x8000
#define MONITOR_RAM 0x80010000 /* the boot stage's stack and scratch until the hand-over */
#define MONITOR_RAM_BYTES 0x30000
#define PAYLOAD_BASE 0x80400000 /* load address of every payload image; naturally aligned, too */
#define PAYLOAD_BYTES 0x400000

/* The flash that QSPI0 maps: image slots, then the monitor's. */
#define FLASH_BASE 0x20000000
#define SLOT_MONITOR_OFF(n) (0x10000 * (n))
#define SLOT_PAYLOAD_OFF(n) (0x100000 + 0x500000 * (n))
#define FLASH_FREE_OFF 0xC00000 /* from here on the boot stage reads nothing */

/* Devices. */
#define CLINT_BASE 0x02000000
#define UART0_BASE 0x10010000
#define GPIO_BASE 0x10060000
#define OTP_BASE 0x10070000

/* Pins of GPIO; 10 resets the board. */
#define PIN_LEASE_VALID 0
#define PIN_FAILSAFE 1
#define PIN_VALIDATOR_REQ 2
#define PIN_LEASE_RENEW 5

#define HARTS 5

#endif
