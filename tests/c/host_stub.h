/* SPDX-License-Identifier: Apache-2.0 */
/* For a test of one part of the Linux port, which it includes as a source: a check that counts, and the port's fail(). */
#ifndef QSAFP_TEST_HOST_STUB_H
#define QSAFP_TEST_HOST_STUB_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../board_ports/linux/host.h"

static unsigned passed;

/* TEST: the program's name, as tools/check_c.py reads it. */
#define CHECK(what) \
    do { \
        if (!(what)) { \
            printf("%s:%d: %s\n" TEST ": %u passed, 1 failed\n", __FILE__, __LINE__, #what, passed); \
            exit(1); \
        } \
        passed++; \
    } while (0)

int fail(host_t *h, const char *fmt, ...)
{
    va_list v;
    va_start(v, fmt);
    vsnprintf(h->why, h->why_len, fmt, v);
    va_end(v);
    return -1;
}

#endif
