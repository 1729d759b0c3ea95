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
        return 0;
    assert(have < sizeof sent);
    sent[have++] = byte;
    return 0;
}

int main(void)
{
    run_all();
    return DONE("test_monitor_store");
}
