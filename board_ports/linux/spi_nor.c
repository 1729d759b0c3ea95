/* SPDX-License-Identifier: Apache-2.0 */
/* The ring in SPI NOR flash, through /dev/spidevB.C (HW-8).  Three-byte addresses: the ring is the first 260 KiB. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/spi/spidev.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#include "host.h"

#ifndef SPIDEV_BUFSIZ
#define SPIDEV_BUFSIZ "/sys/module/spidev/parameters/bufsiz"
#endif

enum { WRITE_STATUS = 0x01, PROGRAM = 0x02, READ = 0x03, READ_STATUS = 0x05, WRITE_ENABLE = 0x06, ERASE_4K = 0x20, READ_SFDP = 0x5A, READ_ID = 0x9F };
enum { BUSY = 1, PROGRAM_LIMIT_MS = 50, ERASE_LIMIT_MS = 3000, PROGRAM_MAX = 256 };

/* Parts without SFDP whose 4 KiB erase is 0x20; size 0: two to the power of the third id byte. */
typedef struct { uint8_t maker, type, size; uint32_t bytes, page; bool locked; } known_t;
static const known_t KNOWN[] = {
    {0xBF, 0x25, 0x41, 1u << 21, 1, true}, /* SST25VF016B: a byte a time, protected after power-up */
    {0x1F, 0x44, 0x01, 1u << 19, 256, true}, /* AT25DF041A: likewise protected */
    {0xEF, 0x30, 0, 0, 256, false}, {0xEF, 0x40, 0, 0, 256, false}, /* W25X, W25Q */
    {0xC2, 0x20, 0, 0, 256, false}, /* MX25L */
    {0xC8, 0x40, 0, 0, 256, false}, /* GD25Q */
    {0x9D, 0x60, 0, 0, 256, false}, {0x9D, 0x70, 0, 0, 256, false}, /* IS25LP, IS25WP */
};

static struct spi_ioc_transfer out(const uint8_t *p, uint32_t n) { return (struct spi_ioc_transfer){.tx_buf = (uintptr_t)p, .len = n}; }
static struct spi_ioc_transfer in(uint8_t *p, uint32_t n) { return (struct spi_ioc_transfer){.rx_buf = (uintptr_t)p, .len = n}; }

static bool talk(ring_t *r, struct spi_ioc_transfer head, struct spi_ioc_transfer body)
{
    struct spi_ioc_transfer t[2] = {head, body};
    int done = body.len ? ioctl(r->fd, SPI_IOC_MESSAGE(2), t) : ioctl(r->fd, SPI_IOC_MESSAGE(1), t);
    return done >= 0 || RING_NO(r, "SPI transfer: %s", strerror(errno));
}

static bool command(ring_t *r, uint8_t op) { return talk(r, out(&op, 1), out(0, 0)); }
static bool ask(ring_t *r, uint8_t op, uint8_t *answer, uint32_t n) { return talk(r, out(&op, 1), in(answer, n)); }

/* A command with a place; the bytes follow, or come back. */
static bool at_place(ring_t *r, uint8_t op, uint32_t off, struct spi_ioc_transfer body)
{
    const uint8_t head[5] = {op, (uint8_t)(off >> 16), (uint8_t)(off >> 8), (uint8_t)off, 0};
    return talk(r, out(head, op == READ_SFDP ? 5 : 4), body);
}

static bool nor_idle(ring_t *r)
{
    uint8_t status = BUSY;
    return ask(r, READ_STATUS, &status, 1) && !(status & BUSY);
}

static bool nor_read(ring_t *r, uint32_t off, uint8_t *buf, uint32_t len)
{
    for (uint32_t i = 0, n; i < len; i += n) {
        n = len - i < r->chunk ? len - i : r->chunk;
        if (!at_place(r, READ, off + i, in(buf + i, n)))
            return false;
    }
    return true;
}

static bool nor_erase(ring_t *r, uint32_t sector)
{
    r->cycles++;
    return command(r, WRITE_ENABLE) && at_place(r, r->erase_op, sector * PAGE, out(0, 0)) && ring_wait(r, nor_idle, ERASE_LIMIT_MS);
}

static bool blank(const uint8_t *p, uint32_t n)
{
    while (n && *p == 0xFF)
        p++, n--;
    return !n;
}

static bool nor_prog(ring_t *r, uint32_t off, const uint8_t *buf, uint32_t len)
{
    for (uint32_t i = 0, n; i < len; i += n) {
        uint32_t room = r->page - (off + i) % r->page;
        n = len - i < room ? len - i : room;
        if (!blank(buf + i, n) && !(command(r, WRITE_ENABLE) && at_place(r, PROGRAM, off + i, out(buf + i, n)) && ring_wait(r, nor_idle, PROGRAM_LIMIT_MS)))
            return false;
    }
    return ring_same(r, off, buf, len);
}

static bool nor_sync(ring_t *r) { (void)r; return true; } /* a part that is idle keeps what it has */

static uint32_t le32(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

/* JEDEC JESD216: header, then the basic flash parameters of 9 to 16 words or more. */
static bool read_sfdp(ring_t *r)
{
    uint8_t head[16], t[64] = {0};
    if (!at_place(r, READ_SFDP, 0, in(head, sizeof head)) || memcmp(head, "SFDP", 4) != 0 || head[8] != 0 || head[11] < 9)
        return false;
    uint32_t n = head[11] * 4u < sizeof t ? head[11] * 4u : (uint32_t)sizeof t;
    if (!at_place(r, READ_SFDP, le32(head + 12) & 0xFFFFFF, in(t, n)))
        return false;
    uint32_t density = le32(t + 4), bits = density & 0x7FFFFFFF;
    r->bytes = !(density >> 31) ? (bits >> 3) + 1 : bits < 34 ? 1u << (bits < 3 ? 0 : bits - 3) : 1u << 31;
    r->page = !(t[0] & 4) ? 1 : n < 44 ? PROGRAM_MAX : 1u << (t[40] >> 4);
    for (uint32_t i = 28; i < 36; i += 2) /* the four kinds of erasing: a size, its command */
        if (t[i] == 12)
            r->erase_op = t[i + 1];
    return r->erase_op && r->bytes && r->page;
}

static bool look_up(ring_t *r, const uint8_t id[3])
{
    for (const known_t *k = KNOWN; k < KNOWN + sizeof KNOWN / sizeof *KNOWN; k++) {
        if (k->maker != id[0] || k->type != id[1] || (k->size && k->size != id[2]) || (!k->size && (id[2] < 12 || id[2] > 31)))
            continue;
        r->bytes = k->bytes ? k->bytes : 1u << id[2];
        r->page = k->page;
        r->erase_op = ERASE_4K;
        const uint8_t unlock[2] = {WRITE_STATUS, 0};
        return !k->locked || (command(r, WRITE_ENABLE) && talk(r, out(unlock, 2), out(0, 0)) && ring_wait(r, nor_idle, PROGRAM_LIMIT_MS));
    }
    return false;
}

/* The most that one message may carry; more and spidev refuses it. */
static uint32_t spidev_buffer(void)
{
    unsigned n = 0;
    FILE *f = fopen(SPIDEV_BUFSIZ, "re");
    bool ok = f && fscanf(f, "%u", &n) == 1;
    if (f)
        fclose(f);
    return ok && n >= 64 ? n : 4096;
}

static bool set_up(ring_t *r, uint32_t hz)
{
    uint8_t mode = SPI_MODE_0, bits = 8;
    return (ioctl(r->fd, SPI_IOC_WR_MODE, &mode) >= 0 && ioctl(r->fd, SPI_IOC_WR_BITS_PER_WORD, &bits) >= 0 && ioctl(r->fd, SPI_IOC_WR_MAX_SPEED_HZ, &hz) >= 0) ||
           RING_NO(r, "not an SPI device, or it refuses mode 0 at %u Hz: %s", hz, strerror(errno));
}

static int nor_open(host_t *h, bool create)
{
    ring_t *r = &h->store.ring;
    uint8_t status = 0xFF, id[3] = {0};
    if (ring_claim(h))
        return -1;
    if (flock(r->fd, LOCK_EX | LOCK_NB))
        return fail(h, "%s: another guard has it; one part holds one log", r->name);
    r->chunk = spidev_buffer();
    if (!set_up(r, h->o->log.hz) || !ask(r, READ_STATUS, &status, 1))
        return fail(h, "%s: %s", r->name, r->why);
    bool started = status == 0xFF || ring_wait(r, nor_idle, ERASE_LIMIT_MS); /* a guard that was killed may have left it erasing */
    if (!started || !ask(r, READ_ID, id, sizeof id))
        return fail(h, "%s: %s", r->name, r->why);
    if ((id[0] == 0 && id[1] == 0) || (id[0] == 0xFF && id[1] == 0xFF))
        return fail(h, "%s: no answer (id %02x %02x %02x); check its power, chip select, MISO and MOSI", r->name, id[0], id[1], id[2]);
    if (!read_sfdp(r) && !look_up(r, id))
        return fail(h, "%s: part %02x %02x %02x is not known and says nothing of itself that helps; use one with SFDP and 4 KiB sectors", r->name, id[0], id[1], id[2]);
    r->page = r->page < PROGRAM_MAX ? r->page : PROGRAM_MAX;
    *r->why = 0;
    return create ? ring_blank(h) : 0;
}

const ring_ops_t RING_SPI = {.open = nor_open, .read = nor_read, .erase = nor_erase, .prog = nor_prog, .sync = nor_sync};
