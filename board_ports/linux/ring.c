/* SPDX-License-Identifier: Apache-2.0 */
/* What flash and EEPROM share: claiming the bus, waiting with a limit, reading back, and what enrolment asks of a part. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "host.h"

int ring_claim(host_t *h)
{
    const qsafp_log_spec_t *l = &h->o->log;
    const char *bus = l->kind == LOG_SPI ? "spi" : "i2c";
    ring_t *r = &h->store.ring;
    snprintf(r->name, sizeof r->name, "%s:%s", bus, l->device);
    r->fd = open(l->device, O_RDWR | O_CLOEXEC);
    if (r->fd >= 0)
        return 0;
    if (errno == EACCES)
        return fail(h, "%s: permission denied; add the guard's user to the group %s, which packaging/udev/60-qsafp-buses.rules gives the bus to", r->name, bus);
    if (errno == ENOENT || errno == ENXIO || errno == ENODEV)
        return fail(h, "%s: no such bus; qsafp board check BOARD says how it is enabled there; then load %s", r->name, l->kind == LOG_SPI ? "spidev" : "i2c-dev");
    return fail(h, "%s: %s", r->name, strerror(errno));
}

bool ring_wait(ring_t *r, bool (*done)(ring_t *r), uint32_t limit_ms)
{
    for (uint64_t from = boot_ns(), waited = 0; waited < limit_ms * (uint64_t)1000000; waited = boot_ns() - from) {
        if (done(r))
            return true;
        uint64_t nap = waited / 32 > 10000 ? waited / 32 : 10000; /* late by 3 % at most, at few transfers */
        nanosleep(&(struct timespec){.tv_nsec = (long)nap}, 0);
    }
    return RING_NO(r, "not done within %u ms: the part is stuck or gone; cut its power, look at its wiring, or replace it", limit_ms);
}

bool ring_same(ring_t *r, uint32_t off, const uint8_t *buf, uint32_t len)
{
    uint8_t back[PAGE];
    for (uint32_t i = 0, n; i < len; i += n) {
        n = len - i < PAGE ? len - i : PAGE;
        if (!r->is->read(r, off + i, back, n))
            return false;
        for (uint32_t k = 0; k < n; k++)
            if (back[k] != buf[i + k])
                return RING_NO(r, "byte %u reads 0x%02x and not 0x%02x as written; write-protected (its WP pin?), worn out, or not the part that is configured", off + i + k, back[k], buf[i + k]);
    }
    return true;
}

int ring_blank(host_t *h)
{
    ring_t *r = &h->store.ring;
    uint8_t blank[PAGE], has[PAGE];
    memset(blank, 0xFF, sizeof blank);
    for (uint32_t i = 0; i < r->bytes / PAGE && i < QSAFP_LOG_SLOTS / PAGE_SLOTS; i++) {
        if ((h->o->log.erase && !r->is->erase(r, i)) || !r->is->read(r, i * PAGE, has, PAGE))
            return fail(h, "%s: %s", r->name, r->why);
        if (memcmp(has, blank, PAGE) != 0)
            return fail(h, "%s: not blank at byte %u; if nobody needs what it holds, enrol with --erase-log", r->name, i * PAGE);
    }
    return 0;
}
