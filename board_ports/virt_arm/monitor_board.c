/* SPDX-License-Identifier: Apache-2.0 */
/* Secure UART (PL011) and pins (PL061) of QEMU's virt machine, as far as the monitor uses them. */
#include "monitor.h"
#include "nor.h"

enum { DR = 0x00, FR = 0x18, IBRD = 0x24, FBRD = 0x28, LCR_H = 0x2C, CR = 0x30, IMSC = 0x38, ICR = 0x44 };
enum { RX_EMPTY = 0x10, TX_FULL = 0x20, FIFO_8BIT = 0x70, ON = 0x301, RX_IRQS = 0x50, EMPTY_LIMIT = 1000000 };
enum { DIRECTION = 0x400 };

static volatile uint32_t *at(uintptr_t base, uint32_t off) { return (volatile uint32_t *)(base + off); }

/* ---- pins: the address says which bits a write changes ---- */

void board_pin(unsigned pin, int level)
{
    *at(GPIO_BASE, 4u << pin) = level ? 1u << pin : 0;
}

bool board_pin_get(unsigned pin)
{
    return *at(GPIO_BASE, 4u << pin) != 0;
}

static void pins_start(void)
{
    const uint32_t outputs = 1u << PIN_LEASE_VALID | 1u << PIN_FAILSAFE | 1u << PIN_VALIDATOR_REQ;
    *at(GPIO_BASE, outputs << 2) = 0;
    *at(GPIO_BASE, DIRECTION) = outputs;
    *at(GPIO_BASE, outputs << 2) = 0;
}

/* ---- the line ---- */

void board_line_put(uint8_t byte)
{
    for (unsigned i = 0; *at(UART_BASE, FR) & TX_FULL && i < EMPTY_LIMIT; i++)
        ;
    *at(UART_BASE, DR) = byte;
}

bool board_line_waits(void)
{
    return !(*at(UART_BASE, FR) & RX_EMPTY);
}

int board_line_get(void)
{
    return board_line_waits() ? (int)(*at(UART_BASE, DR) & 0xFF) : -1;
}

static void line_start(void)
{
    *at(UART_BASE, CR) = 0;
    *at(UART_BASE, IBRD) = 13; /* 24 MHz to 115200 */
    *at(UART_BASE, FBRD) = 1;
    *at(UART_BASE, LCR_H) = FIFO_8BIT;
    *at(UART_BASE, ICR) = 0x7FF;
    *at(UART_BASE, IMSC) = RX_IRQS;
    *at(UART_BASE, CR) = ON;
}

/* What the loader left there is used for one start. */
static void entropy_spend(void)
{
    static const uint8_t none[32];
    if (nor_prog(NOR_SECTOR + ENTROPY_OFF, none, sizeof none))
        monitor_halt("entropy cannot be spent");
}

void board_start(void)
{
    pins_start();
    line_start();
    entropy_spend();
}
