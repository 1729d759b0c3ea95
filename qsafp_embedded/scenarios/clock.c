/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into one process, shifts the wall clock that it sees, and nothing else: by the seconds (int64) at the start of the
 * file that QSAFP_SHIFT names, read at every call, so that the clock can jump while the process runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shift;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void attach(void)
{
    const char *path = getenv("QSAFP_SHIFT");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *p = fd >= 0 ? mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    if (p == MAP_FAILED || !real)
        abort(); /* a run without the shift would prove nothing */
    shift = p;
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *t)
{
    if (!real)
        attach();
    int err = real(id, t);
    if (!err && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        t->tv_sec += *shift;
    return err;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    int err = clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return err;
}

time_t time(time_t *out)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}
