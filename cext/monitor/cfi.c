/* SPDX-License-Identifier: Apache-2.0 */
/* Parallel NOR flash with Intel's command set, two 16-bit parts side by side (JESD68, CFI): the same operations as nor.c. */
#include "monitor.h"
#include "nor.h"

enum { WORD = 4, ARRAY = 0xFF, QUERY = 0x98, BUFFER = 0xE8, ERASE = 0x20, CONFIRM = 0xD0, CLEAR = 0x50, READY_BIT = 0x80, FAILED = 0x3A };
enum { LIMIT_NS = 1000000000 };
#define BOTH(v) ((uint32_t)(v) << 16 | (uint32_t)(v))

static int finish(uint32_t at)
{
    uint64_t from = monitor_port.now_ns(&m);
    uint32_t status;
    do
        status = cfi_get(at);
    while ((status & BOTH(READY_BIT)) != BOTH(READY_BIT) && monitor_port.now_ns(&m) - from < LIMIT_NS);
    bool good = (status & BOTH(READY_BIT | FAILED)) == BOTH(READY_BIT);
    if (!good)
        cfi_put(at, BOTH(CLEAR));
    cfi_put(at, BOTH(ARRAY));
    return good ? 0 : QSAFP_E_STORE;
}

bool nor_ready(void)
{
    cfi_put(0x55 * WORD, BOTH(QUERY));
    bool there = cfi_get(0x10 * WORD) == BOTH('Q') && cfi_get(0x11 * WORD) == BOTH('R') && cfi_get(0x12 * WORD) == BOTH('Y');
    cfi_put(0x55 * WORD, BOTH(ARRAY));
    return there;
}

int nor_read(uint32_t at, void *buf, uint32_t len)
{
    uint8_t *p = buf;
    uint32_t v = at % WORD ? cfi_get(at - at % WORD) : 0;
    for (uint32_t end = at + len; at < end; at++) {
        if (at % WORD == 0)
            v = cfi_get(at);
        *p++ = (uint8_t)(v >> at % WORD * 8);
    }
    return 0;
}

/* Through the parts' buffer.  What a word holds beside these bytes is programmed as 1, which changes nothing. */
int nor_page(uint32_t at, const void *buf, uint32_t len)
{
    const uint8_t *p = buf;
    uint32_t to = at - at % WORD, end = at + len, v = 0;
    cfi_put(to, BOTH(BUFFER));
    cfi_put(to, BOTH((end - to - 1) / WORD));
    for (uint32_t i = to; i < end || i % WORD; i++) {
        v = v >> 8 | (uint32_t)(i >= at && i < end ? *p++ : 0xFF) << 24;
        if (i % WORD == WORD - 1)
            cfi_put(i - i % WORD, v);
    }
    cfi_put(to, BOTH(CONFIRM));
    return finish(to);
}

int nor_erase(uint32_t at)
{
    cfi_put(at, BOTH(ERASE));
    cfi_put(at, BOTH(CONFIRM));
    return finish(at);
}
