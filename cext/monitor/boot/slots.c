/* SPDX-License-Identifier: Apache-2.0 */
/* Where the board's map.h says that images wait, and where they run. */
#include "boot.h"
#include "map.h"

#define FLASH(off) ((const uint8_t *)FLASH_BASE + (off))

const boot_kind_t boot_monitor = {
    "monitor",
    {.base = MONITOR_BASE, .capacity_bytes = MONITOR_BYTES, .board = BOARD_ID, .kind = QSAFP_IMAGE_KIND_MONITOR},
    {FLASH(SLOT_MONITOR_OFF(0)), FLASH(SLOT_MONITOR_OFF(1))},
};
const boot_kind_t boot_payload = {
    "payload",
    {.base = PAYLOAD_BASE, .capacity_bytes = PAYLOAD_BYTES, .board = BOARD_ID, .kind = QSAFP_IMAGE_KIND_PAYLOAD},
    {FLASH(SLOT_PAYLOAD_OFF(0)), FLASH(SLOT_PAYLOAD_OFF(1))},
};
