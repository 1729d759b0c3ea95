/* SPDX-License-Identifier: Apache-2.0 */
/* What the monitor needs to know of the machine beside virt.h. */
#ifndef MONITOR_VIRT_H
#define MONITOR_VIRT_H

#include "virt.h"

#define NS_PER_TICK 16u /* 62.5 MHz */

/* All of this memory is the payload's. */
#define RAM_END (RAM_BASE + RAM_BYTES)
#define PAYLOAD_RAM RAM_BASE
#define GATE_PAGE 0x40200000u /* the copy that the payload reads */

#define CHECKPOINT_BASE 0x0E400000u
#define CHECKPOINT_BYTES 0x100000u
#define ENTROPY_OFF 0x800u
#define ENTROPY_BASE (FUSES_BASE + ENTROPY_OFF)
#define SET_BASE (FUSES_BASE + 0x1000)

/* Flash, as cfi.c counts: 4 KB of every 256 KB. */
#define FLASH_BLOCK 0x40000u
#define STATE_OFF 0x2000u
#define SEAL_OFF 0x4000u
#define SPARE_OFF 0x6000u
#define LOG_OFF 0x8000u

#endif
