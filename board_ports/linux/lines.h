/* SPDX-License-Identifier: Apache-2.0 */
/* The pin interface (HW-13): what a board gives the pin holder.  LEASE_VALID is a level; false is its safe level. */
#ifndef QSAFP_LINES_H
#define QSAFP_LINES_H

#include "guard.h"

typedef struct {
    /* Claims the lines, all low.  Returns a context, or 0 and the reason in `why`: busy lines name their owner. */
    void *(*claim)(const qsafp_guard_options_t *o, char *why, size_t why_len);
    /* Drives one line.  0, or negative: tried again. */
    int (*drive)(void *ctx, qsafp_line_t line, int level);
    void (*release)(void *ctx);
    /* LEASE_RENEW: a descriptor that turns readable with its edges.  Both are 0 on a board without the line. */
    int (*input)(void *ctx);
    /* Takes edges that wait there, without blocking and in bounded time: 1 if there were any, 0 if none, negative if the line is
     * gone.  `level`: what it reads now. */
    int (*edges)(void *ctx, int *level);
} qsafp_lines_t;

extern const qsafp_lines_t QSAFP_LINES_SIMULATED, QSAFP_LINES_GPIO;

#endif
