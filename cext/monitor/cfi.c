/* SPDX-License-Identifier: Apache-2.0 */
/* Parallel NOR flash with Intel's command set, two 16-bit parts side by side (JESD68, CFI): the same operations as nor.c.
 *
 * Its blocks are larger than the log's sectors: the first 4 KB of each block are used, and an offset counts those alone. */
#include "monitor.h"
#include "nor.h"

enum { WORD = 4, ARRAY = 0xFF, QUERY = 0x98, BUFFER = 0xE8, ERASE = 0x20, CONFIRM = 0xD0, CLEAR = 0x50, READY_BIT = 0x80, FAILED = 0x3A };
enum { LIMIT_NS = 1000000000, PAGE_WORDS = NOR_PAGE / WORD };
#define BOTH(v) ((uint32_t)(v) << 16 | (uint32_t)(v))

static volatile uint32_t *word(uint32_t off)
{
    uintptr_t at = FLASH_BASE + (uintptr_t)(off / NOR_SECTOR) * FLASH_BLOCK + off % NOR_SECTOR / WORD * WORD;
    __asm__("" : "+r"(at)); /* a flash at address 0 is not no object */
    return (volatile uint32_t *)at;
}

static int finish(volatile uint32_t *at)
{
    uint64_t from = monitor_port.now_ns(&m);
    uint32_t status;
    do
        status = *at;
    while ((status & BOTH(READY_BIT)) != BOTH(READY_BIT) && monitor_port.now_ns(&m) - from < LIMIT_NS);
    *at = BOTH(CLEAR);
    *at = BOTH(ARRAY);
    return (status & BOTH(READY_BIT | FAILED)) == BOTH(READY_BIT) ? 0 : QSAFP_E_STORE;
}

bool nor_ready(void)
{
    *word(0x55 * WORD) = BOTH(QUERY);
    bool there = *word(0x10 * WORD) == BOTH('Q') && *word(0x11 * WORD) == BOTH('R') && *word(0x12 * WORD) == BOTH('Y');
    *word(0x55 * WORD) = BOTH(ARRAY);
    return there;
}

int nor_read(uint32_t at, void *buf, uint32_t len)
{
    uint8_t *p = buf;
    for (uint32_t i = 0; i < len; i++)
        p[i] = (uint8_t)(*word(at + i) >> (at + i) % WORD * 8);
    return 0;
}

/* Words of one page at a time, through the parts' buffer. */
static int prog_words(uint32_t at, const uint32_t *v, uint32_t count)
{
    volatile uint32_t *to = word(at);
    bool same = true;
    *to = BOTH(BUFFER);
    *to = BOTH(count - 1);
    for (uint32_t i = 0; i < count; i++)
        to[i] = v[i];
    *to = BOTH(CONFIRM);
    int err = finish(to);
    for (uint32_t i = 0; i < count; i++)
        same &= to[i] == v[i];
    return err || !same ? QSAFP_E_STORE : 0;
}

int nor_prog(uint32_t at, const void *buf, uint32_t len)
{
    const uint8_t *p = buf;
    uint32_t page[PAGE_WORDS];
    int err = 0;
    for (uint32_t n; len && !err; at += n, p += n, len -= n) {
        uint32_t off = at % WORD, room = NOR_PAGE - at % NOR_PAGE;
        n = room < len ? room : len;
        uint32_t count = (off + n + WORD - 1) / WORD;
        err = nor_read(at - off, page, count * WORD);
        memcpy((uint8_t *)page + off, p, n);
        if (!err)
            err = prog_words(at - off, page, count);
    }
    return err;
}

int nor_erase(uint32_t at)
{
    volatile uint32_t *block = word(at);
    *block = BOTH(ERASE);
    *block = BOTH(CONFIRM);
    return finish(block);
}
