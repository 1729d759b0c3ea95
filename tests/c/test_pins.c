/* SPDX-License-Identifier: Apache-2.0 */
/* The pin holder (HW-13): LEASE_VALID stays high only while the deadline thread vouches for it; nothing else that the guard does
 * stands for that. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../board_ports/linux/pins.c"

/* The board: levels in memory that the holder and we share. */
static uint32_t *level;
static unsigned passed;

#define CHECK(what) \
    do { \
        if (!(what)) { \
            printf("%s:%d: %s\ntest_pins: %u passed, 1 failed\n", __FILE__, __LINE__, #what, passed); \
            exit(1); \
        } \
        passed++; \
    } while (0)

static void *claim(const char *run_dir, char *why, size_t why_len)
{
    (void)run_dir, (void)why, (void)why_len;
    return level;
}

static int drive_line(void *ctx, qsafp_line_t line, int to)
{
    (void)ctx;
    __atomic_store_n(&level[line], (uint32_t)to, __ATOMIC_SEQ_CST);
    return 0;
}

static void release(void *ctx) { (void)ctx; }

const qsafp_lines_t QSAFP_LINES_SIMULATED = {.name = "simulated", .claim = claim, .drive = drive_line, .release = release};

int fail(host_t *h, const char *fmt, ...)
{
    va_list v;
    va_start(v, fmt);
    vsnprintf(h->why, h->why_len, fmt, v);
    va_end(v);
    return -1;
}

uint64_t boot_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool becomes(qsafp_line_t line, uint32_t to)
{
    const struct timespec nap = {.tv_nsec = 1000000};
    for (int i = 0; i < 20000; i++) {
        if (get(&level[line]) == to)
            return true;
        nanosleep(&nap, 0);
    }
    return false;
}

int main(void)
{
    static char why[200];
    static const qsafp_guard_options_t o = {.board = "simulated", .run_dir = "", .stale_after_ms = 100, .linger_ms = 10000};
    static host_t h = {.o = &o, .why = why, .why_len = sizeof why};
    level = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(level != MAP_FAILED);
    CHECK(pins_start(&h) == 0);
    CHECK(pin_failsafe(&h, 0) == 0 && pin_lease_valid(&h, 1) == 0);
    CHECK(becomes(LINE_LEASE_VALID, 1));
    /* The deadline thread hangs; the service thread goes on asking validators. */
    bool fell = false;
    for (uint64_t end = boot_ns() + 20000000000u; !fell && boot_ns() < end;) {
        const struct timespec nap = {.tv_nsec = 5000000};
        CHECK(pin_req(&h) == 0 && pin_failsafe(&h, 0) == 0);
        nanosleep(&nap, 0);
        fell = get(&level[LINE_LEASE_VALID]) == 0;
    }
    CHECK(fell);
    CHECK(becomes(LINE_FAILSAFE, 1));
    bool back = false;
    for (uint64_t end = boot_ns() + 20000000000u; !back && boot_ns() < end; back = get(&level[LINE_LEASE_VALID]) == 1) {
        const struct timespec nap = {.tv_nsec = 5000000};
        CHECK(pin_lease_valid(&h, 1) == 0);
        nanosleep(&nap, 0);
    }
    CHECK(back);
    pins_stop(&h);
    CHECK(get(&level[LINE_LEASE_VALID]) == 0);
    printf("test_pins: %u passed, 0 failed\n", passed);
    return 0;
}
