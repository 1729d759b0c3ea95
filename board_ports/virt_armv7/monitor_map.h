/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRT_ARMV7_MONITOR_MAP_H
#define VIRT_ARMV7_MONITOR_MAP_H

#include "map.h"
#include "monitor_virt.h"

#define BOARD_NAME "virt_armv7"

#endif
