/* SPDX-License-Identifier: Apache-2.0 */
/* The log on flash as it is: bits only fall, an erase or a write is cut at any point, every read fails once; and its fields at their edges. */
#include "device.h"

enum { SLOTS = 64, BYTES = SLOTS * 256 };

/* Writes clear bits, but for a slot whose write was cut: the board replaces that one (qsafp_port.h).  Operation number `cut_at`
 * stops after `cut_bytes` of its bytes and everything after it fails. */
typedef struct { device_t d; int op, cut_at; uint32_t cut_bytes, torn; bool dead; } flash_t;

static bool alive(flash_t *f, uint32_t *n)
{
    if (f->dead)
        return false;
    f->dead = ++f->op == f->cut_at;
    if (f->dead)
        *n = f->cut_bytes < *n ? f->cut_bytes : *n;
    return true;
}

static int f_prog(void *c, uint32_t off, const void *b, uint32_t n)
{
    flash_t *f = c;
    if (!alive(f, &n) || off + n > BYTES)
        return QSAFP_E_STORE;
    if (f->torn == off + 1)
        memset(f->d.log + off, 0xFF, 256);
    f->torn = f->dead ? off + 1 : 0;
    for (uint32_t i = 0; i < n; i++)
        f->d.log[off + i] &= ((const uint8_t *)b)[i];
    return f->dead ? QSAFP_E_STORE : 0;
}

static int f_erase(void *c, uint32_t sector)
{
    flash_t *f = c;
    uint32_t n = 4096;
    if (!alive(f, &n) || sector >= SLOTS / 16)
        return QSAFP_E_STORE;
    memset(f->d.log + sector * 4096, 0xFF, n);
    return f->dead ? QSAFP_E_STORE : 0;
}

static qsafp_port_t port;
static flash_t flash, copy;

static void log_on(qsafp_audit_t *a, flash_t *f)
{
    memset(a, 0, sizeof *a);
    a->port = &port;
    a->ctx = f;
    a->slots = SLOTS;
    a->reserve = true;
}

static int recover(qsafp_audit_t *a, const qsafp_audit_t *was, flash_t *f, uint32_t *bad)
{
    log_on(a, f);
    a->tree = was->tree;
    memcpy(a->log_id, was->log_id, 32);
    return qsafp_audit_recover(a, bad);
}

static int append(qsafp_audit_t *a, uint32_t reason)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_WORKLOAD_REPORT, .reason = reason};
    int err = qsafp_audit_tree(a);
    return err ? err : qsafp_audit_append(a, &r);
}

static void grow(qsafp_audit_t *a, uint32_t next)
{
    memset(&flash, 0, sizeof flash);
    memset(flash.d.log, 0xFF, sizeof flash.d.log);
    log_on(a, &flash);
    CHECK(qsafp_audit_create(a) == 0);
    while (a->next < next)
        CHECK(append(a, a->next) == 0);
}

static bool whole(qsafp_audit_t *a)
{
    static uint8_t recs[BYTES];
    uint8_t prev[32] = {0}, raw[256];
    uint64_t bad = 0;
    if (a->first) { /* the record before the oldest is gone; its hash is in the LOG_PRUNED that removed it */
        bool found = false;
        for (uint32_t s = a->first; s < a->next; s++) {
            uint64_t range[2];
            if (qsafp_audit_read(a, s, raw))
                return false;
            memcpy(range, raw + 112, 16);
            if (raw[4] == QSAFP_EVENT_LOG_PRUNED && range[1] == a->first - 1) {
                memcpy(prev, raw + 128, 32);
                found = true;
            }
        }
        if (!found)
            return true; /* cut between the erase and its record */
    }
    for (uint32_t s = a->first; s < a->next; s++)
        if (qsafp_audit_read(a, s, recs + (s - a->first) * 256))
            return false;
    return qsafp_audit_verify(recs, a->next - a->first, prev, &bad) == 0 && memcmp(prev, a->head, 32) == 0;
}

/* I6: power is lost in any write or erase, after any of these bytes; the next start loses that record alone and goes on. */
static void I6_a_cut_anywhere_loses_one_record_at_most(void)
{
    static const uint32_t bytes[] = {0, 1, 5, 100, 208, 239, 240, 255, 256, 1000, 3840, 4095, 4096};
    static const uint32_t from[] = {14, 30, 46, 47, 48, 62, 63, 64, 78, 79, 80, 111, 112, 126, 128, 159, 160, 175};
    for (size_t k = 0; k < sizeof from / sizeof *from; k++)
        for (int at = 1; at <= 4; at++)
            for (size_t c = 0; c < sizeof bytes / sizeof *bytes; c++) {
                qsafp_audit_t a, b, again;
                uint32_t bad = 0;
                grow(&a, from[k]);
                flash.op = 0, flash.cut_at = at, flash.cut_bytes = bytes[c];
                qsafp_audit_t was = a;
                for (int i = 0; i < 4 && !flash.dead; i++) {
                    was = a;
                    (void)!append(&a, 99);
                }
                flash.dead = false, flash.cut_at = 0;
                int err = recover(&b, &was, &flash, &bad);
                CHECK(err == 0 && b.next >= was.next && b.next <= a.next + 1 && b.first >= was.first && whole(&b));
                if (err) {
                    printf("  from %u, operation %d, %u bytes: %d in slot %u\n", from[k], at, bytes[c], err, bad);
                    continue;
                }
                for (int i = 0; i < 20; i++)
                    CHECK(append(&b, 7) == 0);
                err = recover(&again, &b, &flash, &bad);
                bool same = again.next == b.next && again.first == b.first && !memcmp(again.head, b.head, 32) && whole(&again);
                CHECK(err == 0 && same);
                if (err || !same)
                    printf("  from %u, operation %d, %u bytes: later %d in slot %u, next %u for %u, first %u for %u\n", from[k], at, bytes[c], err, bad, again.next, b.next, again.first, b.first);
            }
}

static void every_failed_read_of_a_recovery_is_its_error(void)
{
    static const uint32_t lengths[] = {5, 16, 63, 100};
    for (size_t k = 0; k < 4; k++) {
        qsafp_audit_t a, b;
        uint32_t bad = 0;
        grow(&a, lengths[k]);
        flash.d.calls = 0;
        CHECK(recover(&b, &a, &flash, &bad) == 0);
        int total = flash.d.calls, refused = 0, spared = 0;
        for (int n = 1; n <= total; n++) {
            flash.d.calls = 0, flash.d.fail_at = n;
            int err = recover(&b, &a, &flash, &bad);
            refused += err ? err == QSAFP_E_STORE || err == QSAFP_E_CORRUPT : b.first == a.first && b.next == a.next;
            spared += !err;
        }
        flash.d.fail_at = 0;
        CHECK(total > SLOTS && refused == total && spared == (a.first > 0)); /* the look before the oldest record, which finds none either way */
        CHECK(recover(&b, &a, &flash, &bad) == 0 && b.next == a.next && b.first == a.first);
    }
}

static void a_blank_store_is_blank_in_every_byte(void)
{
    static const uint32_t at[] = {0, 1, 255, 256, 4095, 4096, BYTES - 256, BYTES - 1};
    for (size_t k = 0; k < sizeof at / sizeof *at; k++) {
        qsafp_audit_t a;
        memset(&flash, 0, sizeof flash);
        memset(flash.d.log, 0xFF, sizeof flash.d.log);
        flash.d.log[at[k]] = 0x7F;
        log_on(&a, &flash);
        CHECK(qsafp_audit_create(&a) == QSAFP_E_BUSY && flash.op == 0);
    }
    static const struct { uint32_t slots; int want; } row[] = {{0, QSAFP_E_ARGUMENT}, {16, QSAFP_E_ARGUMENT}, {48, QSAFP_E_ARGUMENT}, {63, QSAFP_E_ARGUMENT}, {64, 0}, {65, QSAFP_E_ARGUMENT}, {72, QSAFP_E_ARGUMENT}};
    for (size_t k = 0; k < sizeof row / sizeof *row; k++) {
        qsafp_audit_t a;
        memset(&flash, 0, sizeof flash);
        memset(flash.d.log, 0xFF, sizeof flash.d.log);
        log_on(&a, &flash);
        a.slots = row[k].slots;
        a.next = 9, a.first = 3, a.failed = true, a.erased_upto = 1; /* whatever was in memory */
        memset(a.head, 0x55, 32);
        CHECK(qsafp_audit_create(&a) == row[k].want);
        if (row[k].want)
            continue;
        CHECK(a.first == 0 && a.next == 1 && a.erased_upto == 64 && !a.failed && whole(&a) && memcmp(a.log_id, a.head, 32) == 0);
        qsafp_record_t r;
        uint8_t raw[256];
        CHECK(qsafp_audit_read(&a, 0, raw) == 0 && qsafp_record_decode(&r, raw) == 0 && r.event == QSAFP_EVENT_LOG_CREATED && r.seq == 0 && r.boot == 0 && r.data[0] == 11 && r.data[31] != 0 && r.data[32] == 0);
    }
    for (int n = 1; n <= SLOTS + 2; n++) { /* each read, the entropy, then the write */
        qsafp_audit_t a;
        memset(&flash, 0, sizeof flash);
        memset(flash.d.log, 0xFF, sizeof flash.d.log);
        log_on(&a, &flash);
        flash.d.fail_at = n, flash.cut_at = 1;
        CHECK(qsafp_audit_create(&a) == (n == SLOTS + 1 ? QSAFP_E_ENTROPY : QSAFP_E_STORE) && flash.op == (n == SLOTS + 2));
    }
}

static void a_pruned_sector_leaves_its_range_hash_and_tree_size(void)
{
    qsafp_audit_t a;
    uint8_t last[256], raw[256];
    grow(&a, 48);
    uint32_t before = a.next;
    CHECK(qsafp_audit_read(&a, 15, last) == 0 && a.first == 0);
    flash.d.wall_ms = 77;
    a.boot = 5;
    CHECK(append(&a, 1) == 0 && a.first == 16 && a.next == before + 2 && a.erased_upto == 64 + 16);
    qsafp_record_t r;
    CHECK(qsafp_audit_read(&a, before, raw) == 0 && qsafp_record_decode(&r, raw) == 0);
    uint64_t range[2], size;
    memcpy(range, r.data, 16), memcpy(&size, r.data + 48, 8);
    CHECK(r.event == QSAFP_EVENT_LOG_PRUNED && r.reason == 0 && r.flags == 1 && range[0] == 0 && range[1] == 15 && memcmp(r.data + 16, last + 208, 32) == 0 && size == before);
    CHECK(r.boot == 5 && r.wall_ms == 77 && r.seq == before);
    CHECK(qsafp_audit_read(&a, 15, raw) == QSAFP_E_RANGE && qsafp_audit_read(&a, 16, raw) == 0 && qsafp_audit_read(&a, a.next, raw) == QSAFP_E_RANGE && qsafp_audit_read(&a, a.next - 1, raw) == 0);
}

static void flags_and_seals_are_the_logs_own(void)
{
    qsafp_audit_t a;
    grow(&a, 14);
    static const uint8_t zeros[16];
    uint8_t erased[16];
    memset(erased, 0xFF, 16);
    for (uint32_t seq = 14; seq < 33; seq++) {
        qsafp_record_t r = {.event = QSAFP_EVENT_WORKLOAD_REPORT, .flags = 0xFFFF, .seq = 99, .boot = 7, .magic = 3}, got;
        uint8_t raw[256];
        flash.d.wall_ms = seq % 2;
        memset(r.seal, 0x33, 16);
        CHECK(qsafp_audit_append(&a, &r) == 0 && qsafp_audit_read(&a, seq, raw) == 0 && qsafp_record_decode(&got, raw) == 0 && got.seq == seq && got.boot == 0);
        CHECK(got.flags == (4 | 8 | (seq % 2 ? 1 : 0) | (seq % 16 == 15 ? 2 : 0)) && memcmp(got.seal, seq % 16 == 15 ? erased : zeros, 16) == 0);
    }
}

static void records_out_of_form_are_refused(void)
{
    qsafp_audit_t a;
    qsafp_record_t good, r;
    uint8_t raw[256];
    grow(&a, 17);
    CHECK(qsafp_audit_read(&a, 3, raw) == 0 && qsafp_record_decode(&good, raw) == 0);
    static const struct { size_t at; uint8_t v; int want; } row[] = {
        {0, 'R', QSAFP_E_MALFORMED}, {3, '2', QSAFP_E_MALFORMED}, {4, 0, QSAFP_E_MALFORMED}, {4, 1, 0}, {4, 19, 0}, {4, 20, QSAFP_E_MALFORMED}, {5, 1, QSAFP_E_MALFORMED},
        {6, 1, QSAFP_E_MALFORMED}, {6, 2, QSAFP_E_MALFORMED}, {6, 4, 0}, {6, 8, 0}, {6, 12, 0}, {6, 16, QSAFP_E_MALFORMED}, {7, 1, QSAFP_E_MALFORMED}, {24, 1, QSAFP_E_MALFORMED},
        {240, 1, QSAFP_E_MALFORMED}, {255, 1, QSAFP_E_MALFORMED}, {8, 15, QSAFP_E_MALFORMED}, {8, 16, 0}, {208, 1, 0},
    };
    for (size_t k = 0; k < sizeof row / sizeof *row; k++) {
        uint8_t bad[256];
        memcpy(bad, raw, 256);
        bad[row[k].at] = row[k].v;
        CHECK(qsafp_record_decode(&r, bad) == row[k].want);
    }
    uint64_t at = 0;
    uint8_t two[512], prev[32] = {0};
    CHECK(qsafp_audit_read(&a, 0, two) == 0 && qsafp_audit_read(&a, 1, two + 256) == 0);
    CHECK(qsafp_audit_verify(two, 0, prev, &at) == 0 && qsafp_audit_verify(two, 2, prev, &at) == 0 && memcmp(prev, two + 256 + 208, 32) == 0);
    memcpy(prev, two + 208, 32);
    CHECK(qsafp_audit_verify(two + 256, 1, prev, &at) == 0); /* from the middle, with the hash before it */
    uint8_t hash[32];
    memset(prev, 0, 32);
    two[256 + 8] = 2; /* a gap, with a hash that is right */
    qsafp_record_hash(hash, two + 208, two + 256);
    memcpy(two + 256 + 208, hash, 32);
    CHECK(qsafp_audit_verify(two, 2, prev, &at) == QSAFP_E_CORRUPT && at == 1);
}

/* A sector's erase had failed, the fail-safe went on, and power was lost in its next try: two sectors hold rubbish, both are erased. */
static void leftovers_in_both_sectors_ahead_are_erased(void)
{
    qsafp_audit_t a, b;
    uint32_t bad = 0;
    grow(&a, 48);
    memset(flash.d.log + 50 * 256 + 7, 0x00, 300);
    memset(flash.d.log + 63 * 256, 0x00, 1);
    memset(flash.d.log + 3 * 256 + 9, 0x11, 700);
    int before = flash.op;
    CHECK(recover(&b, &a, &flash, &bad) == 0 && b.next == 48 && b.first == 16 && flash.op == before + 2);
    for (uint32_t s = 48; s < 64 + 16; s++)
        for (uint32_t i = 0; i < 256; i++)
            if (flash.d.log[s % 64 * 256 + i] != 0xFF) {
                CHECK(0);
                return;
            }
    for (int i = 0; i < 40; i++)
        CHECK(append(&b, 1) == 0);
    CHECK(recover(&a, &b, &flash, &bad) == 0 && whole(&a));
    grow(&a, 20);
    memset(a.log_id, 0, 32); /* not yet known: taken from record 0 */
    CHECK(recover(&b, &a, &flash, &bad) == 0 && memcmp(b.log_id, flash.d.log + 208, 32) == 0);
    memset(flash.d.log, 0xFF, sizeof flash.d.log);
    CHECK(recover(&b, &a, &flash, &bad) == QSAFP_E_CORRUPT && bad == 0);
}

static void a_changed_record_is_named_by_its_slot(void)
{
    qsafp_audit_t a, b;
    uint32_t bad = 0;
    grow(&a, 40);
    for (uint32_t slot = 0; slot < 40; slot++) {
        static const uint32_t bytes[] = {0, 4, 8, 50, 207, 208, 239};
        for (size_t k = 0; k < sizeof bytes / sizeof *bytes; k++) {
            copy = flash;
            copy.d.log[slot * 256 + bytes[k]] ^= 0x20;
            int err = recover(&b, &a, &copy, &bad);
            if (slot == 39)
                CHECK(err == 0 && b.next == 39); /* the tail: as if torn; the tree had not promised it */
            else /* a change that spoils the form ends the run there: what is before it is named */
                CHECK(err == QSAFP_E_CORRUPT && (bytes[k] < 50 ? bad <= slot : bad == slot));
        }
    }
    b = a; /* whatever was in memory */
    b.next = 1000, b.first = 500, b.failed = true;
    CHECK(qsafp_audit_recover(&b, &bad) == 0 && b.next == 40 && b.first == 0 && !b.failed);
    copy = flash; /* a record that belongs elsewhere, in the sector that may be half erased: it is erased */
    memcpy(copy.d.log + 60 * 256, flash.d.log + 5 * 256, 256);
    CHECK(recover(&b, &a, &copy, &bad) == 0 && b.next == 40 && copy.d.log[60 * 256] == 0xFF && copy.op == flash.op + 1);
    copy = flash; /* in the tail's own sector */
    memcpy(copy.d.log + 45 * 256, flash.d.log + 5 * 256, 256);
    CHECK(recover(&b, &a, &copy, &bad) == QSAFP_E_CORRUPT && bad == 45);
    b = a;
    b.tree.size = a.next; /* what was promised is there: fine; one more is not */
    qsafp_audit_t c;
    CHECK(recover(&c, &b, &flash, &bad) == 0);
    b.tree.size = a.next + 1;
    CHECK(recover(&c, &b, &flash, &bad) == QSAFP_E_CORRUPT);
    grow(&a, 90);
    CHECK(a.first >= 16 && a.first % SLOTS);
    b = a;
    b.tree.size = a.first; /* the tree must reach the oldest record */
    CHECK(recover(&c, &b, &flash, &bad) == 0);
    b.tree.size = a.first - 1;
    CHECK(recover(&c, &b, &flash, &bad) == QSAFP_E_CORRUPT && bad == a.first % SLOTS);
    grow(&a, 2);
    flash.d.log[256 + 50] ^= 1; /* the first after the one that names the log: torn */
    CHECK(recover(&b, &a, &flash, &bad) == 0 && b.next == 1);
    b = a; /* an id that is not all zeros is compared */
    memset(b.log_id, 0, 31);
    b.log_id[31] = 1;
    CHECK(recover(&c, &b, &flash, &bad) == QSAFP_E_WRONG_DEVICE && bad == 0);
    flash.d.log[50] ^= 1; /* that one itself never is */
    CHECK(recover(&c, &b, &flash, &bad) == QSAFP_E_CORRUPT && bad == 0);
}

int main(void)
{
    port = PORT;
    port.log_prog = f_prog;
    port.log_erase = f_erase;
    I6_a_cut_anywhere_loses_one_record_at_most();
    every_failed_read_of_a_recovery_is_its_error();
    a_blank_store_is_blank_in_every_byte();
    a_pruned_sector_leaves_its_range_hash_and_tree_size();
    flags_and_seals_are_the_logs_own();
    records_out_of_form_are_refused();
    leftovers_in_both_sectors_ahead_are_erased();
    a_changed_record_is_named_by_its_slot();
    return DONE("test_log");
}
