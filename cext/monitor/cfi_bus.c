/* SPDX-License-Identifier: Apache-2.0 */
/* Where the words of parallel NOR flash lie on the bus: its blocks are larger than the log's sectors, the first 4 KB of each are used. */
#include "monitor.h"
#include "nor.h"

static volatile uint32_t *word(uint32_t off)
{
    uintptr_t at = FLASH_BASE + (uintptr_t)(off / NOR_SECTOR) * FLASH_BLOCK + off % NOR_SECTOR;
    __asm__("" : "+r"(at)); /* a flash at address 0 is not no object */
    return (volatile uint32_t *)at;
}

uint32_t cfi_get(uint32_t off)
{
    return *word(off);
}

void cfi_put(uint32_t off, uint32_t v)
{
    *word(off) = v;
}
