/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRT_ARMV7_MAP_H
#define VIRT_ARMV7_MAP_H

#include "virt.h"

#define BOARD_ID 3 /* in image headers; 0 is never a board */

#endif
