/* SPDX-License-Identifier: Apache-2.0 */
/* Copies under the payload's rights (HW-15). */
#include "cpu.h"

enum { PAGE = 4096 };

/* No other memory is the payload's, whatever its own page tables say. */
static void *lent(uintptr_t at, bool write)
{
    uint64_t place = place_of(at, write);
    return place < PAYLOAD_RAM || place >= RAM_END ? 0 : (void *)(uintptr_t)place;
}

static size_t within_page(uintptr_t at, size_t n)
{
    size_t left = PAGE - (at & (PAGE - 1));
    return n < left ? n : left;
}

int arch_copy_in(void *to, uintptr_t from, size_t n)
{
    uint8_t *t = to;
    for (size_t part; n; n -= part, from += part, t += part) {
        const void *place = lent(from, false);
        if (!place)
            return -1;
        part = within_page(from, n);
        memcpy(t, place, part);
    }
    return 0;
}

int arch_copy_out(uintptr_t to, const void *from, size_t n)
{
    const uint8_t *f = from;
    for (size_t part; n; n -= part, to += part, f += part) {
        void *place = lent(to, true);
        if (!place)
            return -1;
        part = within_page(to, n);
        memcpy(place, f, part);
    }
    return 0;
}
