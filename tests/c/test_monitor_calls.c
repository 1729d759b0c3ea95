/* SPDX-License-Identifier: Apache-2.0 */
/* Service calls with every argument out of range, frames of any content and floods of them: each ends in an answer, none opens the gate,
 * none touches what is not the payload's, and none fills the log (HW-5, HW-9, HW-14). */
#include "monitor_host.h"

enum { ROUNDS = 60000 };

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
    assert(serve_core(&m.core[1]) && !m.core[1].call && m.checkpoint.bytes == sizeof copy_of_it && !m.checkpoint.left && copy_of_it[sizeof copy_of_it - 1] == 0x44);
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
    a_checkpoint_is_taken_in_slices();
    no_answer_is_written_after_a_rollback();
    a_latch_rolls_the_region_back_before_anything_is_told();
    assert(!m.lost_records);
    printf("test_monitor_calls: %d passed, 0 failed\n", checks);
    return 0;
}
