/* SPDX-License-Identifier: Apache-2.0 */
/* The fault twin of test_lease.c: forged, duplicate and foreign votes, every port call failed in turn, every bit flipped. */
#include "device.h"

static uint8_t token[QSAFP_RESPONSE_MAX];
static const int FIRST[M] = {0, 1, 2, 3};

static int put_by(bench_t *b, const int *who, size_t n, unsigned forge)
{
    return qsafp_put(&b->q, token, lease_of(&b->q, who, n, forge, token));
}

static void I2_too_few_too_many_and_duplicate_votes_open_nothing(void)
{
    static const struct { int who[6]; size_t n; int want; } row[] = {
        {{0, 1, 2}, 3, QSAFP_E_TOO_FEW},
        {{0, 1, 2, 3, 4}, 5, QSAFP_E_NOT_CANONICAL},
        {{0, 1, 1, 2}, 4, QSAFP_E_DUPLICATE_SIGNER},
        {{3, 2, 1, 0}, 4, QSAFP_E_DUPLICATE_SIGNER},
        {{0, 0, 0, 0}, 4, QSAFP_E_DUPLICATE_SIGNER},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        bench_t *b = fresh();
        CHECK(qsafp_begin(&b->q) == 0);
        CHECK(put_by(b, row[i].who, row[i].n, 0) == row[i].want);
        (void)qsafp_tick(&b->q);
        CHECK(!open_now(b) && !b->d.valid);
        free(b);
    }
}

static void a_foreign_signer_opens_nothing(void)
{
    bench_t *b = fresh();
    CHECK(qsafp_begin(&b->q) == 0);
    size_t len = lease_of(&b->q, FIRST, M, 0, token);
    b->q.set.kid[2 * 2][0] ^= 1;
    CHECK(qsafp_put(&b->q, token, len) == QSAFP_E_UNKNOWN_SIGNER && !open_now(b));
    free(b);
}

static void one_forged_vote_leaves_a_record_and_the_others_can_still_agree(void)
{
    static const int others[M] = {0, 1, 3, 4};
    bench_t *b = fresh();
    CHECK(qsafp_begin(&b->q) == 0);
    uint64_t before = b->q.log.next;
    CHECK(put_by(b, FIRST, M, 1u << 2) == QSAFP_E_BAD_SIGNATURE && b->q.log.next == before + 1 && !open_now(b));
    CHECK(put_by(b, FIRST, M, 0) == QSAFP_E_BAD_SIGNATURE); /* its vote is spent for this request */
    CHECK(put_by(b, others, M, 0) == 0);
    (void)qsafp_tick(&b->q);
    CHECK(open_now(b) && b->q.latch == 0);
    free(b);
}

static void three_forged_votes_latch_invalid_signatures(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0 && qsafp_begin(&b->q) == 0);
    CHECK(put_by(b, FIRST, M, 1 | 2) == QSAFP_E_BAD_SIGNATURE && open_now(b));
    CHECK(put_by(b, FIRST, M, 4) == QSAFP_E_BAD_SIGNATURE);
    CHECK(!open_now(b) && b->q.latch == QSAFP_REASON_INVALID_SIGNATURES && !b->d.valid);
    free(b);
}

static void I2_a_replayed_or_foreign_lease_opens_nothing(void)
{
    bench_t *b = fresh();
    CHECK(qsafp_begin(&b->q) == 0);
    size_t len = lease_of(&b->q, FIRST, M, 0, token);
    uint8_t *old = malloc(len);
    assert(old);
    memcpy(old, token, len);
    CHECK(qsafp_put(&b->q, old, len) == 0);
    CHECK(qsafp_put(&b->q, old, len) == QSAFP_E_NO_REQUEST);
    CHECK(qsafp_begin(&b->q) == 0);
    CHECK(qsafp_put(&b->q, old, len) == QSAFP_E_MISMATCH);
    free(old);
    free(b);
}

static void a_late_lease_opens_nothing(void)
{
    bench_t *b = fresh();
    CHECK(qsafp_begin(&b->q) == 0);
    size_t len = lease_of(&b->q, FIRST, M, 0, token);
    b->d.now_ns += 30 * S;
    CHECK(qsafp_put(&b->q, token, len) == QSAFP_E_NO_REQUEST && !open_now(b));
    free(b);
}

static void I3_a_fail_safe_between_request_and_lease_wins(void)
{
    static const qsafp_reason_t why[] = {QSAFP_REASON_MANUAL, QSAFP_REASON_ANOMALY, QSAFP_REASON_BUS, QSAFP_REASON_TAMPER};
    for (size_t i = 0; i < 4; i++) {
        bench_t *b = fresh();
        CHECK(obtain(b) == 0 && qsafp_begin(&b->q) == 0);
        size_t len = lease_of(&b->q, FIRST, M, 0, token);
        qsafp_trip(&b->q, why[i]);
        CHECK(qsafp_put(&b->q, token, len) == QSAFP_E_LATCHED);
        (void)qsafp_tick(&b->q);
        CHECK(!open_now(b) && !b->d.valid && b->d.failsafe && b->q.latch == (uint32_t)why[i]);
        free(b);
    }
}

static void saying_yes_and_no_counts_as_no(void)
{
    bench_t *b = fresh();
    CHECK(qsafp_begin(&b->q) == 0);
    CHECK(qsafp_put(&b->q, token, refusal_of(&b->q, 1, b->q.pending.request_hash, QSAFP_REFUSAL_POLICY, token)) == 0);
    CHECK(put_by(b, FIRST, M, 0) == QSAFP_E_BAD_SIGNATURE && !open_now(b));
    static const int others[M] = {0, 2, 3, 4};
    CHECK(put_by(b, others, M, 0) == 0);
    CHECK(b->q.lease_denied == 2); /* the no goes on counting against the lease */
    free(b);
}

static void a_repeated_stop_is_only_counted_and_a_stronger_one_takes_over(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0);
    qsafp_trip(&b->q, QSAFP_REASON_BUS);
    uint32_t g = b->q.generation;
    qsafp_trip(&b->q, QSAFP_REASON_LEASE_EXPIRED);
    CHECK(b->q.generation == g && b->q.latch == QSAFP_REASON_BUS);
    qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
    CHECK(b->q.generation == g + 1 && b->q.latch == QSAFP_REASON_MANUAL);
    free(b);
}

static void forged_refusals_stop_nothing(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0);
    for (int i = 0; i < N; i++) {
        size_t len = refusal_of(&b->q, i, b->q.lease_request_hash, QSAFP_REFUSAL_REVOKED, token);
        token[len - 60] ^= 4;
        CHECK(qsafp_put(&b->q, token, len) == QSAFP_E_BAD_SIGNATURE);
    }
    CHECK(open_now(b) && b->d.valid && !b->q.latch);
    free(b);
}

static void I2_every_flipped_bit_of_a_lease_is_refused(void)
{
    bench_t *b = fresh();
    CHECK(qsafp_begin(&b->q) == 0);
    size_t len = lease_of(&b->q, FIRST, M, 0, token), opened = 0;
    qsafp_pending_t saved = b->q.pending;
    for (size_t i = 0; i < len * 8; i++) {
        token[i / 8] ^= (uint8_t)(1u << i % 8);
        opened += qsafp_put(&b->q, token, len) == 0;
        token[i / 8] ^= (uint8_t)(1u << i % 8);
        b->q.pending = saved; /* each flip meets a fresh vote count */
    }
    CHECK(opened == 0 && !open_now(b));
    CHECK(b->q.latch == 0);
    free(b);
    b = fresh(); /* the same device once more: the untouched one opens */
    CHECK(qsafp_begin(&b->q) == 0 && qsafp_put(&b->q, token, len) == 0);
    free(b);
}

static void every_prefix_and_every_extension_is_refused(void)
{
    bench_t *b = fresh();
    CHECK(qsafp_begin(&b->q) == 0);
    size_t len = lease_of(&b->q, FIRST, M, 0, token), opened = 0;
    for (size_t n = 0; n < len; n++)
        opened += qsafp_put(&b->q, token, n) == 0;
    token[len] = 0;
    opened += qsafp_put(&b->q, token, len + 1) == 0;
    CHECK(opened == 0 && qsafp_put(&b->q, token, QSAFP_RESPONSE_MAX + 1) == QSAFP_E_TOO_LARGE);
    free(b);
}

/* I4: whichever port call fails, once, the end of the story is a line that is low when it must be. */
static void I4_each_port_call_failed_in_turn_never_leaves_the_line_high(void)
{
    int total = 0;
    for (int n = 0; n <= total; n++) {
        bench_t *b = fresh();
        b->d.fail_at = n;
        (void)obtain(b);
        qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
        int err = qsafp_service(&b->q);
        if (n == 0) {
            total = b->d.calls;
            CHECK(total == 22); /* the count is part of the test */
            CHECK(err == 0);
        }
        (void)qsafp_tick(&b->q);
        CHECK(!open_now(b) && b->d.valid == 0 && b->d.failsafe == 1);
        free(b);
    }
}

static bool log_holds(const bench_t *b, int event)
{
    bool found = false;
    for (size_t at = 0; at < sizeof b->d.log; at += QSAFP_RECORD_BYTES)
        found = found || (b->d.log[at] == 'Q' && (b->d.log[at + 4] | b->d.log[at + 5] << 8) == event);
    return found;
}

/* I5: power goes at any write of a stop that people must release, the first or one after a weaker stop; what the log knows of is latched
 * after the reboot, and answered by its own record. */
static void I5_a_cut_at_any_write_of_a_stop_keeps_its_latch(void)
{
    for (int later = 0; later < 2; later++) {
        int total = 1;
        for (int n = 1; n <= total + 1; n++) {
            bench_t *b = fresh();
            CHECK(obtain(b) == 0);
            if (later) {
                qsafp_trip(&b->q, QSAFP_REASON_BUS);
                CHECK(qsafp_service(&b->q) == 0);
            }
            qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
            int before = b->d.calls;
            b->d.fail_at = before + n;
            int err = qsafp_service(&b->q);
            total = err ? n : total; /* one run more than calls */
            b->d.fail_at = 0;
            bool known = log_holds(b, QSAFP_EVENT_FAILSAFE_TRIGGERED);
            wire(b);
            CHECK(qsafp_init(&b->q) == 0);
            CHECK(b->q.latch == (n > 1 ? QSAFP_REASON_MANUAL : later ? QSAFP_REASON_BUS : QSAFP_REASON_NONE) && (n > 1 || known == later));
            qsafp_record_t r;
            uint8_t raw[256];
            if (b->q.latch) {
                CHECK(qsafp_service(&b->q) == 0 && qsafp_audit_read(&b->q.log, (uint32_t)b->q.st.latch_seq, raw) == 0);
                CHECK(qsafp_record_decode(&r, raw) == 0 && r.event == QSAFP_EVENT_FAILSAFE_TRIGGERED && r.reason == b->q.latch);
            }
            free(b);
        }
        CHECK(total == 6);
    }
}

static void a_log_that_cannot_be_written_closes_the_gate(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0 && open_now(b));
    b->d.fail_at = b->d.calls + 1;
    qsafp_record_t r = {.event = QSAFP_EVENT_ANOMALY};
    CHECK(qsafp_note(&b->q, &r) != 0);
    CHECK(!open_now(b) && b->q.latch == QSAFP_REASON_LOG_FULL && !b->d.valid);
    free(b);
}

static void I5_a_latch_whose_record_finds_no_place_is_kept_and_saved_once(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0 && open_now(b));
    int saves = b->d.saves, latched = 0;
    qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
    b->d.fail_at = b->d.calls + 2; /* behind the state */
    for (int i = 0; i < 100; i++)
        latched += qsafp_service(&b->q) != 0 && b->q.latch == QSAFP_REASON_MANUAL;
    CHECK(latched == 100 && !open_now(b) && b->d.saves == saves + 1);
    qsafp_state_t kept;
    memcpy(&kept, b->d.state, sizeof kept);
    CHECK(kept.latch == QSAFP_REASON_MANUAL);
    free(b);
}

static void corrupted_state_does_not_start(void)
{
    size_t started = 0;
    bench_t *b = fresh();
    for (size_t i = 0; i < sizeof b->d.state; i += 7) {
        b->d.state[i] ^= 0x10;
        wire(b);
        started += qsafp_init(&b->q) == 0;
        b->d.state[i] ^= 0x10;
    }
    CHECK(started == 0);
    free(b);
}

static void no_entropy_no_request(void)
{
    bench_t *b = fresh();
    b->d.fail_at = b->d.calls + 1;
    CHECK(qsafp_begin(&b->q) == QSAFP_E_ENTROPY && !b->q.pending.active && b->q.st.serial == 0);
    free(b);
}

int main(void)
{
    I2_too_few_too_many_and_duplicate_votes_open_nothing();
    a_foreign_signer_opens_nothing();
    one_forged_vote_leaves_a_record_and_the_others_can_still_agree();
    three_forged_votes_latch_invalid_signatures();
    I2_a_replayed_or_foreign_lease_opens_nothing();
    a_late_lease_opens_nothing();
    I3_a_fail_safe_between_request_and_lease_wins();
    saying_yes_and_no_counts_as_no();
    a_repeated_stop_is_only_counted_and_a_stronger_one_takes_over();
    forged_refusals_stop_nothing();
    I2_every_flipped_bit_of_a_lease_is_refused();
    every_prefix_and_every_extension_is_refused();
    I4_each_port_call_failed_in_turn_never_leaves_the_line_high();
    I5_a_cut_at_any_write_of_a_stop_keeps_its_latch();
    a_log_that_cannot_be_written_closes_the_gate();
    I5_a_latch_whose_record_finds_no_place_is_kept_and_saved_once();
    corrupted_state_does_not_start();
    no_entropy_no_request();
    return DONE("test_lease_fault");
}
