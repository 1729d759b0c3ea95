/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's store on a flash that counts its operations and loses power at each of them in turn (HW-8). */
#include <assert.h>
#include <stdio.h>

#include "../../cext/monitor/nor.c"
#include "../../cext/monitor/seal.c"
#define place state_place_of
#include "../../cext/monitor/store.c"
#undef place

enum { FROM = STATE_OFF, PART = 0x100000, RECORDS = 100 };

monitor_t m;
static uint8_t part[PART], as_cut[PART];
static int operations, cut_at;   /* programs and erases; the one that is cut, 0 for none */
static bool dead, selected, enabled;
static uint8_t sent[4 + NOR_PAGE];
static unsigned have;
static uint64_t clock_ns;

/* ---- the part: a command ends when it is deselected; a cut one does the half of its bytes ---- */

static uint32_t address(void) { return ((uint32_t)sent[1] << 16 | (uint32_t)sent[2] << 8 | sent[3]) - FROM; }

static void program(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        part[address() + i] &= sent[4 + i];
}

static void finish(void)
{
    bool changes = have >= 4 && enabled && (sent[0] == PROGRAM || sent[0] == ERASE_4K);
    if (changes && !dead) {
        bool cut = ++operations == cut_at;
        if (sent[0] == PROGRAM)
            program(cut ? (have - 4) / 2 : have - 4);
        else
            memset(part + address(), 0xFF, cut ? NOR_SECTOR / 2 : NOR_SECTOR);
        dead |= cut;
        enabled = false;
    }
    enabled |= have == 1 && sent[0] == WRITE_ENABLE;
}

void board_spi_select(bool on)
{
    if (selected && !on)
        finish();
    selected = on;
    have = 0;
}

uint8_t board_spi(uint8_t byte)
{
    if (have >= 4 && sent[0] == READ)
        return dead ? 0 : part[address() + have++ - 4];
    if (have >= 1 && sent[0] == READ_STATUS)
        return 0;
    assert(have < sizeof sent);
    sent[have++] = byte;
    return 0;
}

/* ---- the port ---- */

static uint64_t now(void *c) { (void)c; return clock_ns += 1000; }
static uint64_t zero(void *c) { (void)c; return 0; }
static uint64_t same_ns(void *c, uint64_t ns) { (void)c; return ns; }
static int entropy(void *c, uint8_t *b, size_t n) { (void)c; memset(b, 7, n); return 0; }
static int level(void *c, int v) { (void)c; (void)v; return 0; }
const qsafp_port_t monitor_port = {
    .now_ns = now, .counter_at = same_ns, .wall_ms = zero, .entropy = entropy, .set_lease_valid = level, .set_failsafe = level,
    .log_read = log_read, .log_prog = log_prog, .log_erase = log_erase, .log_sync = log_sync, .state_load = state_read, .state_save = state_write,
};

static qsafp_gate_page_t page;
static int tests;
static uint32_t acknowledged; /* records that were durable before the cut */

static int boot(void)
{
    dead = enabled = false;
    memset(&m, 0, sizeof m);
    memset(m.seal_key, 0x5A, sizeof m.seal_key);
    qsafp_t *q = &m.q;
    q->port = &monitor_port;
    q->page = &page;
    q->log.slots = 5 * QSAFP_SECTOR_SLOTS;
    q->cfg = (qsafp_config_t){.ueid = {1}, .alg = QSAFP_ALG_ED25519, .duration_ms = 1000, .stale_after_ns = 1000000000, .tick_ns = 100000000};
    int err = store_start();
    if (!err)
        err = seal_start();
    if (!err)
        err = qsafp_create(q);
    if (err && err != QSAFP_E_BUSY)
        return err;
    memset(&q->st, 0, sizeof q->st);
    memset(&q->log, 0, sizeof q->log);
    q->log.slots = 5 * QSAFP_SECTOR_SLOTS;
    return qsafp_init(q);
}

/* Up to the cut or the end; what the log answered for is remembered. */
static void life(unsigned records)
{
    if (boot())
        return;
    acknowledged = m.q.log.next;
    for (unsigned i = 0; i < records; i++) {
        qsafp_record_t r = {.event = QSAFP_EVENT_ANOMALY};
        r.data[0] = (uint8_t)i;
        if (qsafp_note(&m.q, &r))
            return;
        acknowledged = m.q.log.next;
    }
}

/* Seals of all whole sectors that are on hand, from the key that was there before the first. */
static void check_seals(void)
{
    uint8_t key[32], seal[16], rec[QSAFP_RECORD_BYTES];
    uint32_t epoch = 0;
    memset(key, 0x5A, sizeof key);
    for (uint32_t seq = m.q.log.first | 15; seq < m.q.log.next; seq += 16) {
        while (epoch < seq / 16) {
            qsafp_seal_evolve(key);
            epoch++;
        }
        assert(!qsafp_audit_read(&m.q.log, seq, rec));
        qsafp_seal(seal, key, rec + 208);
        assert(!memcmp(seal, rec + 240, sizeof seal));
    }
}

/* Starts and holds what was acknowledged; how many operations that took, cut at one of them or not at all. */
static int starts(int at)
{
    operations = 0;
    cut_at = at;
    int err = boot();
    assert(at || !err || !acknowledged); /* enrolment that was cut is begun anew, on blank flash */
    if (!err && !dead) {
        assert(m.q.log.next >= acknowledged);
        check_seals();
    }
    return operations;
}

/* A cut in the life of the device, then one at each operation of the start after it. */
static int run(int at)
{
    memset(part, 0xFF, sizeof part);
    operations = 0;
    cut_at = at;
    acknowledged = 0;
    life(RECORDS);
    int total = operations;
    memcpy(as_cut, part, sizeof part);
    int again = starts(0);
    (void)starts(0);
    for (int k = 1; at && k <= again; k++, tests++) {
        memcpy(part, as_cut, sizeof part);
        (void)starts(k);
        (void)starts(0);
    }
    tests++;
    return total;
}

int main(void)
{
    int total = run(0);
    for (int n = 1; n <= total; n++)
        run(n);
    printf("test_monitor_store: %d passed, 0 failed\n", tests);
    return total > 100 ? 0 : 1;
}
