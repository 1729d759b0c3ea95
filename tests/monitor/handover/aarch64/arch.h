/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANDOVER_ARCH_H
#define HANDOVER_ARCH_H

enum { OTHERS = 1, STORE_FAULT = 0x25 };
#define OWN TABLES /* what locks is locked */

static void put_byte(uint8_t byte)
{
    while (*reg(UART_BASE + 0x18) & 0x20)
        ;
    *reg(UART_BASE) = byte;
}

/* Memory management is on, nothing that can be written is run. */
static uint64_t locked(void)
{
    uint64_t control, wanted = 1u << 19 | 1u;
    __asm__ volatile("mrs %0, sctlr_el3" : "=r"(control));
    return (control & wanted) == wanted;
}

static void reset_board(void)
{
    *reg(GPIO_BASE + 0x400) |= 2;
    *reg(GPIO_BASE + (4u << 1)) = 2;
}

#endif
