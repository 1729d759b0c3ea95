/* SPDX-License-Identifier: Apache-2.0 */
/* The key that seals the log: it evolves with every sealed record, and what it was is forgotten (docs/formats.md, Seal).
 *
 * Two sectors of slots.  The next key is written before the one before it is overwritten with zeros, so that a cut leaves at least one. */
#include "monitor.h"
#include "nor.h"

enum { SLOT_BYTES = 64, SLOTS = NOR_SECTOR / SLOT_BYTES, PER_EPOCH = QSAFP_SECTOR_SLOTS };

typedef struct { uint8_t key[32]; uint32_t epoch, inverse; } slot_t; /* the key is programmed before what vouches for it */
enum { KEY_BYTES = 32, HEAD_BYTES = sizeof(slot_t) - KEY_BYTES };

static uint32_t place(uint32_t i) { return SEAL_OFF + i * SLOT_BYTES; }
static bool holds(const slot_t *s) { return s->epoch == ~s->inverse; }

int seal_start(void)
{
    slot_t s;
    bool found = false;
    for (uint32_t i = 0; i < 2 * SLOTS; i++) {
        int err = nor_read(place(i), &s, sizeof s);
        if (err)
            return err;
        if (!holds(&s) || (found && s.epoch < m.seal_epoch))
            continue;
        found = true;
        m.seal_slot = i;
        m.seal_epoch = s.epoch;
        memcpy(m.seal_key, s.key, sizeof s.key);
    }
    m.seal_kept = found;
    qsafp_wipe(&s, sizeof s);
    return 0;
}

static int forget(uint32_t i)
{
    static const uint8_t zeros[sizeof(slot_t)];
    return i % SLOTS == SLOTS - 1 ? nor_erase(place(i - i % SLOTS)) : nor_prog(place(i), zeros, sizeof zeros);
}

static bool blank(uint32_t i)
{
    slot_t s;
    const uint8_t *p = (const uint8_t *)&s;
    unsigned n = 0;
    if (nor_read(place(i), &s, sizeof s))
        return false;
    while (n < sizeof s && p[n] == 0xFF)
        n++;
    return n == sizeof s;
}

/* The next slot that no cut has touched. */
static int next_slot(uint32_t *i)
{
    for (unsigned tries = 0; tries < SLOTS; tries++) {
        *i = (*i + 1) % (2 * SLOTS);
        if (*i % SLOTS == 0 && nor_erase(place(*i)))
            return QSAFP_E_STORE;
        if (blank(*i))
            return 0;
    }
    return QSAFP_E_STORE;
}

static int keep(void)
{
    uint32_t was = m.seal_slot, to = m.seal_kept ? was : 2 * SLOTS - 1;
    slot_t s = {{0}, m.seal_epoch, ~m.seal_epoch};
    memcpy(s.key, m.seal_key, sizeof s.key);
    int err = next_slot(&to);
    if (!err)
        err = nor_prog(place(to), s.key, KEY_BYTES);
    if (!err)
        err = nor_prog(place(to) + KEY_BYTES, &s.epoch, HEAD_BYTES);
    qsafp_wipe(&s, sizeof s);
    if (!err && m.seal_kept)
        err = forget(was);
    m.seal_slot = to;
    m.seal_kept = true;
    return err;
}

static void evolve(void)
{
    qsafp_seal_evolve(m.seal_key);
    m.seal_epoch++;
}

void seal_put(qsafp_record_t *r)
{
    while (m.seal_epoch < r->seq / PER_EPOCH)
        evolve(); /* a cut came between a sealed record and its key */
    qsafp_seal(r->seal, m.seal_key, r->hash);
}

int seal_done(void)
{
    evolve();
    return keep();
}
