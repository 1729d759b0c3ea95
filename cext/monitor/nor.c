/* SPDX-License-Identifier: Apache-2.0 */
/* SPI NOR flash, byte by byte: three-byte addresses, 4 KB sectors, 256-byte pages. */
#include "nor.h"

#include "monitor.h"

enum { WRITE_ENABLE = 0x06, READ = 0x03, PROGRAM = 0x02, ERASE_4K = 0x20, READ_STATUS = 0x05, READ_ID = 0x9F, BUSY = 1 };
enum { LIMIT_NS = 1000000000 }; /* a sector of the parts that boards have takes 0.3 s at worst */

static void begin(uint8_t op)
{
    board_spi_select(true);
    (void)board_spi(op);
}

static void end(void)
{
    board_spi_select(false);
}

static void begin_at(uint8_t op, uint32_t at)
{
    begin(op);
    (void)board_spi((uint8_t)(at >> 16));
    (void)board_spi((uint8_t)(at >> 8));
    (void)board_spi((uint8_t)at);
}

static void enable(void)
{
    begin(WRITE_ENABLE);
    end();
}

static int wait(void)
{
    uint64_t from = monitor_port.now_ns(&m);
    uint8_t status;
    do {
        begin(READ_STATUS);
        status = board_spi(0);
        end();
    } while (status & BUSY && monitor_port.now_ns(&m) - from < LIMIT_NS);
    return status & BUSY ? QSAFP_E_STORE : 0;
}

bool nor_ready(void)
{
    begin(READ_ID);
    uint8_t maker = board_spi(0), type = board_spi(0), size = board_spi(0);
    end();
    return (maker || type) && !(maker == 0xFF && type == 0xFF) && size >= 0x18 && !wait();
}

int nor_read(uint32_t at, void *buf, uint32_t len)
{
    uint8_t *p = buf;
    begin_at(READ, at);
    while (len--)
        *p++ = board_spi(0);
    end();
    return 0;
}

int nor_page(uint32_t at, const void *buf, uint32_t len)
{
    const uint8_t *p = buf;
    enable();
    begin_at(PROGRAM, at);
    while (len--)
        (void)board_spi(*p++);
    end();
    return wait();
}

int nor_erase(uint32_t at)
{
    enable();
    begin_at(ERASE_4K, at);
    end();
    return wait();
}
