/* SPDX-License-Identifier: Apache-2.0 */
/* The audit log's ring file: the core writes an image in memory, a writer thread makes it durable by group commit (HW-8).
 *
 * A commit covers the records of one 4 KB page: pages reach the disk in order, so that a power cut tears only the tail. */
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
enum { PAGE = 4096, PAGE_SLOTS = PAGE / SLOT };

typedef struct { uint64_t epoch; uint8_t key[32]; } seal_state_t;

static int seal_save(store_t *s)
{
    seal_state_t st = {.epoch = s->seal_epoch};
    uint64_t count = s->seal_epoch; /* one save an epoch */
    memcpy(st.key, s->seal_key, sizeof st.key);
    int err = slots_save(s->seal_fd, &st, sizeof st, &count);
    qsafp_wipe(&st, sizeof st);
    return err;
}

static int seal_load(store_t *s)
{
    seal_state_t st;
    uint64_t count = 0;
    int err = slots_load(s->seal_fd, &st, sizeof st, &count);
    if (!err) {
        s->seal_epoch = st.epoch;
        memcpy(s->seal_key, st.key, sizeof s->seal_key);
    }
    qsafp_wipe(&st, sizeof st);
    return err;
}

static uint64_t seq_of(const uint8_t *rec)
{
    uint64_t v;
    memcpy(&v, rec + 8, sizeof v);
    return v;
}

/* ---- the writer ---- */

typedef struct { uint8_t bytes[PAGE]; uint32_t erased[LOG_QUEUE]; unsigned nerased; int page; unsigned first, last; uint64_t upto; bool seals; } batch_t;

/* Caller holds the lock: entries from `durable` on that belong to one page. */
static void take(store_t *s, batch_t *b)
{
    b->page = -1;
    b->nerased = b->first = b->last = 0;
    for (b->upto = s->durable; b->upto < s->queued; b->upto++) {
        uint32_t e = s->queue[b->upto % LOG_QUEUE];
        if (e & ERASE) {
            b->erased[b->nerased++] = e & ~ERASE;
            continue;
        }
        int page = (int)(e / PAGE_SLOTS);
        if (b->page >= 0 && b->page != page)
            break;
        b->first = b->page < 0 ? e % PAGE_SLOTS : b->first;
        b->last = e % PAGE_SLOTS;
        b->page = page;
    }
    b->seals = b->page >= 0 && b->last == PAGE_SLOTS - 1;
    if (b->page >= 0)
        memcpy(b->bytes, s->image + (size_t)b->page * PAGE, PAGE);
}

static bool put_page(int fd, const uint8_t *p, size_t n, off_t at)
{
    return pwrite(fd, p, n, at) == (ssize_t)n;
}

static bool commit(store_t *s, batch_t *b)
{
    uint8_t blank[PAGE];
    memset(blank, 0xFF, sizeof blank);
    uint8_t *last = b->bytes + (PAGE_SLOTS - 1) * SLOT;
    for (unsigned i = 0; i < b->nerased; i++)
        if (!put_page(s->ring_fd, blank, PAGE, (off_t)b->erased[i] * PAGE))
            return false;
    if (b->seals)
        qsafp_seal(last + 240, s->seal_key, last + 208);
    size_t from = b->first * SLOT, n = b->page < 0 ? 0 : (b->last + 1) * SLOT - from;
    if (n && !put_page(s->ring_fd, b->bytes + from, n, (off_t)b->page * PAGE + (off_t)from))
        return false;
    if (fdatasync(s->ring_fd))
        return false;
    if (!b->seals)
        return true;
    s->seal_epoch = seq_of(last) / PAGE_SLOTS + 1; /* the sealed record is durable: its key goes */
    qsafp_seal_evolve(s->seal_key);
    return seal_save(s) == 0;
}

static void *writer(void *arg)
{
    store_t *s = arg;
    batch_t *b = malloc(sizeof *b);
    pthread_mutex_lock(&s->lock);
    s->failed |= !b;
    while (!s->failed) {
        while (s->durable == s->queued && !s->stop)
            pthread_cond_wait(&s->more, &s->lock);
        if (s->durable == s->queued)
            break;
        take(s, b);
        pthread_mutex_unlock(&s->lock);
        bool ok = commit(s, b);
        pthread_mutex_lock(&s->lock);
        if (ok && b->seals)
            memcpy(s->image + (size_t)b->page * PAGE + PAGE - 16, b->bytes + PAGE - 16, 16);
        s->failed |= !ok;
        if (ok)
            s->durable = b->upto;
        pthread_cond_broadcast(&s->done);
    }
    pthread_cond_broadcast(&s->done);
    pthread_mutex_unlock(&s->lock);
    free(b);
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

/* Waits for room, at most 2 s; then the disk is too slow to be trusted with a log. */
static int enqueue(store_t *s, uint32_t entry, uint32_t off, const void *buf, uint32_t len)
{
    struct timespec limit;
    int err = 0;
    clock_gettime(CLOCK_MONOTONIC, &limit);
    limit.tv_sec += 2;
    pthread_mutex_lock(&s->lock);
    while (!s->failed && s->queued - s->durable == LOG_QUEUE && !err)
        err = pthread_cond_timedwait(&s->done, &s->lock, &limit);
    err = s->failed ? QSAFP_E_STORE : err ? QSAFP_E_FULL : 0;
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
    while (!s->failed && s->durable < want)
        pthread_cond_wait(&s->done, &s->lock);
    int err = s->durable < want ? QSAFP_E_STORE : 0;
    pthread_mutex_unlock(&s->lock);
    return err;
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

static bool store_sync_dir(const store_t *s) { return fsync(s->dir_fd) == 0; }

int store_open(host_t *h, bool create)
{
    store_t *s = &h->store;
    pthread_condattr_t mono;
    s->slots = QSAFP_LOG_SLOTS;
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
    off_t end = lseek(s->evidence_fd, 0, SEEK_END);
    s->evidence_size = end > 0 ? (uint64_t)end : 0;
    if (read_ring(h, create))
        return -1;
    memcpy(s->seal_key, h->o->seal_key, sizeof s->seal_key);
    if (create && (seal_save(s) || !store_sync_dir(s)))
        return fail(h, "%s: cannot write", h->o->state_dir);
    return !create && seal_load(s) ? fail(h, "%s/seal.bin: the seal key is missing or damaged", h->o->state_dir) : 0;
}

/* A cut may leave a seal without its new key, or a sealed record without its seal: both are made good in order. */
static int catch_up(host_t *h)
{
    store_t *s = &h->store;
    static const uint8_t unsealed[16] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    for (uint32_t n = 0; n < s->slots / PAGE_SLOTS; n++) {
        uint8_t seal[16];
        uint32_t slot = (uint32_t)((s->seal_epoch % (s->slots / PAGE_SLOTS)) * PAGE_SLOTS + PAGE_SLOTS - 1);
        uint8_t *rec = s->image + (size_t)slot * SLOT;
        if (memcmp(rec, "QAR1", 4) != 0 || seq_of(rec) != s->seal_epoch * PAGE_SLOTS + PAGE_SLOTS - 1)
            return 0;
        qsafp_seal(seal, s->seal_key, rec + 208);
        bool fresh = memcmp(rec + 240, unsealed, 16) == 0;
        if (!fresh && !qsafp_equal(rec + 240, seal, 16))
            return fail(h, "log.ring: the seal of record %llu is wrong: the log was changed", (unsigned long long)seq_of(rec));
        memcpy(rec + 240, seal, 16);
        if (fresh && (!put_page(s->ring_fd, rec, SLOT, (off_t)slot * SLOT) || fdatasync(s->ring_fd)))
            return fail(h, "log.ring: %s", strerror(errno));
        s->seal_epoch++;
        qsafp_seal_evolve(s->seal_key);
        if (seal_save(s))
            return fail(h, "seal.bin: %s", strerror(errno));
    }
    return 0;
}

int store_start(host_t *h)
{
    if (catch_up(h))
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
