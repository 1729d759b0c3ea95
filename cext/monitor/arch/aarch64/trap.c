/* SPDX-License-Identifier: Apache-2.0 */
/* Traps, and a core's way into the payload and back (HW-4, HW-15). */
#include "cpu.h"
#include "sysreg.h"

/* As start.S lays it out. */
typedef struct { uint64_t x[19], lr, elr, spsr; } frame_t;
_Static_assert(sizeof(frame_t) == 176, "start.S knows the frame");

enum { FIQ = 1, MODE_EL3 = 13 };
enum { EC_SMC = 0x17, EC_FETCH = 0x20, EC_DATA = 0x24, EC_SERROR = 0x2F };
/* Registers of EL3 that rule the levels below. */
#define SCR (1u << 10 | 1u << 9 | 1u << 4 | 0x30u | 1u << 3 | 1u << 2 | 1u) /* AArch64, fetches secure code only, EA and FIQ come here, non-secure */
#define MDCR (1u << 16 | 2u << 14 | 1u << 10 | 1u << 9 | 1u << 6)           /* debug and counters of the payload trap here, none in EL3 */

extern const char vectors[], untranslated[];
void core_enter(frame_t *f) __attribute__((noreturn));
void core_main(uint64_t core) __attribute__((noreturn));
void trap(frame_t *f, uint64_t kind);

/* The payload's own handler hears of it too: an abort as it was, anything else as an instruction that it does not have. */
static void reflect(frame_t *f, uint64_t cause, uint64_t address)
{
    bool abort = cause >> 26 == EC_FETCH || cause >> 26 == EC_DATA, same = f->spsr & SPSR_MODE && !(f->spsr & SPSR_A32);
    uint64_t from = f->spsr & SPSR_A32 ? 0x600 : same ? (f->spsr & 1) * 0x200 : 0x400;
    SYS_WRITE(esr_el1, abort ? cause | (uint64_t)same << 26 : 1u << 25);
    SYS_WRITE(far_el1, address);
    SYS_WRITE(elr_el1, f->elr);
    SYS_WRITE(spsr_el1, f->spsr);
    f->elr = SYS_READ(vbar_el1) + from;
    f->spsr = SPSR_MASKED | SPSR_EL1H;
}

BEFORE_VECTORS static void fresh(frame_t *f, const core_t *c)
{
    memset(f, 0, sizeof *f);
    f->elr = PAYLOAD_BASE;
    f->spsr = SPSR_MASKED | SPSR_EL1H;
    f->x[0] = (uint64_t)(c - m.core);
    f->x[1] = c->restarts;
    SYS_WRITE(sctlr_el1, 0x30D00800u);
    SYS_WRITE(vbar_el1, 0);
    SYS_WRITE(cpacr_el1, 0);
    __asm__ volatile("dsb sy; tlbi alle1; ic iallu; dsb sy; isb" : : : "memory");
}

static void caught(core_t *c, frame_t *f, uint64_t cause)
{
    const report_t what = {cause, f->elr, SYS_READ(far_el3)};
    report(c, &what);
    if (cause >> 26 != EC_SERROR)
        reflect(f, cause, what.address);
}

static void asked(core_t *c, frame_t *f)
{
    result_t r = smc(c, (uint32_t)f->x[0], f->x + 1);
    f->x[0] = (uint64_t)r.err;
    f->x[1] = r.value;
}

static void from_payload(frame_t *f, uint64_t kind)
{
    core_t *c = &m.core[core_here() + 1];
    if (kind == FIQ && !m.contain) {
        arch_yield();
    } else if (kind != FIQ) {
        uint64_t cause = SYS_READ(esr_el3);
        if (cause >> 26 == EC_SMC)
            asked(c, f);
        else
            caught(c, f, cause);
    }
    if (core_park(c))
        fresh(f, c);
}

void trap(frame_t *f, uint64_t kind)
{
    if (kind == FIQ)
        gic_serve(); /* before anything else */
    if ((f->spsr & SPSR_MODE) != MODE_EL3 || f->spsr & SPSR_A32)
        from_payload(f, kind);
    else if (kind != FIQ) {
        if (f->elr - (uintptr_t)translate >= (uintptr_t)untranslated - (uintptr_t)translate)
            monitor_halt("a trap of its own");
        f->elr = (uintptr_t)untranslated;
    }
}

BEFORE_VECTORS void core_start(void)
{
    SYS_WRITE(vbar_el3, (uintptr_t)vectors);
    SYS_WRITE(scr_el3, SCR);
    SYS_WRITE(mdcr_el3, MDCR);
    SYS_WRITE(cptr_el3, 0);
    ISB();
}

BEFORE_VECTORS void core_main(uint64_t core)
{
    core_t *c = &m.core[core];
    frame_t f;
    if (core > 1)
        gic_core_start();
    __atomic_store_n(&c->state, CORE_PARKED, __ATOMIC_SEQ_CST);
    (void)core_park(c);
    fresh(&f, c);
    f.x[1] = 0; /* the first time, whatever was rolled back before */
    core_enter(&f);
}
