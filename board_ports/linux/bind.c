/* SPDX-License-Identifier: Apache-2.0 */
/* The guard's state and log bound to a TPM's NV memory (docs/design.md, A state that cannot be put back).
 *
 *   state.bin ends in a counter.  It is saved with n + 1 first, then the TPM's counter rises from n to n + 1: at a start the
 *   state may be at the TPM's count or one ahead, never behind.  One rise is in flight at a time; what changes meanwhile gets
 *   the next.
 *   A LOG_ANCHORED record holds the anchor's value; once it is durable the anchor is extended by its hash.
 *
 * All of it is the service thread's; the TPM's thread does the waiting. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tpm.h"

enum { JOB_S = 3, RETRY_NS = 1000000000 };
static const uint32_t FLOOR_MAGIC = 0x31564E51; /* "QNV1" */

typedef struct { qsafp_state_t st; uint64_t counter; } disk_t;

struct bind {
    disk_t disk;                     /* as it was saved last */
    uint64_t have;                   /* the TPM's count; disk.counter is that, or one more while a rise is in flight */
    uint32_t generation; uint64_t epoch; /* which the last rise covers */
    floor_t floor;                   /* as the TPM has it */
    uint8_t value[32], head[32];     /* of the anchor; of the record that goes in next */
    uint64_t seq, told_seq;          /* the record that is in, the one that goes in */
    uint64_t at_ns, due_ms;          /* when the last went in, or the guard began; how long after that the next shall */
    uint64_t durable_at, retry_ns;   /* entries of the log's queue that must be durable first */
    enum { REST, COMMITTING, APPENDED, EXTENDING } step;
    bool failing, ended;             /* ended: somebody else writes there */
};

/* ---- what is saved ---- */

static bool weighty(const struct bind *b) { return b->disk.st.generation != b->generation || b->disk.st.epoch > b->epoch; }

/* A fail-safe, or a later epoch: no copy from before it shall pass. */
int bind_save(host_t *h, const void *state)
{
    struct bind *b = h->bind;
    memmove(&b->disk.st, state, sizeof b->disk.st);
    bool rise = weighty(b) && b->disk.counter == b->have;
    b->disk.counter += rise;
    int err = slots_save(h->store.state_fd, &b->disk, sizeof b->disk, &h->store.state_count);
    if (err) {
        b->disk.counter -= rise;
        return err;
    }
    if (rise) {
        b->generation = b->disk.st.generation;
        b->epoch = b->disk.st.epoch;
    }
    return 0;
}

int bind_load(host_t *h, void *state)
{
    disk_t disk;
    int err = slots_load(h->store.state_fd, &disk, sizeof disk, &h->store.state_count);
    if (!err)
        memcpy(state, &disk.st, sizeof disk.st);
    return err;
}

/* A state that was saved the other way is no state: turning tpm_nv off is no way around it. */
static int matches(host_t *h)
{
    disk_t disk;
    uint64_t count;
    uint32_t other = h->bind ? sizeof disk.st : sizeof disk;
    if (slots_load(h->store.state_fd, &disk, other, &count))
        return 0;
    return fail(h, h->bind ? "%s: enrolled without tpm_nv; take it out of guard.toml, or enrol again" : "%s: enrolled with tpm_nv; put it back into guard.toml, or enrol again",
                h->o->state_dir);
}

static void make_floor(const host_t *h, floor_t *f)
{
    const qsafp_state_t *st = &h->bind->disk.st;
    *f = (floor_t){.magic = FLOOR_MAGIC, .latch = st->latch, .generation = st->generation, .epoch = st->epoch};
    memcpy(f->set_id, h->q.set.set_id, sizeof f->set_id);
    memcpy(f->log_id, st->log_id, sizeof f->log_id);
    qsafp_sha256(f->lease, (const uint8_t *)h->o->lease, strlen(h->o->lease));
}

/* ---- start ---- */

static int ask(host_t *h, int (*job)(struct tpm *t))
{
    struct tpm *t = h->tpm;
    pthread_mutex_lock(&t->lock);
    int err = tpm_idle(t) ? tpm_ask(t, job) : -1;
    pthread_mutex_unlock(&t->lock);
    return err ? fail(h, "%s", t->why) : 0;
}

static int floor_holds(host_t *h, const floor_t *f)
{
    const struct bind *b = h->bind;
    const qsafp_state_t *st = &b->disk.st;
    floor_t now;
    make_floor(h, &now);
    if (f->magic != FLOOR_MAGIC || memcmp(f->lease, now.lease, sizeof f->lease) != 0)
        return fail(h, "TPM %s: the NV indices from 0x%x on are not this lease's; correct tpm_nv in guard.toml, or enrol again", h->o->tpm, (unsigned)h->o->tpm_nv);
    if (memcmp(f->log_id, st->log_id, sizeof f->log_id) != 0 || f->generation > st->generation)
        return fail(h, "%s: an older state than the TPM knows was put back; keep it as evidence, put the newest back, or enrol again", h->o->state_dir);
    if (f->epoch && memcmp(f->set_id, now.set_id, sizeof f->set_id) != 0)
        return fail(h, "the set document is of another set than this device had; configure that set, or remove its memory (tpm2_nvundefine 0x%x) and enrol again", (unsigned)(h->o->tpm_nv + NV_FLOOR));
    if (h->q.set.epoch < f->epoch)
        return fail(h, "the set document is epoch %llu; the TPM has known epoch %llu: configure that, or a later one", (unsigned long long)h->q.set.epoch, (unsigned long long)f->epoch);
    return 0;
}

static int counter_holds(host_t *h, uint64_t tpm)
{
    uint64_t state = h->bind->disk.counter;
    if (state == tpm || state == tpm + 1)
        return 0;
    if (state < tpm)
        return fail(h, "%s: an older state than the TPM knows was put back (count %llu, the TPM's %llu), or somebody else raised its counter; keep it as evidence, put the newest back, or enrol again",
                    h->o->state_dir, (unsigned long long)state, (unsigned long long)tpm);
    return fail(h, "TPM %s: its counter is behind the state (%llu, the state's %llu): another TPM; put the first back, or enrol again", h->o->tpm,
                (unsigned long long)tpm, (unsigned long long)state);
}

static bool anchor_record(const store_t *s, uint32_t slot, qsafp_record_t *r)
{
    return qsafp_record_decode(r, s->image + (size_t)slot * SLOT) == 0 && r->seq % s->slots == slot && r->event == QSAFP_EVENT_LOG_ANCHORED;
}

/* One record went in last; those after it, if any, were cut before they did.  A value that no record gives is another log's. */
static int anchor_holds(host_t *h, const uint8_t value[32])
{
    static const uint8_t zeros[32];
    struct bind *b = h->bind;
    const store_t *s = &h->store;
    qsafp_record_t r;
    uint8_t gives[32];
    nv_extended(gives, zeros, b->disk.st.log_id);
    bool known = memcmp(gives, value, 32) == 0;
    b->seq = 0;
    for (uint32_t i = 0; i < s->slots; i++) {
        if (!anchor_record(s, i, &r))
            continue;
        nv_extended(gives, r.data, r.hash);
        if (memcmp(gives, value, 32) == 0) {
            known = true;
            b->seq = r.seq;
        }
    }
    for (uint32_t i = 0; i < s->slots && known; i++)
        known = !anchor_record(s, i, &r) || r.seq <= b->seq || memcmp(r.data, value, 32) == 0;
    memcpy(b->value, value, 32);
    return known ? 0 : fail(h, "%s: not the log that the TPM's anchor stands for: cut, rewritten or an older copy; keep it as evidence, put the newest state back, or enrol again", s->ring.name);
}

int bind_start(host_t *h)
{
    if (h->o->tpm_nv)
        h->bind = calloc(1, sizeof *h->bind);
    struct bind *b = h->bind;
    if (matches(h))
        return -1;
    if (!b)
        return h->o->tpm_nv ? fail(h, "out of memory") : 0;
    if (slots_load(h->store.state_fd, &b->disk, sizeof b->disk, &h->store.state_count))
        return fail(h, "%s: state.bin is missing or damaged", h->o->state_dir);
    if (ask(h, nv_look))
        return -1;
    nv_t *v = &h->tpm->nv;
    if (floor_holds(h, &v->floor) || counter_holds(h, v->counter) || anchor_holds(h, v->anchor))
        return -1;
    b->floor = v->floor;
    b->have = v->counter;
    b->disk.counter = v->counter + 1; /* of every state from now on */
    return 0;
}

/* The state of this start is durable: nothing before it passes from here on. */
int bind_begin(host_t *h)
{
    struct bind *b = h->bind;
    if (!b)
        return 0;
    if (b->seq && (b->seq < h->q.log.first || b->seq >= h->q.log.next))
        return fail(h, "%s: the record that the TPM's anchor stands for is no part of it", h->store.ring.name);
    nv_t *v = &h->tpm->nv;
    uint32_t latch = b->floor.latch;
    v->target = b->disk.counter;
    make_floor(h, &v->next_floor);
    if (latch && !v->next_floor.latch)
        v->next_floor.latch = latch;
    if (ask(h, nv_commit))
        return -1;
    b->have = v->target;
    b->floor = v->next_floor;
    b->generation = b->disk.st.generation;
    b->epoch = b->disk.st.epoch;
    b->at_ns = boot_ns();
    b->due_ms = h->o->anchor_min_ms; /* a guard that never runs for long has its log anchored, too */
    if (latch && !h->q.latch)
        qsafp_trip(&h->q, (qsafp_reason_t)latch); /* whoever removed the state does not remove what was latched */
    return 0;
}

/* ---- while it runs ---- */

static void say(host_t *h, const char *why)
{
    if (!h->bind->failing)
        fprintf(stderr, "guard: state and log are not bound to the TPM for now: %s\n", why);
    h->bind->failing = true;
}

static void collect(host_t *h, uint64_t now)
{
    struct bind *b = h->bind;
    struct tpm *t = h->tpm;
    t->ended = false;
    if (t->ended_err) {
        b->step = b->step == EXTENDING ? APPENDED : REST;
        b->retry_ns = now + RETRY_NS;
        say(h, t->ended_why);
        if (t->nv.foreign) {
            b->ended = true;
            qsafp_trip(&h->q, QSAFP_REASON_TAMPER);
        }
        return;
    }
    if (b->failing)
        fprintf(stderr, "guard: TPM %s: state and log are bound again\n", t->place);
    b->failing = false;
    if (b->step == COMMITTING) {
        b->have = t->nv.target ? t->nv.target : b->have;
        b->floor = t->nv.floor;
    } else {
        nv_extended(b->value, b->value, b->head);
        b->seq = b->told_seq;
        b->at_ns = now;
        b->due_ms = h->o->anchor_ms;
    }
    b->step = REST;
}

/* The guard raises and writes no more often than a fail-safe, its release or a new epoch comes. */
static bool commit_due(host_t *h, nv_t *v)
{
    struct bind *b = h->bind;
    if (weighty(b) && b->disk.counter == b->have && bind_save(h, &b->disk.st))
        return false;
    make_floor(h, &v->next_floor);
    v->target = b->disk.counter > b->have ? b->disk.counter : 0;
    return v->target || memcmp(&v->next_floor, &b->floor, sizeof b->floor) != 0;
}

static bool anchor_due(const host_t *h, uint64_t now)
{
    uint64_t since_ms = (now - h->bind->at_ns) / 1000000u;
    bool half = h->q.log.next - h->bind->seq >= h->store.slots / 2;
    return since_ms >= h->bind->due_ms || (half && since_ms >= h->o->anchor_min_ms);
}

/* The log's own bytes say what the anchor was before them. */
static int append_anchor(host_t *h)
{
    struct bind *b = h->bind;
    qsafp_record_t r = {.event = QSAFP_EVENT_LOG_ANCHORED};
    memcpy(r.data, b->value, sizeof b->value);
    if (qsafp_note(&h->q, &r))
        return -1;
    memcpy(b->head, r.hash, sizeof b->head);
    b->told_seq = r.seq;
    b->durable_at = log_queued(h);
    b->step = APPENDED;
    return 0;
}

static void fill_anchor(host_t *h)
{
    memcpy(h->tpm->nv.before, h->bind->value, 32);
    memcpy(h->tpm->nv.head, h->bind->head, 32);
}

static void begin_next(host_t *h, uint64_t now)
{
    struct bind *b = h->bind;
    struct tpm *t = h->tpm;
    if (b->ended || now < b->retry_ns || t->turn != IDLE)
        return;
    if (b->step == REST && commit_due(h, &t->nv)) {
        b->step = tpm_post(t, nv_commit, JOB_S) ? COMMITTING : REST;
        return;
    }
    if (b->step == REST && anchor_due(h, now))
        (void)append_anchor(h);
    if (b->step == APPENDED && log_durable(h) >= b->durable_at) {
        fill_anchor(h);
        b->step = tpm_post(t, nv_anchor, JOB_S) ? EXTENDING : APPENDED;
    }
}

int bind_step(host_t *h)
{
    struct bind *b = h->bind;
    struct tpm *t = h->tpm;
    if (!b)
        return -1;
    uint64_t now = boot_ns();
    pthread_mutex_lock(&t->lock);
    bool works = b->step == COMMITTING || b->step == EXTENDING;
    if (works && t->ended)
        collect(h, now);
    else if (works && t->turn == ASKED && now - t->since_ns >= t->limit_ns)
        say(h, "it does not answer");
    if (b->step == REST || b->step == APPENDED)
        begin_next(h, now);
    int wait = b->step == REST ? 1000 : 20;
    pthread_mutex_unlock(&t->lock);
    return wait;
}

/* The ring does not go round between two anchors: what workloads report waits. */
bool bind_crowded(const host_t *h) { return h->bind && h->q.log.next - h->bind->seq > h->store.slots / 4 * 3; }

/* The gate is closed and the timer at rest: the last record of all is anchored. */
void bind_close(host_t *h)
{
    struct bind *b = h->bind;
    if (!b || !h->tpm || b->ended || !b->at_ns)
        return;
    struct tpm *t = h->tpm;
    pthread_mutex_lock(&t->lock);
    bool idle = tpm_idle(t);
    if (idle && t->ended && b->step != REST)
        collect(h, boot_ns());
    if (idle && commit_due(h, &t->nv))
        idle = tpm_ask(t, nv_commit) == 0;
    pthread_mutex_unlock(&t->lock);
    if (idle && !append_anchor(h) && !log_sync(h)) {
        fill_anchor(h);
        idle = ask(h, nv_anchor) == 0;
    }
    b->at_ns = 0;
    if (!idle)
        fprintf(stderr, "guard: the log's last records are not anchored: %s\n", t->why);
}

void bind_free(host_t *h)
{
    free(h->bind);
    h->bind = 0;
}

void bind_view(const host_t *h, bind_view_t *v)
{
    const struct bind *b = h->bind;
    *v = (bind_view_t){.key = h->o->sealed ? 2 : h->o->tpm ? 1 : 0};
    if (!b)
        return;
    v->bound = b->failing ? 2 : 1;
    v->seq = b->seq;
    v->age_ms = b->seq ? (boot_ns() - b->at_ns) / 1000000u : 0;
}

/* ---- enrolment ---- */

/* A latch and the epoch that were there stay: enrolling again is no release. */
int bind_make(host_t *h)
{
    if (!h->o->tpm_nv)
        return 0;
    h->bind = calloc(1, sizeof *h->bind);
    if (!h->bind)
        return fail(h, "out of memory");
    if (tpm_begin(h) || tpm_connect(h, tpm_plain))
        return -1;
    nv_t *v = &h->tpm->nv;
    make_floor(h, &v->next_floor);
    if (ask(h, nv_make))
        return -1;
    h->bind->have = h->bind->disk.counter = v->counter;
    return 0;
}

static int first_anchor(struct tpm *t) { return nv_anchor(t) || nv_commit(t) ? -1 : 0; }

int bind_made(host_t *h)
{
    if (!h->bind)
        return 0;
    nv_t *v = &h->tpm->nv;
    floor_t was = v->floor;
    make_floor(h, &v->next_floor);
    if (was.magic) {
        v->next_floor.latch = was.latch;
        v->next_floor.epoch = was.epoch;
        memcpy(v->next_floor.set_id, was.set_id, sizeof was.set_id);
    }
    memset(v->before, 0, sizeof v->before);
    memcpy(v->head, h->q.log.log_id, sizeof v->head);
    v->target = 0;
    return ask(h, first_anchor);
}
