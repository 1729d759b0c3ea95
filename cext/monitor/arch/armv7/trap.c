/* SPDX-License-Identifier: Apache-2.0 */
/* What comes to Monitor mode, and a core's way into the payload and back (HW-4, HW-15).
 *
 * Aborts of the payload's go to the payload itself (SCR.EA 0): it cannot hide from the monitor, only from itself. */
#include "cpu.h"
#include "sysreg.h"

/* As start.S lays it out. */
typedef struct { uintptr_t r[13], scr, pc, psr; } frame_t;
_Static_assert(sizeof(frame_t) == 64, "start.S knows the frame");

enum { FIQ = 1 };

extern const char vectors[];
void core_enter(frame_t *f) __attribute__((noreturn));
void core_main(uint32_t core) __attribute__((noreturn));
void trap(frame_t *f, uint32_t kind);
void fault(void) __attribute__((noreturn));

static void fresh(frame_t *f, const core_t *c)
{
    memset(f, 0, sizeof *f);
    f->scr = SCR_PAYLOAD;
    f->pc = PAYLOAD_BASE;
    f->psr = (PSR_MASKED & ~PSR_F) | MODE_SVC;
    f->r[0] = (uintptr_t)(c - m.core);
    f->r[1] = c->restarts;
    CP_WRITE(SCR, SCR_PAYLOAD);
    ISB();
    CP_WRITE(SCTLR, SCTLR_OFF);
    CP_WRITE(TTBCR, 0);
    CP_WRITE(VBAR, 0);
    CP_WRITE(TLBIALL, 0);
    CP_WRITE(ICIALLU, 0);
    CP_WRITE(BPIALL, 0);
    DSB();
    CP_WRITE(SCR, SCR_SECURE);
    ISB();
}

static void asked(core_t *c, frame_t *f)
{
    result_t r = smc(c, f->r[0], f->r + 1);
    f->r[0] = (uintptr_t)r.err;
    f->r[1] = r.value;
}

static void from_payload(frame_t *f, uint32_t kind)
{
    core_t *c = &m.core[core_here() + 1];
    if (kind != FIQ)
        asked(c, f);
    else if (!m.contain)
        arch_yield();
    if (core_park(c))
        fresh(f, c);
}

void trap(frame_t *f, uint32_t kind)
{
    if (kind == FIQ)
        gic_serve(); /* before anything else */
    if (f->scr != SCR_SECURE)
        from_payload(f, kind);
    else if (kind != FIQ)
        fault();
}

void fault(void)
{
    monitor_halt("a trap of its own");
}

void core_start(void)
{
    CP_WRITE(VBAR, (uintptr_t)vectors);
    CP_WRITE(MVBAR, (uintptr_t)vectors);
    CP_WRITE(SCR, SCR_SECURE);
    CP_WRITE(NSACR, 3u << 10); /* floating point is the payload's */
    ISB();
}

void core_main(uint32_t core)
{
    core_t *c = &m.core[core];
    frame_t f;
    if (core > 1)
        gic_core_start();
    __atomic_store_n(&c->state, CORE_PARKED, __ATOMIC_SEQ_CST);
    (void)core_park(c);
    fresh(&f, c);
    f.r[1] = 0; /* the first time, whatever was rolled back before */
    core_enter(&f);
}
