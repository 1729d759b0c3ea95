/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RENEWAL_H
#define RENEWAL_H

#include <stdbool.h>
#include <stdint.h>

/* Instructions so far. */
uint64_t instructions(void);

/* Of one renewal, without signatures: request made, token verified; records that it appended. */
typedef struct { uint64_t request, verify, records; bool whole; } renewal_t;
renewal_t count_renewal(void);

#endif
