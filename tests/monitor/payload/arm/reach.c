/* SPDX-License-Identifier: Apache-2.0 */
/* What a payload may try to reach on the virt machine: the secure world. */
#include "reach.h"

#define MONITOR_SECRETS (FUSES_BASE + 48)
#define FW_CFG 0x09020000u
#define SECURE(off) (SECURE_RAM + (off))

enum { MY_TIMER = 27, MS = 62500 };

void idle(void)
{
    *(volatile uint32_t *)GICD_BASE = 1;
    *(volatile uint32_t *)(GICD_BASE + 0x100) = 1u << MY_TIMER;
    *(volatile uint32_t *)(GICC_BASE + 4) = 0xFF;
    *(volatile uint32_t *)GICC_BASE = 1;
    sleep_for(MS);
}

/* The secure timer, then what of the interrupt controller rules secure interrupts: it must stay as it is. */
void timer(void)
{
    static const uint32_t off[] = {0x080, 0x084, 0x180, 0x184, 0x280, 0x380, 0x41C, 0x408, 0x428, 0x828, 0xF10};
    secure_timer();
    for (unsigned i = 0; i < sizeof off / sizeof *off; i++)
        (void)writes(GICD_BASE + off[i], UINT32_MAX);
    (void)writes(GICD_BASE, 0);
    (void)writes(GICC_BASE + 4, 0);
    (void)writes(GICC_BASE + 0x10, TIMER_IRQ);
    (void)writes(GICC_BASE + 0x10, SGI_POKE);
    (void)writes(GICC_BASE, 0);
    for (unsigned i = 0; i < 16; i++)
        (void)writes(GICD_BASE + 0xF00, 0x00FF8000u | i);
}

void memory(void)
{
    static const uint64_t at[] = {BOOT_BASE, BOOT_BASE + 0x800, SECURE(0), SECURE(8), SECURE(0x9000), MONITOR_SECRETS, CHECKPOINT_BASE, ENTROPY_BASE, SET_BASE};
    EACH(at, QSAFP_ARMED);
}

void gpio(void)
{
    static const uint64_t at[] = {GPIO_BASE + (4u << PIN_LEASE_VALID), GPIO_BASE + 0x400, GPIO_BASE + 0x3FC, UART_BASE, UART_BASE + 0x30};
    EACH(at, 1u << PIN_LEASE_VALID);
}

void flash(void)
{
    static const uint64_t at[] = {FLASH_BASE, FUSES_FLASH, STATE_OFF / 0x1000 * FLASH_BLOCK, LOG_OFF / 0x1000 * FLASH_BLOCK};
    EACH(at, 0x00200020);
}

/* The monitor has every right; it must not lend them. */
static void borrow(void)
{
    const uint64_t read_only = 0x40000000;
    static uint8_t good[6] = {1, 1, 0, 0}, room[1031];
    orders->odd += ask(FRAME, (uintptr_t)good + read_only, 6, (uintptr_t)room, sizeof room).err != 0;
    orders->odd += ask(FRAME, (uintptr_t)good, 6, (uintptr_t)room + read_only, sizeof room).err == 0;
    orders->odd += ask(FRAME, NOWHERE, 6, (uintptr_t)room, sizeof room).err == 0;
    orders->odd += ask(FRAME, (uintptr_t)good, 6, NOWHERE, sizeof room).err == 0;
}

/* Registers that rule the payload, then rights that are not its own. */
void protection(void)
{
    secure_registers();
    borrow();
}

static uint32_t swap32(uint32_t v) { return __builtin_bswap32(v); }

/* The one bus master there is: fw_cfg copies to where it is told.  Into the payload's own memory first, to show that it works. */
static uint32_t copied(uint64_t to)
{
    static volatile struct { uint32_t control, length; uint64_t address; } job __attribute__((aligned(16)));
    job.length = swap32(4);
    job.address = __builtin_bswap64(to);
    job.control = swap32(0u << 16 | 0x08 | 0x02); /* select the signature, read */
    *(volatile uint64_t *)(uintptr_t)(FW_CFG + 16) = __builtin_bswap64((uintptr_t)&job);
    return swap32(job.control);
}

void dma(void)
{
    static const uint64_t at[] = {BOOT_BASE, SECURE(0), SECURE(4), MONITOR_SECRETS, GPIO_BASE + (4u << PIN_LEASE_VALID), FLASH_BASE};
    static volatile uint32_t mine;
    (void)copied((uintptr_t)&mine);
    orders->odd += mine != 0x554D4551u; /* "QEMU" */
    for (unsigned i = 0; i < sizeof at / sizeof *at; i++)
        (void)copied(at[i]);
}

void jump(void)
{
    static const uint64_t to[] = {BOOT_BASE, BOOT_BASE + 0x800, SECURE(0), FUSES_BASE, FLASH_BASE, GPIO_BASE};
    for (unsigned i = 0; i < sizeof to / sizeof *to; i++) {
        uint64_t before = trapped();
        ((void (*)(void))(uintptr_t)to[i])();
        orders->moved += trapped() == before;
    }
}
