/* SPDX-License-Identifier: Apache-2.0 */
/* What a payload may try to reach on the FU540: everything but its own. */
#include "os.h"

#include <string.h>

#define MONITOR_SECRETS (FUSES_BASE + 48)
#define TRY_CSR(name) do { uint64_t before_ = trapped(); __asm__ volatile("csrw " #name ", zero"); orders->moved += trapped() == before_; } while (0)

void mask(void)
{
    __asm__ volatile("csrw sie, zero; csrci sstatus, 2");
    TRY_CSR(mie);
    TRY_CSR(mstatus);
    TRY_CSR(mideleg);
}

void timer(void)
{
    static const uint64_t at[] = {CLINT_BASE, CLINT_BASE + 4, CLINT_BASE + 0x4000, CLINT_BASE + 0x4008, PLIC_BASE + 0x2000, PLIC_BASE + 0x200000};
    EACH(at, 0xFFFFFFFF);
    orders->leaked += reads(MTIME - 8) + reads(MTIME + 8);
    orders->moved += writes(MTIME, 0); /* may be read */
}

void memory(void)
{
    static const uint64_t at[] = {GATE_PAGE + 0x1000, GATE_PAGE + 0x9000, MONITOR_SECRETS, CHECKPOINT_BASE, ENTROPY_BASE, PAYLOAD_RAM - 4};
    EACH(at, QSAFP_ARMED);
    orders->moved += writes(BOOT_BASE, 0) + writes(GATE_PAGE + 4, QSAFP_ARMED) + writes(GATE_PAGE + 8, 0xFFFFFFFF); /* may be read */
}

void gpio(void)
{
    static const uint64_t at[] = {GPIO_BASE + 8, GPIO_BASE + 12, GPIO_BASE + 0x40};
    EACH(at, 1u << PIN_LEASE_VALID);
}

void flash(void)
{
    static const uint64_t at[] = {QSPI0_BASE + 0x18, QSPI0_BASE + 0x48, QSPI0_BASE + 0x60, FLASH_BASE + LOG_OFF, OTP_BASE};
    EACH(at, 6);
}

/* ---- rights that are not its own ---- */

enum { GB = 1u << 30, MB2 = 1u << 21 };
enum { V = 1, RO = 0x4B, ALL = 0xCF }; /* valid; with accessed, dirty and its rights: to read and run, to do anything */
#define LEAF(place, rights) ((uint64_t)(place) >> 12 << 10 | (rights))
#define PAYLOAD_AGAIN 0x180000000u /* the payload's GB once more, to be read alone */
#define MINE_NO_MORE (RAM_END - 2 * MB2) /* in its own memory: pages that it took from itself, */
#define MINE_TO_READ (RAM_END - MB2)     /* and such that it may only read */

/* Sv39, flat but for these. */
static uint64_t level1[512] __attribute__((aligned(4096))), level2[512] __attribute__((aligned(4096)));

static void paging_on(void)
{
    for (uint64_t i = 0; i < 512; i++)
        level2[i] = LEAF(RAM_BASE + i * MB2, ALL);
    level2[(MINE_NO_MORE - RAM_BASE) / MB2] = 0;
    level2[(MINE_TO_READ - RAM_BASE) / MB2] = LEAF(MINE_TO_READ, RO);
    for (uint64_t i = 0; i < 4; i++)
        level1[i] = LEAF(i * GB, ALL);
    level1[RAM_BASE / GB] = LEAF(level2, V);
    level1[PAYLOAD_AGAIN / GB] = LEAF(RAM_BASE, RO);
    __asm__ volatile("fence; csrw satp, %0; sfence.vma" : : "r"(8ull << 60 | (uint64_t)(uintptr_t)level1 >> 12) : "memory");
}

static void paging_off(void)
{
    __asm__ volatile("csrw satp, zero; sfence.vma" : : : "memory");
}

/* The monitor has every right; it must not lend them.  Physically all of this is the payload's own memory. */
static void borrow(void)
{
    const uint64_t to_again = PAYLOAD_AGAIN - RAM_BASE;
    static uint8_t good[6] = {1, 1, 0, 0}, room[1031];
    memcpy((void *)(uintptr_t)MINE_NO_MORE, good, sizeof good);
    memcpy((void *)(uintptr_t)MINE_TO_READ, good, sizeof good);
    paging_on();
    orders->odd += ask(FRAME, (uintptr_t)good + to_again, 6, (uintptr_t)room, sizeof room).err != 0;
    orders->odd += ask(FRAME, MINE_TO_READ, 6, (uintptr_t)room, sizeof room).err != 0;
    orders->odd += ask(FRAME, MINE_NO_MORE, 6, (uintptr_t)room, sizeof room).err == 0;
    orders->odd += ask(FRAME, (uintptr_t)good, 6, (uintptr_t)room + to_again, sizeof room).err == 0;
    orders->odd += ask(FRAME, (uintptr_t)good, 6, MINE_TO_READ, sizeof room).err == 0;
    orders->odd += ask(FRAME, (uintptr_t)good, 6, MINE_NO_MORE, sizeof room).err == 0;
    paging_off();
}

void protection(void)
{
    borrow();
    TRY_CSR(pmpcfg0);
    TRY_CSR(pmpaddr0);
    TRY_CSR(pmpaddr2);
    TRY_CSR(mtvec);
    TRY_CSR(medeleg);
    TRY_CSR(mscratch);
    TRY_CSR(satp); /* its own: paging gives it nothing that protection denies */
    orders->moved--;
    uint64_t before = trapped();
    __asm__ volatile("mret");
    orders->moved += trapped() == before;
}

/* Channel 0 of the platform DMA: source, destination, size, go; then the Ethernet's. */
void dma(void)
{
    static const uint64_t at[] = {0x03000000, 0x03000008, 0x03000010, 0x03000018, 0x03080000, 0x10090000, 0x100A0000};
    EACH(at, GATE_PAGE);
}

void jump(void)
{
    static const uint64_t to[] = {BOOT_BASE, BOOT_BASE + 8, GATE_PAGE, GATE_PAGE + 0x9000, FUSES_BASE, CLINT_BASE};
    for (unsigned i = 0; i < sizeof to / sizeof *to; i++) {
        uint64_t before = trapped();
        ((void (*)(void))(uintptr_t)to[i])();
        orders->moved += trapped() == before;
    }
}
