/* SPDX-License-Identifier: Apache-2.0 */
/* The audit log's ring: the core writes an image in memory, a writer thread makes it durable by group commit (HW-8).
 *
 * A commit covers what is queued, up to `group` pages: the disk may keep any of them if the power is cut, and none was
 * acknowledged, so that store_repair (repair.c) drops the group from its first hole on.  What the next start must find whole
 * ends where seal.bin says; that file is written once a group.  Where each write is durable at once (flash, EEPROM) a group is
 * one page of records at most, and no erasing in its midst. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

static const uint32_t ERASE = 0x80000000u; /* beside a sector, in the queue */

typedef struct { uint64_t epoch; uint8_t key[32]; } seal_state_t;

int seal_save(store_t *s, uint64_t epoch, const uint8_t key[32])
{
    seal_state_t st = {.epoch = epoch};
    memcpy(st.key, key, sizeof st.key);
    int err = slots_save(s->seal_fd, &st, sizeof st, &s->seal_count);
    qsafp_wipe(&st, sizeof st);
    if (err)
        return err;
    slots_forget(s->seal_fd, s->seal_count); /* with the key before, sealed records could be made anew */
    s->seal_epoch = epoch;
    memmove(s->seal_key, key, sizeof s->seal_key);
    return 0;
}

static int seal_load(store_t *s)
{
    seal_state_t st;
    int err = slots_load(s->seal_fd, &st, sizeof st, &s->seal_count);
    if (!err) {
        s->seal_epoch = st.epoch;
        memcpy(s->seal_key, st.key, sizeof s->seal_key);
    }
    qsafp_wipe(&st, sizeof st);
    return err;
}

/* ---- the writer ---- */

/* Slots first .. first + count - 1 of the ring, and sectors to erase before.  `key`, `epoch`: as they are after its seals. */
typedef struct { uint64_t upto, epoch; uint32_t first, count, nerased, erased[LOG_GROUP]; uint8_t key[32]; } group_t;

/* Whether entry `e` waits for the next group. */
static bool ends(const store_t *s, const group_t *g, uint32_t e)
{
    if (e & ERASE)
        return g->nerased == s->group || (g->count && !s->ring.is->groups);
    return g->count == s->group * PAGE_SLOTS || (g->count && e != (g->first + g->count) % s->slots);
}

/* Caller holds the lock.  No sector is erased while one of its records is still queued: the ring is longer than the queue. */
static void take(const store_t *s, group_t *g)
{
    g->count = g->nerased = 0;
    for (g->upto = s->durable; g->upto < s->queued; g->upto++) {
        uint32_t e = s->queue[g->upto % LOG_QUEUE];
        if (ends(s, g, e))
            break;
        if (e & ERASE)
            g->erased[g->nerased++] = e & ~ERASE;
        else if (!g->count++)
            g->first = e;
    }
}

/* Seals the last record of every page of the group; the keys stay with the group until it is durable. */
static void seal_group(store_t *s, group_t *g)
{
    uint8_t seal[16];
    g->epoch = s->seal_epoch;
    memcpy(g->key, s->seal_key, sizeof g->key);
    for (uint32_t i = PAGE_SLOTS - 1 - g->first % PAGE_SLOTS; i < g->count; i += PAGE_SLOTS) {
        uint8_t *rec = s->image + (size_t)((g->first + i) % s->slots) * SLOT;
        qsafp_seal(seal, g->key, rec + 208);
        qsafp_seal_evolve(g->key);
        g->epoch++;
        pthread_mutex_lock(&s->lock); /* log_read may look at this record */
        memcpy(rec + 240, seal, sizeof seal);
        pthread_mutex_unlock(&s->lock);
    }
}

static bool put(store_t *s, uint32_t slot, uint32_t count)
{
    return !count || s->ring.is->prog(&s->ring, slot * SLOT, s->image + (size_t)slot * SLOT, count * SLOT);
}

/* Records that are queued do not change in the image, so they are written from there, without the lock. */
static bool put_group(store_t *s, const group_t *g)
{
    uint32_t head = g->count < s->slots - g->first ? g->count : s->slots - g->first;
    for (uint32_t i = 0; i < g->nerased; i++)
        if (!s->ring.is->erase(&s->ring, g->erased[i]))
            return false;
    return put(s, g->first, head) && put(s, 0, g->count - head) && s->ring.is->sync(&s->ring);
}

static bool commit(store_t *s, group_t *g)
{
    seal_group(s, g);
    *s->ring.why = 0;
    bool ok = put_group(s, g) && (g->epoch == s->seal_epoch || seal_save(s, g->epoch, g->key) == 0); /* durable: their keys go */
    qsafp_wipe(g->key, sizeof g->key);
    return ok;
}

/* Caller holds the lock.  A disk that took nothing is asked again in 100 ms, or when the guard stops. */
static void pause_stuck(store_t *s)
{
    struct timespec limit;
    clock_gettime(CLOCK_MONOTONIC, &limit);
    limit.tv_nsec += 100000000;
    if (limit.tv_nsec >= 1000000000) {
        limit.tv_nsec -= 1000000000;
        limit.tv_sec++;
    }
    while (!s->stop && pthread_cond_timedwait(&s->more, &s->lock, &limit) == 0)
        ;
}

static void *writer(void *arg)
{
    store_t *s = arg;
    group_t *g = calloc(1, sizeof *g);
    pthread_mutex_lock(&s->lock);
    s->failed |= !g;
    while (!s->failed) {
        while (s->durable == s->queued && !s->stop)
            pthread_cond_wait(&s->more, &s->lock);
        if (s->durable == s->queued)
            break;
        take(s, g);
        pthread_mutex_unlock(&s->lock);
        bool ok = commit(s, g);
        if (!ok && !s->stuck && *s->ring.why)
            fprintf(stderr, "guard: %s: %s\n", s->ring.name, s->ring.why);
        pthread_mutex_lock(&s->lock);
        s->stuck = !ok;
        if (ok)
            s->durable = g->upto;
        pthread_cond_broadcast(&s->done);
        if (s->stuck && s->stop)
            break;
        if (s->stuck)
            pause_stuck(s);
    }
    pthread_cond_broadcast(&s->done);
    pthread_mutex_unlock(&s->lock);
    free(g);
    return 0;
}

/* ---- what the core calls ---- */

int log_read(void *ctx, uint32_t off, void *buf, uint32_t len)
{
    host_t *h = ctx;
    store_t *s = &h->store;
    if (off > s->slots * SLOT || len > s->slots * SLOT - off)
        return QSAFP_E_STORE;
    pthread_mutex_lock(&s->lock); /* the writer puts seals in */
    memcpy(buf, s->image + off, len);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

/* Caller holds the lock.  At most 2 s; then the disk is too slow to be trusted with a log. */
static void wait_for_room(store_t *s)
{
    struct timespec limit;
    int err = 0;
    clock_gettime(CLOCK_MONOTONIC, &limit);
    limit.tv_sec += 2;
    while (!s->failed && !s->stuck && s->queued - s->durable == s->depth && !err)
        err = pthread_cond_timedwait(&s->done, &s->lock, &limit);
}

static int enqueue(store_t *s, uint32_t entry, uint32_t off, const void *buf, uint32_t len)
{
    pthread_mutex_lock(&s->lock);
    if (s->queued - s->durable == s->depth)
        wait_for_room(s);
    int err = s->failed ? QSAFP_E_STORE : s->queued - s->durable == s->depth ? QSAFP_E_FULL : 0;
    if (!err) {
        if (buf)
            memcpy(s->image + off, buf, len);
        else
            memset(s->image + off, 0xFF, len);
        s->queue[s->queued++ % LOG_QUEUE] = entry;
        pthread_cond_signal(&s->more);
    }
    pthread_mutex_unlock(&s->lock);
    return err;
}

int log_prog(void *ctx, uint32_t off, const void *buf, uint32_t len)
{
    host_t *h = ctx;
    if (len != SLOT || off % SLOT || off / SLOT >= h->store.slots)
        return QSAFP_E_STORE;
    return enqueue(&h->store, off / SLOT, off, buf, len);
}

int log_erase(void *ctx, uint32_t sector)
{
    host_t *h = ctx;
    if (sector >= h->store.slots / PAGE_SLOTS)
        return QSAFP_E_STORE;
    return enqueue(&h->store, ERASE | sector, sector * PAGE, 0, PAGE);
}

int log_sync(void *ctx)
{
    host_t *h = ctx;
    store_t *s = &h->store;
    pthread_mutex_lock(&s->lock);
    uint64_t want = s->queued;
    while (!s->failed && !s->stuck && s->durable < want)
        pthread_cond_wait(&s->done, &s->lock);
    int err = s->durable < want ? QSAFP_E_STORE : 0;
    pthread_mutex_unlock(&s->lock);
    return err;
}

uint64_t log_queued(host_t *h)
{
    pthread_mutex_lock(&h->store.lock);
    uint64_t n = h->store.queued;
    pthread_mutex_unlock(&h->store.lock);
    return n;
}

uint64_t log_durable(host_t *h)
{
    pthread_mutex_lock(&h->store.lock);
    uint64_t n = h->store.durable;
    pthread_mutex_unlock(&h->store.lock);
    return n;
}

/* The last of the queue is for the guard's own records. */
bool log_crowded(host_t *h)
{
    store_t *s = &h->store;
    pthread_mutex_lock(&s->lock);
    bool crowded = s->stuck || s->queued - s->durable > s->depth * 3 / 4;
    pthread_mutex_unlock(&s->lock);
    return crowded;
}

/* ---- opening ---- */

int ring_broken(host_t *h)
{
    const ring_t *r = &h->store.ring;
    return fail(h, "%s: %s", r->name, *r->why ? r->why : strerror(errno));
}

uint32_t log_live(const host_t *h) { return h->store.slots - 2 * PAGE_SLOTS; }

static int claim(host_t *h)
{
    store_t *s = &h->store;
    s->dir_fd = open(h->o->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dir_fd < 0)
        return fail(h, "%s: %s", h->o->state_dir, strerror(errno));
    s->lock_fd = open_in(h, "lock", true);
    if (s->lock_fd < 0)
        return -1;
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB))
        return fail(h, "%s: another guard holds this lease; stop it first", h->o->state_dir);
    return 0;
}

/* As many whole sectors as the core takes; how much may wait follows from them. */
static int measure(host_t *h)
{
    store_t *s = &h->store;
    uint32_t least = h->o->log.live_min;
    s->slots = s->ring.bytes / PAGE * PAGE_SLOTS;
    if (s->slots > QSAFP_LOG_SLOTS)
        s->slots = QSAFP_LOG_SLOTS;
    s->depth = s->ring.is->groups ? LOG_QUEUE : s->slots / 2;
    s->group = s->ring.is->groups ? LOG_GROUP : 1;
    if (s->slots < 4 * PAGE_SLOTS)
        return fail(h, "%s: %u bytes are too few for a log", s->ring.name, s->ring.bytes);
    if (log_live(h) < least)
        return fail(h, "%s: room for %u records on hand, and log_live_min = %u; take a larger part, or say log_live_min = %u", s->ring.name, log_live(h), least, log_live(h));
    return 0;
}

static int read_ring(host_t *h, bool create)
{
    static const ring_ops_t *const of[] = {[LOG_FILE] = &RING_FILE, [LOG_SPI] = &RING_SPI, [LOG_I2C] = &RING_I2C};
    store_t *s = &h->store;
    s->ring.is = of[h->o->log.kind];
    if (s->ring.is->open(h, create) || measure(h))
        return -1;
    s->image = malloc((size_t)s->slots * SLOT);
    if (!s->image)
        return fail(h, "out of memory");
    return s->ring.is->read(&s->ring, 0, s->image, s->slots * SLOT) ? 0 : ring_broken(h);
}

/* Both slots from the start: a disk that fills up later does not keep the guard's state from changing. */
static int reserve(int fd) { return posix_fallocate(fd, 0, 2 * PAGE); }

static bool store_sync_dir(const store_t *s) { return fsync(s->dir_fd) == 0; }

int store_open(host_t *h, bool create)
{
    store_t *s = &h->store;
    pthread_condattr_t mono;
    s->degrade = h->o->degrade;
    s->ring.fd = s->state_fd = s->evidence_fd = s->lock_fd = s->seal_fd = s->dir_fd = s->spare_fd = -1;
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, 0);
    pthread_cond_init(&s->more, &mono);
    pthread_cond_init(&s->done, &mono);
    if (claim(h))
        return -1;
    s->state_fd = open_in(h, "state.bin", create);
    s->seal_fd = open_in(h, "seal.bin", create);
    s->evidence_fd = openat(s->dir_fd, "evidence.log", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (s->state_fd < 0 || s->seal_fd < 0 || s->evidence_fd < 0)
        return -1;
    if (evidence_recover(s))
        return fail(h, "%s/evidence.log: %s", h->o->state_dir, strerror(errno));
    if (read_ring(h, create))
        return -1;
    memcpy(s->seal_key, h->o->seal_key, sizeof s->seal_key);
    if (create && (reserve(s->state_fd) || reserve(s->seal_fd) || seal_save(s, 0, s->seal_key) || !store_sync_dir(s)))
        return fail(h, "%s: no room for the guard's own state", h->o->state_dir);
    return !create && seal_load(s) ? fail(h, "%s/seal.bin: the seal key is missing or damaged", h->o->state_dir) : 0;
}

int store_start(host_t *h)
{
    if (store_repair(h))
        return -1;
    return pthread_create(&h->store.writer, 0, writer, &h->store) ? fail(h, "cannot start the log writer") : 0;
}

void store_close(host_t *h)
{
    store_t *s = &h->store;
    if (s->writer) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->more);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->writer, 0);
    }
    const int fds[] = {s->ring.fd, s->state_fd, s->evidence_fd, s->seal_fd, s->dir_fd, s->spare_fd, s->lock_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    qsafp_wipe(s->seal_key, sizeof s->seal_key);
    free(s->image);
}
