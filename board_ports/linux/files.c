/* SPDX-License-Identifier: Apache-2.0 */
/* Small durable files: the state in two slots, evidence as one append-only file with a size cap; and the ring as a file. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "host.h"

enum { STATE_SLOT = 4096 };

typedef struct { char magic[4]; uint32_t len; uint8_t hash[32]; } evidence_head_t;
typedef struct { uint64_t magic, count; uint8_t hash[32]; } slot_head_t;
static const uint64_t SLOT_MAGIC = 0x31544F4C53415351; /* "QSASLOT1" */

static void slot_hash(uint8_t out[32], uint64_t count, const void *buf, uint32_t len)
{
    qsafp_sha256_t s;
    qsafp_sha256_init(&s);
    qsafp_sha256_update(&s, &count, sizeof count);
    qsafp_sha256_update(&s, buf, len);
    qsafp_sha256_final(&s, out);
}

static bool slot_read(int fd, unsigned i, void *buf, uint32_t len, uint64_t *count)
{
    slot_head_t head;
    uint8_t hash[32];
    struct iovec v[2] = {{&head, sizeof head}, {buf, len}};
    if (preadv(fd, v, 2, (off_t)i * STATE_SLOT) != (ssize_t)(sizeof head + len) || head.magic != SLOT_MAGIC)
        return false;
    slot_hash(hash, head.count, buf, len);
    *count = head.count;
    return qsafp_equal(hash, head.hash, 32);
}

/* The younger of two slots; a write that was cut leaves the other. */
int slots_load(int fd, void *buf, uint32_t len, uint64_t *count)
{
    uint64_t c0 = 0, c1 = 0;
    bool ok0 = slot_read(fd, 0, buf, len, &c0), ok1 = slot_read(fd, 1, buf, len, &c1);
    if (!ok0 && !ok1)
        return QSAFP_E_STORE;
    *count = ok1 && (!ok0 || c1 > c0) ? c1 : c0;
    return slot_read(fd, (unsigned)(*count & 1), buf, len, count) ? 0 : QSAFP_E_STORE;
}

int slots_save(int fd, const void *buf, uint32_t len, uint64_t *count)
{
    slot_head_t head = {.magic = SLOT_MAGIC, .count = *count + 1};
    slot_hash(head.hash, head.count, buf, len);
    struct iovec v[2] = {{&head, sizeof head}, {(void *)(uintptr_t)buf, len}};
    if (len + sizeof head > STATE_SLOT || pwritev(fd, v, 2, (off_t)(head.count & 1) * STATE_SLOT) != (ssize_t)(sizeof head + len) || fdatasync(fd))
        return QSAFP_E_STORE;
    *count = head.count;
    return 0;
}

/* What the older slot held is no more; it goes to the disk with the next save, which may not need it. */
void slots_forget(int fd, uint64_t count)
{
    static const uint8_t none[STATE_SLOT];
    (void)!pwrite(fd, none, sizeof none, (off_t)(~count & 1) * STATE_SLOT);
}

int open_in(host_t *h, const char *name, bool create)
{
    int fd = openat(h->store.dir_fd, name, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    if (fd < 0)
        (void)fail(h, "%s/%s: %s", h->o->state_dir, name, strerror(errno));
    return fd;
}

/* ---- the ring as a file ---- */

static bool file_read(ring_t *r, uint32_t off, uint8_t *buf, uint32_t len) { return pread(r->fd, buf, len, off) == (ssize_t)len; }
static bool file_prog(ring_t *r, uint32_t off, const uint8_t *buf, uint32_t len) { return pwrite(r->fd, buf, len, off) == (ssize_t)len; }
static bool file_sync(ring_t *r) { return fdatasync(r->fd) == 0; }

static bool file_erase(ring_t *r, uint32_t sector)
{
    uint8_t blank[PAGE];
    memset(blank, 0xFF, sizeof blank);
    return file_prog(r, sector * PAGE, blank, sizeof blank);
}

static int file_open(host_t *h, bool create)
{
    ring_t *r = &h->store.ring;
    struct stat st;
    r->bytes = QSAFP_LOG_SLOTS * SLOT;
    snprintf(r->name, sizeof r->name, "%s/log.ring", h->o->state_dir);
    r->fd = open_in(h, "log.ring", create);
    if (r->fd < 0)
        return -1;
    if (fstat(r->fd, &st))
        return fail(h, "%s: %s", r->name, strerror(errno));
    if (st.st_size >= r->bytes)
        return 0;
    if (!create || st.st_size)
        return fail(h, "%s: shorter than %u bytes; restore it from a backup", r->name, r->bytes);
    bool ok = posix_fallocate(r->fd, 0, r->bytes) == 0;
    for (uint32_t i = 0; i < r->bytes / PAGE && ok; i++)
        ok = file_erase(r, i);
    return ok && fsync(r->fd) == 0 ? 0 : fail(h, "%s: no room for %u bytes", r->name, r->bytes);
}

const ring_ops_t RING_FILE = {.open = file_open, .read = file_read, .erase = file_erase, .prog = file_prog, .sync = file_sync, .overwrites = true, .groups = true};

/* ---- state ---- */

int file_state_load(void *ctx, void *buf, uint32_t len)
{
    host_t *h = ctx;
    return slots_load(h->store.state_fd, buf, len, &h->store.state_count);
}

int file_state_save(void *ctx, const void *buf, uint32_t len)
{
    host_t *h = ctx;
    return slots_save(h->store.state_fd, buf, len, &h->store.state_count);
}

/* Full: the older half goes, as a whole file; the service thread records that (EVIDENCE_PRUNED). */
static int rotate(store_t *s, uint64_t max, size_t more)
{
    if (!s->evidence_size || s->evidence_size + more <= max / 2)
        return 0;
    int fd = -1;
    if (renameat(s->dir_fd, "evidence.log", s->dir_fd, "evidence.old") == 0)
        fd = openat(s->dir_fd, "evidence.log", O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || fsync(s->dir_fd))
        return QSAFP_E_STORE;
    close(s->evidence_fd);
    s->evidence_fd = fd;
    s->evidence_pruned += s->evidence_old;
    s->evidence_old = s->evidence_size;
    s->evidence_size = 0;
    return 0;
}

/* Only whole entries stay; what a cut left of the last one goes before the next is appended. */
int evidence_recover(store_t *s)
{
    struct stat st;
    evidence_head_t head;
    off_t end = fstat(s->evidence_fd, &st) ? -1 : st.st_size, at = 0;
    while (end - at >= (off_t)sizeof head && pread(s->evidence_fd, &head, sizeof head, at) == sizeof head && !memcmp(head.magic, "QEV1", 4) &&
           (off_t)head.len <= end - at - (off_t)sizeof head)
        at += (off_t)sizeof head + head.len;
    if (end < 0 || (at < end && ftruncate(s->evidence_fd, at)))
        return -1;
    s->evidence_size = (uint64_t)at;
    s->evidence_old = fstatat(s->dir_fd, "evidence.old", &st, 0) ? 0 : (uint64_t)st.st_size;
    return 0;
}

static int evidence_write(host_t *h, const uint8_t hash[32], const uint8_t *bytes, size_t len)
{
    store_t *s = &h->store;
    evidence_head_t head = {{'Q', 'E', 'V', '1'}, (uint32_t)len, {0}};
    if (rotate(s, h->o->evidence_max, sizeof head + len))
        return QSAFP_E_STORE;
    memcpy(head.hash, hash, 32);
    struct iovec v[2] = {{&head, sizeof head}, {(void *)(uintptr_t)bytes, len}};
    ssize_t n = writev(s->evidence_fd, v, 2);
    if (n != (ssize_t)(sizeof head + len) || fdatasync(s->evidence_fd)) {
        (void)!ftruncate(s->evidence_fd, (off_t)s->evidence_size); /* never a partial entry before a whole one */
        return QSAFP_E_STORE;
    }
    s->evidence_size += (uint64_t)n;
    return 0;
}

/* degrade(n) lets n entries be lost in a row; each is counted and told (EVIDENCE_PRUNED). */
int evidence_put(void *ctx, const uint8_t hash[32], const uint8_t *bytes, size_t len)
{
    host_t *h = ctx;
    store_t *s = &h->store;
    int err = evidence_write(h, hash, bytes, len);
    if (!err) {
        s->lost_evidence = 0;
        return 0;
    }
    if (s->lost_evidence + s->lost_events >= s->degrade)
        return err;
    s->lost_evidence++;
    s->untold_evidence++;
    return 0;
}
