/* SPDX-License-Identifier: Apache-2.0 */
/* The pin interface (HW-13): what a board gives the pin holder.  LEASE_VALID is a level; false is its safe level. */
#ifndef QSAFP_LINES_H
#define QSAFP_LINES_H

#include <stddef.h>
#include <stdint.h>

typedef enum { LINE_LEASE_VALID, LINE_FAILSAFE, LINE_VALIDATOR_REQ, LINES } qsafp_line_t;

typedef struct {
    const char *name; /* as configured */
    /* Claims the lines, all low.  Returns a context, or 0 and the reason in `why`: busy lines name their owner. */
    void *(*claim)(const char *run_dir, char *why, size_t why_len);
    /* Drives one line.  0, or negative: tried again. */
    int (*drive)(void *ctx, qsafp_line_t line, int level);
    void (*release)(void *ctx);
} qsafp_lines_t;

extern const qsafp_lines_t QSAFP_LINES_SIMULATED;

#endif
