/* SPDX-License-Identifier: Apache-2.0 */
/* The audit log: a ring of sectors, append-only, pruned by sector (HW-8; docs/formats.md).
 *
 * A record's slot is its sequence modulo the ring.  Before the first record of a sector is written the sector after it is
 * erased, so a whole sector is always free and the fail-safe record has room even when an erase fails. */
#include <string.h>

#include "record.h"

static uint32_t offset_of(const qsafp_audit_t *a, uint64_t seq)
{
    return (uint32_t)(seq % a->slots) * QSAFP_RECORD_BYTES;
}

/* Stamps, hashes and programs; a store that fails half-way is not written again before it was recovered. */
static int write(qsafp_audit_t *a, qsafp_record_t *r)
{
    bool seal_due = a->next % QSAFP_SECTOR_SLOTS == QSAFP_SECTOR_SLOTS - 1;
    r->magic = QSAFP_RECORD_MAGIC;
    r->seq = a->next;
    r->boot_ns = a->port->now_ns(a->ctx);
    r->wall_ms = a->port->wall_ms(a->ctx);
    r->boot = a->boot;
    r->flags = (uint16_t)((r->flags & (RECORD_EVIDENCE | RECORD_REPORTED)) | (r->wall_ms ? RECORD_WALL : 0) | (seal_due ? RECORD_SEALED : 0));
    memset(r->seal, seal_due ? 0xFF : 0, sizeof r->seal); /* the log writer seals it */
    qsafp_record_hash(r->hash, a->head, (const uint8_t *)r);
    if (a->port->log_prog(a->ctx, offset_of(a, r->seq), r, sizeof *r)) {
        a->failed = true;
        return QSAFP_E_STORE;
    }
    memcpy(a->head, r->hash, 32);
    a->next++;
    return 0;
}

/* Erases the sector that starts at sequence `a->erased_upto`; what it held is covered by the tree first. */
static int erase_ahead(qsafp_audit_t *a, qsafp_record_t *pruned)
{
    uint8_t last[QSAFP_RECORD_BYTES];
    uint64_t old = a->erased_upto - a->slots; /* the first sequence in that sector */
    uint64_t end = old + QSAFP_SECTOR_SLOTS;
    int err = a->tree.size < end ? qsafp_audit_tree(a) : 0;
    if (!err)
        err = qsafp_audit_read(a, end - 1, last);
    if (!err)
        err = a->port->log_erase(a->ctx, (uint32_t)(a->erased_upto % a->slots) / QSAFP_SECTOR_SLOTS);
    if (err)
        return err;
    a->first = end;
    a->erased_upto += QSAFP_SECTOR_SLOTS;
    *pruned = (qsafp_record_t){.event = QSAFP_EVENT_LOG_PRUNED};
    const uint64_t range[2] = {old, end - 1};
    memcpy(pruned->data, range, 16);
    memcpy(pruned->data + 16, last + 208, 32);
    memcpy(pruned->data + 48, &a->tree.size, 8);
    return 0;
}

static int make_room(qsafp_audit_t *a)
{
    uint64_t need = (a->next / QSAFP_SECTOR_SLOTS + 2) * QSAFP_SECTOR_SLOTS;
    qsafp_record_t pruned;
    if (a->erased_upto >= need)
        return 0;
    int err = erase_ahead(a, &pruned);
    return err ? err : write(a, &pruned);
}

int qsafp_audit_append(qsafp_audit_t *a, qsafp_record_t *r)
{
    if (a->failed)
        return QSAFP_E_STORE;
    int err = make_room(a);
    if (err && (a->reserve || a->failed || a->next >= a->erased_upto))
        return err;
    return write(a, r);
}

int qsafp_audit_read(qsafp_audit_t *a, uint64_t seq, uint8_t out[256])
{
    if (seq < a->first || seq >= a->next)
        return QSAFP_E_RANGE;
    return a->port->log_read(a->ctx, offset_of(a, seq), out, QSAFP_RECORD_BYTES);
}

int qsafp_audit_tree(qsafp_audit_t *a)
{
    uint8_t rec[QSAFP_RECORD_BYTES], leaf[32];
    while (a->tree.size < a->next) {
        int err = qsafp_audit_read(a, a->tree.size, rec);
        if (err)
            return err;
        qsafp_tree_leaf(leaf, rec + 208);
        err = qsafp_tree_append(&a->tree, leaf);
        if (err)
            return err;
    }
    return 0;
}

static bool blank(const uint8_t rec[256])
{
    for (unsigned i = 0; i < QSAFP_RECORD_BYTES; i++)
        if (rec[i] != 0xFF)
            return false;
    return true;
}

int qsafp_audit_create(qsafp_audit_t *a)
{
    uint8_t rec[QSAFP_RECORD_BYTES];
    qsafp_record_t r = {.event = QSAFP_EVENT_LOG_CREATED};
    if (a->slots < 4 * QSAFP_SECTOR_SLOTS || a->slots % QSAFP_SECTOR_SLOTS)
        return QSAFP_E_ARGUMENT;
    for (uint32_t s = 0; s < a->slots; s++) {
        int err = a->port->log_read(a->ctx, s * QSAFP_RECORD_BYTES, rec, sizeof rec);
        if (err || !blank(rec))
            return err ? err : QSAFP_E_BUSY;
    }
    a->first = a->next = 0;
    a->erased_upto = a->slots;
    a->failed = false;
    memset(a->head, 0, sizeof a->head);
    if (a->port->entropy(a->ctx, r.data, 32))
        return QSAFP_E_ENTROPY;
    int err = write(a, &r);
    memcpy(a->log_id, r.hash, 32);
    return err;
}

/* ---- recovery ---- */

typedef struct { uint64_t count, max; bool any; } found_t;

static int look(qsafp_audit_t *a, uint32_t slot, qsafp_record_t *r, bool *is_blank)
{
    int err = a->port->log_read(a->ctx, slot * QSAFP_RECORD_BYTES, r, sizeof *r);
    *is_blank = !err && blank((const uint8_t *)r);
    if (err)
        return err;
    return record_check(r) || r->seq % a->slots != slot ? QSAFP_E_CORRUPT : 0;
}

static int find(qsafp_audit_t *a, found_t *f)
{
    qsafp_record_t r;
    bool is_blank;
    for (uint32_t s = 0; s < a->slots; s++) {
        int err = look(a, s, &r, &is_blank);
        if (err && err != QSAFP_E_CORRUPT)
            return err;
        if (err)
            continue;
        f->count++;
        if (!f->any || r.seq > f->max)
            f->max = r.seq;
        f->any = true;
    }
    return f->any ? 0 : QSAFP_E_CORRUPT;
}

/* Everything of the sector after the tail's may be half erased; the slot after the tail may be half written. */
static bool may_be_bad(const qsafp_audit_t *a, uint32_t slot)
{
    uint32_t tail = (uint32_t)((a->next - 1) % a->slots / QSAFP_SECTOR_SLOTS), sectors = a->slots / QSAFP_SECTOR_SLOTS;
    return slot == a->next % a->slots || slot / QSAFP_SECTOR_SLOTS == (tail + 1) % sectors;
}

/* The chain over [first, next); a last record whose hash is wrong was torn. */
static int check_chain(qsafp_audit_t *a, uint32_t *bad)
{
    uint8_t rec[QSAFP_RECORD_BYTES], hash[32], prev[32] = {0};
    for (uint64_t s = a->first; s < a->next; s++) {
        int err = qsafp_audit_read(a, s, rec);
        if (err)
            return err;
        qsafp_record_hash(hash, prev, rec);
        bool known = s > a->first || s == 0; /* the hash before the oldest record went with it: the tree covers it */
        if (known && !qsafp_equal(hash, rec + 208, 32)) {
            *bad = (uint32_t)(s % a->slots);
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
static int check_slots(qsafp_audit_t *a, uint64_t end, uint32_t *bad)
{
    qsafp_record_t r;
    for (uint32_t s = 0; s < a->slots; s++) {
        bool is_blank, ours = false;
        int err = look(a, s, &r, &is_blank);
        if (err && err != QSAFP_E_CORRUPT)
            return err;
        if (!err)
            ours = r.seq >= a->first && r.seq < end;
        if (ours || is_blank || may_be_bad(a, s))
            continue;
        *bad = s;
        return QSAFP_E_CORRUPT;
    }
    return 0;
}

static int erase_leftovers(qsafp_audit_t *a)
{
    uint64_t here = a->next % QSAFP_SECTOR_SLOTS ? a->next / QSAFP_SECTOR_SLOTS * QSAFP_SECTOR_SLOTS : a->next - QSAFP_SECTOR_SLOTS;
    uint64_t ahead = (a->next ? here : 0) + QSAFP_SECTOR_SLOTS;
    qsafp_record_t r;
    for (uint32_t i = 0; i < QSAFP_SECTOR_SLOTS; i++) {
        bool is_blank;
        uint32_t slot = (uint32_t)((ahead + i) % a->slots);
        int err = look(a, slot, &r, &is_blank);
        if (err && err != QSAFP_E_CORRUPT)
            return err;
        if (!is_blank && (err || r.seq < a->first))
            return a->port->log_erase(a->ctx, slot / QSAFP_SECTOR_SLOTS);
    }
    return 0;
}

/* Record 0 is on hand: its hash is the log id, and must be the one this device was enrolled with. */
static int read_id(qsafp_audit_t *a, uint32_t *bad)
{
    static const uint8_t none[32];
    uint8_t rec[QSAFP_RECORD_BYTES];
    int err = qsafp_audit_read(a, 0, rec);
    if (err)
        return err;
    *bad = 0;
    if (memcmp(a->log_id, none, 32) != 0 && !qsafp_equal(a->log_id, rec + 208, 32))
        return QSAFP_E_WRONG_DEVICE;
    memcpy(a->log_id, rec + 208, 32);
    return 0;
}

int qsafp_audit_recover(qsafp_audit_t *a, uint32_t *bad)
{
    found_t f = {0};
    qsafp_record_t r;
    bool is_blank;
    *bad = 0;
    int err = find(a, &f);
    if (err)
        return err;
    a->next = f.max + 1;
    a->first = f.max;
    while (a->first && f.max - (a->first - 1) < a->slots && !look(a, (uint32_t)((a->first - 1) % a->slots), &r, &is_blank) && r.seq == a->first - 1)
        a->first--;
    err = check_slots(a, a->next, bad);
    if (!err)
        err = check_chain(a, bad);
    if (err)
        return err;
    /* pruning starts at a sector's first record: a run that starts elsewhere lost some; the tree must reach it */
    bool whole = a->first % QSAFP_SECTOR_SLOTS == 0 || may_be_bad(a, (uint32_t)(a->first % a->slots));
    if (!whole || a->tree.size < a->first || a->tree.size > a->next) {
        *bad = (uint32_t)(a->first % a->slots);
        return QSAFP_E_CORRUPT;
    }
    if (!a->first) {
        err = read_id(a, bad);
        if (err)
            return err;
    }
    a->failed = false;
    a->first = (a->first + QSAFP_SECTOR_SLOTS - 1) / QSAFP_SECTOR_SLOTS * QSAFP_SECTOR_SLOTS; /* an erase that was cut is finished */
    a->erased_upto = a->first + a->slots;
    return erase_leftovers(a);
}
