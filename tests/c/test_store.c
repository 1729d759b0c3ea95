/* SPDX-License-Identifier: Apache-2.0 */
/* The ring file under power cuts: at any moment the disk holds what was made durable and any of the 512-byte sectors that were
 * on their way.  What was acknowledged is there again after every cut; a record that was changed is still named. */
#define _GNU_SOURCE
#define TEST "test_store"
#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "host_stub.h"

static ssize_t disk_pwrite(int fd, const void *p, size_t n, off_t at);
static int disk_fdatasync(int fd);
#define pwrite disk_pwrite
#define fdatasync disk_fdatasync
#include "../../board_ports/linux/store.c"
#include "../../board_ports/linux/repair.c"
#include "../../board_ports/linux/files.c"
#undef pwrite
#undef fdatasync

const ring_ops_t RING_SPI = {0}, RING_I2C = {0}; /* test_parts has those */

enum { RING = QSAFP_LOG_SLOTS * SLOT, SECTOR = 512, RECORDS = 4000, TRIALS = 60 };

/* The ring as it is durable, and as it would be if everything on its way arrived. */
typedef struct { uint8_t durable[RING], latest[RING]; int ring_fd; unsigned syncs, cut_at; bool cut; } disk_t;

static disk_t disk;
static uint8_t seen[RECORDS][32];

static uint32_t chance(void)
{
    static uint64_t x = 88172645463325252u;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return (uint32_t)(x >> 32);
}

static ssize_t disk_pwrite(int fd, const void *p, size_t n, off_t at)
{
    if (fd == disk.ring_fd && !disk.cut)
        memcpy(disk.latest + at, p, n);
    return pwrite(fd, p, n, at);
}

/* A cut comes before the flush is done; from then on nothing is durable any more. */
static int disk_fdatasync(int fd)
{
    if (disk.cut || ++disk.syncs == disk.cut_at) {
        disk.cut = true;
        return -1;
    }
    if (fd == disk.ring_fd)
        memcpy(disk.durable, disk.latest, RING);
    return fdatasync(fd);
}

static uint64_t now(void *c) { (void)c; return 1; }
static uint64_t wall(void *c) { (void)c; return 0; }
static int random_bytes(void *c, uint8_t *b, size_t n) { (void)c; memset(b, 7, n); return 0; }
static const qsafp_port_t FILES = {.now_ns = now, .wall_ms = wall, .entropy = random_bytes, .log_read = log_read, .log_prog = log_prog, .log_erase = log_erase, .log_sync = log_sync};

typedef struct { host_t h; qsafp_guard_options_t o; qsafp_audit_t a; char why[256], dir[64]; } log_t;

static log_t *at_dir(const char *dir)
{
    log_t *l = calloc(1, sizeof *l);
    assert(l);
    snprintf(l->dir, sizeof l->dir, "%s", dir);
    l->o.state_dir = l->dir;
    l->h.o = &l->o;
    l->h.why = l->why;
    l->h.why_len = sizeof l->why;
    l->a = (qsafp_audit_t){.port = &FILES, .ctx = &l->h, .slots = QSAFP_LOG_SLOTS};
    return l;
}

static void shut(log_t *l)
{
    store_close(&l->h);
    free(l);
}

static log_t *created(const char *dir)
{
    log_t *l = at_dir(dir);
    disk.cut_at = 0, disk.syncs = 0, disk.cut = false, disk.ring_fd = -1;
    assert(!store_open(&l->h, true));
    disk.ring_fd = l->h.store.ring.fd;
    memset(disk.durable, 0xFF, RING);
    memset(disk.latest, 0xFF, RING);
    assert(!store_start(&l->h) && !qsafp_audit_create(&l->a) && !log_sync(&l->h));
    memcpy(seen[0], l->a.head, 32);
    return l;
}

static int append(log_t *l)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_INFERENCE_COMPLETED};
    int err = qsafp_audit_append(&l->a, &r);
    if (err)
        return err;
    uint8_t rec[SLOT]; /* a pruning may have come first */
    for (uint64_t s = r.seq ? r.seq - 1 : 0; s <= r.seq; s++) {
        assert(!qsafp_audit_read(&l->a, (uint32_t)s, rec) && s < RECORDS);
        memcpy(seen[s], rec + 208, 32);
    }
    return 0;
}

/* Opens what the cut left and recovers; 0 or the core's status. */
static int recovered(log_t *l, const qsafp_audit_t *before)
{
    uint32_t bad = 0;
    disk.cut_at = 0, disk.cut = false, disk.ring_fd = -1;
    if (store_open(&l->h, false) || store_start(&l->h)) {
        printf("# %s\n", l->why);
        return -1;
    }
    l->a.tree = before->tree;
    memcpy(l->a.log_id, before->log_id, 32);
    l->a.reserve = true;
    return qsafp_audit_recover(&l->a, &bad);
}

static void put_file(const char *dir, const char *name, const uint8_t *p, size_t n)
{
    char path[96];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert(fd >= 0 && pwrite(fd, p, n, 0) == (ssize_t)n && close(fd) == 0);
}

/* Any of the sectors on their way may have arrived. */
static void settle_disk(const char *dir)
{
    static uint8_t mixed[RING];
    memcpy(mixed, disk.durable, RING);
    for (size_t i = 0; i < RING; i += SECTOR)
        if (chance() & 1)
            memcpy(mixed + i, disk.latest + i, SECTOR);
    put_file(dir, "log.ring", mixed, RING);
}

static void remove_dir(const char *dir)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert(system(command) == 0);
}

/* Bursts of every length until the cut; `known` is the log as it was when it last was durable. */
static void write_until_cut(log_t *l, qsafp_audit_t *known)
{
    *known = l->a;
    while (!disk.cut && l->a.next < RECORDS - 700) {
        uint32_t n = chance() % 3 ? 1 + chance() % 40 : 1 + chance() % 500;
        while (n-- && !append(l))
            ;
        if (qsafp_audit_tree(&l->a) || log_sync(&l->h))
            return;
        *known = l->a;
    }
}

static void check_after(log_t *l, const qsafp_audit_t *known)
{
    uint8_t rec[SLOT];
    int err = recovered(l, known);
    if (err || l->a.next < known->next)
        printf("# status %d, %s, next %u, acknowledged %u\n", err, l->why, (unsigned)l->a.next, (unsigned)known->next);
    assert(!err && l->a.next >= known->next);
    for (uint64_t s = l->a.first; s < l->a.next; s++) {
        assert(!qsafp_audit_read(&l->a, (uint32_t)s, rec));
        assert(memcmp(rec + 208, seen[s], 32) == 0);
    }
    passed++;
}

static void any_cut_leaves_what_was_acknowledged(void)
{
    int cuts = 0;
    for (int t = 0; t < TRIALS; t++) {
        char dir[] = "build/store-XXXXXX";
        assert(mkdtemp(dir));
        qsafp_audit_t known;
        log_t *l = created(dir);
        disk.cut_at = disk.syncs + 1 + chance() % (t % 2 ? 12 : 40);
        write_until_cut(l, &known);
        cuts += disk.cut; /* commits are fewer the slower this thread is: some end without */
        shut(l);
        settle_disk(dir);
        l = at_dir(dir);
        check_after(l, &known);
        for (int i = 0; i < 40; i++) /* and it goes on, seals included */
            assert(!append(l));
        assert(!qsafp_audit_tree(&l->a) && !log_sync(&l->h));
        known = l->a;
        shut(l);
        l = at_dir(dir);
        check_after(l, &known);
        shut(l);
        remove_dir(dir);
    }
    assert(cuts >= TRIALS / 2);
}

/* A log of some laps whose seal.bin is as before its last records, as when the power was cut while they were written. */
typedef struct { char dir[32]; uint8_t ring[RING]; qsafp_audit_t known; uint32_t mark, next; } late_t;

static void copy_file(const char *dir, const char *from, const char *to)
{
    char command[160];
    snprintf(command, sizeof command, "cp %s/%s %s/%s", dir, from, dir, to);
    assert(system(command) == 0);
}

static void late(late_t *t, unsigned before, unsigned after)
{
    strcpy(t->dir, "build/store-XXXXXX");
    assert(mkdtemp(t->dir));
    log_t *l = created(t->dir);
    while (l->a.next < before)
        assert(!append(l) && !qsafp_audit_tree(&l->a) && !log_sync(&l->h));
    t->known = l->a;
    t->mark = (uint32_t)(l->h.store.seal_epoch * PAGE_SLOTS);
    copy_file(t->dir, "seal.bin", "seal.was");
    while (l->a.next < before + after)
        assert(!append(l));
    assert(!log_sync(&l->h));
    t->next = (uint32_t)l->a.next;
    memcpy(t->ring, disk.durable, RING);
    shut(l);
    copy_file(t->dir, "seal.was", "seal.bin");
}

static uint8_t *slot_of(late_t *t, uint32_t seq) { return t->ring + seq % QSAFP_LOG_SLOTS * SLOT; }

static int status_of_late(late_t *t, uint32_t *next)
{
    put_file(t->dir, "log.ring", t->ring, RING);
    log_t *l = at_dir(t->dir);
    int err = recovered(l, &t->known);
    *next = (uint32_t)l->a.next;
    shut(l);
    remove_dir(t->dir);
    return err;
}

static void a_hole_ends_the_log_and_a_change_does_not(void)
{
    static late_t t;
    uint32_t next = 0;
    for (unsigned laps = 0; laps < 2; laps++) {
        unsigned before = 100 + laps * 1500;
        late(&t, before, 100);
        memset(slot_of(&t, t.mark + 30), 0xFF, SLOT); /* never arrived, though what follows did */
        assert(status_of_late(&t, &next) == 0 && next == t.mark + 30);
        late(&t, before, 100);
        slot_of(&t, t.mark + 30)[120] ^= 1; /* changed */
        assert(status_of_late(&t, &next) == QSAFP_E_CORRUPT);
        late(&t, before, 100);
        memset(slot_of(&t, t.mark + 30), 0xFF, SLOT);
        slot_of(&t, t.mark + 60)[0] ^= 1; /* no trace of a cut */
        assert(status_of_late(&t, &next) == QSAFP_E_CORRUPT);
        late(&t, before, 100);
        slot_of(&t, t.mark + 15)[250] ^= 1; /* in a seal */
        assert(status_of_late(&t, &next) == -1);
        late(&t, before, 100);
        memset(slot_of(&t, t.mark + 15) + 250, 0xFF, 6); /* a seal cut off on its way */
        assert(status_of_late(&t, &next) == 0 && next == t.next);
        passed += 5;
    }
}

static void a_changed_record_below_the_mark_is_named(void)
{
    static late_t t;
    uint32_t next = 0;
    for (uint32_t back = 1; back < 60; back += 7) {
        late(&t, 1500, 0);
        slot_of(&t, t.mark - back)[120] ^= 1;
        assert(status_of_late(&t, &next) == QSAFP_E_CORRUPT);
        passed++;
    }
}

int main(void)
{
    any_cut_leaves_what_was_acknowledged();
    a_hole_ends_the_log_and_a_change_does_not();
    a_changed_record_below_the_mark_is_named();
    printf(TEST ": %u passed, 0 failed\n", passed);
    return 0;
}
