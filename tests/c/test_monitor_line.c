/* SPDX-License-Identifier: Apache-2.0 */
/* Noise and overlong frames on the line, and who comes first of a host there and a payload: each frame ends in an answer, none that is bad
 * opens the gate or moves a pin (HW-5, HW-14). */
#include "monitor_host.h"

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
    answer_line();
    checks++;
}

/* Bytes that keep coming for longer than a silence, as a slow line has them, are one frame, a short pause behind them included. */
static void a_long_frame_takes_its_time(void)
{
    uint8_t f[700], good[800] = {0};
    size_t n = encoded(good, f, spoken(f, QSAFP_OPCODE_VERSION, good, sizeof f - 6));
    line.byte_ns = 1000000;
    assert(hears(good, n - 5).answers == 0);
    clock_ns += SILENCE_NS / 2;
    heard_t h = hears(good + n - 5, 5);
    line.byte_ns = 0;
    assert(h.answers == 1 && h.tag == f[0]);
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
    assert(!serve_line() && line.left == n / 2); /* until that is answered */
    answer_line();
    assert(serve_line() && !line.left && m.command.out[1] == 204);
    answer_line();
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

int main(void)
{
    start();
    a_bad_line_moves_neither_gate_nor_pins(false);
    a_bad_line_moves_neither_gate_nor_pins(true);
    a_long_frame_takes_its_time();
    one_frame_of_the_line_is_obeyed_at_a_time();
    a_payload_keeps_no_upload_of_a_host_away();
    a_payload_spends_no_vote_of_a_host_s_request();
    envelopes_are_made_once_a_second_for_a_payload();
    a_host_is_answered_once_its_stop_is_durable();
    assert(!m.lost_records);
    printf("test_monitor_line: %d passed, 0 failed\n", checks);
    return 0;
}
