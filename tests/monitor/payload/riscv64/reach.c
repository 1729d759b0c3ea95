/* SPDX-License-Identifier: Apache-2.0 */
/* What a payload may try to reach on the FU540: everything but its own. */
#include "os.h"

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

void protection(void)
{
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
