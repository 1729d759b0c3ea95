/* SPDX-License-Identifier: Apache-2.0 */
/* What a power cut may leave in the ring file, made good before the core looks (HW-8).
 *
 * seal.bin says which records are whole: all below its epoch's page.  Above it, of the group that was being written, the
 * disk may hold any part: the acknowledged records in one piece, then holes.  From the first hole on the group is dropped;
 * nobody was told of it.  A record that was changed rather than torn is no hole: it stays, and the core names it. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "host.h"

typedef enum { SLOT_BLANK, SLOT_NEW, SLOT_OLD, SLOT_TORN, SLOT_STRANGE } kind_t;

static uint64_t seq_of(const uint8_t *rec)
{
    uint64_t v;
    memcpy(&v, rec + 8, sizeof v);
    return v;
}

static uint8_t *at(const store_t *s, uint64_t seq) { return s->image + (size_t)(seq % s->slots) * SLOT; }

static unsigned blank_from(const uint8_t *rec)
{
    unsigned n = SLOT;
    while (n && rec[n - 1] == 0xFF)
        n--;
    return n;
}

/* What the slot of sequence `seq` holds; a torn record ends in erased bytes, one whose erasing was torn begins with some. */
static kind_t kind(const store_t *s, uint64_t seq)
{
    const uint8_t *rec = at(s, seq);
    unsigned n = blank_from(rec);
    bool whole = memcmp(rec, "QAR1", 4) == 0;
    if (n == 0)
        return SLOT_BLANK;
    if (whole && seq_of(rec) + s->slots == seq)
        return SLOT_OLD;
    if (whole && seq_of(rec) == seq && (n == SLOT || seq % PAGE_SLOTS == PAGE_SLOTS - 1))
        return SLOT_NEW;
    return n < SLOT || rec[0] == 0xFF ? SLOT_TORN : SLOT_STRANGE;
}

static bool follows(const store_t *s, uint64_t seq)
{
    static const uint8_t none[32];
    const uint8_t *rec = at(s, seq);
    uint8_t hash[32];
    if (kind(s, seq) != SLOT_NEW)
        return false;
    qsafp_record_hash(hash, seq ? at(s, seq - 1) + 208 : none, rec);
    return qsafp_equal(hash, rec + 208, sizeof hash);
}

/* One behind the last sector that the cut group wrote or erased in; 0 if something there is no trace of a cut. */
static uint64_t end_of_group(const store_t *s, uint64_t hole, uint64_t limit)
{
    uint64_t end = hole;
    for (uint64_t u = hole; u < limit; u++) {
        kind_t k = kind(s, u);
        if (k == SLOT_STRANGE)
            return 0;
        if (k != SLOT_OLD)
            end = (u / PAGE_SLOTS + 1) * PAGE_SLOTS;
    }
    return end;
}

static bool all_blank(const store_t *s, uint64_t from, uint64_t to)
{
    while (from < to && kind(s, from) == SLOT_BLANK)
        from++;
    return from >= to;
}

static bool put_record(store_t *s, uint64_t seq) { return s->ring.is->prog(&s->ring, (uint32_t)(seq % s->slots) * SLOT, at(s, seq), SLOT); }

static int overwrite(host_t *h, uint64_t from, uint64_t to)
{
    store_t *s = &h->store;
    while (from < to && put_record(s, from))
        from++;
    return from == to && s->ring.is->sync(&s->ring) ? 0 : ring_broken(h);
}

/* Flash loses a whole sector to change one slot of it: what stays lies in log.spare until it is back. */
typedef struct { uint32_t sector, kept; uint8_t rec[(PAGE_SLOTS - 1) * SLOT]; } spare_t;

static int from_spare(host_t *h, spare_t *p)
{
    store_t *s = &h->store;
    uint8_t *image = s->image + (size_t)p->sector * PAGE;
    memcpy(image, p->rec, p->kept * SLOT);
    memset(image + p->kept * SLOT, 0xFF, PAGE - p->kept * SLOT);
    if (!s->ring.is->erase(&s->ring, p->sector) || (p->kept && !s->ring.is->prog(&s->ring, p->sector * PAGE, p->rec, p->kept * SLOT)) || !s->ring.is->sync(&s->ring))
        return ring_broken(h);
    p->kept = PAGE_SLOTS; /* nothing is to be put back */
    return slots_save(s->spare_fd, p, sizeof *p, &s->spare_count) ? fail(h, "log.spare: cannot be written") : 0;
}

static int erase_after(host_t *h, uint64_t from, uint64_t to)
{
    store_t *s = &h->store;
    for (uint64_t u = from; u < to; u = (u / PAGE_SLOTS + 1) * PAGE_SLOTS) {
        spare_t p = {.sector = (uint32_t)(u % s->slots) / PAGE_SLOTS, .kept = u % PAGE_SLOTS};
        memcpy(p.rec, s->image + (size_t)p.sector * PAGE, p.kept * SLOT);
        if (slots_save(s->spare_fd, &p, sizeof p, &s->spare_count))
            return fail(h, "log.spare: cannot be written");
        if (from_spare(h, &p))
            return -1;
    }
    return 0;
}

/* A cut came between erasing a sector and putting back what stays of it. */
static int finish_spare(host_t *h)
{
    store_t *s = &h->store;
    spare_t p;
    if (s->ring.is->overwrites)
        return 0;
    s->spare_fd = open_in(h, "log.spare", true);
    if (s->spare_fd < 0)
        return -1;
    if (slots_load(s->spare_fd, &p, sizeof p, &s->spare_count) || p.kept >= PAGE_SLOTS)
        return 0;
    return p.sector < s->slots / PAGE_SLOTS ? from_spare(h, &p) : fail(h, "log.spare: of another log; restore it from a backup");
}

static int wipe(host_t *h, uint64_t from, uint64_t to)
{
    for (uint64_t u = from; u < to; u++)
        memset(at(&h->store, u), 0xFF, SLOT);
    return h->store.ring.is->overwrites ? overwrite(h, from, to) : erase_after(h, from, to);
}

/* 1 if the seal is the right one, 0 if it was cut off on its way, -1 if it is a wrong one. */
static int sealed(const uint8_t *rec, const uint8_t seal[16])
{
    unsigned n = blank_from(rec);
    if (n < 240 || memcmp(rec + 240, seal, n - 240) != 0)
        return n <= 240 ? 0 : -1;
    return n == SLOT || qsafp_equal(rec + 240, seal, 16) ? 1 : 0;
}

/* A cut while a page is programmed may leave anything in it: the tail that does not hold, when nothing was written after it. */
static bool torn_tail(const store_t *s, uint64_t hole, uint64_t limit)
{
    kind_t k = kind(s, hole);
    for (uint64_t u = hole + 1; u < limit; u++)
        if (kind(s, u) != SLOT_BLANK && kind(s, u) != SLOT_OLD)
            return false;
    return k != SLOT_BLANK && k != SLOT_OLD;
}

static bool wrongly_sealed(const store_t *s, uint64_t seq)
{
    uint8_t seal[16];
    qsafp_seal(seal, s->seal_key, at(s, seq) + 208);
    return sealed(at(s, seq), seal) < 0;
}

static int drop_cut_group(host_t *h)
{
    store_t *s = &h->store;
    uint64_t mark = s->seal_epoch * PAGE_SLOTS, hole = mark, limit = mark + (s->group + 2) * PAGE_SLOTS;
    while (hole < limit && follows(s, hole))
        hole++;
    bool pages = !s->ring.is->groups; /* the core writes a torn tail anew where it lies; a page must be blank for that */
    if (pages && hole == mark + PAGE_SLOTS && wrongly_sealed(s, hole - 1))
        hole--;
    if (pages && hole < limit && torn_tail(s, hole, limit))
        return wipe(h, hole, hole + 1);
    if (hole == limit || kind(s, hole) == SLOT_NEW)
        return 0; /* a record that is not the next one's chain was changed, not torn */
    uint64_t end = end_of_group(s, hole, limit);
    if (end <= hole || all_blank(s, hole + 1, end))
        return 0; /* a plain end, or the tail alone is torn: the core drops that itself */
    return wipe(h, hole, end);
}

/* A cut may leave seals without their new key, or a sealed record without its seal: made good in order. */
static int catch_up(host_t *h)
{
    store_t *s = &h->store;
    for (uint32_t n = 0; n < s->slots / PAGE_SLOTS; n++) {
        uint8_t seal[16], key[32];
        uint64_t seq = s->seal_epoch * PAGE_SLOTS + PAGE_SLOTS - 1;
        uint8_t *rec = at(s, seq);
        if (memcmp(rec, "QAR1", 4) != 0 || seq_of(rec) != seq)
            return 0;
        qsafp_seal(seal, s->seal_key, rec + 208);
        int is = sealed(rec, seal);
        if (is < 0)
            return fail(h, "%s: the seal of record %llu is wrong: the log was changed", s->ring.name, (unsigned long long)seq);
        memcpy(rec + 240, seal, 16);
        if (!is && (!put_record(s, seq) || !s->ring.is->sync(&s->ring)))
            return ring_broken(h);
        memcpy(key, s->seal_key, sizeof key);
        qsafp_seal_evolve(key);
        int err = seal_save(s, s->seal_epoch + 1, key);
        qsafp_wipe(key, sizeof key);
        if (err)
            return fail(h, "seal.bin: %s", strerror(errno));
    }
    return 0;
}

int store_repair(host_t *h)
{
    return finish_spare(h) || drop_cut_group(h) || catch_up(h) ? -1 : 0;
}

/* Whether the records still make the tree that the state knows, in every subtree that is on hand as a whole.  Validators see
 * the tree alone: a ring that was rewritten with hashes that chain would pass them. */
int log_matches(host_t *h)
{
    const qsafp_tree_t *t = &h->q.st.tree;
    qsafp_range_t r = {.from = 0, .to = t->size};
    unsigned peak = 0, i = 0;
    for (uint32_t width = 1u << 31; r.from < h->q.log.first && r.from < t->size; width >>= 1)
        if (t->size & width) {
            r.from += width;
            peak++;
        }
    uint32_t from = r.from, rest = t->size - from;
    if (qsafp_tree_range(&r, qsafp_audit_leaf, &h->q.log))
        return fail(h, "%s: cannot be read", h->store.ring.name);
    for (uint32_t width = 1u << 31; rest; width >>= 1) {
        if (!(rest & width))
            continue;
        if (!qsafp_equal(r.hash[i++], t->peak[peak++], 32))
            return fail(h, "%s: one of the records %u to %u was changed since state.bin was written; keep both as evidence and enrol again",
                        h->store.ring.name, from, from + width - 1);
        from += width;
        rest -= width;
    }
    return 0;
}
