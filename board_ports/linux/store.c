/* SPDX-License-Identifier: Apache-2.0 */
/* The audit log's ring file: the core writes an image in memory, a writer thread makes it durable by group commit (HW-8).
 *
 * A commit covers what is queued, up to LOG_GROUP pages: the disk may keep any of them if the power is cut, and none was
 * acknowledged, so that store_repair (repair.c) drops the group from its first hole on.  What the next start must find whole
 * ends where seal.bin says; that file is written once a group. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
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
typedef struct { uint64_t upto, epoch; uint32_t first, count, nerased, erased[LOG_GROUP]; uint8_t key[32], blank[PAGE]; } group_t;

/* Caller holds the lock.  No sector is erased while one of its records is still queued: the ring is longer than the queue. */
static void take(const store_t *s, group_t *g)
{
    g->count = g->nerased = 0;
    for (g->upto = s->durable; g->upto < s->queued; g->upto++) {
        uint32_t e = s->queue[g->upto % LOG_QUEUE];
        if (e & ERASE ? g->nerased == LOG_GROUP : g->count == LOG_GROUP * PAGE_SLOTS || (g->count && e != (g->first + g->count) % s->slots))
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

static bool put(const store_t *s, const uint8_t *p, uint32_t slot, uint32_t count)
{
    size_t n = (size_t)count * SLOT;
    return pwrite(s->ring_fd, p, n, (off_t)slot * SLOT) == (ssize_t)n;
}

/* Records that are queued do not change in the image, so they are written from there, without the lock. */
static bool put_group(const store_t *s, const group_t *g)
{
    uint32_t head = g->count < s->slots - g->first ? g->count : s->slots - g->first;
    for (uint32_t i = 0; i < g->nerased; i++)
        if (!put(s, g->blank, g->erased[i] * PAGE_SLOTS, PAGE_SLOTS))
            return false;
    return put(s, s->image + (size_t)g->first * SLOT, g->first, head) && put(s, s->image, 0, g->count - head) && fdatasync(s->ring_fd) == 0;
}

static bool commit(store_t *s, group_t *g)
{
    seal_group(s, g);
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
    if (g)
        memset(g->blank, 0xFF, sizeof g->blank);
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
    while (!s->failed && !s->stuck && s->queued - s->durable == LOG_QUEUE && !err)
        err = pthread_cond_timedwait(&s->done, &s->lock, &limit);
}

static int enqueue(store_t *s, uint32_t entry, uint32_t off, const void *buf, uint32_t len)
{
    pthread_mutex_lock(&s->lock);
    if (s->queued - s->durable == LOG_QUEUE)
        wait_for_room(s);
    int err = s->failed ? QSAFP_E_STORE : s->queued - s->durable == LOG_QUEUE ? QSAFP_E_FULL : 0;
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

/* The last of the queue is for the guard's own records. */
bool log_crowded(host_t *h)
{
    store_t *s = &h->store;
    pthread_mutex_lock(&s->lock);
    bool crowded = s->stuck || s->queued - s->durable > LOG_QUEUE * 3 / 4;
    pthread_mutex_unlock(&s->lock);
    return crowded;
}

/* ---- opening ---- */

static int open_in(host_t *h, const char *name, bool create)
{
    int fd = openat(h->store.dir_fd, name, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    if (fd < 0)
        (void)fail(h, "%s/%s: %s", h->o->state_dir, name, strerror(errno));
    return fd;
}

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

static int read_ring(host_t *h, bool create)
{
    store_t *s = &h->store;
    size_t size = (size_t)s->slots * SLOT;
    struct stat st;
    s->image = malloc(size);
    if (!s->image || fstat(s->ring_fd, &st))
        return fail(h, "log.ring: %s", strerror(errno));
    memset(s->image, 0xFF, size);
    if (create && st.st_size == 0 && (posix_fallocate(s->ring_fd, 0, (off_t)size) || pwrite(s->ring_fd, s->image, size, 0) != (ssize_t)size || fsync(s->ring_fd)))
        return fail(h, "log.ring: no room for %zu bytes", size);
    if (pread(s->ring_fd, s->image, size, 0) != (ssize_t)size)
        return fail(h, "%s/log.ring: shorter than %zu bytes; restore it from a backup", h->o->state_dir, size);
    return 0;
}

/* Both slots from the start: a disk that fills up later does not keep the guard's state from changing. */
static int reserve(int fd) { return posix_fallocate(fd, 0, 2 * PAGE); }

static bool store_sync_dir(const store_t *s) { return fsync(s->dir_fd) == 0; }

int store_open(host_t *h, bool create)
{
    store_t *s = &h->store;
    pthread_condattr_t mono;
    s->slots = QSAFP_LOG_SLOTS;
    s->degrade = h->o->degrade;
    s->ring_fd = s->state_fd = s->evidence_fd = s->lock_fd = s->seal_fd = s->dir_fd = -1;
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, 0);
    pthread_cond_init(&s->more, &mono);
    pthread_cond_init(&s->done, &mono);
    if (claim(h))
        return -1;
    s->ring_fd = open_in(h, "log.ring", create);
    s->state_fd = open_in(h, "state.bin", create);
    s->seal_fd = open_in(h, "seal.bin", create);
    s->evidence_fd = openat(s->dir_fd, "evidence.log", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (s->ring_fd < 0 || s->state_fd < 0 || s->seal_fd < 0 || s->evidence_fd < 0)
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
    const int fds[] = {s->ring_fd, s->state_fd, s->evidence_fd, s->seal_fd, s->dir_fd, s->lock_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    qsafp_wipe(s->seal_key, sizeof s->seal_key);
    free(s->image);
}
