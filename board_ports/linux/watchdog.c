/* SPDX-License-Identifier: Apache-2.0 */
/* The board's watchdog (HW-12): fed only while the deadline thread ticks and the pin holder drives, so that a board on which nothing ends a lease is reset.
 *
 * A board that it resets again and again never comes to a lease.  After RESETS_MAX of them without one it is left alone, the
 * workload stays contained as it is without a lease, and the guard says so; the first lease arms it again. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "host.h"

#ifndef WATCHDOG_SYSFS
#define WATCHDOG_SYSFS "/sys/class/watchdog"
#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#endif

enum { RESETS_MAX = 3, FEED_MS = 100 };

typedef struct { uint32_t resets; char boot[36]; } watchdog_state_t; /* resets by it since the last lease, and the boot that counted last */

static size_t read_text(const char *path, char *to, size_t len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, to, len - 1) : 0;
    if (fd >= 0)
        close(fd);
    to[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

/* Did it reset the board into this boot?  Opening the device would arm it, so the answer is sysfs's. */
static bool reset_us(const char *device)
{
    char path[300], text[32];
    const char *name = strrchr(device, '/');
    snprintf(path, sizeof path, "%s/%s/bootstatus", WATCHDOG_SYSFS, name ? name + 1 : device);
    return read_text(path, text, sizeof text) && strtoul(text, 0, 0) & WDIOF_CARDRESET;
}

static int save(watchdog_t *w, const watchdog_state_t *s)
{
    int err = slots_save(w->file, s, sizeof *s, &w->saves);
    if (!err)
        w->resets = s->resets;
    return err;
}

static int count_reset(host_t *h)
{
    watchdog_t *w = &h->watchdog;
    watchdog_state_t s = {0};
    char boot[64] = {0};
    (void)!slots_load(w->file, &s, sizeof s, &w->saves); /* none yet, or torn: counts from the start */
    w->resets = s.resets;
    (void)read_text(BOOT_ID, boot, sizeof boot);
    if (!reset_us(h->o->watchdog) || memcmp(boot, s.boot, sizeof s.boot) == 0)
        return 0;
    s.resets++;
    memcpy(s.boot, boot, sizeof s.boot);
    return save(w, &s) ? fail(h, "%s/watchdog.bin: cannot be written; a watchdog whose resets are not counted could loop", h->o->state_dir) : 0;
}

/* The magic close: the driver stops it, unless it was built never to. */
static void disarm(host_t *h)
{
    watchdog_t *w = &h->watchdog;
    if (w->fd < 0)
        return;
    (void)!write(w->fd, "V", 1);
    close(w->fd);
    w->fd = -1;
}

/* Armed by opening it; what it then really does is read back. */
static int arm(host_t *h)
{
    watchdog_t *w = &h->watchdog;
    int asked = (int)h->o->watchdog_s, got = asked;
    int fd = open(h->o->watchdog, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(h, "watchdog %s: %s%s", h->o->watchdog, strerror(errno),
                    errno == EBUSY ? "; another process has it, systemd perhaps: RuntimeWatchdogSec=off in system.conf"
                    : errno == EACCES ? "; packaging/udev/60-qsafp-watchdog.rules gives it to the group qsafp" : "");
    w->fd = fd;
    if (ioctl(fd, WDIOC_SETTIMEOUT, &got) || ioctl(fd, WDIOC_GETTIMEOUT, &got)) {
        int why = errno;
        disarm(h);
        return fail(h, "watchdog %s: its timeout cannot be set: %s", h->o->watchdog, strerror(why));
    }
    if (got < 1 || got > asked) {
        disarm(h);
        return fail(h, "watchdog %s: asked for %d s, it will wait %d s; set watchdog_s to what it can do", h->o->watchdog, asked, got);
    }
    return 0;
}

static void look(host_t *h)
{
    watchdog_t *w = &h->watchdog;
    uint64_t now = boot_ns(), ticked = __atomic_load_n(&h->pins.s->heartbeat_ns, __ATOMIC_SEQ_CST);
    if (w->resets && qsafp_gate_check_ns(h->q.page, now)) {
        watchdog_state_t s = {0};
        (void)!slots_load(w->file, &s, sizeof s, &w->saves);
        s.resets = 0; /* this boot stays counted */
        bool armed = save(w, &s) == 0 && (w->fd >= 0 || arm(h) == 0);
        printf("guard: a lease runs, the watchdog is %s\n", armed ? "armed" : "not armed");
        fflush(stdout);
    }
    if (w->fd >= 0 && now - ticked <= h->pins.s->stale_ns && pins_drive(h))
        (void)ioctl(w->fd, WDIOC_KEEPALIVE, 0);
}

static void *feeder(void *arg)
{
    host_t *h = arg;
    while (!h->stop) {
        look(h);
        (void)poll(0, 0, FEED_MS);
    }
    disarm(h);
    return 0;
}

int watchdog_start(host_t *h)
{
    watchdog_t *w = &h->watchdog;
    if (!h->o->watchdog)
        return 0;
    w->file = openat(h->store.dir_fd, "watchdog.bin", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (w->file < 0)
        return fail(h, "%s/watchdog.bin: %s", h->o->state_dir, strerror(errno));
    if (count_reset(h))
        return -1;
    if (w->resets >= RESETS_MAX)
        printf("guard: the watchdog reset this board %u times without a lease: contained, and the watchdog not armed until there is one\n", w->resets);
    else if (arm(h))
        return -1;
    return pthread_create(&w->thread, 0, feeder, h) ? fail(h, "cannot start the watchdog's thread") : 0;
}

/* After h->stop was set. */
void watchdog_stop(host_t *h)
{
    watchdog_t *w = &h->watchdog;
    if (w->thread)
        pthread_join(w->thread, 0);
    disarm(h);
    if (w->file >= 0)
        close(w->file);
    w->file = -1;
}
