/* SPDX-License-Identifier: Apache-2.0 */
/* Command frames, sunny and faulty: a lease over frames, cut, garbled, repeated and restricted frames, COBS. */
#include "device.h"

static qsafp_command_t *command(bench_t *b)
{
    qsafp_command_t *c = calloc(1, sizeof *c);
    assert(c);
    c->q = &b->q;
    return c;
}

static uint8_t frame[4 + QSAFP_FRAME_MAX + 2];

static size_t frame_of(uint8_t tag, uint8_t op, const void *p, size_t n)
{
    frame[0] = tag;
    frame[1] = op;
    frame[2] = (uint8_t)n;
    frame[3] = (uint8_t)(n >> 8);
    if (n)
        memcpy(frame + 4, p, n);
    uint16_t crc = qsafp_crc16(frame, 4 + n);
    frame[4 + n] = (uint8_t)crc;
    frame[5 + n] = (uint8_t)(crc >> 8);
    return n + 6;
}

static int send(qsafp_command_t *c, uint8_t tag, uint8_t op, const void *p, size_t n)
{
    qsafp_command(c, frame, frame_of(tag, op, p, n));
    return c->out[2];
}

static void put32(uint8_t *p, uint32_t v) { for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i)); }

static int send_token(qsafp_command_t *c, const uint8_t *t, size_t n)
{
    uint8_t buf[1 + 8 + 700];
    int status = 0;
    for (size_t off = 0; off < n && !status; off += 700) {
        size_t chunk = n - off < 700 ? n - off : 700;
        buf[0] = 2;
        put32(buf + 1, (uint32_t)off);
        put32(buf + 5, (uint32_t)n);
        memcpy(buf + 9, t + off, chunk);
        status = send(c, (uint8_t)(10 + off / 700), QSAFP_OPCODE_RENEW, buf, 9 + chunk);
    }
    uint8_t fin = 3;
    return status ? status : send(c, 99, QSAFP_OPCODE_RENEW, &fin, 1);
}

static void crc_of_the_standard_text(void)
{
    CHECK(qsafp_crc16((const uint8_t *)"123456789", 9) == 0x29B1);
}

static void a_lease_over_frames_opens_the_gate(void)
{
    static const int who[M] = {0, 1, 2, 3};
    uint8_t token[QSAFP_RESPONSE_MAX], sub = 0, read[13] = {1};
    bench_t *b = fresh();
    qsafp_command_t *c = command(b);
    CHECK(send(c, 1, QSAFP_OPCODE_RENEW, &sub, 1) == QSAFP_COMMAND_STATUS_OK);
    memset(read + 1, 0xFF, 8);
    CHECK(send(c, 2, QSAFP_OPCODE_RENEW, read, 13) == QSAFP_COMMAND_STATUS_OK);
    CHECK(c->out_len > 400);
    CHECK(send_token(c, token, lease_of(&b->q, who, M, 0, token)) == QSAFP_COMMAND_STATUS_OK);
    (void)qsafp_tick(&b->q);
    CHECK(open_now(b) && b->d.valid);
    CHECK(send(c, 3, QSAFP_OPCODE_STATUS, 0, 0) == QSAFP_COMMAND_STATUS_OK && c->out[5 + 24] == 0x3C && c->out[5 + 25] == 0x5A);
    CHECK(c->out[3] == 260 % 256 && c->out[4] == 1); /* every field, who refused the last */
    free(c);
    free(b);
}

static void a_fail_safe_needs_the_same_frame_twice_within_a_second(void)
{
    uint8_t reason[4] = {QSAFP_REASON_MANUAL};
    bench_t *b = fresh();
    qsafp_command_t *c = command(b);
    CHECK(obtain(b) == 0);
    CHECK(send(c, 7, QSAFP_OPCODE_FAILSAFE, reason, 4) == QSAFP_COMMAND_STATUS_CONFIRM && open_now(b));
    CHECK(send(c, 8, QSAFP_OPCODE_FAILSAFE, reason, 4) == QSAFP_COMMAND_STATUS_CONFIRM && open_now(b)); /* another tag */
    b->d.now_ns += S + 1;
    (void)qsafp_tick(&b->q);
    CHECK(send(c, 8, QSAFP_OPCODE_FAILSAFE, reason, 4) == QSAFP_COMMAND_STATUS_CONFIRM && open_now(b)); /* too late */
    CHECK(send(c, 8, QSAFP_OPCODE_FAILSAFE, reason, 4) == QSAFP_COMMAND_STATUS_OK && !open_now(b) && b->d.failsafe);
    put32(reason, QSAFP_REASON_TAMPER);
    CHECK(send(c, 9, QSAFP_OPCODE_FAILSAFE, reason, 4) == QSAFP_COMMAND_STATUS_BAD_ARGUMENT);
    free(c);
    free(b);
}

static void a_repeated_event_is_recorded_once(void)
{
    uint8_t event[6] = {QSAFP_EVENT_WORKLOAD_REPORT};
    bench_t *b = fresh();
    qsafp_command_t *c = command(b);
    uint64_t before = b->q.log.next;
    CHECK(send(c, 5, QSAFP_OPCODE_LOG_EVENT, event, 6) == 0 && send(c, 5, QSAFP_OPCODE_LOG_EVENT, event, 6) == 0);
    CHECK(b->q.log.next == before + 1);
    event[0] = QSAFP_EVENT_LEASE_ISSUED; /* not a workload's to claim */
    CHECK(send(c, 6, QSAFP_OPCODE_LOG_EVENT, event, 6) == QSAFP_COMMAND_STATUS_BAD_ARGUMENT && b->q.log.next == before + 1);
    free(c);
    free(b);
}

static void a_workload_may_not_renew_stop_or_read_the_log(void)
{
    uint8_t p[10] = {0};
    bench_t *b = fresh();
    qsafp_command_t *c = command(b);
    c->restricted = true;
    CHECK(send(c, 1, QSAFP_OPCODE_RENEW, p, 1) == QSAFP_COMMAND_STATUS_NOT_ALLOWED);
    CHECK(send(c, 1, QSAFP_OPCODE_READ_LOG, p, 10) == QSAFP_COMMAND_STATUS_NOT_ALLOWED);
    CHECK(send(c, 1, QSAFP_OPCODE_FAILSAFE, p, 4) == QSAFP_COMMAND_STATUS_NOT_ALLOWED);
    CHECK(send(c, 1, QSAFP_OPCODE_SET, p, 1) == QSAFP_COMMAND_STATUS_NOT_ALLOWED);
    CHECK(send(c, 1, QSAFP_OPCODE_STATUS, p, 0) == QSAFP_COMMAND_STATUS_OK);
    CHECK(send(c, 1, 0x77, p, 0) == QSAFP_COMMAND_STATUS_NOT_ALLOWED && c->out_len == 7);
    free(c);
    free(b);
}

static void cut_and_garbled_frames_are_named_and_change_nothing(void)
{
    uint8_t sub = 0;
    bench_t *b = fresh();
    qsafp_command_t *c = command(b);
    size_t n = frame_of(1, QSAFP_OPCODE_RENEW, &sub, 1);
    for (size_t cut = 0; cut < n; cut++) {
        qsafp_command(c, frame, cut);
        CHECK(c->out[2] == QSAFP_COMMAND_STATUS_BAD_LENGTH);
    }
    for (size_t i = 0; i < n * 8; i++) {
        frame[i / 8] ^= (uint8_t)(1u << i % 8);
        qsafp_command(c, frame, n);
        CHECK(c->out[2] == QSAFP_COMMAND_STATUS_BAD_LENGTH || c->out[2] == QSAFP_COMMAND_STATUS_BAD_CRC);
        frame[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    CHECK(!b->q.pending.active && b->q.log.next == 2);
    free(c);
    free(b);
}

static void chunks_out_of_order_and_overlong_totals_are_refused(void)
{
    uint8_t p[1 + 8 + 4] = {2};
    bench_t *b = fresh();
    qsafp_command_t *c = command(b);
    put32(p + 1, 4);
    put32(p + 5, 8);
    CHECK(send(c, 1, QSAFP_OPCODE_RENEW, p, 13) == QSAFP_COMMAND_STATUS_BAD_ARGUMENT);
    put32(p + 1, 0);
    put32(p + 5, QSAFP_RESPONSE_MAX + 1);
    CHECK(send(c, 2, QSAFP_OPCODE_RENEW, p, 13) == QSAFP_COMMAND_STATUS_BAD_ARGUMENT);
    put32(p + 5, 3);
    CHECK(send(c, 3, QSAFP_OPCODE_RENEW, p, 13) == QSAFP_COMMAND_STATUS_BAD_ARGUMENT);
    put32(p + 5, 8);
    CHECK(send(c, 4, QSAFP_OPCODE_RENEW, p, 13) == QSAFP_COMMAND_STATUS_OK);
    p[0] = 3;
    CHECK(send(c, 5, QSAFP_OPCODE_RENEW, p, 1) == QSAFP_COMMAND_STATUS_INCOMPLETE);
    CHECK(!open_now(b));
    free(c);
    free(b);
}

static void cobs_round_trips_and_refuses_zeros(void)
{
    uint8_t in[600], enc[700], dec[700];
    size_t out = 0;
    for (size_t n = 0; n < sizeof in; n += 13) {
        for (size_t i = 0; i < n; i++)
            in[i] = (uint8_t)(i % 300 < 260 ? i + 1 : 0);
        size_t e = qsafp_cobs_encode(enc, in, n);
        CHECK(memchr(enc, 0, e) == 0 && e <= n + n / 254 + 1);
        CHECK(qsafp_cobs_decode(dec, &out, enc, e) == 0 && out == n && memcmp(dec, in, n) == 0);
    }
    CHECK(qsafp_cobs_decode(dec, &out, (const uint8_t *)"\x03\x00\x01", 3) != 0);
    CHECK(qsafp_cobs_decode(dec, &out, (const uint8_t *)"\x05\x01", 2) != 0 && qsafp_cobs_decode(dec, &out, enc, 0) != 0);
}

int main(void)
{
    crc_of_the_standard_text();
    a_lease_over_frames_opens_the_gate();
    a_fail_safe_needs_the_same_frame_twice_within_a_second();
    a_repeated_event_is_recorded_once();
    a_workload_may_not_renew_stop_or_read_the_log();
    cut_and_garbled_frames_are_named_and_change_nothing();
    chunks_out_of_order_and_overlong_totals_are_refused();
    cobs_round_trips_and_refuses_zeros();
    return DONE("test_command");
}
