/* SPDX-License-Identifier: Apache-2.0 */
/* The ring in an I2C EEPROM with two address bytes, 24C256 and larger, through /dev/i2c-N (HW-8).  Above 64 KiB the address goes on
 * in the lowest bits of the part's own (24M01, 24CM02). */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/i2c-dev.h>
#include <linux/i2c.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "host.h"

enum { BLOCK = 1 << 16, CHUNK = 4096, WRITE_MAX = 256, LIMIT_MS = 100 };

static bool send(ring_t *r, struct i2c_msg *m, uint32_t n)
{
    struct i2c_rdwr_ioctl_data d = {.msgs = m, .nmsgs = n};
    return ioctl(r->fd, I2C_RDWR, &d) == (int)n || RING_NO(r, "no answer at address 0x%02x (%s)", m->addr, strerror(errno));
}

static uint16_t part_of(const ring_t *r, uint32_t off) { return (uint16_t)(r->address + off / BLOCK); }

/* While it writes it answers to nothing.  A read of one byte changes nothing on any part. */
static bool eeprom_idle(ring_t *r)
{
    uint8_t sink;
    struct i2c_msg m = {.addr = (uint16_t)r->address, .flags = I2C_M_RD, .len = 1, .buf = &sink};
    return send(r, &m, 1);
}

static bool read_some(ring_t *r, uint32_t off, uint8_t *buf, uint32_t n)
{
    uint8_t place[2] = {(uint8_t)(off >> 8), (uint8_t)off};
    struct i2c_msg m[2] = {{.addr = part_of(r, off), .len = 2, .buf = place}, {.addr = part_of(r, off), .flags = I2C_M_RD, .len = (uint16_t)n, .buf = buf}};
    return send(r, m, 2);
}

static bool eeprom_read(ring_t *r, uint32_t off, uint8_t *buf, uint32_t len)
{
    for (uint32_t i = 0, n; i < len; i += n) {
        uint32_t room = BLOCK - (off + i) % BLOCK;
        n = len - i < CHUNK ? len - i : CHUNK;
        n = n < room ? n : room;
        if (!read_some(r, off + i, buf + i, n))
            return false;
    }
    return true;
}

static bool write_page(ring_t *r, uint32_t off, const uint8_t *buf, uint32_t n)
{
    uint8_t b[2 + WRITE_MAX] = {(uint8_t)(off >> 8), (uint8_t)off};
    struct i2c_msg m = {.addr = part_of(r, off), .len = (uint16_t)(2 + n), .buf = b};
    memcpy(b + 2, buf, n);
    return send(r, &m, 1) && ring_wait(r, eeprom_idle, LIMIT_MS);
}

static bool eeprom_prog(ring_t *r, uint32_t off, const uint8_t *buf, uint32_t len)
{
    for (uint32_t i = 0, n; i < len; i += n) {
        uint32_t room = r->page - (off + i) % r->page;
        n = len - i < room ? len - i : room;
        if (!write_page(r, off + i, buf + i, n))
            return false;
    }
    return ring_same(r, off, buf, len);
}

static bool eeprom_erase(ring_t *r, uint32_t sector)
{
    uint8_t blank[WRITE_MAX];
    memset(blank, 0xFF, sizeof blank);
    r->cycles++;
    for (uint32_t i = 0; i < PAGE; i += r->page)
        if (!write_page(r, sector * PAGE + i, blank, r->page))
            return false;
    return true;
}

static bool eeprom_sync(ring_t *r) { (void)r; return true; }

/* Does a place at `half` show up at 0, as where the part ends there?  Two records are never the same.  What is blank at both is
 * written once and put back: only at enrolment, where all is blank. */
static bool wraps(ring_t *r, uint32_t half, bool create, bool *yes)
{
    uint8_t low[SLOT], high[SLOT], mark = 0, mem = 0xFF;
    if (!eeprom_read(r, 0, low, SLOT) || !eeprom_read(r, half, high, SLOT))
        return false;
    *yes = memcmp(low, high, SLOT) == 0;
    if (!*yes || low[0] != 0xFF || !create)
        return (*yes = *yes && low[0] != 0xFF), true;
    if (!write_page(r, half, &mark, 1) || !eeprom_read(r, 0, &mem, 1))
        return false;
    *yes = mem != 0xFF;
    mark = 0xFF;
    return write_page(r, half, &mark, 1);
}

static int check_size(host_t *h, bool create)
{
    ring_t *r = &h->store.ring;
    for (uint32_t half = 4096; half < r->bytes; half *= 2) {
        bool yes = false;
        if (!wraps(r, half, create, &yes))
            return fail(h, "%s: %s at byte %u; smaller than the %u bytes that are configured, or not powered", r->name, r->why, half, r->bytes);
        if (yes)
            return fail(h, "%s: it ends after %u bytes, and %u are configured; say what it has", r->name, half, r->bytes);
    }
    return 0;
}

static int eeprom_open(host_t *h, bool create)
{
    const qsafp_log_spec_t *l = &h->o->log;
    ring_t *r = &h->store.ring;
    unsigned long can = 0;
    if (ring_claim(h))
        return -1;
    r->address = l->address;
    r->bytes = l->bytes;
    r->page = l->page < WRITE_MAX ? l->page : WRITE_MAX;
    if (ioctl(r->fd, I2C_FUNCS, &can) || !(can & I2C_FUNC_I2C))
        return fail(h, "%s: not an I2C bus that takes plain messages", r->name);
    if (ioctl(r->fd, I2C_SLAVE, (unsigned long)r->address))
        return fail(h, "%s: address 0x%02x is taken by a kernel driver (%s); unbind it, such as at24", r->name, r->address, strerror(errno));
    if (!ring_wait(r, eeprom_idle, LIMIT_MS)) /* its last write may be under way */
        return fail(h, "%s: no answer at address 0x%02x; check its power, its address pins, SDA and SCL", r->name, r->address);
    int err = create ? ring_blank(h) : 0;
    *r->why = 0;
    return err ? err : check_size(h, create);
}

const ring_ops_t RING_I2C = {.open = eeprom_open, .read = eeprom_read, .erase = eeprom_erase, .prog = eeprom_prog, .sync = eeprom_sync, .overwrites = true};
