/* SPDX-License-Identifier: Apache-2.0 */
/* The boot stage's part of the HiFive Unleashed (FU540-C000 manual: 12 OTP, 13 UART, 17 GPIO). */
#include "boot.h"
#include "map.h"

_Static_assert(BOARD_ID == (int)QSAFP_BOARD_HIFIVE_UNLEASHED, "map.h and tables.toml name one board");

static volatile uint32_t *reg(uintptr_t base, unsigned off) { return (volatile uint32_t *)(base + off); }

/* ---- UART and pins ---- */

enum { TXDATA = 0x00, TXCTRL = 0x08, OUTPUT_EN = 0x08, OUTPUT_VAL = 0x0C };

void boot_board_start(void)
{
    const uint32_t lease_valid = 1u << PIN_LEASE_VALID, failsafe = 1u << PIN_FAILSAFE;
    *reg(UART0_BASE, TXCTRL) |= 1;
    *reg(GPIO_BASE, OUTPUT_VAL) &= ~(lease_valid | failsafe);
    *reg(GPIO_BASE, OUTPUT_EN) |= lease_valid | failsafe;
    *reg(GPIO_BASE, OUTPUT_VAL) &= ~(lease_valid | failsafe); /* a model forgets values written before the direction */
}

void boot_board_put(char c)
{
    while (*reg(UART0_BASE, TXDATA) >> 31)
        ;
    *reg(UART0_BASE, TXDATA) = (uint8_t)c;
}

void boot_board_failsafe(void) { *reg(GPIO_BASE, OUTPUT_VAL) |= 1u << PIN_FAILSAFE; }

/* ---- Counters: one fuse per step, in the FU540's OTP.  A fuse reads 1 until it is programmed to 0, for good. ---- */

enum { PA = 0x00, PAIO = 0x04, PAS = 0x08, PCE = 0x0C, PCLK = 0x10, PDIN = 0x14, PDOUT = 0x18, PDSTB = 0x1C, PPROG = 0x20, PTRIM = 0x34, PWE = 0x38 };
enum { FIRST_WORD = 0x100, WORDS = 8, STEPS = 32 * WORDS, PROGRAM_TICKS = 25, READ_TICKS = 2 };

static void ticks(unsigned n)
{
    const volatile uint64_t *mtime = (const volatile uint64_t *)(CLINT_BASE + 0xBFF8);
    uint64_t from = *mtime;
    while (*mtime - from < n)
        ;
}

static void otp_on(uint32_t on)
{
    *reg(OTP_BASE, PDSTB) = on;
    *reg(OTP_BASE, PTRIM) = on;
    *reg(OTP_BASE, PCE) = on;
}

static uint32_t otp_read(uint32_t word)
{
    *reg(OTP_BASE, PA) = word;
    *reg(OTP_BASE, PCLK) = 1;
    ticks(READ_TICKS);
    *reg(OTP_BASE, PCLK) = 0;
    ticks(READ_TICKS);
    return *reg(OTP_BASE, PDOUT);
}

static void otp_program(uint32_t word, uint32_t bit)
{
    *reg(OTP_BASE, PAS) = 0;
    *reg(OTP_BASE, PA) = word;
    *reg(OTP_BASE, PAIO) = bit;
    *reg(OTP_BASE, PDIN) = 0;
    *reg(OTP_BASE, PPROG) = 1;
    *reg(OTP_BASE, PWE) = 1;
    ticks(PROGRAM_TICKS);
    *reg(OTP_BASE, PWE) = 0;
    *reg(OTP_BASE, PPROG) = 0;
}

static uint32_t words_of(uint32_t kind) { return FIRST_WORD + (kind == QSAFP_IMAGE_KIND_PAYLOAD ? WORDS : 0); }

/* The highest programmed fuse counts, whatever is below it: a fuse that did not take lowers nothing. */
uint32_t boot_board_counter(uint32_t kind)
{
    uint32_t counter = 0;
    otp_on(1);
    for (uint32_t i = 0; i < STEPS; i++)
        if (~otp_read(words_of(kind) + i / 32) >> i % 32 & 1)
            counter = i + 1;
    otp_on(0);
    return counter;
}

void boot_board_raise(uint32_t kind, uint32_t to)
{
    uint32_t from = boot_board_counter(kind);
    otp_on(1);
    for (uint32_t i = from; i < to && i < STEPS; i++)
        otp_program(words_of(kind) + i / 32, i % 32);
    otp_on(0);
}
