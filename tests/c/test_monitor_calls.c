/* SPDX-License-Identifier: Apache-2.0 */
/* Service calls with every argument out of range, frames of any content and floods of them, noise on the line: each ends in an answer, none
 * opens the gate, none touches what is not the payload's, and none fills the log (HW-5, HW-9, HW-14). */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* A board of this test's own, in place of any board's map. */
#define HIFIVE_UNLEASHED_MONITOR_MAP_H
#include <stdint.h>
static uint8_t ram[0x8000], copy_of_it[0x2000];
#define HARTS 3
#define PIN_LEASE_RENEW 5
#define PAYLOAD_RAM ((uint64_t)(uintptr_t)ram)
#define RAM_END (PAYLOAD_RAM + sizeof ram)
#define CHECKPOINT_BASE ((uintptr_t)copy_of_it)
#define CHECKPOINT_BYTES sizeof copy_of_it
#define NS_PER_TICK 1u
#define BOARD_NAME "test"
#define FUSES_BASE ((uintptr_t)ram)
#define SET_BASE ((uintptr_t)ram)
#define PIN_LEASE_VALID 0
#define PIN_FAILSAFE 1

#include "monitor.h"
#define get get_of_calls
#define set set_of_calls
#include "../../cext/monitor/calls.c"
#undef get
#undef set
#include "../../cext/monitor/contain.c"
#define start start_of_monitor
#include "../../cext/monitor/monitor.c"
#undef start

enum { ROUNDS = 60000 };

static uint8_t part[QSAFP_LOG_SLOTS * QSAFP_RECORD_BYTES];
static qsafp_state_t kept;
static bool has_state;
static uint64_t clock_ns, dice = 0x9E3779B97F4A7C15u;
static int checks;

static uint64_t roll(void)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return dice;
}

/* ---- architecture and board ---- */

static bool reachable(uint64_t at, size_t n) { return at >= PAYLOAD_RAM && at < RAM_END && n <= RAM_END - at; }

int arch_copy_in(void *to, uint64_t from, size_t n)
{
    if (!reachable(from, n))
        return -1;
    memcpy(to, (const void *)(uintptr_t)from, n);
    return 0;
}

int arch_copy_out(uint64_t to, const void *from, size_t n)
{
    if (!reachable(to, n))
        return -1;
    memcpy((void *)(uintptr_t)to, from, n);
    return 0;
}

/* Armed, a fail-safe comes between a call and its answer, and all of containment. */
static bool armed;

void arch_yield(void)
{
    if (armed && !m.contain) {
        qsafp_trip(&m.q, QSAFP_REASON_MANUAL);
        contain_all();
        return; /* the caller sees it before it is answered */
    }
    contain_act();
    (void)serve_core(&m.core[1]);
}

void arch_poke(unsigned core) { assert(core < CORES); }
void arch_unpoke(unsigned core) { assert(core < CORES); }

/* Released. */
void arch_wait(void)
{
    m.restarts += m.rolled_back;
    m.contain = m.rolled_back = m.q.contained = 0;
}

bool arch_lock(void) { return false; }
void arch_unlock(bool was) { (void)was; }

static struct { const uint8_t *next; size_t left, have; bool trips; uint8_t said[8192]; } line;

/* Where it trips, the last byte is what stops the device. */
int board_line_get(void)
{
    if (!line.left)
        return -1;
    if (!--line.left && line.trips)
        qsafp_trip(&m.q, QSAFP_REASON_MANUAL);
    return *line.next++;
}

void board_line_put(uint8_t byte)
{
    assert(line.have < sizeof line.said);
    assert(!m.q.latch || kept.latch == m.q.latch); /* durable before anybody is told */
    line.said[line.have++] = byte;
}

bool board_pin_get(unsigned pin) { return pin == 0; }
/* What monitor.c needs beside, none of which is asked here. */
void arch_start(void) { assert(0); }
void arch_halt(void) { abort(); }
void arch_alarm(uint64_t ticks) { (void)ticks; }
void arch_wait_line(void) { assert(0); }
void board_start(void) { assert(0); }
void board_pin(unsigned pin, int v) { (void)pin; (void)v; assert(0); }
bool nor_ready(void) { return false; }
int fuses_read(void) { return -1; }
int entropy_take(void) { return -1; }
int store_start(void) { return -1; }
int seal_start(void) { return -1; }
void boot_measure(qsafp_t *q) { (void)q; }
int boot_keep(void) { return 0; }
void qsafp_ed25519_public(uint8_t pk[32], const uint8_t seed[32]) { (void)pk; (void)seed; }

/* ---- the port: all of it in memory ---- */

static uint64_t now(void *c) { (void)c; return clock_ns += 1000; }
static uint64_t same_ns(void *c, uint64_t ns) { (void)c; return ns; }
static uint64_t zero(void *c) { (void)c; return 0; }
static int entropy(void *c, uint8_t *b, size_t n) { (void)c; memset(b, 7, n); return 0; }
static int mac(void *c, uint8_t out[32], const uint8_t *p, size_t n) { (void)c; qsafp_sha256(out, p, n); return 0; }
static int sign(void *c, uint8_t sig[64], const uint8_t *p, size_t n) { (void)c; (void)p; (void)n; memset(sig, 1, 64); return 0; }
static int refuse(void *c, const uint8_t s[64], const uint8_t k[32], const uint8_t *p, size_t n) { (void)c; (void)s; (void)k; (void)p; (void)n; return -1; }
static int driven; /* pins, how often */
static int level(void *c, int v) { (void)c; (void)v; driven++; return 0; }
static int toggle(void *c) { (void)c; return 0; }
static int part_read(void *c, uint32_t off, void *b, uint32_t n) { (void)c; memcpy(b, part + off, n); return 0; }
static int part_prog(void *c, uint32_t off, const void *b, uint32_t n) { (void)c; memcpy(part + off, b, n); return 0; }
static int part_erase(void *c, uint32_t s) { (void)c; memset(part + s * 4096, 0xFF, 4096); return 0; }
static int evidence(void *c, const uint8_t h[32], const uint8_t *b, size_t n) { (void)c; (void)h; (void)b; (void)n; return 0; }
static int load(void *c, void *b, uint32_t n) { (void)c; memcpy(b, &kept, n); return has_state ? 0 : QSAFP_E_STORE; }
static int save(void *c, const void *b, uint32_t n) { (void)c; memcpy(&kept, b, n); has_state = true; return 0; }
const qsafp_port_t monitor_port = {
    .now_ns = now, .counter_at = same_ns, .wall_ms = zero, .entropy = entropy, .nonce_mac = mac, .sign = sign, .verify_ed25519 = refuse,
    .set_lease_valid = level, .set_failsafe = level, .toggle_validator_req = toggle, .log_read = part_read, .log_prog = part_prog,
    .log_erase = part_erase, .log_sync = toggle, .evidence_put = evidence, .state_load = load, .state_save = save,
};

static void start(void)
{
    qsafp_t *q = &m.q;
    memset(part, 0xFF, sizeof part);
    q->port = &monitor_port;
    q->page = &gate_page;
    q->log.slots = QSAFP_LOG_SLOTS;
    q->cfg = (qsafp_config_t){.ueid = {1}, .alg = QSAFP_ALG_ED25519, .duration_ms = 60000, .stale_after_ns = 1000000000, .tick_ns = 100000000};
    q->set = (qsafp_set_t){.m = 2, .n = 3, .suite = QSAFP_SUITE_ED25519, .max_duration_ms = 60000};
    m.command.q = q;
    assert(!qsafp_create(q));
    assert(!qsafp_init(q));
}

/* ---- what must hold after any call ---- */

static void check_closed(void)
{
    assert(gate_page.armed != QSAFP_ARMED);
    assert(!qsafp_gate_check_ns(&gate_page, clock_ns));
    checks++;
}

static uint64_t pointer(void)
{
    const uint64_t edges[] = {0, 1, PAYLOAD_RAM - 1, PAYLOAD_RAM, RAM_END - 1, RAM_END, RAM_END - 1030, (uintptr_t)&m, CHECKPOINT_BASE, UINT64_MAX, UINT64_MAX - 7, 1ull << 63};
    return roll() % 3 ? PAYLOAD_RAM + roll() % sizeof ram : edges[roll() % (sizeof edges / sizeof *edges)];
}

static uint64_t length(void)
{
    const uint64_t edges[] = {0, 1, 5, 6, 1029, 1030, 1031, FRAME_BYTES, FRAME_BYTES + 1, sizeof ram, UINT64_MAX, 1ull << 32};
    return roll() % 2 ? roll() % 1200 : edges[roll() % (sizeof edges / sizeof *edges)];
}

/* A frame whose checksum holds, of any opcode and content; a fail-safe is left out, which always closes. */
static size_t frame(uint8_t *f)
{
    size_t n = roll() % 40;
    f[0] = (uint8_t)roll();
    f[1] = (uint8_t)(roll() % 9);
    f[1] = f[1] == QSAFP_OPCODE_FAILSAFE ? 0 : f[1];
    f[2] = (uint8_t)n;
    f[3] = 0;
    for (size_t i = 0; i < n; i++)
        f[4 + i] = (uint8_t)(i ? roll() : roll() % 6);
    uint16_t crc = qsafp_crc16(f, 4 + n);
    memcpy(f + 4 + n, &crc, sizeof crc);
    return 4 + n + sizeof crc;
}

static void every_argument_out_of_range_is_refused_or_answered(void)
{
    for (int i = 0; i < ROUNDS; i++) {
        const uint64_t arg[4] = {pointer(), length(), pointer(), length()};
        result_t r = call_frame(&m.core[1], arg);
        assert(r.err == CALL_OK || r.err == CALL_BAD_ARGUMENT || r.err == CALL_BAD_ADDRESS);
        assert(r.err || (reachable(arg[0], arg[1]) && reachable(arg[2], r.value) && r.value <= arg[3]));
        check_closed();
    }
}

static void a_checkpoint_is_taken_of_the_payloads_memory_alone(void)
{
    for (int i = 0; i < ROUNDS / 10; i++) {
        uint64_t base = pointer(), bytes = length();
        result_t r = call_checkpoint(&m.core[1], base, bytes);
        bool allowed = reachable(base, bytes) && bytes && bytes <= CHECKPOINT_BYTES;
        assert((r.err == CALL_OK) == allowed);
        assert(!allowed || !memcmp(copy_of_it, (const void *)(uintptr_t)base, bytes));
        check_closed();
    }
}

static void whole_frames_are_answered(void)
{
    for (int i = 0; i < ROUNDS / 10; i++) {
        const uint64_t arg[4] = {PAYLOAD_RAM, frame(ram), PAYLOAD_RAM + 2048, 2048};
        result_t r = call_frame(&m.core[1], arg);
        const uint8_t *out = ram + 2048;
        assert(!r.err && r.value >= 7 && out[0] == 0xA5);
        assert(qsafp_crc16(out, r.value - 2) == (out[r.value - 2] | out[r.value - 1] << 8));
        check_closed();
    }
}

/* Events and new requests, a hundred a second: ten records, and RATE_LIMITED for the rest. */
static void a_flood_of_records_is_bounded(void)
{
    const uint8_t event[] = {1, QSAFP_OPCODE_LOG_EVENT, 7, 0, QSAFP_EVENT_WORKLOAD_REPORT, 0, 0, 0, 0, 0, 0};
    const uint64_t arg[4] = {PAYLOAD_RAM, sizeof event + 2, PAYLOAD_RAM + 2048, 2048};
    enum { SECONDS = 5 };
    clock_ns += 2000000000;
    uint32_t before = m.q.log.next, refused = 0;
    for (int i = 0; i < 100 * SECONDS; i++) {
        memcpy(ram, event, sizeof event);
        ram[0] = (uint8_t)i;
        uint16_t crc = qsafp_crc16(ram, sizeof event);
        memcpy(ram + sizeof event, &crc, sizeof crc);
        clock_ns += 10000000;
        assert(!call_frame(&m.core[1], arg).err);
        refused += ram[2048 + 2] == QSAFP_COMMAND_STATUS_RATE_LIMITED;
    }
    assert(m.q.log.next - before <= RECORDS_PER_S * (SECONDS + 1));
    assert(refused >= 100 * SECONDS - RECORDS_PER_S * (SECONDS + 1));
    checks++;
}

static void reports_are_told_ten_a_second_and_none_is_forgotten(void)
{
    const report_t what = {7, 0x80400000, 0x10060000};
    core_t *c = &m.core[2];
    clock_ns += 2000000000;
    uint32_t before = m.q.log.next;
    for (int i = 0; i < 1000; i++)
        report(c, &what);
    (void)tell_reports();
    assert(m.q.log.next - before == RECORDS_PER_S);
    while (c->told != c->put) {
        (void)tell_reports();
        clock_ns += 100000000;
    }
    uint8_t rec[QSAFP_RECORD_BYTES];
    uint32_t lost;
    assert(!qsafp_audit_read(&m.q.log, before, rec));
    memcpy(&lost, rec + 112 + 32, sizeof lost);
    assert(lost == 1000 - REPORTS);
    checks++;
}

/* ---- validate ---- */

enum { WINDOW = 1000000, MAX_STATUSES = 5 };

/* What a payload is told by a page whose deadline lies `ahead_ns` ahead when it asks. */
static qsafp_status_t told(uint32_t armed_word, int64_t ahead_ns, qsafp_status_t status)
{
    const qsafp_gate_page_t was = gate_page;
    gate_page = (qsafp_gate_page_t){.magic = QSAFP_GATE_MAGIC, .armed = armed_word, .status = status, .window_ns = WINDOW};
    gate_page.deadline_ns = now(&m) + 1000 + (uint64_t)ahead_ns; /* each look at the clock takes 1000 */
    qsafp_status_t answer = call_validate();
    gate_page = was;
    checks++;
    return answer;
}

/* Armed and in time alone is VALID; a page that is closed says why, and never VALID. */
static void validate_says_valid_while_the_gate_is_open_and_never_else(void)
{
    static const qsafp_status_t all[MAX_STATUSES] = {
        QSAFP_STATUS_UNINITIALIZED, QSAFP_STATUS_PENDING, QSAFP_STATUS_VALID, QSAFP_STATUS_EXPIRED, QSAFP_STATUS_DENIED};
    static const qsafp_status_t closed[MAX_STATUSES] = {
        QSAFP_STATUS_UNINITIALIZED, QSAFP_STATUS_PENDING, QSAFP_STATUS_EXPIRED, QSAFP_STATUS_EXPIRED, QSAFP_STATUS_DENIED};
    static const int64_t in_time[] = {1, 2, WINDOW / 2, WINDOW}, not_in_time[] = {0, -1, -WINDOW, WINDOW + 1, 1ll << 60, -(1ll << 60)};
    static const uint32_t not_armed[] = {0, 1, 7, 0x00FFFFFF, QSAFP_ARMED ^ 1, UINT32_MAX};
    for (int s = 0; s < MAX_STATUSES; s++) {
        for (size_t i = 0; i < sizeof in_time / sizeof *in_time; i++) {
            assert(told(QSAFP_ARMED, in_time[i], all[s]) == QSAFP_STATUS_VALID);
            for (size_t k = 0; k < sizeof not_armed / sizeof *not_armed; k++)
                assert(told(not_armed[k], in_time[i], all[s]) == closed[s]);
        }
        for (size_t i = 0; i < sizeof not_in_time / sizeof *not_in_time; i++)
            assert(told(QSAFP_ARMED, not_in_time[i], all[s]) == closed[s]);
    }
}

/* ---- the line ---- */

enum { NO_ANSWER = -1 };
typedef struct { unsigned answers; int tag, status; } heard_t; /* how many; of the last */

/* What comes back is whole, whatever was sent. */
static heard_t hears(const uint8_t *bytes, size_t n)
{
    heard_t h = {0, NO_ANSWER, NO_ANSWER};
    line.next = bytes;
    line.left = n;
    line.have = 0;
    size_t left = line.left;
    line.left = 0;
    assert(!serve_line()); /* the look that tells a silence */
    line.left = left;
    while (serve_line())
        answer_line();
    assert(!line.left);
    for (size_t at = 0, end; at < line.have; at = end + 1, h.answers++) {
        uint8_t out[ENCODED_BYTES];
        size_t len = 0;
        for (end = at; line.said[end]; end++)
            assert(end + 1 < line.have);
        assert(!qsafp_cobs_decode(out, &len, line.said + at, end - at));
        assert(len >= 7 && out[0] == 0xA5 && qsafp_crc16(out, len - 2) == (out[len - 2] | out[len - 1] << 8));
        h.tag = out[1];
        h.status = out[2];
    }
    return h;
}

/* A command with its checksum; a tag of its own. */
static size_t spoken(uint8_t *f, uint8_t opcode, const void *p, size_t n)
{
    static uint8_t tag;
    const uint8_t head[4] = {++tag, opcode, (uint8_t)n, (uint8_t)(n >> 8)};
    memcpy(f, head, sizeof head);
    memcpy(f + 4, p, n);
    uint16_t crc = qsafp_crc16(f, 4 + n);
    memcpy(f + 4 + n, &crc, sizeof crc);
    return 4 + n + sizeof crc;
}

/* As it goes over the line, its end included. */
static size_t encoded(uint8_t *out, const uint8_t *f, size_t n)
{
    n = qsafp_cobs_encode(out, f, n);
    out[n] = 0;
    return n + 1;
}

/* A request for the version. */
static size_t question(uint8_t *out, uint8_t tag)
{
    uint8_t f[6] = {tag, QSAFP_OPCODE_VERSION};
    uint16_t crc = qsafp_crc16(f, 4);
    memcpy(f + 4, &crc, sizeof crc);
    return encoded(out, f, sizeof f);
}

/* The status that a host, or a core of the payload's, gets for a command. */
static int host_asks(uint8_t opcode, const void *p, size_t n)
{
    uint8_t f[1200], out[1300];
    return hears(out, encoded(out, f, spoken(f, opcode, p, n))).status;
}

static int core_asks(uint8_t opcode, const void *p, size_t n)
{
    const uintptr_t arg[4] = {PAYLOAD_RAM, spoken(ram, opcode, p, n), PAYLOAD_RAM + 2048, 2048};
    assert(!call_frame(&m.core[1], arg).err);
    return ram[2048 + 2];
}

static void is_answered(void)
{
    static uint8_t tag;
    uint8_t good[16];
    heard_t h = hears(good, question(good, ++tag));
    assert(h.answers == 1 && h.tag == tag && h.status == QSAFP_COMMAND_STATUS_OK);
}

/* Bytes of any value: one refusal for each run of them that ends. */
static void noise_is_refused(void)
{
    uint8_t noise[600];
    for (int i = 0; i < 200; i++) {
        unsigned runs = 0;
        for (size_t k = 0; k < sizeof noise; k++)
            noise[k] = roll() % 9 ? (uint8_t)roll() : 0;
        noise[sizeof noise - 1] = 0;
        for (size_t k = 1; k < sizeof noise; k++)
            runs += !noise[k] && noise[k - 1];
        heard_t h = hears(noise, sizeof noise);
        assert(h.answers == runs && h.status != QSAFP_COMMAND_STATUS_OK);
        is_answered();
    }
}

/* No byte of it lies behind the room for a frame, and its beginning is no frame. */
static void an_overlong_frame_is_refused_once(void)
{
    static uint8_t bytes[4 * ENCODED_BYTES];
    for (size_t n = ENCODED_BYTES; n < sizeof bytes; n += 1 + roll() % 97) {
        memset(bytes, 0xFF, n);
        bytes[question(bytes, 200) - 1] = 1; /* it goes on */
        bytes[n] = 0;
        heard_t h = hears(bytes, n + 1);
        assert(h.answers == 1 && h.status == QSAFP_COMMAND_STATUS_BAD_LENGTH);
        assert(m.line_have == 0);
        is_answered();
    }
}

static void zeros_are_no_frames(void)
{
    static const uint8_t zeros[5000];
    assert(hears(zeros, sizeof zeros).answers == 0);
    is_answered();
}

/* What was begun before a silence belongs to nobody; a shorter pause tears nothing. */
static void a_torn_frame_spoils_none_after_a_silence(void)
{
    uint8_t good[16];
    size_t n = question(good, 201);
    for (size_t cut = 1; cut < n; cut++) {
        assert(hears(good, cut).answers == 0);
        clock_ns += SILENCE_NS;
        is_answered();
        assert(hears(good, cut).answers == 0);
        clock_ns += SILENCE_NS / 2;
        assert(hears(good + cut, n - cut).status == QSAFP_COMMAND_STATUS_OK);
    }
}

/* However long the monitor had no time to look. */
static void bytes_that_had_to_wait_are_no_torn_frame(void)
{
    uint8_t good[16];
    size_t n = question(good, 202);
    assert(hears(good, 3).answers == 0);
    clock_ns += 20 * SILENCE_NS;
    line.next = good + 3;
    line.left = n - 3;
    line.have = 0;
    assert(serve_line() && !line.left && m.command.out[2] == QSAFP_COMMAND_STATUS_OK);
    checks++;
}

/* What comes behind it waits: a host that says more than it hears keeps nobody from the rest of the work. */
static void one_frame_of_the_line_is_obeyed_at_a_time(void)
{
    uint8_t two[32];
    size_t n = question(two, 203);
    n += question(two + n, 204);
    line.next = two;
    line.left = n;
    assert(serve_line() && line.left == n / 2 && m.command.out[1] == 203);
    assert(serve_line() && !line.left && m.command.out[1] == 204);
    checks++;
}

static void a_host_is_answered_once_its_stop_is_durable(void)
{
    uint8_t good[16];
    line.next = good;
    line.left = question(good, 205);
    line.have = 0;
    line.trips = true;
    assert(!kept.latch);
    (void)work(); /* board_line_put looks */
    line.trips = false;
    assert(line.have && kept.latch == QSAFP_REASON_MANUAL && m.q.latch == QSAFP_REASON_MANUAL);
    check_closed();
}

/* ---- who comes first ---- */

static const uint8_t BEGIN[] = {0}, FINISH[] = {3};
static const uint8_t PUT_A[] = {2, 0, 0, 0, 0, 4, 0, 0, 0, 1, 2}, PUT_B[] = {2, 2, 0, 0, 0, 4, 0, 0, 0, 3, 4};

/* An upload of the line's is nobody else's, in whatever order the payload tries, until it is over. */
static void a_payload_keeps_no_upload_of_a_host_away(void)
{
    enum { LIMITED = QSAFP_COMMAND_STATUS_RATE_LIMITED, OK = QSAFP_COMMAND_STATUS_OK };
    clock_ns += LINE_FIRST_NS;
    memset(&m.q.pending, 0, sizeof m.q.pending);
    assert(core_asks(QSAFP_OPCODE_RENEW, PUT_A, sizeof PUT_A) == OK); /* while no host renews it may */
    assert(host_asks(QSAFP_OPCODE_RENEW, PUT_A, sizeof PUT_A) == OK);
    for (int i = 0; i < 3; i++)
        for (uint8_t sub = 0; sub < 4; sub++) {
            uint8_t p[sizeof PUT_A] = {0};
            memcpy(p + 1, PUT_A + 1, sizeof p - 1);
            p[0] = sub;
            assert(core_asks(QSAFP_OPCODE_RENEW, p, sub == 2 ? sizeof p : 1) == LIMITED);
        }
    assert(core_asks(QSAFP_OPCODE_STATUS, PUT_A, 0) == OK);
    assert(host_asks(QSAFP_OPCODE_RENEW, PUT_B, sizeof PUT_B) == OK);
    assert(host_asks(QSAFP_OPCODE_RENEW, FINISH, sizeof FINISH) == QSAFP_COMMAND_STATUS_REFUSED); /* whole, and no lease */
    assert(core_asks(QSAFP_OPCODE_RENEW, PUT_A, sizeof PUT_A) == OK);
    assert(host_asks(QSAFP_OPCODE_RENEW, PUT_A, sizeof PUT_A) == OK);
    clock_ns += LINE_FIRST_NS;
    assert(core_asks(QSAFP_OPCODE_RENEW, PUT_B, sizeof PUT_B) == OK); /* a host that went away holds it up no longer */
    checks++;
}

/* Of a host's request, between its question and the votes. */
static void a_payload_spends_no_vote_of_a_host_s_request(void)
{
    clock_ns += LINE_FIRST_NS;
    assert(host_asks(QSAFP_OPCODE_RENEW, BEGIN, sizeof BEGIN) == QSAFP_COMMAND_STATUS_OK);
    assert(core_asks(QSAFP_OPCODE_RENEW, FINISH, sizeof FINISH) == QSAFP_COMMAND_STATUS_RATE_LIMITED);
    checks++;
}

/* Each with another size makes it anew, out of most of the log. */
static void envelopes_are_made_once_a_second_for_a_payload(void)
{
    clock_ns += LINE_FIRST_NS;
    assert(core_asks(QSAFP_OPCODE_RENEW, BEGIN, sizeof BEGIN) == QSAFP_COMMAND_STATUS_OK);
    int made = 0;
    for (int i = 0; i < 300; i++) {
        uint8_t read[13] = {1, (uint8_t)i};
        clock_ns += 10000000;
        made += core_asks(QSAFP_OPCODE_RENEW, read, sizeof read) != QSAFP_COMMAND_STATUS_RATE_LIMITED;
    }
    assert(made >= 3 && made <= 4);
    const uint8_t first[13] = {1, 1}, more[13] = {1, 1, 0, 0, 0, 0, 0, 0, 0, 8};
    clock_ns += 1000000000;
    assert(core_asks(QSAFP_OPCODE_RENEW, first, sizeof first) == QSAFP_COMMAND_STATUS_OK);
    assert(core_asks(QSAFP_OPCODE_RENEW, more, sizeof more) == QSAFP_COMMAND_STATUS_OK); /* the rest of the same */
    checks++;
}

static void a_bad_line_moves_neither_gate_nor_pins(bool open)
{
    const qsafp_gate_page_t kept_page = gate_page;
    if (open) {
        gate_page.armed = QSAFP_ARMED;
        gate_page.deadline_ns = clock_ns + (1ull << 50);
        gate_page.window_ns = 1ull << 60;
    }
    const qsafp_gate_page_t before = gate_page;
    int was = driven;
    assert(qsafp_gate_check_ns(&gate_page, clock_ns) == open);
    noise_is_refused();
    an_overlong_frame_is_refused_once();
    zeros_are_no_frames();
    a_torn_frame_spoils_none_after_a_silence();
    bytes_that_had_to_wait_are_no_torn_frame();
    assert(!memcmp(&before, &gate_page, sizeof before) && driven == was);
    assert(qsafp_gate_check_ns(&gate_page, clock_ns) == open);
    gate_page = kept_page;
    checks++;
}

static void no_answer_is_written_after_a_rollback(void)
{
    static const uint8_t status[4] = {1, QSAFP_OPCODE_STATUS};
    memset(ram, 0x11, 4096);
    assert(!call_checkpoint(&m.core[1], PAYLOAD_RAM, 4096).err);
    memcpy(ram + 4096, status, sizeof status);
    const uint64_t arg[4] = {PAYLOAD_RAM + 4096, sizeof status, PAYLOAD_RAM, 2000};
    assert(!call_frame(&m.core[1], arg).err && ram[0] == 0xA5);
    armed = true;
    (void)call_frame(&m.core[1], arg);
    armed = false;
    assert(ram[0] == 0x11 && ram[6] == 0x11);
    assert(core_park(&m.core[1])); /* it starts anew, and the answer is nobody's */
    check_closed();
}

/* Slices of two cores do not mix, the line has its turn between them, and a rollback waits for the whole. */
static void a_checkpoint_is_taken_in_slices(void)
{
    memset(ram, 0x44, sizeof copy_of_it);
    memset(ram + sizeof copy_of_it, 0x55, sizeof copy_of_it);
    for (unsigned i = 1; i <= 2; i++) {
        m.core[i].arg[0] = PAYLOAD_RAM + (i - 1) * sizeof copy_of_it;
        m.core[i].arg[1] = sizeof copy_of_it;
        m.core[i].call = CALL_CHECKPOINT;
    }
    assert(serve_core(&m.core[1]) && serve_core(&m.core[2]) && m.core[1].call && m.core[2].call);
    assert(copy_of_it[0] == 0x44 && m.checkpoint.left == sizeof copy_of_it - SLICE);
    m.contain = 1;
    m.core[1].state = m.core[2].state = CORE_PARKED;
    contain_act();
    assert(!m.q.contained);
    m.contain = 0;
    assert(serve_core(&m.core[1]) && !m.core[1].call && m.checkpoint.taken && copy_of_it[sizeof copy_of_it - 1] == 0x44);
    for (size_t i = 0; i < sizeof copy_of_it / SLICE; i++)
        assert(m.core[2].call && serve_core(&m.core[2]));
    assert(!m.core[2].call && copy_of_it[0] == 0x55 && copy_of_it[sizeof copy_of_it - 1] == 0x55);
    uint8_t hash[32];
    qsafp_sha256(hash, copy_of_it, sizeof copy_of_it);
    assert(!memcmp(hash, m.checkpoint.hash, sizeof hash));
    check_closed();
}

static void a_latch_rolls_the_region_back_before_anything_is_told(void)
{
    memset(ram, 0x11, 4096);
    assert(!call_checkpoint(&m.core[1], PAYLOAD_RAM, 4096).err);
    memset(ram, 0x22, 4096);
    uint32_t before = m.q.log.next;
    qsafp_trip(&m.q, QSAFP_REASON_MANUAL);
    contain_all();
    core_still(&m.core[1]);
    contain_act();
    assert(ram[0] == 0x11 && ram[4095] == 0x11 && m.q.log.next == before);
    copy_of_it[7] ^= 1; /* a copy that was changed goes nowhere */
    ram[0] = 0x33;
    m.rolled_back = false;
    contain_act();
    assert(ram[0] == 0x33 && m.rollback == 2);
    check_closed();
}

int main(void)
{
    start();
    every_argument_out_of_range_is_refused_or_answered();
    a_checkpoint_is_taken_of_the_payloads_memory_alone();
    whole_frames_are_answered();
    a_flood_of_records_is_bounded();
    reports_are_told_ten_a_second_and_none_is_forgotten();
    validate_says_valid_while_the_gate_is_open_and_never_else();
    a_bad_line_moves_neither_gate_nor_pins(false);
    a_bad_line_moves_neither_gate_nor_pins(true);
    one_frame_of_the_line_is_obeyed_at_a_time();
    a_payload_keeps_no_upload_of_a_host_away();
    a_payload_spends_no_vote_of_a_host_s_request();
    envelopes_are_made_once_a_second_for_a_payload();
    a_checkpoint_is_taken_in_slices();
    a_host_is_answered_once_its_stop_is_durable();
    no_answer_is_written_after_a_rollback();
    a_latch_rolls_the_region_back_before_anything_is_told();
    assert(!m.lost_records);
    printf("test_monitor_calls: %d passed, 0 failed\n", checks);
    return 0;
}
