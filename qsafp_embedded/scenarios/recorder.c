/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into a guard, writes down what it does to the files of one directory (QSAFP_RECORD_DIR), in order, and what it tells
 * its clients, into the file QSAFP_RECORD_TO: from that every state of the disk that a power cut could leave is built. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, CUT = 2, SYNC_BEGIN = 3, SYNC_END = 4, TELL = 5 };

typedef struct { uint32_t kind, len; int64_t off; char name[24]; } entry_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int to = -1;
static int64_t syncs;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);

static void *next(const char *name)
{
    void *p = dlsym(RTLD_NEXT, name);
    if (!p)
        abort();
    return p;
}

__attribute__((constructor)) static void attach(void)
{
    if (real_write)
        return;
    *(void **)&real_writev = next("writev");
    *(void **)&real_pwrite = next("pwrite");
    *(void **)&real_pwritev = next("pwritev");
    *(void **)&real_ftruncate = next("ftruncate");
    *(void **)&real_fdatasync = next("fdatasync");
    *(void **)&real_fsync = next("fsync");
    *(void **)&real_write = next("write");
    const char *path = getenv("QSAFP_RECORD_TO");
    to = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (to < 0)
        abort(); /* a run that is not recorded would prove nothing */
}

/* The file's name in the directory; empty for everything else. */
static void name_of(int fd, char name[24])
{
    char link[32], path[4096];
    const char *dir = getenv("QSAFP_RECORD_DIR");
    size_t n = dir ? strlen(dir) : 0;
    memset(name, 0, 24);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (!n || len <= 0)
        return;
    path[len] = 0;
    if (strncmp(path, dir, n) == 0 && path[n] == '/' && strlen(path + n + 1) < 24)
        strcpy(name, path + n + 1);
}

static void put(entry_t *e, const struct iovec *v, int count)
{
    struct iovec head = {e, sizeof *e};
    for (int i = 0; i < count; i++)
        e->len += (uint32_t)v[i].iov_len;
    if (real_writev(to, &head, 1) != (ssize_t)sizeof *e || (count && real_writev(to, v, count) != (ssize_t)e->len))
        abort();
}

/* Locked from here until the caller has done the real thing: the recorded order is the real one. */
static void note(uint32_t kind, int fd, int64_t off, const struct iovec *v, int count)
{
    entry_t e = {.kind = kind, .off = off};
    attach();
    name_of(fd, e.name);
    pthread_mutex_lock(&lock);
    if (e.name[0])
        put(&e, v, count);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t off)
{
    struct iovec v = {(void *)(uintptr_t)buf, n};
    note(WRITE, fd, off, &v, 1);
    ssize_t done = real_pwrite(fd, buf, n, off);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwritev(int fd, const struct iovec *v, int count, off_t off)
{
    note(WRITE, fd, off, v, count);
    ssize_t done = real_pwritev(fd, v, count, off);
    pthread_mutex_unlock(&lock);
    return done;
}

/* Files are only ever appended to this way. */
ssize_t writev(int fd, const struct iovec *v, int count)
{
    note(WRITE, fd, lseek(fd, 0, SEEK_END), v, count);
    ssize_t done = real_writev(fd, v, count);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *buf, size_t n)
{
    struct stat st;
    struct iovec v = {(void *)(uintptr_t)buf, n};
    bool told = fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
    note(WRITE, fd, told ? 0 : lseek(fd, 0, SEEK_END), &v, 1);
    if (told) {
        entry_t e = {.kind = TELL};
        put(&e, &v, 1);
    }
    ssize_t done = real_write(fd, buf, n);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t size)
{
    note(CUT, fd, size, 0, 0);
    int err = real_ftruncate(fd, size);
    pthread_mutex_unlock(&lock);
    return err;
}

/* What was written before it began is on the disk once it ended; others may write meanwhile. */
static int sync_with(int (*real)(int), int fd)
{
    int64_t id = __atomic_add_fetch(&syncs, 1, __ATOMIC_SEQ_CST);
    note(SYNC_BEGIN, fd, id, 0, 0);
    pthread_mutex_unlock(&lock);
    int err = real(fd);
    note(err ? SYNC_BEGIN : SYNC_END, fd, id, 0, 0);
    pthread_mutex_unlock(&lock);
    return err;
}

int fdatasync(int fd)
{
    attach();
    return sync_with(real_fdatasync, fd);
}

int fsync(int fd)
{
    attach();
    return sync_with(real_fsync, fd);
}
