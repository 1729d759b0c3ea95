/* SPDX-License-Identifier: Apache-2.0 */
/* What the monitor may reach, and copies under the payload's rights (HW-3, HW-15).  Long descriptors, which both architectures have.
 *
 * The monitor's own code is read-only to itself, everything else is never executed; the payload's RAM is mapped as non-secure, so that no
 * address that comes from there can reach secure memory, whatever it is. */
#include "cpu.h"
#include "sysreg.h"

enum { BLOCK_SHIFT = 21, BLOCKS = 512, PAGE = 4096 };
enum { INVALID = 0, BLOCK = 1, TABLE = 3, DEVICE = 0 << 2, NORMAL = 1 << 2, NONSECURE = 1 << 5, READ_ONLY = 1 << 7, INNER = 3 << 8, SEEN = 1 << 10 };
#define NEVER_RUN (1ull << 54)

static uint64_t level1[4] __attribute__((aligned(64))), level2[BLOCKS] __attribute__((aligned(PAGE)));

static void map(uint64_t base, uint64_t bytes, uint64_t what)
{
    for (uint64_t at = base; at < base + bytes; at += 1u << BLOCK_SHIFT)
        level2[at >> BLOCK_SHIFT] = at | what | BLOCK | ALWAYS_ONE | SEEN;
}

void mmu_tables(void)
{
    const uint64_t data = NORMAL | INNER | NEVER_RUN;
    map(FLASH_BASE, FLASH_BYTES, DEVICE | NEVER_RUN);
    map(DEVICES_BASE, DEVICES_BYTES, DEVICE | NEVER_RUN);
    map(BOOT_BASE, CODE_AREA, NORMAL | INNER | READ_ONLY);
    map(SECURE_RAM, SECURE_RAM_BYTES, data);
    level1[0] = (uintptr_t)level2 | TABLE;
    level1[RAM_BASE >> 30] = RAM_BASE | data | NONSECURE | BLOCK | ALWAYS_ONE | SEEN;
}

void mmu_start(void)
{
    mmu_on(level1);
}

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
