/* SPDX-License-Identifier: Apache-2.0 */
/* Private: an audit record is its own wire format. */
#ifndef QSAFP_RECORD_PRIVATE_H
#define QSAFP_RECORD_PRIVATE_H

#include "qsafp.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are copied, not converted");
_Static_assert(sizeof(qsafp_record_t) == QSAFP_RECORD_BYTES && offsetof(qsafp_record_t, event) == 4 && offsetof(qsafp_record_t, flags) == 6, "wire format");
_Static_assert(offsetof(qsafp_record_t, seq) == 8 && offsetof(qsafp_record_t, boot_ns) == 16 && offsetof(qsafp_record_t, wall_ms) == 24, "wire format");
_Static_assert(offsetof(qsafp_record_t, boot) == 32 && offsetof(qsafp_record_t, reason) == 36 && offsetof(qsafp_record_t, serial) == 40, "wire format");
_Static_assert(offsetof(qsafp_record_t, model) == 48 && offsetof(qsafp_record_t, evidence) == 80 && offsetof(qsafp_record_t, data) == 112, "wire format");
_Static_assert(offsetof(qsafp_record_t, hash) == 208 && offsetof(qsafp_record_t, seal) == 240, "wire format");

enum { RECORD_WALL = 1, RECORD_SEALED = 2, RECORD_EVIDENCE = 4, RECORD_REPORTED = 8 };

/* The last record of a sector leaves room for a seal. */
static inline bool record_sealed(uint32_t seq)
{
    return seq % QSAFP_SECTOR_SLOTS == QSAFP_SECTOR_SLOTS - 1;
}

/* Blank but for these. */
void record_new(qsafp_record_t *r, qsafp_event_t event, uint32_t reason);
/* 0, or MALFORMED: magic, event, flags, padding, sequence below QSAFP_SEQ_MAX; not the chain. */
QSAFP_MUST_USE int record_check(const qsafp_record_t *r);

#endif
