/* SPDX-License-Identifier: Apache-2.0 */
/* What each ARM architecture tries by its own registers. */
#ifndef PAYLOAD_REACH_H
#define PAYLOAD_REACH_H

#include "os.h"

/* Counts as moved what no handler heard of. */
#define TRY(words) do { uint64_t before_ = trapped(); __asm__ volatile(words : : "r"((uintptr_t)0) : "memory"); orders->moved += trapped() == before_; } while (0)

void sleep_for(uint32_t ticks); /* of this core's own timer */
void secure_timer(void);
void secure_registers(void);

#endif
