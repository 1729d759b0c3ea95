/* SPDX-License-Identifier: Apache-2.0 */
/* Secure UART (PL011) and pins (PL061) of QEMU's virt machine, as far as the monitor uses them. */
#include "monitor.h"
#include "nor.h"

enum { DR = 0x00, FR = 0x18, IMSC = 0x38, ICR = 0x44 };
enum { RX_EMPTY = 0x10, TX_FULL = 0x20, RX_IRQS = 0x50, EMPTY_LIMIT = 1000000 };

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

/* What the loader left there is used for one start. */
static void entropy_spend(void)
{
    static const uint8_t none[32];
    if (nor_prog(NOR_SECTOR + ENTROPY_OFF, none, sizeof none))
        monitor_halt("entropy cannot be spent");
}

/* Pins and line are on since before the monitor (boot_board.c). */
void board_start(void)
{
    *at(UART_BASE, ICR) = 0x7FF;
    *at(UART_BASE, IMSC) = RX_IRQS;
    memcpy((void *)FUSES_BASE, (const void *)FUSES_FLASH, FUSES_BYTES);
    entropy_spend();
}
