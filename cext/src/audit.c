/* SPDX-License-Identifier: Apache-2.0 */
/* The audit log: a ring of sectors, append-only, pruned by sector (HW-8; docs/formats.md).
 *
 * A record's slot is its sequence modulo the ring.  Before the first record of a sector is written the sector after it is
 * erased, so a whole sector is always free and the fail-safe record has room even when an erase fails. */
#include <string.h>

#include "record.h"
#include "shape.h"

static uint32_t slot_of(const qsafp_audit_t *a, uint32_t seq)
{
    return seq % a->slots;
}

/* The first sequence of the sector after, or `seq` itself where it starts one. */
static uint32_t round_up(uint32_t seq)
{
    return (seq + QSAFP_SECTOR_SLOTS - 1) & ~(uint32_t)(QSAFP_SECTOR_SLOTS - 1);
}

static int read_slot(const qsafp_audit_t *a, uint32_t slot, void *rec)
{
    return a->port->log_read(a->ctx, slot * QSAFP_RECORD_BYTES, rec, QSAFP_RECORD_BYTES);
}

static int erase_at(const qsafp_audit_t *a, uint32_t slot)
{
    return a->port->log_erase(a->ctx, slot / QSAFP_SECTOR_SLOTS);
}

/* Stamps, hashes and programs; a store that fails half-way is not written again before it was recovered. */
static int write(qsafp_audit_t *a, qsafp_record_t *r)
{
    bool seal_due = record_sealed(a->next);
    if (a->next >= QSAFP_SEQ_MAX)
        return QSAFP_E_FULL;
    r->magic = QSAFP_RECORD_MAGIC;
    r->seq = a->next;
    r->boot_ns = a->port->now_ns(a->ctx);
    r->wall_ms = a->port->wall_ms(a->ctx);
    r->boot = a->boot;
    r->flags = (uint16_t)((r->flags & (RECORD_EVIDENCE | RECORD_REPORTED)) | (r->wall_ms ? RECORD_WALL : 0) | (seal_due ? RECORD_SEALED : 0));
    memset(r->seal, seal_due ? 0xFF : 0, sizeof r->seal); /* the log writer seals it */
    qsafp_record_hash(r->hash, a->head, (const uint8_t *)r);
    if (a->port->log_prog(a->ctx, slot_of(a, a->next) * QSAFP_RECORD_BYTES, r, sizeof *r)) {
        a->failed = true;
        return QSAFP_E_STORE;
    }
    memcpy(a->head, r->hash, 32);
    a->next++;
    return 0;
}

/* The data of a LOG_PRUNED record. */
typedef struct { uint64_t from, to; uint8_t hash[32]; uint64_t tree_size; } pruned_t;

/* Erases the sector that starts at sequence `a->erased_upto`; what it held is covered by the tree first. */
static int prune(qsafp_audit_t *a)
{
    qsafp_record_t r;
    uint32_t from = a->erased_upto - a->slots; /* the first sequence in that sector */
    uint32_t end = from + QSAFP_SECTOR_SLOTS;
    int err = a->tree.size < end ? qsafp_audit_tree(a) : 0;
    if (!err)
        err = qsafp_audit_read(a, end - 1, (uint8_t *)&r);
    if (!err)
        err = erase_at(a, slot_of(a, from));
    if (err)
        return err;
    pruned_t p = {.from = from, .to = end - 1, .tree_size = a->tree.size};
    memcpy(p.hash, r.hash, sizeof p.hash);
    a->first = end;
    a->erased_upto += QSAFP_SECTOR_SLOTS;
    record_new(&r, QSAFP_EVENT_LOG_PRUNED, 0);
    memcpy(r.data, &p, sizeof p);
    return write(a, &r);
}

int qsafp_audit_append(qsafp_audit_t *a, qsafp_record_t *r)
{
    if (a->failed)
        return QSAFP_E_STORE;
    bool room = a->erased_upto >= round_up(a->next + 1) + QSAFP_SECTOR_SLOTS;
    int err = room ? 0 : prune(a);
    if (err && (a->reserve || a->failed || a->next >= a->erased_upto))
        return err;
    return write(a, r);
}

int qsafp_audit_read(qsafp_audit_t *a, uint32_t seq, uint8_t out[256])
{
    return seq < a->first || seq >= a->next ? QSAFP_E_RANGE : read_slot(a, slot_of(a, seq), out);
}

int qsafp_audit_leaf(void *ctx, uint32_t seq, uint8_t out[32])
{
    uint8_t rec[QSAFP_RECORD_BYTES];
    int err = qsafp_audit_read(ctx, seq, rec);
    if (!err)
        qsafp_tree_leaf(out, rec + 208);
    return err;
}

int qsafp_audit_tree(qsafp_audit_t *a)
{
    return qsafp_tree_grow(&a->tree, a->next, qsafp_audit_leaf, a);
}

int qsafp_audit_create(qsafp_audit_t *a)
{
    uint8_t rec[QSAFP_RECORD_BYTES];
    qsafp_record_t r;
    if (a->slots < 4 * QSAFP_SECTOR_SLOTS || a->slots % QSAFP_SECTOR_SLOTS)
        return QSAFP_E_ARGUMENT;
    for (uint32_t s = 0; s < a->slots; s++) {
        int err = read_slot(a, s, rec);
        if (err || !all_bytes(rec, sizeof rec, 0xFF))
            return err ? err : QSAFP_E_BUSY;
    }
    a->first = a->next = 0;
    a->erased_upto = a->slots;
    a->failed = false;
    memset(a->head, 0, sizeof a->head);
    record_new(&r, QSAFP_EVENT_LOG_CREATED, 0);
    if (a->port->entropy(a->ctx, r.data, 32))
        return QSAFP_E_ENTROPY;
    int err = write(a, &r);
    memcpy(a->log_id, r.hash, 32);
    return err;
}

/* ---- recovery ---- */

typedef enum { SLOT_RECORD, SLOT_BLANK, SLOT_RUBBISH } slot_t;

/* What a slot holds, and the sequence of a record; or the store's error. */
static int look(const qsafp_audit_t *a, uint32_t slot, uint32_t *seq)
{
    qsafp_record_t r;
    int err = read_slot(a, slot, &r);
    if (err)
        return err;
    *seq = (uint32_t)r.seq;
    if (!record_check(&r) && slot_of(a, *seq) == slot)
        return SLOT_RECORD;
    return all_bytes(&r, sizeof r, 0xFF) ? SLOT_BLANK : SLOT_RUBBISH;
}

/* The tail, and from there back as far as the records go on. */
static int find_run(qsafp_audit_t *a)
{
    uint32_t seq;
    a->next = 0;
    for (uint32_t s = 0; s < a->slots; s++) {
        int is = look(a, s, &seq);
        if (is < 0)
            return is;
        if (is == SLOT_RECORD && seq >= a->next)
            a->next = seq + 1;
    }
    if (!a->next)
        return QSAFP_E_CORRUPT;
    a->first = a->next - 1;
    while (a->first && a->next - a->first < a->slots && look(a, slot_of(a, a->first - 1), &seq) == SLOT_RECORD && seq == a->first - 1)
        a->first--;
    return 0;
}

static bool in_sector_of(const qsafp_audit_t *a, uint32_t slot, uint32_t seq)
{
    return slot / QSAFP_SECTOR_SLOTS == slot_of(a, seq) / QSAFP_SECTOR_SLOTS;
}

/* The slot after the tail may be half written; the sector after its own half erased, and its own where an erase had failed before. */
APART static bool may_be_bad(const qsafp_audit_t *a, uint32_t slot)
{
    return slot == slot_of(a, a->next) || in_sector_of(a, slot, round_up(a->next)) || in_sector_of(a, slot, a->next + QSAFP_SECTOR_SLOTS);
}

/* The chain over [first, next); a last record whose hash is wrong was torn. */
static int check_chain(qsafp_audit_t *a, uint32_t *bad)
{
    uint8_t rec[QSAFP_RECORD_BYTES], hash[32], prev[32] = {0};
    for (uint32_t s = a->first; s < a->next; s++) {
        int err = qsafp_audit_read(a, s, rec);
        if (err)
            return err;
        qsafp_record_hash(hash, prev, rec);
        bool known = s > a->first || s == 0; /* the hash before the oldest record went with it: the tree covers it */
        if (known && !qsafp_equal(hash, rec + 208, 32)) {
            *bad = slot_of(a, s);
            if (s + 1 != a->next || s == 0)
                return QSAFP_E_CORRUPT;
            a->next = s;
            break;
        }
        memcpy(prev, rec + 208, 32);
    }
    memcpy(a->head, prev, 32);
    return 0;
}

/* Every slot is a record of the run, blank, or where a cut may have left anything.  A run shorter than the valid records
 * has a bad one inside. */
static int check_slots(const qsafp_audit_t *a, uint32_t *bad)
{
    uint32_t seq;
    for (uint32_t s = 0; s < a->slots; s++) {
        int is = look(a, s, &seq);
        if (is < 0)
            return is;
        bool ours = is == SLOT_BLANK || (is == SLOT_RECORD && seq >= a->first && seq < a->next);
        if (ours || may_be_bad(a, s))
            continue;
        *bad = s;
        return QSAFP_E_CORRUPT;
    }
    return 0;
}

/* What a cut left in the sectors that count as erased. */
static int erase_leftovers(const qsafp_audit_t *a)
{
    uint32_t seq;
    for (uint32_t at = round_up(a->next); at < a->erased_upto; at++) {
        int is = look(a, slot_of(a, at), &seq);
        if (is >= 0 && is != SLOT_BLANK)
            is = erase_at(a, slot_of(a, at));
        if (is < 0)
            return is;
    }
    return 0;
}

/* Record 0 is on hand: its hash is the log id, and must be the one this device was enrolled with. */
static int read_id(qsafp_audit_t *a, uint32_t *bad)
{
    uint8_t rec[QSAFP_RECORD_BYTES];
    int err = qsafp_audit_read(a, 0, rec);
    if (err)
        return err;
    *bad = 0;
    if (!all_bytes(a->log_id, 32, 0) && !qsafp_equal(a->log_id, rec + 208, 32))
        return QSAFP_E_WRONG_DEVICE;
    memcpy(a->log_id, rec + 208, 32);
    return 0;
}

int qsafp_audit_recover(qsafp_audit_t *a, uint32_t *bad)
{
    *bad = 0;
    int err = find_run(a);
    if (!err)
        err = check_slots(a, bad);
    if (!err)
        err = check_chain(a, bad);
    if (err)
        return err;
    /* pruning starts at a sector's first record: a run that starts elsewhere lost some; the tree must reach it */
    uint32_t oldest = slot_of(a, a->first);
    bool whole = a->first == round_up(a->first) || may_be_bad(a, oldest);
    if (!whole || a->tree.size < a->first || a->tree.size > a->next) {
        *bad = oldest;
        return QSAFP_E_CORRUPT;
    }
    if (!a->first) {
        err = read_id(a, bad);
        if (err)
            return err;
    }
    a->failed = false;
    a->first = round_up(a->first); /* an erase that was cut is finished */
    a->erased_upto = a->first + a->slots;
    return erase_leftovers(a);
}
