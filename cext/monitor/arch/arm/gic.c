/* SPDX-License-Identifier: Apache-2.0 */
/* Secure timer, secure interrupts (GICv2, group 0, taken as FIQ), and who has the first core (HW-4).
 *
 * The first core has two contexts: the monitor's loop, and the payload's core 1 with what the monitor does for it.  The loop gives the core away
 * when it has nothing to do, and gets it back at each secure interrupt.  While the loop runs, the timer alone gets through. */
#include "cpu.h"
#include "sysreg.h"

enum { CTLR = 0x000, TYPER = 0x004, GROUP = 0x080, ENABLE = 0x100, PRIORITY = 0x400, TARGET = 0x800, SGI = 0xF00 };
enum { PMR = 0x04, IAR = 0x0C, EOIR = 0x10 };
enum { FIQ_ENABLED = 8, GROUP0 = 1 };
/* Lower is more urgent; the payload's own are 0x80 and above whatever it writes. */
enum { URGENT = 0x00, PLAIN = 0x20, PAYLOADS = 0xA0, ONLY_URGENT = 0x10, ALL_OURS = 0x80 };

static struct { uintptr_t monitor, payload; bool given; uint32_t mask; } first; /* stack pointers; the payload has it; its mask */
extern uintptr_t first_context[12]; /* on top of the stack of core 1 */
void context_switch(uintptr_t *from, uintptr_t to);
void core_begin(void);

static volatile uint32_t *at(uintptr_t base, uint32_t off) { return (volatile uint32_t *)(base + off); }
static volatile uint8_t *byte_at(uintptr_t base, uint32_t off) { return (volatile uint8_t *)(base + off); }
static unsigned core_of(unsigned core) { return core ? core - 1 : 0; }
static bool given(void) { return !core_here() && first.given; }

/* ---- interrupts ---- */

static void ours(unsigned id, uint8_t priority)
{
    *at(GICD_BASE, GROUP + id / 32 * 4) &= ~(1u << id % 32);
    *byte_at(GICD_BASE, PRIORITY + id) = priority;
    *at(GICD_BASE, ENABLE + id / 32 * 4) = 1u << id % 32;
}

void gic_core_start(void)
{
    *at(GICD_BASE, GROUP) = UINT32_MAX;
    for (unsigned id = 0; id < 32; id++)
        *byte_at(GICD_BASE, PRIORITY + id) = PAYLOADS;
    ours(SGI_POKE, PLAIN);
    *at(GICC_BASE, PMR) = ALL_OURS;
    *at(GICC_BASE, CTLR) = FIQ_ENABLED | GROUP0;
}

void gic_start(void)
{
    unsigned ids = 32 * ((*at(GICD_BASE, TYPER) & 31) + 1);
    for (unsigned id = 32; id < ids; id++) {
        *at(GICD_BASE, GROUP + id / 32 * 4) = UINT32_MAX;
        *byte_at(GICD_BASE, PRIORITY + id) = PAYLOADS;
    }
    *byte_at(GICD_BASE, TARGET + LINE_IRQ) = 1;
    ours(LINE_IRQ, PLAIN);
    gic_core_start();
    ours(TIMER_IRQ, URGENT);
    *at(GICD_BASE, CTLR) = GROUP0;
}

/* The page that the payload reads is a copy in its own memory, which binds nobody: the service call does.  Closed first, open last. */
static void publish(void)
{
    qsafp_gate_page_t *copy = (qsafp_gate_page_t *)GATE_PAGE;
    const size_t head = offsetof(qsafp_gate_page_t, deadline);
    if (gate_page.armed != QSAFP_ARMED)
        __atomic_store_n(&copy->armed, gate_page.armed, __ATOMIC_RELEASE);
    memcpy((uint8_t *)copy + head, (const uint8_t *)&gate_page + head, sizeof gate_page - head);
    copy->magic = gate_page.magic;
    __atomic_store_n(&copy->armed, gate_page.armed, __ATOMIC_RELEASE);
}

void gic_serve(void)
{
    uint32_t taken = *at(GICC_BASE, IAR);
    if ((taken & 0x3FF) == TIMER_IRQ) {
        monitor_timer();
        publish();
    }
    if ((taken & 0x3FF) < 1020)
        *at(GICC_BASE, EOIR) = taken;
}

/* Secure, so that no payload can hold it off.  Whoever shares this core stands still already. */
void arch_poke(unsigned core)
{
    if (core_of(core) != core_here()) {
        __asm__ volatile("dmb ishst" : : : "memory"); /* it sees what we wrote before it sees us */
        *at(GICD_BASE, SGI) = 1u << (16 + core_of(core)) | SGI_POKE;
    } else if (core && !first.given && m.contain) {
        core_still(&m.core[core]);
    }
}

void arch_unpoke(unsigned core)
{
    if (core_of(core) && core_of(core) == core_here())
        gic_serve();
}

/* ---- the first core's two contexts ---- */

static void to_monitor(void)
{
    first.given = false;
    context_switch(&first.payload, first.monitor);
}

static void to_payload(void)
{
    first.given = true;
    context_switch(&first.monitor, first.payload);
}

void arch_yield(void)
{
    if (given())
        to_monitor();
}

void arch_wait(void)
{
    if (given())
        to_monitor();
    else
        __asm__ volatile("wfi" : : : "memory");
}

void arch_halt(void)
{
    for (;;)
        __asm__ volatile("wfi");
}

void arch_wait_line(void)
{
    const core_t *c = &m.core[1];
    *at(GICC_BASE, PMR) = first.mask;
    if (m.contain && c->state == CORE_PARKED)
        arch_wait();
    else
        to_payload();
    gic_serve();
    first.mask = *at(GICC_BASE, PMR);
    *at(GICC_BASE, PMR) = ONLY_URGENT;
}

void arch_start(void)
{
    first_context[11] = (uintptr_t)core_begin;
    first.payload = (uintptr_t)first_context;
    first.mask = ALL_OURS;
    core_start();
    gic_start();
    *at(GICC_BASE, PMR) = ONLY_URGENT;
    alarm_start();
    arch_unlock(true);
}
