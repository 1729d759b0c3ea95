/* SPDX-License-Identifier: Apache-2.0 */
/* What EL3 may reach, and copies under the payload's rights (HW-3, HW-15).
 *
 * EL3's own code is read-only to itself, everything else is never executed; the payload's RAM is mapped as non-secure, so that no
 * address that comes from there can reach secure memory, whatever it is. */
#include "cpu.h"
#include "monitor.h"
#include "sysreg.h"

enum { BLOCK_SHIFT = 21, BLOCKS = 512, PAGE = 4096 };
enum { INVALID = 0, BLOCK = 1, TABLE = 3, DEVICE = 0 << 2, NORMAL = 1 << 2, NONSECURE = 1 << 5, LEVEL_3 = 1 << 6, READ_ONLY = 1 << 7, INNER = 3 << 8, SEEN = 1 << 10 };
#define NEVER_RUN (1ull << 54)

static uint64_t level1[4] __attribute__((aligned(64))), level2[BLOCKS] __attribute__((aligned(PAGE)));

static void map(uint64_t base, uint64_t bytes, uint64_t what)
{
    for (uint64_t at = base; at < base + bytes; at += 1u << BLOCK_SHIFT)
        level2[at >> BLOCK_SHIFT] = at | what | BLOCK | LEVEL_3 | SEEN;
}

void mmu_tables(void)
{
    const uint64_t data = NORMAL | INNER | NEVER_RUN;
    map(FLASH_BASE, FLASH_BYTES, DEVICE | NEVER_RUN);
    map(DEVICES_BASE, DEVICES_BYTES, DEVICE | NEVER_RUN);
    map(BOOT_BASE, CODE_AREA, NORMAL | INNER | READ_ONLY);
    map(SECURE_RAM, SECURE_RAM_BYTES, data);
    level1[0] = (uintptr_t)level2 | TABLE;
    level1[RAM_BASE >> 30] = RAM_BASE | data | NONSECURE | BLOCK | LEVEL_3 | SEEN;
}

void mmu_on(void)
{
    SYS_WRITE(s3_1_c15_c2_1, SYS_READ(s3_1_c15_c2_1) | 1u << 6); /* Cortex-A53: coherent with the other cores before the caches are on */
    SYS_WRITE(mair_el3, 0xFF04);                                 /* 0: device; 1: write-back */
    SYS_WRITE(tcr_el3, 1u << 31 | 1u << 23 | INNER << 4 | 1u << 10 | 1u << 8 | 32); /* 4 GB */
    SYS_WRITE(ttbr0_el3, (uintptr_t)level1);
    __asm__ volatile("dsb sy; tlbi alle3; dsb sy; isb" : : : "memory");
    SYS_WRITE(sctlr_el3, 0x30C50830u | 1u << 19 | 1u << 12 | 1u << 3 | 1u << 2 | 1u); /* nothing that is written is run */
    ISB();
}

/* Where the payload's EL1 would get to; 0 where it would fault, or where no payload RAM is. */
static uint64_t place_of(uint64_t at, bool write)
{
    uint64_t kept = SYS_READ(par_el1);
    if (write)
        __asm__ volatile("at s1e1w, %0" : : "r"(at) : "memory");
    else
        __asm__ volatile("at s1e1r, %0" : : "r"(at) : "memory");
    ISB();
    uint64_t par = SYS_READ(par_el1), place = (par & 0xFFFFFFFFF000u) | (at & (PAGE - 1));
    SYS_WRITE(par_el1, kept);
    return par & 1 || place < PAYLOAD_RAM || place >= RAM_END ? 0 : place;
}

static size_t within_page(uint64_t at, size_t n)
{
    size_t left = PAGE - (at & (PAGE - 1));
    return n < left ? n : left;
}

int arch_copy_in(void *to, uint64_t from, size_t n)
{
    uint8_t *t = to;
    for (size_t part; n; n -= part, from += part, t += part) {
        uint64_t place = place_of(from, false);
        if (!place)
            return -1;
        part = within_page(from, n);
        memcpy(t, (const void *)place, part);
    }
    return 0;
}

int arch_copy_out(uint64_t to, const void *from, size_t n)
{
    const uint8_t *f = from;
    for (size_t part; n; n -= part, to += part, f += part) {
        uint64_t place = place_of(to, true);
        if (!place)
            return -1;
        part = within_page(to, n);
        memcpy((void *)place, f, part);
    }
    return 0;
}
