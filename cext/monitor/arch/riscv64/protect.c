/* SPDX-License-Identifier: Apache-2.0 */
/* Physical memory protection: what the payload may reach is listed, all else is denied (HW-3, HW-15). */
#include "protect.h"

#include "csr.h"
#include "monitor.h"

enum { R = 1, W = 2, X = 4, NAPOT = 0x18, LOCK = 0x80 };

/* Of 2^k bytes, aligned to them. */
#define AREA(base, bytes) (((uint64_t)(base) >> 2) | (((uint64_t)(bytes) >> 3) - 1))

/* Every bus master but the payload's harts is denied by leaving its registers out: PMP does not check what they do. */
void protect(void)
{
    CSR_WRITE(pmpaddr0, AREA(BOOT_BASE, BOOT_BYTES + MONITOR_BYTES)); /* code: read-only for every privilege level until reset */
    CSR_WRITE(pmpaddr1, AREA((uintptr_t)&gate_page, QSAFP_GATE_PAGE_BYTES));
    CSR_WRITE(pmpaddr2, AREA(MONITOR_AREA, MONITOR_AREA_BYTES));
    CSR_WRITE(pmpaddr3, AREA(MTIME, 8));
    CSR_WRITE(pmpaddr4, AREA(UART1_BASE, 0x1000));
    CSR_WRITE(pmpaddr5, AREA(RAM_BASE, RAM_BYTES));
    uint64_t entries = 0;
    const uint8_t what[8] = {LOCK | NAPOT | R | X, NAPOT | R, NAPOT, NAPOT | R, NAPOT | R | W, NAPOT | R | W | X, 0, 0};
    memcpy(&entries, what, sizeof entries);
    CSR_WRITE(pmpcfg0, entries);
    __asm__ volatile("sfence.vma" : : : "memory");
}
