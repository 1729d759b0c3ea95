/* SPDX-License-Identifier: Apache-2.0 */
/* All of libc that the core may use.  The cross checks compile against this, so that anything else does not compile. */
#ifndef QSAFP_FREESTANDING_STRING_H
#define QSAFP_FREESTANDING_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t len);
void *memmove(void *to, const void *from, size_t len);
void *memset(void *to, int byte, size_t len);
int memcmp(const void *a, const void *b, size_t len);

#endif
