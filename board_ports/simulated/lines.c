/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated board: lines are words of a mapped file `pins`, edges of outputs lines of text in `pins.trace`.  The input is pressed
 * through the FIFO `pins.renew`: `1` is high, `0` is low, other bytes mean nothing. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lines.h"

static const char *const NAMES[LINE_LEASE_RENEW] = {"LEASE_VALID", "FAILSAFE", "VALIDATOR_REQ"};

/* The file as readers map it (tests, demo, `qsafp status`). */
typedef struct { char mark[16]; uint32_t level[LINES]; uint64_t changed_ns[LINES]; } board_t;
typedef struct { board_t *b; int fd, trace, renew; } simulated_t;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *claim(const qsafp_guard_options_t *o, char *why, size_t why_len)
{
    const char *run_dir = o->run_dir;
    char path[PATH_MAX];
    simulated_t *s = calloc(1, sizeof *s);
    if (!s)
        return 0;
    snprintf(path, sizeof path, "%s/pins", run_dir);
    s->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (s->fd >= 0)
        snprintf(path, sizeof path, "%s/pins.trace", run_dir);
    s->trace = s->fd < 0 ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (s->trace < 0 || ftruncate(s->fd, 4096)) {
        snprintf(why, why_len, "%s: %s", path, strerror(errno));
        return 0;
    }
    s->b = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
    if (s->b == MAP_FAILED) {
        snprintf(why, why_len, "%s/pins: %s", run_dir, strerror(errno));
        return 0;
    }
    memset(s->b, 0, sizeof *s->b);
    memcpy(s->b->mark, "SIMULATED PINS", 14);
    snprintf(path, sizeof path, "%s/pins.renew", run_dir);
    (void)unlink(path); /* what was written for the holder before is not for us */
    s->renew = mkfifo(path, 0600) ? -1 : open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (s->renew < 0) {
        snprintf(why, why_len, "%s: %s", path, strerror(errno));
        return 0;
    }
    return s;
}

static void set(simulated_t *s, qsafp_line_t line, int level, uint64_t now)
{
    __atomic_store_n(&s->b->level[line], (uint32_t)level, __ATOMIC_SEQ_CST);
    __atomic_store_n(&s->b->changed_ns[line], now, __ATOMIC_SEQ_CST);
}

static int drive(void *ctx, qsafp_line_t line, int level)
{
    simulated_t *s = ctx;
    char text[80];
    uint64_t now = now_ns();
    set(s, line, level, now);
    int n = snprintf(text, sizeof text, "%llu %s %d\n", (unsigned long long)now, NAMES[line], level);
    (void)!write(s->trace, text, (size_t)n); /* a trace that cannot be written never keeps a line high */
    return 0;
}

static int input(void *ctx) { return ((simulated_t *)ctx)->renew; }

/* Not traced: what others send never makes us write to a disk. */
static int edges(void *ctx, int *level)
{
    simulated_t *s = ctx;
    char bytes[4096];
    ssize_t n = read(s->renew, bytes, sizeof bytes);
    int was = (int)s->b->level[LINE_LEASE_RENEW], now = was;
    for (ssize_t i = 0; i < n; i++)
        now = bytes[i] == '1' || (bytes[i] != '0' && now);
    if (now != was)
        set(s, LINE_LEASE_RENEW, now, now_ns());
    *level = now;
    return n > 0 ? 1 : n < 0 && errno == EAGAIN ? 0 : -1;
}

static void release(void *ctx)
{
    simulated_t *s = ctx;
    close(s->renew);
    munmap(s->b, 4096);
    close(s->fd);
    close(s->trace);
    free(s);
}

const qsafp_lines_t QSAFP_LINES_SIMULATED = {.claim = claim, .drive = drive, .release = release, .input = input, .edges = edges};
