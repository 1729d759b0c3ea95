/* SPDX-License-Identifier: Apache-2.0 */
/* Small durable files: the state in two slots, evidence as one append-only file with a size cap. */
#define _GNU_SOURCE
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
