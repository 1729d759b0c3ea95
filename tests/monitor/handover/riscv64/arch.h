/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANDOVER_ARCH_H
#define HANDOVER_ARCH_H

enum { OTHERS = 2, STORE_FAULT = 7 };
#define OWN BOOT_TABLE /* the lock itself lies in no memory */

static void put_byte(uint8_t byte)
{
    while (*reg(UART0_BASE) >> 31)
        ;
    *reg(UART0_BASE) = byte;
}

static uint64_t locked(void)
{
    uint64_t config, address;
    __asm__ volatile("csrw pmpcfg0, zero\n csrr %0, pmpcfg0\n csrw pmpaddr0, zero\n csrr %1, pmpaddr0" : "=r"(config), "=r"(address));
    return config == 0x9D && address == ((BOOT_BASE >> 2 | ((BOOT_BYTES + MONITOR_BYTES) >> 3)) - 1);
}

static void reset_board(void)
{
    *reg(GPIO_BASE + 0x08) |= 1u << 10;
    *reg(GPIO_BASE + 0x0C) |= 1u << 10;
    *reg(GPIO_BASE + 0x0C) &= ~(1u << 10);
}

#endif
