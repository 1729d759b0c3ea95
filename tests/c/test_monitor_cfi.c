/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's store on parallel NOR flash, two parts side by side, that loses power at each operation in turn (HW-8). */
#include "device.h"

#include "../../cext/monitor/cfi.c"

enum { FROM = STATE_OFF, PART = 0x100000 };

#include "store_life.h"

/* What comes next of a command; a cut one reaches the first half of its words, or the lower part alone. */
static enum { COMMAND, COUNT, DATA, PROGRAM, SECTOR } next_is;
static enum { BYTES, STATUS, IDENTITY } mode;
static uint32_t buffer[NOR_PAGE / WORD], where, expected, have, result;
static uint64_t busy_until;

static void power_on(void)
{
    next_is = COMMAND;
    mode = BYTES;
    have = 0;
    result = READY_BIT;
}

static uint32_t get(uint32_t off)
{
    uint32_t v;
    memcpy(&v, part + off - FROM, sizeof v);
    return v;
}

static void program(bool half)
{
    for (uint32_t i = 0; i < expected; i++) {
        uint32_t v = get(where + i * WORD) & (half && torn ? buffer[i] | 0xFFFF0000u : half && i >= expected / 2 ? 0xFFFFFFFFu : buffer[i]);
        memcpy(part + where + i * WORD - FROM, &v, sizeof v);
    }
}

static void erase(bool half)
{
    memset(part + where / NOR_SECTOR * NOR_SECTOR - FROM + (half && torn ? NOR_SECTOR / 2 : 0), 0xFF, half ? NOR_SECTOR / 2 : NOR_SECTOR);
}

static void confirm(uint32_t off, uint32_t v)
{
    bool programs = next_is == PROGRAM;
    next_is = COMMAND;
    assert(v == BOTH(CONFIRM) && off == where && (!programs || have == expected));
    have = 0;
    mode = STATUS;
    if (dead || ignores || result != READY_BIT)
        return;
    if (programs)
        program(cut());
    else
        erase(cut());
}

static void command(uint32_t off, uint32_t v)
{
    where = off;
    assert(v == BOTH(BUFFER) || v == BOTH(ERASE) || v == BOTH(ARRAY) || v == BOTH(QUERY) || v == BOTH(CLEAR));
    next_is = v == BOTH(BUFFER) ? COUNT : v == BOTH(ERASE) ? SECTOR : COMMAND;
    mode = v == BOTH(QUERY) ? IDENTITY : v == BOTH(CLEAR) || next_is != COMMAND ? STATUS : BYTES;
    if (v == BOTH(CLEAR))
        result = READY_BIT;
}

void cfi_put(uint32_t off, uint32_t v)
{
    assert(off % WORD == 0);
    if (next_is == COMMAND) {
        command(off, v);
    } else if (next_is == COUNT) {
        assert(v >> 16 == (v & 0xFFFF) && (v & 0xFFFF) < NOR_PAGE / WORD);
        expected = (v & 0xFFFF) + 1;
        next_is = DATA;
    } else if (next_is == DATA) {
        assert(off == where + have * WORD && off / NOR_PAGE == where / NOR_PAGE);
        buffer[have++] = v;
        next_is = have == expected ? PROGRAM : DATA;
    } else {
        confirm(off, v);
    }
}

uint32_t cfi_get(uint32_t off)
{
    assert(off % WORD == 0 && next_is == COMMAND);
    if (mode == STATUS)
        return clock_ns < busy_until ? 0 : BOTH(result);
    if (mode == IDENTITY)
        return off / WORD == 0x10 ? BOTH('Q') : off / WORD == 0x11 ? BOTH('R') : off / WORD == 0x12 ? BOTH('Y') : 0;
    return dead ? 0 : get(off);
}

static void a_part_says_that_it_failed_or_never_ends(void)
{
    uint8_t page[NOR_PAGE] = {1}, got[NOR_PAGE];
    memset(part, 0xFF, sizeof part);
    power_on();
    CHECK(nor_ready());
    for (uint32_t bit = 0x02; bit <= 0x20; bit *= 2) {
        result = READY_BIT | bit;
        CHECK(nor_page(FROM, page, sizeof page) == (FAILED & bit ? QSAFP_E_STORE : 0));
        CHECK(!nor_read(FROM, got, sizeof got) && (bit == 0x04 || result == READY_BIT));
        result = READY_BIT;
    }
    busy_until = clock_ns + 2000000000;
    CHECK(nor_erase(FROM) == QSAFP_E_STORE);
    busy_until = 0;
    CHECK(!nor_page(FROM + 3, page, 6) && !nor_read(FROM + 3, got, 6) && !memcmp(got, page, 6) && part[2] == 0xFF && part[9] == 0xFF);
}

int main(void)
{
    a_part_says_that_it_failed_or_never_ends();
    run_all();
    return DONE("test_monitor_cfi");
}
