/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAYLOAD_PLACES_H
#define PAYLOAD_PLACES_H

#include "monitor_map.h"

#define CODE_START BOOT_BASE
/* What this payload may do with an address of the monitor's by its own rights: the copy of the gate page lies in its memory. */
#define READABLE(at) ((at) == GATE_PAGE || (at) == GATE_PAGE + 0x9000)
#define WRITABLE(at) READABLE(at)

/* Waits a millisecond for this core's own timer. */
void idle(void);

#endif
