/* SPDX-License-Identifier: Apache-2.0 */
/* Start, restart and the tick at their edges: configurations, durable state, latches over reboots, what is told, when the next tick is due. */
#include "device.h"

static uint8_t token[QSAFP_RESPONSE_MAX];
static const uint64_t MONTH_MS = 31ull * 24 * 3600 * 1000;

static qsafp_record_t record_at(bench_t *b, uint64_t seq)
{
    qsafp_record_t r;
    uint8_t raw[256];
    CHECK(qsafp_audit_read(&b->q.log, (uint32_t)seq, raw) == 0 && qsafp_record_decode(&r, raw) == 0);
    return r;
}

static qsafp_info_t info(bench_t *b)
{
    qsafp_info_t i;
    qsafp_info(&b->q, &i);
    return i;
}

static int reboot(bench_t *b)
{
    wire(b);
    b->d.calls = b->d.fail_at = 0;
    return qsafp_init(&b->q);
}

typedef struct { uint64_t duration, warning, grace, stale, tick; uint8_t first; bool no_page; int want; int32_t alg; } config_row_t;

static void impossible_configurations_do_not_start(void)
{
    const config_row_t ok = {60000, 10000, 5000, S, S / 10, 1, false, 0, QSAFP_ALG_ED25519};
    config_row_t row[27];
    size_t n = 0;
#define ROW(want_, ...) do { config_row_t c = ok; __VA_ARGS__; c.want = (want_); row[n++] = c; } while (0)
    ROW(0, c.first = 1);
    ROW(0, c.duration = 1, c.warning = 1);
    ROW(0, c.duration = 1, c.warning = 0, c.grace = 0);
    ROW(0, c.duration = MONTH_MS, c.warning = MONTH_MS, c.grace = MONTH_MS);
    ROW(0, c.grace = 0);
    ROW(0, c.stale = c.tick);
    ROW(0, c.tick = 1, c.stale = 60 * S - 1);
    ROW(QSAFP_E_ARGUMENT, c.duration = 0, c.warning = 0);
    ROW(QSAFP_E_ARGUMENT, c.duration = MONTH_MS + 1);
    ROW(QSAFP_E_ARGUMENT, c.duration = (uint64_t)1 << 63);
    ROW(QSAFP_E_ARGUMENT, c.warning = 60001);
    ROW(QSAFP_E_ARGUMENT, c.grace = MONTH_MS + 1);
    ROW(QSAFP_E_ARGUMENT, c.warning = 0, c.grace = MONTH_MS + 1);
    ROW(QSAFP_E_ARGUMENT, c.stale = S / 10 - 1);
    ROW(QSAFP_E_ARGUMENT, c.tick = 0);
    ROW(QSAFP_E_ARGUMENT, c.stale = 60 * S);
    ROW(0, c.alg = QSAFP_ALG_ESP256);
    ROW(QSAFP_E_ARGUMENT, c.alg = 0);
    ROW(QSAFP_E_ARGUMENT, c.alg = QSAFP_ALG_MLDSA65);
    ROW(QSAFP_E_ARGUMENT, c.first = 0);
    ROW(QSAFP_E_ARGUMENT, c.first = 2);
    ROW(QSAFP_E_ARGUMENT, c.no_page = true);
    for (size_t i = 0; i < n; i++) {
        bench_t *b = fresh();
        wire(b);
        qsafp_config_t *c = &b->q.cfg;
        c->duration_ms = row[i].duration, c->policy_ms[0] = row[i].warning, c->policy_ms[1] = row[i].grace;
        c->stale_after_ns = row[i].stale, c->tick_ns = row[i].tick, c->ueid[0] = row[i].first;
        c->alg = row[i].alg;
        if (row[i].no_page)
            b->q.page = 0;
        int err = qsafp_init(&b->q);
        CHECK(err == row[i].want);
        if (err != row[i].want)
            printf("  row %zu: %d\n", i, err);
        free(b);
    }
}

static int broken_load(void *c, void *b, uint32_t n) { (void)c; (void)b; (void)n; return QSAFP_E_CORRUPT; }

static void enrolment_happens_once_and_on_blank_stores(void)
{
    bench_t *b = fresh();
    uint8_t log_id[32];
    memcpy(log_id, b->q.log.log_id, 32);
    CHECK(b->q.log.next == 2 && record_at(b, 0).event == QSAFP_EVENT_LOG_CREATED && record_at(b, 1).event == QSAFP_EVENT_BOOT);
    CHECK(record_at(b, 1).data[0] == 0 && record_at(b, 1).boot == 1 && memcmp(b->q.st.log_id, log_id, 32) == 0);
    wire(b);
    CHECK(qsafp_create(&b->q) == QSAFP_E_BUSY);
    b->d.has_state = false; /* the state is gone, the log is not */
    wire(b);
    CHECK(qsafp_create(&b->q) == QSAFP_E_BUSY && qsafp_init(&b->q) == QSAFP_E_STORE);
    qsafp_port_t port = PORT;
    port.state_load = broken_load;
    wire(b);
    b->q.port = &port;
    CHECK(qsafp_create(&b->q) == QSAFP_E_CORRUPT);
    memset(b->d.log, 0xFF, sizeof b->d.log);
    wire(b);
    b->q.st.latch = 3, b->q.st.serial = 99; /* whatever was in memory */
    CHECK(qsafp_create(&b->q) == 0 && b->q.st.latch == 0 && b->q.st.serial == 0);
    CHECK(reboot(b) == 0 && b->q.st.boot == 1 && b->q.latch == 0 && memcmp(log_id, b->q.log.log_id, 32) != 0);
    free(b);
}

static void I6_every_failed_call_of_a_start_stops_it_or_harms_nothing(void)
{
    int total = 0, tried = 0, refused = 0;
    for (int n = 0; n <= total; n++) {
        if (n > 20 && n < total - 20 && n % 131)
            continue; /* the reads of the log's slots are alike */
        bench_t *b = fresh();
        uint32_t boot = b->q.st.boot;
        wire(b);
        b->d.calls = 0;
        b->d.fail_at = n;
        int err = qsafp_init(&b->q);
        if (n == 0)
            total = b->d.calls;
        CHECK(n || err == 0);
        tried++;
        refused += err != 0;
        if (err == 0)
            CHECK(b->q.st.boot == boot + 1 && ((qsafp_state_t *)(void *)b->d.state)->boot == boot + 1);
        (void)qsafp_tick(&b->q);
        CHECK(!open_now(b) && b->d.valid == 0 && (err || !b->q.latch || b->d.failsafe));
        CHECK(reboot(b) == 0); /* and the next start is whole */
        free(b);
    }
    CHECK(total > 1000 && refused == tried - 3); /* all but none and the two pins, which the tick drives again */
}

static void the_durable_state_is_taken_whole_or_not_at_all(void)
{
    bench_t *b = fresh();
    size_t started = 0;
    for (size_t i = 0; i < sizeof b->d.state; i += i + 40 < sizeof b->d.state ? 3 : 1) {
        b->d.state[i] ^= 0x01;
        started += reboot(b) == 0;
        b->d.state[i] ^= 0x01;
    }
    CHECK(started == 0 && reboot(b) == 0);
    qsafp_state_t *st = (qsafp_state_t *)(void *)b->d.state;
    st->version = 2; /* another version, however whole */
    qsafp_sha256(st->check, st, offsetof(qsafp_state_t, check));
    CHECK(reboot(b) == QSAFP_E_CORRUPT);
    st->version = 1, st->magic ^= 1;
    qsafp_sha256(st->check, st, offsetof(qsafp_state_t, check));
    CHECK(reboot(b) == QSAFP_E_CORRUPT);
    st->magic ^= 1, st->log_id[31] ^= 1; /* the log of another device */
    qsafp_sha256(st->check, st, offsetof(qsafp_state_t, check));
    CHECK(reboot(b) == QSAFP_E_WRONG_DEVICE);
    free(b);
}

static void the_log_of_another_device_does_not_start(void)
{
    bench_t *a = fresh(), *b = fresh();
    a->d.seed = 77;
    memset(a->d.log, 0xFF, sizeof a->d.log);
    a->d.has_state = false;
    wire(a);
    CHECK(qsafp_create(&a->q) == 0 && reboot(a) == 0 && memcmp(a->q.log.log_id, b->q.log.log_id, 32) != 0);
    memcpy(b->d.log, a->d.log, sizeof b->d.log);
    CHECK(reboot(b) == QSAFP_E_WRONG_DEVICE);
    free(a);
    free(b);
}

static void an_older_set_does_not_start_again(void)
{
    static const struct { uint64_t epoch; int want; } row[] = {{1, 0}, {3, 0}, {3, 0}, {2, QSAFP_E_WRONG_EPOCH}, {1, QSAFP_E_WRONG_EPOCH}, {4, 0}, {3, QSAFP_E_WRONG_EPOCH}};
    bench_t *b = fresh();
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        wire(b);
        b->q.set.epoch = row[i].epoch;
        CHECK(qsafp_init(&b->q) == row[i].want);
    }
    free(b);
}

static void I5_a_latch_comes_back_whole(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0);
    qsafp_trip(&b->q, QSAFP_REASON_BUS);
    CHECK(b->d.failsafe == 1 && b->page.armed == 1);
    qsafp_trip(&b->q, QSAFP_REASON_TAMPER);
    uint64_t seq = b->q.log.next;
    CHECK(qsafp_service(&b->q) == 0 && b->q.log.next == seq + 1);
    qsafp_record_t r = record_at(b, seq);
    CHECK(r.event == QSAFP_EVENT_FAILSAFE_TRIGGERED && r.reason == QSAFP_REASON_TAMPER && r.data[0] == 2 && r.data[1] == 0 && r.serial == 1 && r.model[0] == 7);
    CHECK(b->q.st.latch == QSAFP_REASON_TAMPER && b->q.st.latch_seq == seq && memcmp(b->q.st.latch_hash, r.hash, 32) == 0);
    CHECK(b->q.st.generation == 2 && memcmp(b->q.failsafe_record + sizeof b->q.failsafe_record - 256, &r, 256) == 0 && b->q.log.reserve);
    qsafp_trip(&b->q, QSAFP_REASON_TAMPER); /* a repeat is counted, not told */
    CHECK(qsafp_service(&b->q) == 0 && b->q.log.next == seq + 1 && b->q.generation == 2);
    b->d.valid = 1, b->d.failsafe = 0; /* what the board does at power-up */
    CHECK(reboot(b) == 0);
    CHECK(b->d.failsafe == 1 && b->d.valid == 0 && b->page.armed == 2 && b->q.generation == 2 && b->q.latch == QSAFP_REASON_TAMPER && b->q.log.reserve);
    CHECK(memcmp(b->q.failsafe_record + sizeof b->q.failsafe_record - 256, &r, 256) == 0 && record_at(b, b->q.log.next - 1).reason == QSAFP_REASON_TAMPER);
    seq = b->q.log.next;
    CHECK(qsafp_service(&b->q) == 0 && b->q.log.next == seq); /* on record already */
    uint8_t hash[32]; /* kept with the hash before it, over the restart */
    qsafp_record_hash(hash, b->q.failsafe_record, b->q.failsafe_record + 32);
    CHECK(memcmp(hash, r.hash, 32) == 0);
    CHECK(qsafp_begin(&b->q) == 0 && b->q.pending.claims.has_failsafe && b->q.pending.claims.failsafe_seq == r.seq);
    CHECK(obtain(b) == 0 && open_now(b) && b->d.failsafe == 0);
    CHECK(reboot(b) == 0 && b->q.latch == 0 && b->d.failsafe == 0 && b->d.valid == 0 && b->page.armed == 2); /* released for good; generations only rise */
    qsafp_trip(&b->q, QSAFP_REASON_NONE);
    CHECK(b->q.latch == QSAFP_REASON_ANOMALY && b->q.generation == 3); /* a stop without a reason is an anomaly */
    free(b);
}

static void I5_a_latch_whose_record_was_pruned_is_recorded_again(void)
{
    bench_t *b = fresh();
    qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
    CHECK(qsafp_service(&b->q) == 0);
    uint64_t seq = b->q.st.latch_seq;
    while (b->q.log.first <= seq) {
        qsafp_record_t r = {.event = QSAFP_EVENT_WORKLOAD_REPORT};
        if (qsafp_note(&b->q, &r)) {
            CHECK(0);
            break;
        }
    }
    CHECK(reboot(b) == 0 && b->q.latch == QSAFP_REASON_MANUAL);
    CHECK(qsafp_service(&b->q) == 0 && b->q.st.latch_seq > seq && record_at(b, b->q.st.latch_seq).event == QSAFP_EVENT_FAILSAFE_TRIGGERED);
    CHECK(obtain(b) == 0 && open_now(b));
    free(b);
}

static void a_fail_safe_that_could_not_be_recorded_is_told_again(void)
{
    int told = 0;
    for (int at = 1; told < 1; at++) { /* each call that tells it, failed in turn, up to the first run that makes fewer */
        bench_t *b = fresh();
        CHECK(obtain(b) == 0 && at < 9);
        qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
        int calls = b->d.calls;
        b->d.fail_at = calls + at;
        int err = qsafp_service(&b->q);
        told = b->d.calls < calls + at || at >= 9;
        b->d.fail_at = 0;
        CHECK(told ? err == 0 : err == QSAFP_E_STORE && !open_now(b) && b->q.untold);
        CHECK(qsafp_begin(&b->q) == (b->q.log.failed ? QSAFP_E_STORE : 0)); /* a log that failed half-way wants a restart */
        if (!b->q.log.failed)
            CHECK(b->q.st.latch == QSAFP_REASON_MANUAL && b->q.untold == 0 && obtain(b) == 0 && open_now(b));
        free(b);
    }
}

static int broken_erase(void *c, uint32_t sector) { (void)c; (void)sector; return QSAFP_E_STORE; }

static void the_fail_safe_has_a_slot_when_nothing_else_has(void)
{
    bench_t *b = fresh();
    while (b->q.log.next < 1024) {
        qsafp_record_t r = {.event = QSAFP_EVENT_WORKLOAD_REPORT};
        CHECK(qsafp_note(&b->q, &r) == 0);
    }
    qsafp_port_t port = PORT;
    port.log_erase = broken_erase;
    b->q.port = b->q.log.port = &port;
    qsafp_record_t r = {.event = QSAFP_EVENT_WORKLOAD_REPORT};
    CHECK(qsafp_note(&b->q, &r) == QSAFP_E_STORE && b->q.latch == QSAFP_REASON_LOG_FULL && b->q.log.next == 1024);
    CHECK(qsafp_service(&b->q) == 0 && b->q.log.next == 1025 && record_at(b, 1024).event == QSAFP_EVENT_FAILSAFE_TRIGGERED && b->q.log.reserve);
    free(b);
}

static void generations_go_round_and_are_never_zero(void)
{
    bench_t *b = fresh();
    b->q.generation = 0x00FFFFFE;
    qsafp_trip(&b->q, QSAFP_REASON_BUS);
    CHECK(b->q.generation == 0x00FFFFFF && b->page.armed == 0x00FFFFFF);
    qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
    CHECK(b->q.generation == 1 && b->page.armed == 1);
    free(b);
}

static void ticks_are_due_at_the_next_deadline(void)
{
    static const struct { uint64_t at, next; } row[] = {
        {100 * S, S / 10}, {160 * S - S / 10 - 1, S / 10}, {160 * S - S / 10, S / 10}, {160 * S - S / 10 + 1, S / 10 - 1}, {160 * S - 1, 1}, {160 * S, S / 10}, {160 * S + 1, S / 10},
        {165 * S - S / 10, S / 10}, {165 * S - S / 10 + 1, S / 10 - 1}, {165 * S - 1, 1}, {165 * S, S / 10}, {165 * S + 1, S / 10}, {300 * S, S / 10},
    };
    bench_t *b = fresh();
    CHECK(qsafp_tick(&b->q) == b->d.now_ns + S / 10);
    CHECK(obtain(b) == 0);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        b->d.now_ns = row[i].at;
        CHECK(qsafp_tick(&b->q) == row[i].at + row[i].next);
    }
    free(b);
}

static void the_end_of_a_lease_is_recorded_once_and_grace_ends_to_the_nanosecond(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0);
    uint64_t next = b->q.log.next;
    b->d.now_ns = 160 * S - 1;
    (void)qsafp_tick(&b->q);
    CHECK(b->q.untold == 0 && open_now(b));
    int kicks = b->d.kicks;
    for (unsigned i = 0; i < 5; i++) {
        b->d.now_ns = 160 * S + i * S / 10;
        (void)qsafp_tick(&b->q);
        if (i == 2)
            CHECK(qsafp_service(&b->q) == 0);
        CHECK(!b->q.latch && !open_now(b) && info(b).phase == QSAFP_PHASE_GRACE && info(b).reason == QSAFP_REASON_LEASE_EXPIRED && b->page.reason == QSAFP_REASON_LEASE_EXPIRED);
    }
    CHECK(qsafp_service(&b->q) == 0 && b->q.log.next == next + 1 && b->d.kicks == kicks + 1);
    qsafp_record_t r = record_at(b, next);
    CHECK(r.event == QSAFP_EVENT_LEASE_EXPIRED && r.reason == QSAFP_REASON_LEASE_EXPIRED && !(r.flags & 4) && r.data[0] == 0);
    b->d.now_ns = 165 * S - 1;
    (void)qsafp_tick(&b->q);
    CHECK(!b->q.latch && !b->d.failsafe);
    b->d.now_ns = 165 * S;
    (void)qsafp_tick(&b->q);
    CHECK(b->q.latch == QSAFP_REASON_NETWORK_TIMEOUT && b->d.failsafe && info(b).status == QSAFP_STATUS_EXPIRED);
    free(b);
    b = fresh(); /* the next lease's end is told again, even where the first was not yet written */
    CHECK(obtain(b) == 0);
    b->d.now_ns = 130 * S;
    CHECK(obtain(b) == 0);
    b->d.now_ns = 190 * S;
    (void)qsafp_tick(&b->q);
    CHECK(qsafp_service(&b->q) == 0);
    CHECK(obtain(b) == 0);
    next = b->q.log.next;
    b->d.now_ns = 250 * S;
    (void)qsafp_tick(&b->q);
    CHECK(qsafp_service(&b->q) == 0 && b->q.log.next == next + 1);
    free(b);
}

static void an_expiry_that_cannot_be_recorded_closes_for_good(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0);
    b->d.now_ns = 160 * S;
    (void)qsafp_tick(&b->q);
    b->d.fail_at = b->d.calls + 1;
    CHECK(qsafp_service(&b->q) == 0 && b->q.latch == QSAFP_REASON_LOG_FULL && b->d.failsafe);
    free(b);
}

static void status_shows_each_field_at_its_edges(void)
{
    bench_t *b = fresh();
    qsafp_info_t i = info(b);
    CHECK(i.status == QSAFP_STATUS_UNINITIALIZED && i.phase == QSAFP_PHASE_NONE && i.flags == (QSAFP_INFO_RENEW | QSAFP_INFO_LAB) && i.total == N && i.approvals == 0);
    CHECK(qsafp_begin(&b->q) == 0 && info(b).status == QSAFP_STATUS_PENDING && info(b).phase == QSAFP_PHASE_NONE);
    CHECK(obtain(b) == 0);
    i = info(b);
    CHECK(i.remaining_ns == 60 * S && i.duration_ms == 60000 && i.serial == 1 && i.approvals == M && i.model[0] == 7 && i.flags == QSAFP_INFO_LAB);
    CHECK(memcmp(i.lease_id, b->q.lease.lease_id, 16) == 0 && i.renewals == 0 && i.generation == 0 && i.reason == 0);
    static const struct { uint64_t at; uint64_t left; uint16_t phase; uint8_t renew; } row[] = {
        {130 * S - 1, 30 * S + 1, QSAFP_PHASE_ACTIVE, 0}, {130 * S, 30 * S, QSAFP_PHASE_ACTIVE, 1}, {150 * S - 1, 10 * S + 1, QSAFP_PHASE_ACTIVE, 1},
        {150 * S, 10 * S, QSAFP_PHASE_WARNING, 1}, {160 * S - 1, 1, QSAFP_PHASE_WARNING, 1}, {160 * S, 0, QSAFP_PHASE_GRACE, 1},
    };
    for (size_t k = 0; k < sizeof row / sizeof *row; k++) {
        b->d.now_ns = row[k].at;
        i = info(b);
        CHECK(i.remaining_ns == row[k].left && i.phase == row[k].phase && i.flags == (QSAFP_INFO_LAB | row[k].renew));
    }
    b->q.contained = 1, b->q.isolated = 1, b->q.set.lab = false;
    CHECK(info(b).flags == (QSAFP_INFO_RENEW | QSAFP_INFO_CONTAINED | QSAFP_INFO_ISOLATED));
    b->d.now_ns = 101 * S;
    b->q.contained = 0, b->q.isolated = 0;
    CHECK(info(b).flags == 0);
    b->page.armed = 5; /* a page that is not armed shows no lease, whatever its end */
    CHECK(info(b).status == QSAFP_STATUS_UNINITIALIZED && info(b).remaining_ns == 0);
    qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
    i = info(b);
    CHECK(i.status == QSAFP_STATUS_DENIED && i.phase == QSAFP_PHASE_FAILSAFE && i.reason == QSAFP_REASON_MANUAL && i.generation == 1 && i.remaining_ns == 0);
    free(b);
}

static void a_lease_is_recorded_with_its_evidence(void)
{
    static const int who[M] = {0, 1, 2, 3};
    bench_t *b = fresh();
    for (int n = 0; n < 2; n++) {
        uint8_t hash[32];
        CHECK(qsafp_begin(&b->q) == 0);
        qsafp_record_t r = record_at(b, b->q.log.next - 1);
        CHECK(r.event == QSAFP_EVENT_VALIDATOR_QUERY && memcmp(r.data, b->q.pending.claims.nonce, 16) == 0 && memcmp(r.data + 16, b->q.pending.claims.lease_id, 16) == 0);
        size_t len = lease_of(&b->q, who, M, 0, token);
        qsafp_sha256(hash, token, len);
        CHECK(qsafp_put(&b->q, token, len) == 0);
        r = record_at(b, b->q.log.next - 1);
        CHECK(r.event == (n ? QSAFP_EVENT_LEASE_RENEWED : QSAFP_EVENT_LEASE_ISSUED) && r.reason == 0 && r.data[0] == 0 && (r.flags & 4) && memcmp(r.evidence, hash, 32) == 0);
        CHECK(r.serial == (uint64_t)n + 1 && r.model[0] == 7 && r.boot == b->q.st.boot && r.boot_ns == b->d.now_ns && r.wall_ms == b->d.wall_ms);
        CHECK(b->q.lease_token_len == len && memcmp(b->q.lease_token, token, len) == 0 && !b->q.pending.active);
    }
    free(b);
}

static void a_lease_that_cannot_be_recorded_does_not_stay(void)
{
    static const int who[M] = {0, 1, 2, 3};
    for (int at = 1; at <= 2; at++) { /* its evidence, its record */
        bench_t *b = fresh();
        CHECK(qsafp_begin(&b->q) == 0);
        size_t len = lease_of(&b->q, who, M, 0, token);
        b->d.fail_at = b->d.calls + at;
        CHECK(qsafp_put(&b->q, token, len) != 0);
        (void)qsafp_tick(&b->q);
        CHECK(!open_now(b) && !b->d.valid && b->q.latch == QSAFP_REASON_LOG_FULL);
        free(b);
    }
}

/* The tree is saved before the ring could turn past it. */
static void the_state_follows_the_log(void)
{
    bench_t *b = fresh();
    uint64_t worst = 0;
    for (uint32_t i = 0; i < 1300; i++) {
        qsafp_record_t r = {.event = QSAFP_EVENT_WORKLOAD_REPORT};
        CHECK(qsafp_note(&b->q, &r) == 0);
        const qsafp_state_t *st = (const qsafp_state_t *)(const void *)b->d.state;
        worst = b->q.log.next - st->tree.size > worst ? b->q.log.next - st->tree.size : worst;
        if (i % 97 == 0) {
            bench_t *other = malloc(sizeof *other);
            assert(other);
            *other = *b;
            other->q.ctx = &other->d;
            CHECK(reboot(other) == 0 && other->q.log.next > b->q.log.next);
            free(other);
        }
    }
    CHECK(worst == QSAFP_LOG_SLOTS / 2 && b->d.saves == 4); /* enrolment, start, two halves of the ring: not one a record */
    free(b);
}

int main(void)
{
    impossible_configurations_do_not_start();
    enrolment_happens_once_and_on_blank_stores();
    I6_every_failed_call_of_a_start_stops_it_or_harms_nothing();
    the_durable_state_is_taken_whole_or_not_at_all();
    the_log_of_another_device_does_not_start();
    an_older_set_does_not_start_again();
    I5_a_latch_comes_back_whole();
    I5_a_latch_whose_record_was_pruned_is_recorded_again();
    a_fail_safe_that_could_not_be_recorded_is_told_again();
    the_fail_safe_has_a_slot_when_nothing_else_has();
    generations_go_round_and_are_never_zero();
    ticks_are_due_at_the_next_deadline();
    the_end_of_a_lease_is_recorded_once_and_grace_ends_to_the_nanosecond();
    an_expiry_that_cannot_be_recorded_closes_for_good();
    status_shows_each_field_at_its_edges();
    a_lease_is_recorded_with_its_evidence();
    a_lease_that_cannot_be_recorded_does_not_stay();
    the_state_follows_the_log();
    return DONE("test_state");
}
