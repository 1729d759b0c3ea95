/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's store on SPI NOR flash that counts its operations and loses power at each of them in turn (HW-8). */
#include "device.h"

#include "../../cext/monitor/nor.c"

enum { FROM = STATE_OFF, PART = 0x100000 };

#include "store_life.h"

/* A command ends when the part is deselected; a cut one does one half of its bytes, or every second one. */
static bool selected, enabled;
static uint8_t sent[4 + NOR_PAGE];
static unsigned have;
static uint8_t identity[3] = {0x9D, 0x70, 0x19};
static uint64_t busy_until;

static void power_on(void) { selected = enabled = false; }

static uint32_t address(void) { return ((uint32_t)sent[1] << 16 | (uint32_t)sent[2] << 8 | sent[3]) - FROM; }

static void program(unsigned n, bool half)
{
    for (unsigned i = 0; i < n; i++)
        if (!half || (torn ? i % 2 == 0 : i < n / 2))
            part[address() + i] &= sent[4 + i];
}

static void finish(void)
{
    bool changes = have >= 4 && enabled && (sent[0] == PROGRAM || sent[0] == ERASE_4K);
    if (changes && !dead && !ignores) {
        bool half = cut();
        if (sent[0] == PROGRAM)
            program(have - 4, half);
        else
            memset(part + address() + (half && torn ? NOR_SECTOR / 2 : 0), 0xFF, half ? NOR_SECTOR / 2 : NOR_SECTOR);
        enabled = false;
    }
    enabled |= have == 1 && sent[0] == WRITE_ENABLE;
}

void board_spi_select(bool on)
{
    if (selected && !on)
        finish();
    selected = on;
    have = 0;
}

uint8_t board_spi(uint8_t byte)
{
    if (have >= 4 && sent[0] == READ)
        return dead ? 0 : part[address() + have++ - 4];
    if (have >= 1 && sent[0] == READ_STATUS)
        return clock_ns < busy_until ? BUSY : 0;
    if (have >= 1 && sent[0] == READ_ID)
        return identity[have++ - 1];
    assert(have < sizeof sent);
    sent[have++] = byte;
    return 0;
}

/* Lines that are held, a part of 8 MB, one that never gets ready. */
static void a_part_that_is_not_there_or_not_the_right_one_is_not_ready(void)
{
    static const uint8_t wrong[][sizeof identity] = {{0, 0, 0}, {0xFF, 0xFF, 0xFF}, {0, 0, 0x19}, {0x9D, 0x70, 0x17}};
    power_on();
    CHECK(nor_ready());
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memcpy(identity, wrong[i], sizeof identity);
        CHECK(!nor_ready());
    }
    memcpy(identity, (const uint8_t[]){0x9D, 0x70, 0x18}, sizeof identity);
    CHECK(nor_ready());
    busy_until = clock_ns + 2000000000;
    CHECK(!nor_ready());
    busy_until = clock_ns + 2000000000;
    CHECK(nor_erase(FROM) == QSAFP_E_STORE);
    busy_until = 0;
}

int main(void)
{
    a_part_that_is_not_there_or_not_the_right_one_is_not_ready();
    run_all();
    return DONE("test_monitor_store");
}
