/* SPDX-License-Identifier: Apache-2.0 */
/* Traps, and a hart's way into the payload and back (HW-4, HW-15). */
#include "csr.h"
#include "monitor.h"
#include "protect.h"

/* As start.S lays it out. */
typedef struct {
    uint64_t ra, t0, t1, t2, a[8], t3, t4, t5, t6, sp, epc, status, spare;
} frame_t;
_Static_assert(sizeof(frame_t) == 160, "start.S knows the frame");

enum { ILLEGAL = 2, LOAD_FAULT = 5, ECALL_S = 9 };
/* What the payload's own handlers get: misaligned, breakpoints, its user mode's calls, page faults, its own interrupts. */
enum { DELEGATED = 0xB159, DELEGATED_IRQ = 0x222 };
/* SBI: the base extension, and ours in the vendor range. */
enum { SBI_BASE = 0x10, SBI_QSAFP = 0x09515341 };
enum { SBI_VALIDATE = 0, SBI_FRAME = 1, SBI_CHECKPOINT = 2 };

extern const char copy_load[], copy_store[], copy_fault[];
void core_enter(frame_t *f) __attribute__((noreturn));
void core_main(uint64_t hart) __attribute__((noreturn));
void trap(frame_t *f, uint64_t cause);

static result_t call_base(uint64_t function, uint64_t arg)
{
    if (function == 0)
        return (result_t){CALL_OK, 0x01000000}; /* version 1.0 */
    if (function == 3)
        return (result_t){CALL_OK, arg == SBI_BASE || arg == SBI_QSAFP};
    return (result_t){function < 7 ? CALL_OK : CALL_UNSUPPORTED, 0};
}

static result_t call_ours(core_t *c, uint64_t function, const uint64_t a[8])
{
    switch (function) {
    case SBI_VALIDATE:
        return (result_t){CALL_OK, call_validate()};
    case SBI_FRAME:
        return call_frame(c, a);
    case SBI_CHECKPOINT:
        return call_checkpoint(c, a[0], a[1]);
    default:
        return (result_t){CALL_UNSUPPORTED, 0};
    }
}

static void service_call(core_t *c, frame_t *f)
{
    result_t r = {CALL_UNSUPPORTED, 0};
    f->epc += 4;
    if (f->a[7] == SBI_QSAFP)
        r = call_ours(c, f->a[6], f->a);
    else if (f->a[7] == SBI_BASE)
        r = call_base(f->a[6], f->a[0]);
    f->a[0] = (uint64_t)r.err;
    f->a[1] = r.value;
}

/* The payload's own handler hears of it too. */
static void reflect(frame_t *f, uint64_t cause, uint64_t value)
{
    CSR_WRITE(scause, cause);
    CSR_WRITE(stval, value);
    CSR_WRITE(sepc, f->epc);
    uint64_t s = f->status & ~(uint64_t)(STATUS_SPP | STATUS_SPIE | STATUS_SIE | STATUS_MPP);
    s |= (f->status & STATUS_MPP) == STATUS_MPP_S ? STATUS_SPP : 0;
    s |= f->status & STATUS_SIE ? STATUS_SPIE : 0;
    f->status = s | STATUS_MPP_S;
    f->epc = CSR_READ(stvec) & ~(uint64_t)3;
}

static void fresh(frame_t *f, core_t *c)
{
    memset(f, 0, sizeof *f);
    f->epc = PAYLOAD_BASE;
    f->status = STATUS_MPP_S;
    f->a[0] = (uint64_t)(c - m.core);
    f->a[1] = c->restarts;
    CSR_WRITE(satp, 0);
    CSR_WRITE(stvec, 0);
    CSR_WRITE(sie, 0);
    __asm__ volatile("fence.i; sfence.vma" : : : "memory");
}

static void from_payload(frame_t *f, uint64_t cause)
{
    core_t *c = &m.core[CSR_READ(mhartid)];
    if (cause == ECALL_S) {
        service_call(c, f);
    } else if (cause == (INTERRUPT | IRQ_SOFTWARE)) {
        arch_unpoke((unsigned)(c - m.core));
    } else {
        const report_t what = {cause, f->epc, CSR_READ(mtval)};
        report(c, &what);
        reflect(f, what.cause, what.address);
    }
    if (core_park(c))
        fresh(f, c);
}

/* All but the monitor's timer, which start.S calls by itself. */
void trap(frame_t *f, uint64_t cause)
{
    if ((f->status & STATUS_MPP) != STATUS_MPP)
        from_payload(f, cause);
    else if (f->epc == (uintptr_t)copy_load || f->epc == (uintptr_t)copy_store) {
        f->epc = (uintptr_t)copy_fault;
        f->status &= ~(uint64_t)STATUS_MPRV;
    } else
        monitor_halt("a trap of its own");
}

void core_main(uint64_t hart)
{
    core_t *c = &m.core[hart];
    frame_t f;
    protect();
    CSR_WRITE(medeleg, DELEGATED);
    CSR_WRITE(mideleg, DELEGATED_IRQ);
    CSR_WRITE(mcounteren, 0);
    arch_unpoke((unsigned)hart);
    CSR_WRITE(mie, 1u << IRQ_SOFTWARE);
    __atomic_store_n(&c->state, CORE_PARKED, __ATOMIC_SEQ_CST);
    (void)core_park(c);
    fresh(&f, c);
    f.a[1] = 0; /* the first time, whatever was rolled back before */
    core_enter(&f);
}
