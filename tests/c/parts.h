/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of ours behind ioctl, crueller than real ones: a NOR flash (write enable, bits that only clear, page wrap, busy, deaf while
 * it is) and an I2C EEPROM (write cycles, no answer during one, page wrap).  They own the clock: every byte on the bus and every wait
 * moves it.  Power can go at any byte of a program or an erase, and may leave anything in the rest of the page. */
#ifndef QSAFP_TEST_PARTS_H
#define QSAFP_TEST_PARTS_H

#include <errno.h>
#include <linux/i2c-dev.h>
#include <linux/i2c.h>
#include <linux/spi/spidev.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

enum { PART_MAX = 1 << 21, PART_PAGE = 256, MESSAGE_NS = 10000, SPIDEV_MAX = 4096 };
enum { NOR_BYTE_NS = 800, NOR_PROGRAM_NS = 700000, NOR_ERASE_NS = 45000000, EEPROM_BYTE_NS = 22500, EEPROM_WRITE_NS = 5000000 };

typedef struct {
    uint8_t mem[PART_MAX], id[3], status, *sfdp;
    uint32_t size, page, at;             /* at: the EEPROM's own address counter */
    bool wel, eeprom, protect, taken, no_i2c, refuse_mode;
    bool stuck, gone, ragged, cut;       /* gone: nobody answers; ragged: a cut leaves anything in what was under way */
    uint64_t now, busy_until, bytes, calls, worked; /* worked: bytes programmed or erased */
    uint64_t cut_after;                  /* of `worked`; 0: never */
    uint32_t overlong;                   /* messages that spidev refuses */
} part_t;

static part_t part;

static uint32_t part_chance(void)
{
    static uint64_t x = 88172645463325252u;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return (uint32_t)(x >> 32);
}

static bool part_busy(void) { return part.stuck || part.now < part.busy_until; }

/* One byte is worked on; false once the power is gone. */
static bool part_work(uint32_t at, uint8_t want, bool erase)
{
    uint8_t *m = &part.mem[at % part.size];
    if (part.cut)
        *m = !part.ragged ? *m : part.eeprom ? (uint8_t)part_chance() : erase ? (uint8_t)(*m | part_chance()) : (uint8_t)(*m & (want | part_chance()));
    else if (!part.protect)
        *m = want;
    if (!part.cut && ++part.worked == part.cut_after)
        part.cut = true;
    return !part.cut;
}

/* ---- NOR ---- */

static void nor_program(uint32_t at, const uint8_t *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t a = at / part.page * part.page + (at + i) % part.page;
        (void)part_work(a, part.mem[a % part.size] & p[i], false);
    }
    part.busy_until = part.now + NOR_PROGRAM_NS;
}

static void nor_erase_sector(uint32_t at)
{
    for (uint32_t i = 0; i < 4096; i++)
        (void)part_work(at / 4096 * 4096 + i, 0xFF, true);
    part.busy_until = part.now + NOR_ERASE_NS;
}

static void nor_answer(const uint8_t *head, uint32_t at, uint8_t *in, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        switch (head[0]) {
        case 0x9F: in[i] = part.id[i % 3]; break;
        case 0x5A: in[i] = part.sfdp && at + i < 256 ? part.sfdp[at + i] : 0xFF; break;
        case 0x03: in[i] = part.mem[(at + i) % part.size]; break;
        default: in[i] = 0xFF;
        }
}

static void nor_obey(const uint8_t *head, uint32_t at, const uint8_t *p, uint32_t n)
{
    if (head[0] == 0x06)
        part.wel = true;
    if (head[0] == 0x06 || !part.wel)
        return;
    part.wel = false;
    if (head[0] == 0x02)
        nor_program(at, p, n);
    else if (head[0] == 0x20)
        nor_erase_sector(at);
    else if (head[0] == 0x01)
        part.protect = part.protect && head[1];
}

static int nor_message(const struct spi_ioc_transfer *t, unsigned count)
{
    const uint8_t *head = (const uint8_t *)(uintptr_t)t[0].tx_buf, *body = count > 1 ? (const uint8_t *)(uintptr_t)t[1].tx_buf : 0;
    uint8_t *in = count > 1 ? (uint8_t *)(uintptr_t)t[1].rx_buf : 0;
    uint32_t n = count > 1 ? t[1].len : 0, at = t[0].len >= 4 ? (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3] : 0;
    part.bytes += t[0].len + n;
    part.now += MESSAGE_NS + (uint64_t)(t[0].len + n) * NOR_BYTE_NS;
    if (n > SPIDEV_MAX) {
        part.overlong++;
        errno = EMSGSIZE;
        return -1;
    }
    if (in && (part.gone || (part_busy() && head[0] != 0x05)))
        memset(in, 0xFF, n);
    else if (in && head[0] == 0x05)
        memset(in, part_busy() | part.wel << 1, n);
    else if (in)
        nor_answer(head, at, in, n);
    else if (!part_busy() && !part.gone)
        nor_obey(head, at, body, n);
    return (int)(t[0].len + n);
}

/* ---- EEPROM ---- */

static bool eeprom_answers(const struct i2c_msg *m)
{
    uint32_t block = m->addr - 0x50u;
    return !part.gone && !part_busy() && m->addr >= 0x50 && (block == 0 || block << 16 < part.size);
}

static void eeprom_write(uint32_t block, const uint8_t *p, uint32_t n)
{
    part.at = block << 16 | (uint32_t)p[0] << 8 | p[1];
    for (uint32_t i = 2; i < n; i++)
        (void)part_work(part.at / part.page * part.page + (part.at + i - 2) % part.page, p[i], false);
    if (n > 2)
        part.busy_until = part.now + EEPROM_WRITE_NS;
}

static int eeprom_messages(const struct i2c_rdwr_ioctl_data *d)
{
    part.now += MESSAGE_NS;
    for (uint32_t k = 0; k < d->nmsgs; k++) {
        struct i2c_msg *m = &d->msgs[k];
        if (!eeprom_answers(m)) {
            part.now += EEPROM_BYTE_NS;
            errno = ENXIO;
            return -1;
        }
        part.bytes += 1u + m->len;
        part.now += (1u + m->len) * (uint64_t)EEPROM_BYTE_NS;
        if (!(m->flags & I2C_M_RD))
            eeprom_write(m->addr - 0x50u, m->buf, m->len);
        for (uint32_t i = 0; m->flags & I2C_M_RD && i < m->len; i++)
            m->buf[i] = part.mem[part.at++ % part.size];
    }
    return (int)d->nmsgs;
}

/* ---- what the drivers call ---- */

static int part_ioctl(int fd, unsigned long what, void *arg)
{
    (void)fd;
    part.calls++;
    if (part.cut) {
        errno = EIO;
        return -1;
    }
    if (what == I2C_RDWR)
        return part.eeprom ? eeprom_messages(arg) : (errno = ENOTTY, -1);
    if (what == I2C_FUNCS)
        return *(unsigned long *)arg = part.no_i2c ? 0 : I2C_FUNC_I2C, part.eeprom ? 0 : (errno = ENOTTY, -1);
    if (what == I2C_SLAVE)
        return part.taken ? (errno = EBUSY, -1) : 0;
    if (part.eeprom || part.refuse_mode)
        return errno = EINVAL, -1;
    return what == SPI_IOC_MESSAGE(1) ? nor_message(arg, 1) : what == SPI_IOC_MESSAGE(2) ? nor_message(arg, 2) : 0;
}

static int part_nanosleep(const struct timespec *t, struct timespec *left)
{
    (void)left;
    part.now += (uint64_t)t->tv_nsec;
    return 0;
}

static void part_new(bool eeprom, uint32_t size)
{
    memset(&part, 0, sizeof part);
    memset(part.mem, 0xFF, sizeof part.mem);
    part.eeprom = eeprom;
    part.size = size;
    part.page = eeprom ? 64 : PART_PAGE;
    memcpy(part.id, (const uint8_t[]){0xEF, 0x40, 0x15}, 3);
}

/* Off and on again. */
static void part_power(void)
{
    part.cut = part.wel = part.stuck = false;
    part.cut_after = part.busy_until = 0;
}

#endif
