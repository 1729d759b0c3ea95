/* SPDX-License-Identifier: Apache-2.0 */
/* The gate page and its check: all that a workload links (HW-5; layout in docs/formats.md). */
#ifndef QSAFP_GATE_H
#define QSAFP_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QSAFP_GATE_MAGIC 0x31504751u /* "QGP1" */
#define QSAFP_ARMED 0x5A3C96E1u      /* any other value is a fail-safe generation: closed */
#define QSAFP_GATE_PAGE_BYTES 4096u

typedef struct {
    uint32_t magic;
    uint32_t armed;         /* QSAFP_ARMED, or 0 never armed, or 1..0x00FFFFFF the last fail-safe */
    uint64_t deadline;      /* CPU counter ticks */
    uint64_t deadline_ns;   /* CLOCK_BOOTTIME */
    uint64_t window;        /* counter ticks, 2 x stale_after */
    uint64_t window_ns;
    uint64_t counter_hz;    /* 0: readers use boot time */
    uint64_t serial;
    uint32_t status;        /* qsafp_status_t */
    uint32_t seq;           /* seqlock over bytes 48..127 but itself: odd while written */
    uint16_t phase;         /* qsafp_phase_t */
    uint16_t clock_id;
    uint32_t reason;        /* qsafp_reason_t */
    uint64_t zero;
    uint8_t model[32];
    uint8_t lease_id[16];
} qsafp_gate_page_t;

#ifdef __cplusplus
static_assert(sizeof(qsafp_gate_page_t) == 128 && offsetof(qsafp_gate_page_t, seq) == 60, "the page is a wire format");
#else
_Static_assert(sizeof(qsafp_gate_page_t) == 128 && offsetof(qsafp_gate_page_t, seq) == 60, "the page is a wire format");
#endif

/* I1: open only while armed and the deadline lies ahead, inside the window. */
static inline bool qsafp_gate_open(uint32_t armed, uint64_t deadline, uint64_t window, uint64_t now)
{
    /* unsigned wrap refuses a past, zero or far deadline, so a clock that went back is no reprieve */
    return armed == QSAFP_ARMED && deadline - now - 1 < window;
}

/* Where 64-bit loads are not atomic a torn deadline is past or 2^32 units off: the window refuses both. */
static inline uint64_t qsafp_gate_load(const uint64_t *p)
{
#if defined(__GCC_HAVE_SYNC_COMPARE_AND_SWAP_8) || __SIZEOF_POINTER__ == 8
    return __atomic_load_n(p, __ATOMIC_RELAXED);
#else
    return *(const volatile uint64_t *)p;
#endif
}

/* Reads the page with boot time `now_ns`; for callers without a trusted CPU counter, and the slow path. */
static inline bool qsafp_gate_check_ns(const qsafp_gate_page_t *page, uint64_t now_ns)
{
    uint32_t armed = __atomic_load_n(&page->armed, __ATOMIC_ACQUIRE);
    uint64_t deadline = qsafp_gate_load(&page->deadline_ns);
    uint64_t window = qsafp_gate_load(&page->window_ns);
    return qsafp_gate_open(armed, deadline, window, now_ns);
}

/* The bare read of the CPU counter; 0 where there is none (then use boot time).  The compiler keeps its place; the pipeline may
 * take it before what stands above has retired, by its own depth at most: well under a microsecond, and an interrupt in
 * between takes it anew.  For a check against a deadline that is close enough. */
static inline uint64_t qsafp_counter_bare(void)
{
#if defined(__x86_64__)
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return (uint64_t)hi << 32 | lo;
#elif defined(__aarch64__)
    uint64_t v;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(v) : : "memory");
    return v;
#else
    return 0;
#endif
}

/* Reads the counter after everything above it, never before: for pairing it with another clock. */
static inline uint64_t qsafp_counter(void)
{
#if defined(__x86_64__)
    __asm__ volatile("lfence" : : : "memory");
#elif defined(__aarch64__)
    __asm__ volatile("isb" : : : "memory");
#endif
    return qsafp_counter_bare();
}

/* The fast check, for a page whose counter_hz is not 0. */
static inline bool qsafp_gate_check_counter(const qsafp_gate_page_t *page)
{
    uint32_t armed = __atomic_load_n(&page->armed, __ATOMIC_ACQUIRE);
    uint64_t deadline = qsafp_gate_load(&page->deadline);
    uint64_t window = qsafp_gate_load(&page->window);
    return qsafp_gate_open(armed, deadline, window, qsafp_counter_bare());
}

#endif
