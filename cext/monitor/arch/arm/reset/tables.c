/* SPDX-License-Identifier: Apache-2.0 */
/* What the monitor may reach (HW-3, HW-15).  Long descriptors, which both architectures have.
 *
 * Code and these tables lie in one block, which is read-only from when it is locked, and all that is executed then.  The payload's RAM is
 * mapped as non-secure, so that no address that comes from there can reach secure memory, whatever it is. */
#include <stdint.h>

#include "map.h"
#include "sysreg.h"

enum { BLOCK_SHIFT = 21, BLOCKS = 512 };
enum { BLOCK = 1, TABLE = 3, DEVICE = 0 << 2, NORMAL = 1 << 2, NONSECURE = 1 << 5, INNER = 3 << 8, SEEN = 1 << 10 };
#define NEVER_RUN (1ull << 54)
#define LEVEL1 ((uint64_t *)TABLES)
#define LEVEL2 ((uint64_t *)LEVEL2_TABLE)

void mmu_tables(void);

static void map(uint64_t base, uint64_t bytes, uint64_t what)
{
    for (uint64_t at = base; at < base + bytes; at += 1u << BLOCK_SHIFT)
        LEVEL2[at >> BLOCK_SHIFT] = at | what | BLOCK | ALWAYS_ONE | SEEN;
}

void mmu_tables(void)
{
    const uint64_t data = NORMAL | INNER | NEVER_RUN;
    for (unsigned i = 0; i < BLOCKS; i++)
        LEVEL2[i] = 0;
    map(FLASH_BASE, FLASH_BYTES, DEVICE | NEVER_RUN);
    map(DEVICES_BASE, DEVICES_BYTES, DEVICE | NEVER_RUN);
    map(CODE_AREA, CODE_AREA_BYTES, NORMAL | INNER); /* until reset.S locks it */
    map(SECURE_RAM, SECURE_RAM_BYTES, data);
    LEVEL1[0] = (uintptr_t)LEVEL2 | TABLE;
    LEVEL1[1] = RAM_BASE | data | NONSECURE | BLOCK | ALWAYS_ONE | SEEN;
    LEVEL1[2] = LEVEL1[3] = 0;
}
