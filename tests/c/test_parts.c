/* SPDX-License-Identifier: Apache-2.0 */
/* The audit log in flash and in EEPROM (HW-8), on the parts of parts.h: appended, recovered and verified; cut at every byte; a
 * part that is stuck, gone, protected, small, foreign or not blank is one clear error. */
#define _GNU_SOURCE
#define TEST "test_parts"
#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "host_stub.h"
#include "parts.h"

static int no_flush(int fd) { (void)fd; return 0; } /* the files' durability is test_store's */

#define ioctl(fd, what, arg) part_ioctl(fd, what, (void *)(uintptr_t)(arg))
#define nanosleep part_nanosleep
#define fdatasync no_flush
#define fsync no_flush
#define SPIDEV_BUFSIZ "/nowhere"
#include "../../board_ports/linux/store.c"
#include "../../board_ports/linux/repair.c"
#include "../../board_ports/linux/files.c"
#include "../../board_ports/linux/ring.c"
#include "../../board_ports/linux/spi_nor.c"
#include "../../board_ports/linux/i2c_eeprom.c"
#undef ioctl
#undef nanosleep
#undef fdatasync
#undef fsync

#ifdef __SANITIZE_THREAD__ /* ten times slower, and looks for something else */
enum { COARSE = 37 };
#else
enum { COARSE = 1 };
#endif
enum { RECORDS = 3000, NOR_BYTES = 1 << 21, EEPROM_BYTES = 32768 };

static uint8_t seen[RECORDS][32];
static char root[] = P_tmpdir "/qsafp-parts-XXXXXX", device[64];

uint64_t boot_ns(void) { return part.now; }

static uint64_t now(void *c) { (void)c; return 1; }
static uint64_t wall(void *c) { (void)c; return 0; }
static int random_bytes(void *c, uint8_t *b, size_t n) { (void)c; memset(b, 7, n); return 0; }
static const qsafp_port_t PARTS = {.now_ns = now, .wall_ms = wall, .entropy = random_bytes, .log_read = log_read, .log_prog = log_prog, .log_erase = log_erase, .log_sync = log_sync};

typedef struct { host_t h; qsafp_guard_options_t o; qsafp_audit_t a; char why[300]; } log_t;

static log_t *plain(void)
{
    log_t *l = calloc(1, sizeof *l);
    assert(l);
    l->o.state_dir = root;
    l->o.log = (qsafp_log_spec_t){.device = device, .kind = part.eeprom ? LOG_I2C : LOG_SPI, .hz = 10000000, .address = 0x50, .bytes = part.size, .page = part.page};
    l->h.o = &l->o;
    l->h.why = l->why;
    l->h.why_len = sizeof l->why;
    return l;
}

static void shut(log_t *l)
{
    store_close(&l->h);
    free(l);
}

static bool opened(log_t *l, bool create)
{
    if (store_open(&l->h, create) || store_start(&l->h))
        return false;
    l->a = (qsafp_audit_t){.port = &PARTS, .ctx = &l->h, .slots = l->h.store.slots};
    return true;
}

static void clean_dir(void)
{
    static const char *const names[] = {"lock", "state.bin", "seal.bin", "evidence.log", "log.spare"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        char path[96];
        snprintf(path, sizeof path, "%s/%s", root, names[i]);
        (void)unlink(path);
    }
}

static log_t *created(void)
{
    clean_dir();
    log_t *l = plain();
    if (!opened(l, true))
        printf("# %s\n", l->why);
    CHECK(l->a.slots && !qsafp_audit_create(&l->a) && !log_sync(&l->h));
    memcpy(seen[0], l->a.head, 32);
    return l;
}

static int append(log_t *l)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_INFERENCE_COMPLETED};
    uint8_t rec[SLOT]; /* a pruning may have come first */
    int err = qsafp_audit_append(&l->a, &r);
    if (err)
        return err;
    for (uint64_t s = r.seq ? r.seq - 1 : 0; s <= r.seq; s++) {
        assert(!qsafp_audit_read(&l->a, (uint32_t)s, rec) && s < RECORDS);
        memcpy(seen[s], rec + 208, 32);
    }
    return 0;
}

/* Opens the part again; what was acknowledged is there, in its place and whole. */
static log_t *recovered(const qsafp_audit_t *known)
{
    uint32_t bad = 0;
    uint8_t rec[SLOT];
    log_t *l = plain();
    bool ok = opened(l, false);
    if (!ok)
        return shut(l), (log_t *)0;
    l->a.tree = known->tree;
    memcpy(l->a.log_id, known->log_id, 32);
    l->a.reserve = true;
    int err = qsafp_audit_recover(&l->a, &bad);
    if (err || l->a.next < known->next)
        printf("# status %d at slot %u, next %u, acknowledged %u, worked %llu\n", err, bad, (unsigned)l->a.next, (unsigned)known->next, (unsigned long long)part.worked);
    assert(!err && l->a.next >= known->next);
    for (uint64_t s = l->a.first; s < l->a.next; s++)
        assert(!qsafp_audit_read(&l->a, (uint32_t)s, rec) && memcmp(rec + 208, seen[s], 32) == 0);
    return l;
}

static void settle(log_t *l) { assert(!qsafp_audit_tree(&l->a) && !log_sync(&l->h)); }

static void laps(uint32_t records)
{
    log_t *l = created();
    for (uint32_t i = 0; i < records; i++) {
        assert(!append(l));
        if (i % 200 == 199 || i + 1 == records)
            settle(l);
    }
    qsafp_audit_t known = l->a;
    CHECK(known.next - known.first >= log_live(&l->h));
    shut(l);
    l = recovered(&known);
    CHECK(l && l->a.next == known.next && !memcmp(l->a.head, known.head, 32));
    shut(l);
}

static void a_log_of_some_laps_is_there_after_a_start(void)
{
    part_new(false, NOR_BYTES);
    laps(2400);
    CHECK(!part.overlong);
    part_new(true, EEPROM_BYTES);
    laps(400);
    part_new(true, 1 << 17); /* goes on at the next address of the part */
    part.page = 128;
    laps(700);
}

/* ---- cuts ---- */

/* A log that waits before a sector's end; what it is made of. */
typedef struct { uint8_t mem[1 << 18], seal[2 * 4096]; qsafp_audit_t known; } base_t;
static base_t base;

static void file(const char *name, uint8_t *p, size_t n, bool save)
{
    char path[96];
    snprintf(path, sizeof path, "%s/%s", root, name);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert(fd >= 0 && (save ? pwrite(fd, p, n, 0) : pread(fd, p, n, 0)) == (ssize_t)n && close(fd) == 0);
}

static void make_base(uint32_t records)
{
    part_power();
    memset(part.mem, 0xFF, sizeof part.mem);
    log_t *l = created();
    while (l->a.next < records) {
        assert(!append(l));
        settle(l);
    }
    base.known = l->a;
    shut(l);
    memcpy(base.mem, part.mem, sizeof base.mem);
    file("seal.bin", base.seal, sizeof base.seal, false);
}

static void to_base(void)
{
    part_power();
    part.worked = 0;
    memcpy(part.mem, base.mem, sizeof base.mem);
    clean_dir();
    file("seal.bin", base.seal, sizeof base.seal, true);
    file("state.bin", base.seal, 0, true); /* the core's; not looked at here */
}

/* Appends, a few at a time, until the part is cut after `at` bytes; true if it was. */
static bool run_until(uint64_t at, qsafp_audit_t *known)
{
    log_t *l = recovered(&base.known);
    assert(l);
    *known = l->a;
    part.worked = 0;
    part.cut_after = at;
    for (unsigned n = 0; n < 12 && !part.cut;) {
        int err = 0;
        for (unsigned k = part_chance() % 8 + 1; k && !err; k--, n++)
            err = append(l);
        if (err || qsafp_audit_tree(&l->a) || log_sync(&l->h))
            break;
        *known = l->a;
    }
    shut(l);
    return part.cut;
}

/* What a cut left is made good, and good for more; a cut in that is made good as well. */
static void goes_on(const qsafp_audit_t *known)
{
    part_power();
    part.worked = 0;
    part.cut_after = part_chance() % 2 ? 1 + part_chance() % 6000 : 0;
    log_t *l = recovered(known);
    if (l)
        shut(l);
    else
        assert(part.cut);
    part_power();
    l = recovered(known);
    assert(l);
    for (unsigned i = 0; i < 20; i++)
        assert(!append(l));
    settle(l);
    qsafp_audit_t later = l->a;
    shut(l);
    l = recovered(&later);
    assert(l && l->a.next == later.next);
    shut(l);
}

/* A cut after every `step` bytes, up to `most`, of what comes after the first `records`. */
static void cuts(uint32_t records, uint32_t step, uint32_t most)
{
    make_base(records);
    for (uint32_t at = 1; at <= most; at += step * COARSE) {
        qsafp_audit_t known;
        to_base();
        CHECK(run_until(at, &known));
        goes_on(&known);
    }
}

static void any_cut_leaves_what_was_acknowledged(void)
{
    for (unsigned ragged = 0; ragged < 2; ragged++) {
        part_new(false, 1 << 16);
        part.ragged = ragged;
        memcpy(part.id, (const uint8_t[]){0xEF, 0x40, 0x10}, 3);
        cuts(302, 1, 512); /* every byte of the record before the sealed one, and of that */
        cuts(300, 17, 4 * 256 + 4096 + 512); /* 304 begins a sector: the one after is erased */
        part_new(true, EEPROM_BYTES);
        part.ragged = ragged;
        cuts(302, 3, 512);
        cuts(300, 29, 4 * 256 + 4096 + 512);
    }
}

/* ---- errors ---- */

static void refused_with(log_t *l, bool create, const char *said)
{
    bool ok = opened(l, create);
    if (ok || !strstr(l->why, said))
        printf("# wanted \"%s\", got \"%s\"\n", said, ok ? "(it opened)" : l->why);
    CHECK(!ok && strstr(l->why, said));
    shut(l);
    clean_dir();
}

static void what_is_wrong_is_named(void)
{
    for (unsigned eeprom = 0; eeprom < 2; eeprom++) {
        uint32_t size = eeprom ? EEPROM_BYTES : NOR_BYTES;
        log_t *l;
        part_new(eeprom, size), l = plain(), l->o.log.device = "/dev/no-such-bus", refused_with(l, true, "no such bus");
        part_new(eeprom, size), part.gone = true, refused_with(plain(), true, "no answer");
        part_new(eeprom, size), part.mem[70000 % size] = 0x55, refused_with(plain(), true, "not blank");
        part_new(eeprom, size), l = plain(), l->o.log.live_min = 1009, refused_with(l, true, "log_live_min = 1009");
        part_new(eeprom, 8192), memcpy(part.id, (const uint8_t[]){0xEF, 0x40, 13}, 3), refused_with(plain(), true, "too few");
    }
    part_new(false, NOR_BYTES), part.refuse_mode = true, refused_with(plain(), true, "not an SPI device");
    part_new(false, NOR_BYTES), part.id[0] = 0x77, refused_with(plain(), true, "77 40 15 is not known");
    part_new(false, NOR_BYTES), memset(part.id, 0, 3), refused_with(plain(), true, "no answer");
    part_new(false, NOR_BYTES), part.stuck = true, refused_with(plain(), true, "stuck or gone");
    part_new(true, EEPROM_BYTES), part.no_i2c = true, refused_with(plain(), true, "plain messages");
    part_new(true, EEPROM_BYTES), part.taken = true, refused_with(plain(), true, "kernel driver");
    for (unsigned eeprom = 0; eeprom < 2; eeprom++) {
        part_new(eeprom, eeprom ? EEPROM_BYTES : NOR_BYTES), part.protect = true;
        log_t *l = plain();
        CHECK(opened(l, true) && (qsafp_audit_create(&l->a) || log_sync(&l->h)));
        shut(l);
        clean_dir();
    }
}

static void permission_and_a_second_owner_are_named(void)
{
    part_new(false, NOR_BYTES);
    int fd = open(device, O_RDWR);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    refused_with(plain(), true, "another guard");
    close(fd);
    if (geteuid() == 0) /* root may open anything: a folder in its place is the nearest refusal */
        return;
    chmod(device, 0);
    refused_with(plain(), true, "group spi");
    chmod(device, 0600);
}

static void a_smaller_eeprom_is_refused_and_unchanged(void)
{
    static uint8_t was[EEPROM_BYTES];
    for (unsigned used = 0; used < 2; used++) {
        part_new(true, EEPROM_BYTES);
        if (used)
            shut(created());
        memcpy(was, part.mem, sizeof was);
        log_t *l = plain();
        l->o.log.bytes = 2 * EEPROM_BYTES;
        if (!used) {
            refused_with(l, true, "ends after 32768 bytes");
        } else {
            l->o.log.live_min = 0;
            refused_with(l, false, "ends after 32768 bytes");
        }
        CHECK(memcmp(was, part.mem, sizeof was) == 0);
    }
    part_new(true, 1 << 16);
    log_t *l = plain();
    l->o.log.bytes = 1 << 17;
    refused_with(l, true, "0x51"); /* nobody at the next address */
}

static void what_is_there_can_be_erased_if_asked(void)
{
    part_new(false, NOR_BYTES);
    memset(part.mem, 0x12, 300000);
    clean_dir();
    log_t *l = plain();
    l->o.log.erase = 1;
    CHECK(opened(l, true) && !qsafp_audit_create(&l->a) && part.mem[QSAFP_LOG_SLOTS * SLOT] == 0x12);
    CHECK(l->h.store.ring.cycles == QSAFP_LOG_SLOTS / PAGE_SLOTS);
    shut(l);
}

static void a_part_that_is_stuck_fails_the_log_and_not_the_guard(void)
{
    for (unsigned eeprom = 0; eeprom < 2; eeprom++) {
        part_new(eeprom, eeprom ? EEPROM_BYTES : NOR_BYTES);
        log_t *l = created();
        part.stuck = true;
        CHECK(!append(l) && log_sync(&l->h) == QSAFP_E_STORE && log_crowded(&l->h)); /* the core closes the gate on that */
        CHECK(strstr(l->h.store.ring.why, eeprom ? "no answer at address 0x50" : "stuck or gone"));
        part_power();
        while (log_sync(&l->h)) /* tried again every 100 ms */
            usleep(1000);
        CHECK(!log_crowded(&l->h));
        qsafp_audit_t known = l->a;
        shut(l);
        l = recovered(&known);
        CHECK(l && l->a.next == 2);
        shut(l);
    }
}

/* ---- kinds of parts ---- */

static void sfdp_is_believed_and_a_part_without_is_looked_up(void)
{
    uint8_t table[256];
    memset(table, 0xFF, sizeof table);
    memcpy(table, (const uint8_t[]){'S', 'F', 'D', 'P', 6, 1, 0, 0xFF, 0, 6, 1, 16, 0x80, 0, 0, 0xFF}, 16);
    memset(table + 0x80, 0, 64);
    memcpy(table + 0x80, (const uint8_t[]){0xE5, 0x20, 0xF1, 0xFF, 0xFF, 0xFF, 0x3F, 0}, 8); /* 8 MiB less nothing: 2^22 bits and so on */
    memcpy(table + 0x80 + 28, (const uint8_t[]){16, 0xD8, 12, 0x21, 0, 0, 0, 0}, 8);
    table[0x80 + 40] = 0x70; /* pages of 128 */
    part_new(false, 1 << 19);
    part.sfdp = table;
    part.id[0] = 0x77;
    log_t *l = plain();
    CHECK(!store_open(&l->h, true) && l->h.store.ring.bytes == 1 << 19 && l->h.store.ring.page == 128 && l->h.store.ring.erase_op == 0x21);
    shut(l);
    clean_dir();
    table[0x80 + 30] = 13; /* no 4 KiB sectors: and not known either */
    refused_with(plain(), true, "4 KiB sectors");
    part_new(false, NOR_BYTES);
    memcpy(part.id, (const uint8_t[]){0xBF, 0x25, 0x41}, 3);
    part.page = 1;
    part.protect = true; /* as after its power-up */
    laps(40 + 1040);
}

/* ---- figures ---- */

static void rates_come_near_the_part(void)
{
    for (unsigned eeprom = 0; eeprom < 2; eeprom++) {
        part_new(eeprom, eeprom ? EEPROM_BYTES : NOR_BYTES);
        log_t *l = created();
        uint64_t sector = eeprom ? 2 * PAGE / 64 * (EEPROM_WRITE_NS + (64 + 3) * (uint64_t)EEPROM_BYTE_NS) + (PAGE + 16 * 4) * (uint64_t)EEPROM_BYTE_NS
                                 : NOR_ERASE_NS + 16 * (NOR_PROGRAM_NS + (256 + 4) * (uint64_t)NOR_BYTE_NS);
        while (l->a.next < l->a.slots + 16 || l->a.next % 16)
            assert(!append(l));
        settle(l);
        uint64_t from = part.now, first = l->a.next;
        while (l->a.next < first + 320)
            assert(!append(l));
        settle(l);
        double append_share = (double)(sector * 20) / (double)(part.now - from);
        qsafp_audit_t known = l->a;
        shut(l);
        from = part.now, part.bytes = part.calls = 0;
        l = plain();
        CHECK(!store_open(&l->h, false));
        uint64_t payload = (uint64_t)l->h.store.slots * SLOT;
        double per_byte = (double)part.bytes / (double)payload, read_share = (double)(payload * (eeprom ? EEPROM_BYTE_NS : NOR_BYTE_NS)) / (double)(part.now - from);
        printf("simulated.%s: append_share %.3f read_share %.3f bus_bytes_per_byte %.4f ioctls_per_mb %.0f\n", eeprom ? "eeprom" : "nor", append_share, read_share,
               per_byte, (double)part.calls * 1e6 / (double)payload);
        CHECK(append_share >= 0.9 && append_share <= 1 && read_share >= 0.9 && read_share <= 1 && per_byte <= 1.05 && per_byte >= 1);
        shut(l);
        l = recovered(&known);
        CHECK(l);
        shut(l);
    }
}

static void all(void)
{
    a_log_of_some_laps_is_there_after_a_start();
    what_is_wrong_is_named();
    permission_and_a_second_owner_are_named();
    a_smaller_eeprom_is_refused_and_unchanged();
    what_is_there_can_be_erased_if_asked();
    a_part_that_is_stuck_fails_the_log_and_not_the_guard();
    sfdp_is_believed_and_a_part_without_is_looked_up();
    rates_come_near_the_part();
    any_cut_leaves_what_was_acknowledged();
}

/* With a word behind it: the figures alone, for tests/bench. */
int main(int argc, char **argv)
{
    (void)argv;
    CHECK(mkdtemp(root));
    snprintf(device, sizeof device, "%s/device", root);
    CHECK(close(open(device, O_RDWR | O_CREAT, 0600)) == 0);
    if (argc > 1)
        rates_come_near_the_part();
    else
        all();
    clean_dir();
    (void)unlink(device);
    CHECK(rmdir(root) == 0);
    printf(TEST ": %u passed, 0 failed\n", passed);
    return 0;
}
