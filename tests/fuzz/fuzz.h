/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets share.  A target defines seeds() and LLVMFuzzerTestOneInput(); `--seeds FOLDER` writes the seeds, made from
 * real objects, and ends. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#include "../c/device.h"

/* A property that holds for every input. */
#define WANT(x) do { if (!(x)) { fprintf(stderr, "PROPERTY %s:%d: %s\n", __FILE__, __LINE__, #x); abort(); } } while (0)

static void seeds(void);
static const char *seed_folder;
static unsigned seed_count;

static inline void seed(const void *p, size_t n)
{
    char name[512];
    snprintf(name, sizeof name, "%s/seed-%02u", seed_folder, seed_count++);
    FILE *f = fopen(name, "wb");
    WANT(f && fwrite(p, 1, n, f) == n && fclose(f) == 0);
}

/* A seed behind the bytes by which a target chooses what to do. */
static inline void seed_as(const char *choice, const void *p, size_t n)
{
    static uint8_t buf[80000];
    size_t c = strlen(choice);
    WANT(c + n <= sizeof buf);
    memcpy(buf, choice, c);
    memcpy(buf + c, p, n);
    seed(buf, c + n);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    for (int i = 1; i + 1 < *argc; i++)
        if (!strcmp((*argv)[i], "--seeds")) {
            seed_folder = (*argv)[i + 1];
            seeds();
            exit(0);
        }
    return 0;
}

/* Puts a bench back to where it was without copying the whole log: only what was appended since is erased. */
typedef struct { bench_t *b, *was; } snapshot_t;

static inline void keep(snapshot_t *s, bench_t *b)
{
    s->b = b;
    s->was = malloc(sizeof *s->was);
    WANT(s->was);
    *s->was = *b;
}

static inline bench_t *restored(const snapshot_t *s)
{
    bench_t *b = s->b;
    const bench_t *was = s->was;
    uint64_t from = was->q.log.next / 16 * 16;
    WANT(b->q.log.next >= was->q.log.next && b->q.log.next < 900); /* no ring turns here */
    memcpy(b->d.log + from * 256, was->d.log + from * 256, (size_t)(b->q.log.next + 16 - from) * 256);
    memcpy(b->d.state, was->d.state, sizeof b->d.state);
    memcpy(b, was, offsetof(bench_t, d.log));
    b->d.has_state = was->d.has_state;
    b->d.seed = was->d.seed;
    b->q = was->q;
    b->page = was->page;
    return b;
}

/* Every moment: a latch means a closed gate, and after a healthy tick a low line (I1, I3, I4). */
static inline void want_safe(bench_t *b)
{
    (void)qsafp_tick(&b->q);
    WANT(b->d.valid == (open_now(b) ? 1 : 0));
    WANT(!b->q.latch || (!open_now(b) && b->d.failsafe));
}

#endif
