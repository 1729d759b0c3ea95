/* SPDX-License-Identifier: Apache-2.0 */
/* The boot stage's part of QEMU's virt machine: secure UART (PL011), secure pins (PL061), parallel NOR flash. */
#include "boot.h"
#include "map.h"

static volatile uint32_t *at(uintptr_t base, unsigned off) { return (volatile uint32_t *)(base + off); }

/* ---- UART and pins ---- */

enum { DR = 0x00, FR = 0x18, IBRD = 0x24, FBRD = 0x28, LCR_H = 0x2C, CR = 0x30, TX_FULL = 0x20, FIFO_8BIT = 0x70, ON = 0x301 };
enum { DIRECTION = 0x400 };

static void line_start(void)
{
    *at(UART_BASE, CR) = 0;
    *at(UART_BASE, IBRD) = 13; /* 24 MHz to 115200 */
    *at(UART_BASE, FBRD) = 1;
    *at(UART_BASE, LCR_H) = FIFO_8BIT;
    *at(UART_BASE, CR) = ON;
}

/* The address says which pins a write changes. */
void boot_board_start(void)
{
    const uint32_t outputs = 1u << PIN_LEASE_VALID | 1u << PIN_FAILSAFE | 1u << PIN_VALIDATOR_REQ;
    *at(GPIO_BASE, outputs << 2) = 0;
    *at(GPIO_BASE, DIRECTION) = outputs;
    *at(GPIO_BASE, outputs << 2) = 0;
    line_start();
}

void boot_board_put(char c)
{
    while (*at(UART_BASE, FR) & TX_FULL)
        ;
    *at(UART_BASE, DR) = (uint8_t)c;
}

void boot_board_failsafe(void) { *at(GPIO_BASE, 4u << PIN_FAILSAFE) = 1u << PIN_FAILSAFE; }

/* ---- Counters: bits of NOR flash, which reads 1 until it is programmed to 0.  Fuses would not come back by an erase; these do. ---- */

enum { WORDS = 8, STEPS = 32 * WORDS, READY_LIMIT = 1000000 };
#define BOTH(v) ((uint32_t)(v) << 16 | (uint32_t)(v)) /* the two parts */

static volatile uint32_t *word_of(uint32_t kind, uint32_t step)
{
    return at(FLASH_BASE + COUNTERS_OFF, (kind == QSAFP_IMAGE_KIND_PAYLOAD ? 4 * WORDS : 0) + step / 32 * 4);
}

/* The highest programmed bit counts, whatever is below it. */
uint32_t boot_board_counter(uint32_t kind)
{
    uint32_t counter = STEPS;
    while (counter && *word_of(kind, counter - 1) >> (counter - 1) % 32 & 1)
        counter--;
    return counter;
}

static void program(volatile uint32_t *word, uint32_t value)
{
    *word = BOTH(0x40);
    *word = value;
    for (unsigned i = 0; (*word & BOTH(0x80)) != BOTH(0x80) && i < READY_LIMIT; i++)
        ;
    *word = BOTH(0xFF);
}

void boot_board_raise(uint32_t kind, uint32_t to)
{
    for (uint32_t i = boot_board_counter(kind); i < to && i < STEPS; i++)
        program(word_of(kind, i), *word_of(kind, i) & ~(1u << i % 32));
}
