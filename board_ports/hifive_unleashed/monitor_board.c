/* SPDX-License-Identifier: Apache-2.0 */
/* UART, GPIO, SPI and interrupt controller of the FU540, as far as the monitor uses them (FU540-C000 manual, chapters 10, 13, 17, 19). */
#include "monitor.h"

enum { TXDATA = 0x00, RXDATA = 0x04, TXCTRL = 0x08, RXCTRL = 0x0C, UART_IE = 0x10, UART_IP = 0x14, UART_DIV = 0x18, UART_RXWM = 2 };
enum { INPUT_VAL = 0x00, OUTPUT_EN = 0x08, OUTPUT_VAL = 0x0C, INPUT_EN = 0x04 };
enum { SCKDIV = 0x00, SCKMODE = 0x04, CSID = 0x10, CSDEF = 0x14, CSMODE = 0x18, FMT = 0x40, SPI_TX = 0x48, SPI_RX = 0x4C, FCTRL = 0x60 };
enum { CS_AUTO = 0, CS_HOLD = 2, FMT_8BIT = 8 << 16, EMPTY_LIMIT = 1000000 };
enum { UART0_IRQ = 4, PLIC_ENABLE = 0x2000, PLIC_THRESHOLD = 0x200000, PLIC_CLAIM = 0x200004 };

static volatile uint32_t *at(uint64_t base, uint32_t off) { return (volatile uint32_t *)(base + off); }

/* ---- pins: value, then direction, then value, so that no model and no edge shows another level ---- */

void board_pin(unsigned pin, int level)
{
    bool was = arch_lock(); /* the deadline may come between the two */
    uint32_t bit = 1u << pin, v = *at(GPIO_BASE, OUTPUT_VAL);
    *at(GPIO_BASE, OUTPUT_VAL) = level ? v | bit : v & ~bit;
    arch_unlock(was);
}

bool board_pin_get(unsigned pin)
{
    return *at(GPIO_BASE, INPUT_VAL) >> pin & 1;
}

static void pins_start(void)
{
    const uint32_t outputs = 1u << PIN_LEASE_VALID | 1u << PIN_FAILSAFE | 1u << PIN_VALIDATOR_REQ;
    uint32_t low = *at(GPIO_BASE, OUTPUT_VAL) & ~outputs;
    *at(GPIO_BASE, OUTPUT_VAL) = low;
    *at(GPIO_BASE, OUTPUT_EN) |= outputs;
    *at(GPIO_BASE, OUTPUT_VAL) = low;
    *at(GPIO_BASE, INPUT_EN) |= 1u << PIN_LEASE_RENEW;
}

/* ---- the line ---- */

void board_line_put(uint8_t byte)
{
    for (unsigned i = 0; *at(UART0_BASE, TXDATA) >> 31 && i < EMPTY_LIMIT; i++)
        ;
    *at(UART0_BASE, TXDATA) = byte;
}

bool board_line_waits(void)
{
    return *at(UART0_BASE, UART_IP) & UART_RXWM;
}

int board_line_get(void)
{
    uint32_t v = *at(UART0_BASE, RXDATA);
    return v >> 31 ? -1 : (int)(v & 0xFF);
}

static void line_start(void)
{
    *at(UART0_BASE, UART_DIV) = CORE_HZ / 2 / 115200 - 1;
    *at(UART0_BASE, TXCTRL) = 1;
    *at(UART0_BASE, RXCTRL) = 1;
    *at(UART0_BASE, UART_IE) = UART_RXWM;
}

/* ---- interrupt controller: context 0 is hart 0 in M-mode ---- */

void board_irq_start(void)
{
    *at(PLIC_BASE, 4 * UART0_IRQ) = 1;
    *at(PLIC_BASE, PLIC_ENABLE) = 1u << UART0_IRQ;
    *at(PLIC_BASE, PLIC_THRESHOLD) = 0;
}

void board_irq_done(void)
{
    uint32_t claimed = *at(PLIC_BASE, PLIC_CLAIM);
    if (claimed)
        *at(PLIC_BASE, PLIC_CLAIM) = claimed;
}

/* ---- the flash's bus ---- */

void board_spi_select(bool on)
{
    *at(QSPI0_BASE, CSMODE) = on ? CS_HOLD : CS_AUTO;
}

uint8_t board_spi(uint8_t byte)
{
    uint32_t v;
    *at(QSPI0_BASE, SPI_TX) = byte;
    do
        v = *at(QSPI0_BASE, SPI_RX);
    while (v >> 31);
    return (uint8_t)v;
}

static void spi_start(void)
{
    *at(QSPI0_BASE, FCTRL) = 0; /* commands instead of mapped reads */
    *at(QSPI0_BASE, SCKDIV) = CORE_HZ / 2 / 10000000;
    *at(QSPI0_BASE, SCKMODE) = 0;
    *at(QSPI0_BASE, CSID) = 0;
    *at(QSPI0_BASE, CSDEF) = 1;
    *at(QSPI0_BASE, FMT) = FMT_8BIT;
    board_spi_select(false);
}

void board_start(void)
{
    pins_start();
    line_start();
    spi_start();
}
