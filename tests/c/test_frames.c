/* SPDX-License-Identifier: Apache-2.0 */
/* Command frames at their edges: every opcode and length, who may send what, chunks, repeats, the log and the envelope in pieces. */
#include "device.h"

enum { OK = QSAFP_COMMAND_STATUS_OK, CONFIRM = QSAFP_COMMAND_STATUS_CONFIRM, BAD_LENGTH = QSAFP_COMMAND_STATUS_BAD_LENGTH,
       BAD_ARGUMENT = QSAFP_COMMAND_STATUS_BAD_ARGUMENT, BAD_OPCODE = QSAFP_COMMAND_STATUS_BAD_OPCODE };

static uint8_t frame[2048], token[QSAFP_RESPONSE_MAX];
static const int FIRST[M] = {0, 1, 2, 3};

typedef struct { bench_t *b; qsafp_command_t *c; } link_t;

static link_t link_to(bench_t *b)
{
    link_t l = {b, calloc(1, sizeof *l.c)};
    assert(l.c);
    l.c->q = &b->q;
    return l;
}

static void drop(link_t l) { free(l.c); free(l.b); }

static int send(link_t l, uint8_t tag, uint8_t op, const void *p, size_t n)
{
    frame[0] = tag, frame[1] = op, frame[2] = (uint8_t)n, frame[3] = (uint8_t)(n >> 8);
    if (n)
        memcpy(frame + 4, p, n);
    uint16_t crc = qsafp_crc16(frame, 4 + n);
    memcpy(frame + 4 + n, &crc, 2);
    qsafp_command(l.c, frame, n + 6);
    CHECK(l.c->out[0] == 0xA5 && l.c->out[1] == tag && (size_t)(l.c->out[3] | l.c->out[4] << 8) + 7 == l.c->out_len);
    return l.c->out[2];
}

static const uint8_t *answer(link_t l) { return l.c->out + 5; }
static size_t answer_len(link_t l) { return l.c->out_len - 7; }
static uint32_t u32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static uint64_t u64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }

static int worked;
static size_t work_len;
static int work(qsafp_command_t *c, const uint8_t *p, size_t n)
{
    worked++;
    work_len = n;
    c->out[c->out_len++] = n ? p[n - 1] : 0;
    return n % 2 ? BAD_ARGUMENT : OK;
}

static void each_opcode_is_served_to_whom_it_is_for(void)
{
    static const uint8_t zeros[10];
    for (unsigned op = 0; op < 256; op++) {
        link_t l = link_to(fresh());
        l.c->restricted = true;
        bool workloads = op == QSAFP_OPCODE_VERSION || op == QSAFP_OPCODE_STATUS || op == QSAFP_OPCODE_LOG_EVENT || op == QSAFP_OPCODE_WORKLOAD;
        CHECK((send(l, 1, (uint8_t)op, zeros, 1) == QSAFP_COMMAND_STATUS_NOT_ALLOWED) == !workloads);
        l.c->restricted = false;
        int status = send(l, 2, (uint8_t)op, zeros, 0);
        bool known = op <= QSAFP_OPCODE_FAILSAFE || op == QSAFP_OPCODE_LOG_EVENT;
        CHECK(known ? status == (op <= QSAFP_OPCODE_STATUS ? OK : BAD_LENGTH) : status == BAD_OPCODE);
        drop(l);
    }
}

static void payloads_of_another_length_are_refused(void)
{
    static const uint8_t zeros[QSAFP_FRAME_MAX];
    static const struct { uint8_t op; size_t min, max; } row[] = {
        {QSAFP_OPCODE_VERSION, 0, 0}, {QSAFP_OPCODE_STATUS, 0, 0}, {QSAFP_OPCODE_READ_LOG, 10, 10}, {QSAFP_OPCODE_FAILSAFE, 4, 4}, {QSAFP_OPCODE_LOG_EVENT, 6, 102},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        link_t l = link_to(fresh());
        for (size_t n = 0; n <= 120; n++)
            CHECK((send(l, 1, row[i].op, zeros, n) == BAD_LENGTH) == (n < row[i].min || n > row[i].max));
        drop(l);
    }
    static const struct { uint8_t sub; size_t min, max; } renew[] = {{0, 1, 1}, {1, 13, 13}, {2, 10, 1024}, {3, 1, 1}};
    for (size_t i = 0; i < 4; i++) {
        link_t l = link_to(fresh());
        for (size_t n = 1; n <= 20; n++) {
            uint8_t p[20] = {renew[i].sub};
            CHECK((send(l, 1, QSAFP_OPCODE_RENEW, p, n) == BAD_LENGTH) == (n < renew[i].min || n > renew[i].max));
        }
        drop(l);
    }
    link_t l = link_to(fresh());
    for (unsigned sub = 4; sub < 256; sub++)
        CHECK(send(l, 1, QSAFP_OPCODE_RENEW, &(uint8_t){(uint8_t)sub}, 1) == BAD_ARGUMENT);
    drop(l);
}

static void version_names_abi_suite_and_frame_size(void)
{
    static const uint8_t want[7] = {QSAFP_ABI, 0, 0, 0, QSAFP_SUITE_ED25519, 0x00, 0x04};
    link_t l = link_to(fresh());
    CHECK(send(l, 9, QSAFP_OPCODE_VERSION, 0, 0) == OK && answer_len(l) == 7 && memcmp(answer(l), want, 7) == 0);
    drop(l);
}

static void status_adds_log_enrolment_latch_and_who_said_no(void)
{
    link_t l = link_to(fresh());
    bench_t *b = l.b;
    CHECK(obtain(b) == 0 && qsafp_begin(&b->q) == 0);
    qsafp_info_t info;
    qsafp_trip(&b->q, QSAFP_REASON_BUS);
    CHECK(qsafp_service(&b->q) == 0 && qsafp_begin(&b->q) == 0);
    b->q.lease_denied = 1 << 5, b->q.pending.denied = 1 << 2;
    qsafp_info(&b->q, &info);
    CHECK(send(l, 1, QSAFP_OPCODE_STATUS, 0, 0) == OK && memcmp(answer(l), &info, sizeof info) == 0);
    const uint8_t *p = answer(l) + sizeof info;
    CHECK(u64(p) == b->q.log.next && u64(p + 8) == b->q.st.lease_tree.size && u64(p + 8) > 0 && memcmp(p + 16, b->q.cfg.ueid, 33) == 0);
    CHECK(memcmp(p + 49, b->q.log.log_id, 32) == 0 && memcmp(p + 81, b->q.log.head, 32) == 0 && u64(p + 113) == b->q.st.latch_seq && u64(p + 113) > 0);
    CHECK(memcmp(p + 121, b->q.st.latch_hash, 32) == 0 && u32(p + 153) == 1 && u64(p + 157) == b->d.now_ns && (p[165] | p[166] << 8) == (1 << 5 | 1 << 2));
    CHECK(answer_len(l) == sizeof info + 167);
    drop(l);
}

static void frames_are_taken_up_to_their_greatest_size_and_by_their_own_length(void)
{
    static uint8_t big[QSAFP_FRAME_MAX + 8];
    link_t l = link_to(fresh());
    l.c->workload = work;
    big[QSAFP_FRAME_MAX - 1] = 0x77;
    CHECK(send(l, 1, QSAFP_OPCODE_WORKLOAD, big, QSAFP_FRAME_MAX) == OK && work_len == QSAFP_FRAME_MAX && answer(l)[0] == 0x77);
    CHECK(send(l, 2, QSAFP_OPCODE_WORKLOAD, big, QSAFP_FRAME_MAX - 1) == BAD_ARGUMENT && answer(l)[0] == 0);
    worked = 0;
    for (size_t n = QSAFP_FRAME_MAX + 1; n < QSAFP_FRAME_MAX + 8; n++)
        CHECK(send(l, 3, QSAFP_OPCODE_WORKLOAD, big, n) == BAD_LENGTH);
    for (int off = -3; off <= 3; off++) { /* the length in the head is the length there is; the CRC is right */
        frame[0] = 4, frame[1] = QSAFP_OPCODE_WORKLOAD, frame[2] = (uint8_t)(10 + off), frame[3] = 0;
        uint16_t crc = qsafp_crc16(frame, 14);
        memcpy(frame + 14, &crc, 2);
        qsafp_command(l.c, frame, 16);
        CHECK((l.c->out[2] == BAD_LENGTH) == (off != 0));
    }
    CHECK(worked == 1);
    qsafp_command(l.c, frame, 0);
    CHECK(l.c->out[1] == 0 && l.c->out[2] == BAD_LENGTH);
    for (size_t n = 1; n < 6; n++) {
        uint8_t *cut = calloc(1, n); /* of its own length, so that a sanitizer sees a look past its end */
        assert(cut);
        cut[0] = 0x42;
        qsafp_command(l.c, cut, n);
        free(cut);
        CHECK(l.c->out[1] == 0x42 && l.c->out[2] == BAD_LENGTH && l.c->out_len == 7);
    }
    drop(l);
}

static void a_workload_reports_four_events_and_no_others(void)
{
    link_t l = link_to(fresh());
    for (unsigned e = 0; e < 300; e++) {
        uint8_t p[10] = {(uint8_t)e, (uint8_t)(e >> 8), 0x11, 0x22, 0x33, 0x44, 'd', 'a', 't', 'a'};
        uint64_t next = l.b->q.log.next;
        bool may = e == QSAFP_EVENT_INFERENCE_STARTED || e == QSAFP_EVENT_INFERENCE_COMPLETED || e == QSAFP_EVENT_ANOMALY || e == QSAFP_EVENT_WORKLOAD_REPORT;
        CHECK(send(l, 1, QSAFP_OPCODE_LOG_EVENT, p, sizeof p) == (may ? OK : BAD_ARGUMENT) && l.b->q.log.next == next + may);
        if (!may)
            continue;
        uint8_t raw[256];
        qsafp_record_t r;
        CHECK(qsafp_audit_read(&l.b->q.log, (uint32_t)next, raw) == 0 && qsafp_record_decode(&r, raw) == 0);
        CHECK(r.event == e && r.reason == 0x44332211 && r.flags == (8 | 1 | (r.seq % 16 == 15 ? 2 : 0)) && memcmp(r.data, "data\0\0", 6) == 0);
    }
    uint8_t whole[102] = {QSAFP_EVENT_WORKLOAD_REPORT}, raw[256];
    whole[101] = 0x5E;
    CHECK(send(l, 2, QSAFP_OPCODE_LOG_EVENT, whole, 102) == OK && qsafp_audit_read(&l.b->q.log, (uint32_t)l.b->q.log.next - 1, raw) == 0 && raw[112 + 95] == 0x5E);
    l.b->d.fail_at = l.b->d.calls + 1;
    CHECK(send(l, 3, QSAFP_OPCODE_LOG_EVENT, whole, 102) == QSAFP_COMMAND_STATUS_STORE_FAILED && l.b->q.latch == QSAFP_REASON_LOG_FULL);
    drop(l);
}

static void a_fail_safe_is_confirmed_by_the_same_frame_within_one_second(void)
{
    for (uint32_t reason = 0; reason < 300; reason++) {
        link_t l = link_to(fresh());
        bool may = reason == QSAFP_REASON_MANUAL || reason == QSAFP_REASON_BUS || reason == QSAFP_REASON_ANOMALY;
        CHECK(send(l, 1, QSAFP_OPCODE_FAILSAFE, &reason, 4) == (may ? CONFIRM : BAD_ARGUMENT));
        CHECK(send(l, 1, QSAFP_OPCODE_FAILSAFE, &reason, 4) == (may ? OK : BAD_ARGUMENT) && l.b->q.latch == (may ? reason : 0));
        CHECK(!may || l.b->q.st.latch == reason); /* on record before it is answered */
        CHECK(send(l, 1, QSAFP_OPCODE_FAILSAFE, &reason, 4) == (may ? CONFIRM : BAD_ARGUMENT)); /* the pair is used up */
        drop(l);
    }
    const uint32_t manual = QSAFP_REASON_MANUAL, bus = QSAFP_REASON_BUS;
    static const struct { uint64_t wait; int want; } row[] = {{0, OK}, {S - 1, OK}, {S, OK}, {S + 1, CONFIRM}, {UINT64_MAX, CONFIRM}};
    for (size_t i = 0; i < 5; i++) {
        link_t l = link_to(fresh());
        CHECK(send(l, 1, QSAFP_OPCODE_FAILSAFE, &manual, 4) == CONFIRM);
        l.b->d.now_ns += row[i].wait;
        CHECK(send(l, 1, QSAFP_OPCODE_FAILSAFE, &manual, 4) == row[i].want);
        drop(l);
    }
    link_t l = link_to(fresh());
    CHECK(send(l, 1, QSAFP_OPCODE_FAILSAFE, &manual, 4) == CONFIRM && send(l, 1, QSAFP_OPCODE_FAILSAFE, &bus, 4) == CONFIRM && !l.b->q.latch);
    CHECK(send(l, 2, QSAFP_OPCODE_FAILSAFE, &bus, 4) == CONFIRM && !l.b->q.latch);
    l.b->d.fail_at = l.b->d.calls + 3; /* both pins, then the record */
    CHECK(send(l, 2, QSAFP_OPCODE_FAILSAFE, &bus, 4) == QSAFP_COMMAND_STATUS_STORE_FAILED && l.b->q.latch == bus);
    drop(l);
}

static int read_part(link_t l, uint64_t old, uint32_t off)
{
    uint8_t p[13] = {1};
    memcpy(p + 1, &old, 8), memcpy(p + 9, &off, 4);
    return send(l, 5, QSAFP_OPCODE_RENEW, p, 13);
}

/* The envelope in pieces of at most 1000 bytes is the envelope. */
static void whole_envelope(link_t l, uint64_t old)
{
    static uint8_t want[QSAFP_RESPONSE_MAX + 4096], got[QSAFP_RESPONSE_MAX + 8192];
    size_t len = 0, have = 0, pieces = 0;
    CHECK(qsafp_envelope(&l.b->q, old, want, sizeof want, &len) == 0);
    while (have < len && pieces++ < 40) {
        CHECK(read_part(l, old, (uint32_t)have) == OK && u32(answer(l)) == len && answer_len(l) == 4 + (len - have < 1000 ? len - have : 1000));
        memcpy(got + have, answer(l) + 4, answer_len(l) - 4);
        have += answer_len(l) - 4;
    }
    CHECK(have == len && memcmp(got, want, len) == 0);
    CHECK(read_part(l, old, (uint32_t)len) == OK && answer_len(l) == 4);
    CHECK(read_part(l, old, (uint32_t)len + 1) == BAD_ARGUMENT && answer_len(l) == 0);
}

static int no_key(void *c, uint8_t sig[64], const uint8_t *m, size_t n) { (void)c; (void)sig; (void)m; (void)n; return QSAFP_E_KEY; }

static void the_envelope_is_read_in_pieces_for_any_old_size(void)
{
    uint8_t begin = 0;
    link_t l = link_to(fresh());
    CHECK(read_part(l, 0, 0) == QSAFP_COMMAND_STATUS_NO_REQUEST && answer_len(l) == 0);
    CHECK(send(l, 1, QSAFP_OPCODE_RENEW, &begin, 1) == OK && u32(answer(l)) == l.b->q.pending.request_len && u64(answer(l) + 4) == 1 && answer_len(l) == 12);
    CHECK(read_part(l, 1 << 20, 0) == BAD_ARGUMENT); /* what failed is not on hand */
    whole_envelope(l, 0);
    CHECK(qsafp_put(&l.b->q, token, lease_of(&l.b->q, FIRST, M, 0, token)) == 0);
    CHECK(send(l, 1, QSAFP_OPCODE_RENEW, &begin, 1) == OK && u64(answer(l) + 4) == 2);
    whole_envelope(l, 0); /* another request, the same old size: not the one read before */
    whole_envelope(l, QSAFP_OLD_DEFAULT);
    whole_envelope(l, 1);
    CHECK(read_part(l, 1 << 20, 0) == BAD_ARGUMENT && read_part(l, 1, 0) == OK); /* and an error leaves no half of one behind */
    whole_envelope(l, 1);
    whole_envelope(l, 0);
    l.b->d.now_ns += 30 * S;
    CHECK(read_part(l, 1, 0) == QSAFP_COMMAND_STATUS_NO_REQUEST);
    l.b->d.fail_at = l.b->d.calls + 1;
    CHECK(send(l, 1, QSAFP_OPCODE_RENEW, &begin, 1) == QSAFP_COMMAND_STATUS_STORE_FAILED && answer_len(l) == 0);
    qsafp_port_t mute = PORT;
    mute.sign = no_key;
    l.b->q.port = &mute;
    CHECK(send(l, 1, QSAFP_OPCODE_RENEW, &begin, 1) == QSAFP_COMMAND_STATUS_KEY_FAILED && answer_len(l) == 0);
    CHECK(read_part(l, 1, 0) == QSAFP_COMMAND_STATUS_NO_REQUEST && l.b->q.lease.serial == 1); /* the lease goes on */
    l.b->q.port = &PORT;
    CHECK(send(l, 1, QSAFP_OPCODE_RENEW, &begin, 1) == OK);
    drop(l);
}

static int put_part(link_t l, uint8_t tag, uint32_t off, uint32_t total, size_t n)
{
    static uint8_t p[QSAFP_FRAME_MAX];
    p[0] = 2;
    memcpy(p + 1, &off, 4), memcpy(p + 5, &total, 4), memcpy(p + 9, token + off % 512, n);
    return send(l, tag, QSAFP_OPCODE_RENEW, p, 9 + n);
}

static int finish(link_t l, uint8_t tag)
{
    uint8_t sub = 3;
    return send(l, tag, QSAFP_OPCODE_RENEW, &sub, 1);
}

static void chunks_follow_each_other_or_are_refused(void)
{
    static const struct { uint32_t off, total; size_t n; int want; } row[] = {
        {0, 100, 40, OK}, {40, 100, 20, OK}, {60, 101, 20, BAD_ARGUMENT}, {61, 100, 20, BAD_ARGUMENT}, {59, 100, 20, BAD_ARGUMENT}, {60, 100, 41, BAD_ARGUMENT}, {60, 100, 40, OK},
        {100, 100, 1, BAD_ARGUMENT}, {0, 0, 1, BAD_ARGUMENT}, {0, QSAFP_RESPONSE_MAX + 1, 10, BAD_ARGUMENT}, {0, QSAFP_RESPONSE_MAX, 10, OK}, {0, 5, 6, BAD_ARGUMENT}, {0, 6, 6, OK},
    };
    link_t l = link_to(fresh());
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        CHECK(put_part(l, (uint8_t)(10 + i), row[i].off, row[i].total, row[i].n) == row[i].want);
    CHECK(finish(l, 1) == QSAFP_COMMAND_STATUS_REFUSED && answer_len(l) == 1 && answer(l)[0] != 0);
    CHECK(finish(l, 2) == QSAFP_COMMAND_STATUS_INCOMPLETE && answer_len(l) == 0); /* taken once */
    CHECK(put_part(l, 3, 0, 100, 40) == OK && finish(l, 4) == QSAFP_COMMAND_STATUS_INCOMPLETE);
    CHECK(put_part(l, 5, 40, 100, 60) == OK && finish(l, 6) == QSAFP_COMMAND_STATUS_REFUSED);
    CHECK(put_part(l, 7, 0, 100, 40) == OK && put_part(l, 8, 0, 50, 50) == OK && finish(l, 9) == QSAFP_COMMAND_STATUS_REFUSED); /* a second start counts */
    uint8_t begin = 0;
    CHECK(put_part(l, 7, 0, 100, 40) == OK && send(l, 8, QSAFP_OPCODE_RENEW, &begin, 1) == OK && put_part(l, 9, 40, 100, 60) == BAD_ARGUMENT);
    CHECK(put_part(l, 9, 1, 100, 60) == BAD_ARGUMENT);
    drop(l);
}

static void a_lease_in_chunks_opens_and_its_repeats_are_answered_alike(void)
{
    link_t l = link_to(fresh());
    CHECK(qsafp_begin(&l.b->q) == 0);
    uint32_t len = (uint32_t)lease_of(&l.b->q, FIRST, M, 0, token);
    uint8_t p[9 + 400] = {2}, first[64];
    for (uint32_t off = 0; off < len; off += 400) {
        uint32_t n = len - off < 400 ? len - off : 400;
        memcpy(p + 1, &off, 4), memcpy(p + 5, &len, 4), memcpy(p + 9, token + off, n);
        CHECK(send(l, 20, QSAFP_OPCODE_RENEW, p, 9 + n) == OK && send(l, 20, QSAFP_OPCODE_RENEW, p, 9 + n) == OK); /* the answer got lost */
        CHECK(off == 0 || send(l, 21, QSAFP_OPCODE_RENEW, p, 9 + n) == BAD_ARGUMENT); /* another tag is another frame */
    }
    CHECK(finish(l, 22) == OK && answer_len(l) == 1 && answer(l)[0] == 0);
    memcpy(first, l.c->out, l.c->out_len);
    size_t n = l.c->out_len;
    CHECK(finish(l, 22) == OK && l.c->out_len == n && memcmp(first, l.c->out, n) == 0 && l.b->q.lease.serial == 1);
    (void)qsafp_tick(&l.b->q);
    CHECK(open_now(l.b));
    CHECK(finish(l, 23) == QSAFP_COMMAND_STATUS_INCOMPLETE);
    qsafp_command(l.c, frame, 3); /* a cut frame: nothing is remembered across it */
    CHECK(finish(l, 23) == QSAFP_COMMAND_STATUS_INCOMPLETE);
    drop(l);
}

static void only_what_must_not_happen_twice_is_answered_from_memory(void)
{
    uint8_t p[8] = {QSAFP_EVENT_WORKLOAD_REPORT}, begin = 0;
    link_t l = link_to(fresh());
    l.c->workload = work;
    worked = 0;
    CHECK(send(l, 1, QSAFP_OPCODE_WORKLOAD, p, 2) == OK && send(l, 1, QSAFP_OPCODE_WORKLOAD, p, 2) == OK && worked == 1);
    CHECK(send(l, 1, QSAFP_OPCODE_WORKLOAD, p, 4) == OK && worked == 2);
    CHECK(send(l, 2, QSAFP_OPCODE_WORKLOAD, p, 4) == OK && worked == 3);
    uint64_t next = l.b->q.log.next;
    CHECK(send(l, 3, QSAFP_OPCODE_LOG_EVENT, p, 6) == OK && send(l, 3, QSAFP_OPCODE_LOG_EVENT, p, 6) == OK && l.b->q.log.next == next + 1);
    p[5] = 1;
    CHECK(send(l, 3, QSAFP_OPCODE_LOG_EVENT, p, 6) == OK && l.b->q.log.next == next + 2);
    qsafp_command(l.c, frame, 3);
    CHECK(send(l, 3, QSAFP_OPCODE_LOG_EVENT, p, 6) == OK && l.b->q.log.next == next + 3); /* after a cut frame it is a new one */
    for (size_t n = 7; n <= 8; n++)
        CHECK(send(l, 3, QSAFP_OPCODE_LOG_EVENT, p, n) == OK && send(l, 3, QSAFP_OPCODE_LOG_EVENT, p, n) == OK && l.b->q.log.next == next + n - 3);
    CHECK(obtain(l.b) == 0 && send(l, 4, QSAFP_OPCODE_STATUS, 0, 0) == OK && u64(answer(l)) == 60 * S);
    l.b->d.now_ns += 5;
    CHECK(send(l, 4, QSAFP_OPCODE_STATUS, 0, 0) == OK && u64(answer(l)) == 60 * S - 5);
    CHECK(send(l, 5, QSAFP_OPCODE_RENEW, &begin, 1) == OK && u64(answer(l) + 4) == 2);
    l.b->d.now_ns += 31 * S;
    CHECK(send(l, 5, QSAFP_OPCODE_RENEW, &begin, 1) == OK && u64(answer(l) + 4) == 3); /* the first is no longer pending: asked again */
    drop(l);
}

static void the_log_is_read_three_records_at_a_time(void)
{
    link_t l = link_to(fresh());
    for (uint32_t i = 0; i < 1100; i++) {
        qsafp_record_t r = {.event = QSAFP_EVENT_WORKLOAD_REPORT, .reason = i};
        CHECK(qsafp_note(&l.b->q, &r) == 0);
    }
    const uint64_t first = l.b->q.log.first, next = l.b->q.log.next;
    CHECK(first > 0);
    const struct { uint64_t start; uint16_t count; size_t want; uint64_t from; } row[] = {
        {first, 0, 0, 0}, {first, 1, 1, first}, {first, 2, 2, first}, {first, 3, 3, first}, {first, 4, 3, first}, {first, 0xFFFF, 3, first}, {first, 0x0100, 3, first},
        {0, 2, 2, first}, {first - 1, 1, 1, first}, {first + 1, 1, 1, first + 1}, {next - 1, 3, 1, next - 1}, {next - 2, 3, 2, next - 2}, {next, 3, 0, 0},
        {next + 1, 3, 0, 0}, {first + ((uint64_t)1 << 32), 3, 0, 0}, {UINT64_MAX, 3, 0, 0},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        uint8_t p[10];
        memcpy(p, &row[i].start, 8), memcpy(p + 8, &row[i].count, 2);
        CHECK(send(l, 6, QSAFP_OPCODE_READ_LOG, p, 10) == OK && u64(answer(l)) == next && answer_len(l) == 8 + 256 * row[i].want);
        for (size_t k = 0; k < row[i].want; k++) {
            uint8_t rec[256];
            CHECK(qsafp_audit_read(&l.b->q.log, (uint32_t)(row[i].from + k), rec) == 0 && memcmp(rec, answer(l) + 8 + 256 * k, 256) == 0);
        }
    }
    uint8_t p[10] = {0};
    p[8] = 3;
    for (int at = 1; at <= 3; at++) {
        l.b->d.fail_at = l.b->d.calls + at;
        CHECK(send(l, 7, QSAFP_OPCODE_READ_LOG, p, 10) == QSAFP_COMMAND_STATUS_STORE_FAILED);
    }
    drop(l);
}

static void stuffed_bytes_are_refused_where_a_run_is_wrong(void)
{
    static const struct { const char *p; size_t n; int want; } row[] = {
        {"", 0, QSAFP_E_MALFORMED}, {"\x00", 1, QSAFP_E_MALFORMED}, {"\x01\x00", 2, QSAFP_E_MALFORMED}, {"\x02\x00", 2, QSAFP_E_MALFORMED}, {"\x02", 1, QSAFP_E_MALFORMED},
        {"\x03\x01\x01", 2, QSAFP_E_MALFORMED}, {"\x01", 1, 0}, {"\x02\x07", 2, 0}, {"\x01\x01", 2, 0}, {"\x02\x07\x01", 3, 0}, {"\x02\x07\x02", 3, QSAFP_E_MALFORMED},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        uint8_t out[8];
        size_t len = 0;
        CHECK(qsafp_cobs_decode(out, &len, (const uint8_t *)row[i].p, row[i].n) == row[i].want);
        CHECK(row[i].want || len == row[i].n - 1);
    }
    uint8_t in[600], enc[700], out[700];
    for (size_t k = 500; k < 1040; k++) { /* around the runs of 254, a zero or none at the end */
        size_t len = 0, n = k / 2;
        memset(in, 0x55, n);
        in[n - 1] = (uint8_t)(k % 2);
        size_t e = qsafp_cobs_encode(enc, in, n);
        CHECK(qsafp_cobs_decode(out, &len, enc, e) == 0 && len == n && memcmp(in, out, n) == 0);
    }
}

int main(void)
{
    stuffed_bytes_are_refused_where_a_run_is_wrong();
    each_opcode_is_served_to_whom_it_is_for();
    payloads_of_another_length_are_refused();
    version_names_abi_suite_and_frame_size();
    status_adds_log_enrolment_latch_and_who_said_no();
    frames_are_taken_up_to_their_greatest_size_and_by_their_own_length();
    a_workload_reports_four_events_and_no_others();
    a_fail_safe_is_confirmed_by_the_same_frame_within_one_second();
    the_envelope_is_read_in_pieces_for_any_old_size();
    chunks_follow_each_other_or_are_refused();
    a_lease_in_chunks_opens_and_its_repeats_are_answered_alike();
    only_what_must_not_happen_twice_is_answered_from_memory();
    the_log_is_read_three_records_at_a_time();
    return DONE("test_frames");
}
