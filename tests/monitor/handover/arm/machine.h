/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's virt machine, as this program uses it. */
#ifndef HANDOVER_MACHINE_H
#define HANDOVER_MACHINE_H

enum { OTHERS = 1 };
#define OWN TABLES /* what locks is locked */

static void put_byte(uint8_t byte)
{
    while (*reg(UART_BASE + 0x18) & 0x20)
        ;
    *reg(UART_BASE) = byte;
}

static void reset_board(void)
{
    *reg(GPIO_BASE + 0x400) |= 2;
    *reg(GPIO_BASE + (4u << 1)) = 2;
}

#endif
