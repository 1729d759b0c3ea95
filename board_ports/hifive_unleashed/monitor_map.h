/* SPDX-License-Identifier: Apache-2.0 */
/* What the monitor needs to know of the board beside map.h. */
#ifndef HIFIVE_UNLEASHED_MONITOR_MAP_H
#define HIFIVE_UNLEASHED_MONITOR_MAP_H

#include "map.h"

#define BOARD_NAME "hifive_unleashed"
#define CORE_HZ 500000000u /* tlclk; the core runs at 1 GHz */
#define NS_PER_TICK 1000u  /* mtime counts RTCCLK, 1 MHz */

/* Memory: the monitor's 4 MB, then the payload's. */
#define RAM_BASE 0x80000000u
#define RAM_BYTES 0x8000000u
#define RAM_END (RAM_BASE + RAM_BYTES)
#define MONITOR_AREA RAM_BASE
#define MONITOR_AREA_BYTES 0x400000u
#define PAYLOAD_RAM (MONITOR_AREA + MONITOR_AREA_BYTES)
#define GATE_PAGE 0x80010000u /* first in the monitor's memory */
#define CHECKPOINT_BASE 0x80100000u
#define CHECKPOINT_BYTES 0x100000u
#define FUSES_BASE 0x803E0000u /* stands for fuses: a loader puts it there before reset ends */
#define ENTROPY_BASE 0x803E0800u
#define SET_BASE 0x803E1000u

/* Flash: 3-byte addresses reach 16 MB of it. */
#define STATE_OFF 0xC00000u
#define SEAL_OFF 0xC02000u
#define SPARE_OFF 0xC04000u
#define LOG_OFF 0xC10000u

/* Devices. */
#define MTIME (CLINT_BASE + 0xBFF8)
#define PLIC_BASE 0x0C000000
#define UART1_BASE 0x10011000 /* the payload's own */
#define QSPI0_BASE 0x10040000

#endif
