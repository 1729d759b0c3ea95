/* SPDX-License-Identifier: Apache-2.0 */
/* Boot time, and the CPU counter where the kernel itself trusts it (architecture decision 3). */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "host.h"

uint64_t boot_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Counter and boot time of one instant: the closest of a few readings. */
static void pair(uint64_t *count, uint64_t *ns)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        uint64_t a = qsafp_counter(), t = boot_ns(), b = qsafp_counter();
        if (b - a < best) {
            best = b - a;
            *count = a + (b - a) / 2;
            *ns = t;
        }
    }
}

static bool kernel_trusts_it(void)
{
    char name[32] = {0};
    FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
    if (!f)
        return false;
    bool ok = fgets(name, sizeof name, f) && (!strcmp(name, "tsc\n") || !strcmp(name, "arch_sys_counter\n"));
    fclose(f);
    return ok;
}

uint64_t counter_hz(void)
{
    uint64_t c0 = 0, n0 = 0, c1 = 0, n1 = 0;
    if (!kernel_trusts_it() || !qsafp_counter())
        return 0;
    uint64_t start = boot_ns();
    for (int i = 0; i < 1000; i++)
        (void)qsafp_counter();
    if (boot_ns() - start > 100000)
        return 0; /* more than 100 ns a reading: trapped */
    pair(&c0, &n0);
    struct timespec nap = {.tv_nsec = 20000000};
    nanosleep(&nap, 0);
    pair(&c1, &n1);
    return n1 > n0 && c1 > c0 ? (uint64_t)((double)(c1 - c0) * 1e9 / (double)(n1 - n0)) : 0;
}

/* Extrapolates from this very moment: over at most a lease's tick or stale_after, so that drift does not matter. */
uint64_t counter_at(void *ctx, uint64_t ns)
{
    const host_t *h = ctx;
    uint64_t count = 0, now = 0;
    if (!h->counter_hz)
        return 0;
    pair(&count, &now);
    double ahead = ((double)ns - (double)now) * (double)h->counter_hz / 1e9;
    return count + (uint64_t)(int64_t)ahead;
}
