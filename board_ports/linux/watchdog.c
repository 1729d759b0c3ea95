/* SPDX-License-Identifier: Apache-2.0 */
/* The board's watchdog (HW-12): fed only while the deadline thread ticks and the pin holder drives, so that a board on which
 * nothing ends a lease is reset.
 *
 * A board that it resets again and again never comes to a lease.  Few drivers say what reset the board (a Raspberry Pi's does not),
 * so what counts is a boot that ended with it armed: a power cut counts too.  After RESETS_MAX of them in a row without a lease it is
 * left alone, the workload stays contained as it is without a lease, and the guard says so; the first lease arms it again. */
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

#ifndef BOOT_ID
#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#endif

enum { RESETS_MAX = 3, FEED_MS = 100 };

typedef struct { uint32_t resets; char armed[36]; } watchdog_state_t; /* boots that ended armed since the last lease; the boot that is, or zeros */

static int read_boot(host_t *h, char boot[36])
{
    int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, boot, 36) : 0;
    if (fd >= 0)
        close(fd);
    return n == 36 ? 0 : fail(h, "%s: cannot be read", BOOT_ID);
}

static int save(host_t *h, bool armed)
{
    watchdog_t *w = &h->watchdog;
    watchdog_state_t s = {.resets = w->resets};
    if (armed && read_boot(h, s.armed))
        return -1;
    return slots_save(w->file, &s, sizeof s, &w->saves)
               ? fail(h, "%s/watchdog.bin: cannot be written; a watchdog whose resets are not counted could loop", h->o->state_dir) : 0;
}

/* A guard that starts again in the same boot counts nothing. */
static int count_reset(host_t *h)
{
    watchdog_t *w = &h->watchdog;
    watchdog_state_t s = {0};
    char boot[sizeof s.armed];
    if (read_boot(h, boot))
        return -1;
    (void)!slots_load(w->file, &s, sizeof s, &w->saves); /* none yet, or torn: counts from the start */
    w->resets = s.resets + (s.armed[0] && memcmp(boot, s.armed, sizeof boot) != 0);
    if (w->resets == s.resets)
        return 0;
    qsafp_record_t r = {.event = QSAFP_EVENT_ANOMALY, .reason = QSAFP_REASON_ANOMALY};
    memcpy(r.data, &w->resets, sizeof w->resets);
    (void)!qsafp_note(&h->q, &r); /* a log that fails closes the gate by itself */
    return save(h, false);
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
    (void)!save(h, false);
}

/* Armed by opening it; what it then really does is read back. */
static int arm(host_t *h)
{
    watchdog_t *w = &h->watchdog;
    int asked = (int)h->o->watchdog_s, got = asked;
    if (save(h, true))
        return -1;
    int fd = w->fd = open(h->o->watchdog, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        int why = errno;
        (void)!save(h, false);
        return fail(h, "watchdog %s: %s%s", h->o->watchdog, strerror(why),
                    why == EBUSY ? "; another process has it, systemd perhaps: RuntimeWatchdogSec=off in system.conf"
                    : why == EACCES ? "; packaging/udev/60-qsafp-watchdog.rules gives it to the group qsafp" : "");
    }
    bool set = ioctl(fd, WDIOC_SETTIMEOUT, &got) == 0 || errno == EOPNOTSUPP; /* one whose time is fixed, such as rti_wdt */
    if (!set || ioctl(fd, WDIOC_GETTIMEOUT, &got)) {
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
        w->resets = 0;
        if (w->fd < 0)
            printf("guard: a lease runs, the watchdog is %s%s\n", arm(h) ? "not armed: " : "armed", w->fd < 0 ? h->why : "");
        else
            (void)!save(h, true);
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
        printf("guard: %u boots ended with the watchdog armed and without a lease: contained, and it is not armed until there is one\n", w->resets);
    else if (arm(h))
        return -1;
    if (pthread_create(&w->thread, 0, feeder, h) == 0)
        return 0;
    w->thread = 0; /* it may be anything now */
    disarm(h);
    return fail(h, "cannot start the watchdog's thread");
}

/* After h->stop was set, and the lines are low.  Not `clean`: it stays armed, and bites unless another guard takes it. */
void watchdog_stop(host_t *h, bool clean)
{
    watchdog_t *w = &h->watchdog;
    if (w->thread)
        pthread_join(w->thread, 0);
    if (clean)
        disarm(h);
    else if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
    if (w->file >= 0)
        close(w->file);
    w->file = -1;
}
