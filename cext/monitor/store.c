/* SPDX-License-Identifier: Apache-2.0 */
/* Log and state on NOR flash: a power cut at any operation leaves the state before or after it (HW-8). */
#include "monitor.h"
#include "nor.h"

enum { RING_BYTES = QSAFP_LOG_SLOTS * QSAFP_RECORD_BYTES };

int nor_prog(uint32_t at, const void *buf, uint32_t len)
{
    const uint8_t *p = buf;
    uint8_t got[NOR_PAGE];
    int err = 0;
    for (uint32_t n; len && !err; at += n, p += n, len -= n) {
        n = NOR_PAGE - at % NOR_PAGE < len ? NOR_PAGE - at % NOR_PAGE : len;
        err = nor_page(at, p, n);
        if (!err)
            err = nor_read(at, got, n);
        if (!err && memcmp(got, p, n))
            err = QSAFP_E_STORE;
    }
    return err;
}

/* ---- log ---- */

int log_read(void *ctx, uint32_t off, void *buf, uint32_t len)
{
    (void)ctx;
    return off > RING_BYTES || len > RING_BYTES - off ? QSAFP_E_STORE : nor_read(LOG_OFF + off, buf, len);
}

int log_erase(void *ctx, uint32_t sector)
{
    (void)ctx;
    return sector >= RING_BYTES / NOR_SECTOR ? QSAFP_E_STORE : nor_erase(LOG_OFF + sector * NOR_SECTOR);
}

/* ---- a slot that a cut left half written: its sector is erased, and what stays of it waits in a spare one ---- */

typedef struct { uint32_t magic, sector, kept, inverse; } spare_t; /* at the end of the spare sector, programmed last */
enum { SPARE_MAGIC = 0x52505351, SPARE_HEAD = SPARE_OFF + NOR_SECTOR - sizeof(spare_t) };

static int copy(uint32_t to, uint32_t from, uint32_t len)
{
    uint8_t page[NOR_PAGE];
    int err = 0;
    for (uint32_t i = 0; i < len && !err; i += sizeof page) {
        err = nor_read(from + i, page, sizeof page);
        if (!err)
            err = nor_prog(to + i, page, sizeof page);
    }
    return err;
}

static int put_back(const spare_t *s)
{
    static const spare_t none;
    uint32_t at = LOG_OFF + s->sector * NOR_SECTOR;
    int err = nor_erase(at);
    if (!err)
        err = copy(at, SPARE_OFF, s->kept);
    return err ? err : nor_prog(SPARE_HEAD, &none, sizeof none); /* an erase that is cut may leave the head and nothing else */
}

static int make_room(uint32_t off)
{
    const spare_t s = {SPARE_MAGIC, off / NOR_SECTOR, off % NOR_SECTOR, ~(off % NOR_SECTOR)};
    int err = nor_erase(SPARE_OFF);
    if (!err)
        err = copy(SPARE_OFF, LOG_OFF + off - s.kept, s.kept);
    if (!err)
        err = nor_prog(SPARE_HEAD, &s, sizeof s);
    return err ? err : put_back(&s);
}

int store_start(void)
{
    spare_t s;
    int err = nor_read(SPARE_HEAD, &s, sizeof s);
    bool waits = s.magic == SPARE_MAGIC && s.kept == ~s.inverse && s.kept < NOR_SECTOR && s.sector < RING_BYTES / NOR_SECTOR;
    m.log_looked = false;
    return err || !waits ? err : put_back(&s);
}

/* Only what was written before this start can lie there. */
static int look(uint32_t off)
{
    uint8_t slot[QSAFP_RECORD_BYTES];
    unsigned n = 0;
    if (m.log_looked)
        return 0;
    int err = nor_read(LOG_OFF + off, slot, sizeof slot);
    while (n < sizeof slot && slot[n] == 0xFF)
        n++;
    m.log_looked = !err;
    return err || n == sizeof slot ? err : make_room(off);
}

/* A record takes little more of the bus than its bytes: the end of its hash, which an erased, protected or other slot does not hold, is
 * read back alone.  Whoever reads the log, each start included, checks the rest. */
static int append(uint32_t at, const qsafp_record_t *r)
{
    uint8_t tail[4];
    uint32_t end = offsetof(qsafp_record_t, hash) + sizeof r->hash - sizeof tail;
    int err = nor_page(at, r, sizeof *r);
    if (!err)
        err = nor_read(at + end, tail, sizeof tail);
    return err || memcmp(tail, (const uint8_t *)r + end, sizeof tail) ? QSAFP_E_STORE : 0;
}

/* Every sixteenth record is sealed on its way. */
int log_prog(void *ctx, uint32_t off, const void *buf, uint32_t len)
{
    qsafp_record_t r;
    (void)ctx;
    if (len != sizeof r || off > RING_BYTES - len)
        return QSAFP_E_STORE;
    memcpy(&r, buf, sizeof r);
    bool sealed = r.seq % QSAFP_SECTOR_SLOTS == QSAFP_SECTOR_SLOTS - 1;
    if (sealed)
        seal_put(&r);
    int err = look(off);
    if (!err)
        err = append(LOG_OFF + off, &r);
    return err || !sealed ? err : seal_done();
}

int log_sync(void *ctx)
{
    (void)ctx;
    return 0; /* a part that is idle keeps what it has, and every program waited for that */
}

/* ---- state: two places of one sector, the newer whole one counts; its head is programmed last ---- */

typedef struct { uint32_t count, inverse; } head_t;
_Static_assert(sizeof(head_t) + sizeof(qsafp_state_t) <= NOR_SECTOR, "a state fits its sector");

static uint32_t place(uint32_t i) { return STATE_OFF + i * NOR_SECTOR; }

static int count_of(uint32_t i, uint32_t *count)
{
    head_t h;
    int err = nor_read(place(i), &h, sizeof h);
    *count = h.count == ~h.inverse ? h.count : 0;
    return err;
}

int state_read(void *ctx, void *buf, uint32_t len)
{
    uint32_t count[2];
    (void)ctx;
    if (count_of(0, &count[0]) || count_of(1, &count[1]) || (!count[0] && !count[1]))
        return QSAFP_E_STORE;
    m.state_place = count[1] > count[0];
    m.state_count = count[m.state_place];
    return nor_read(place(m.state_place) + sizeof(head_t), buf, len);
}

int state_write(void *ctx, const void *buf, uint32_t len)
{
    uint32_t to = !m.state_place, count = m.state_count + 1;
    const head_t h = {count, ~count};
    (void)ctx;
    if (nor_erase(place(to)) || nor_prog(place(to) + sizeof h, buf, len) || nor_prog(place(to), &h, sizeof h))
        return QSAFP_E_STORE;
    m.state_place = to;
    m.state_count = count;
    return 0;
}
