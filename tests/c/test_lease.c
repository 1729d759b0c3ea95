/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine on sunny days: obtain, renew, expire, deny, release, reboot. */
#include "device.h"

static uint8_t token[QSAFP_RESPONSE_MAX];

static void run_until(bench_t *b, uint64_t to)
{
    while (b->d.now_ns < to) {
        uint64_t next = qsafp_tick(&b->q);
        b->d.now_ns = next < to ? next : to;
    }
    (void)qsafp_tick(&b->q);
}

static qsafp_info_t info(bench_t *b)
{
    qsafp_info_t i;
    qsafp_info(&b->q, &i);
    return i;
}

static void I1_gate_opens_with_a_lease_and_closes_at_its_end(void)
{
    bench_t *b = fresh();
    CHECK(!open_now(b) && info(b).status == QSAFP_STATUS_UNINITIALIZED && !b->d.valid);
    int kicks = b->d.kicks;
    CHECK(obtain(b) == 0 && b->d.kicks == kicks + 1); /* the deadline's thread opens it at once, not at its next tick */
    CHECK(open_now(b) && b->d.valid == 1 && info(b).status == QSAFP_STATUS_VALID && info(b).phase == QSAFP_PHASE_ACTIVE);
    run_until(b, 100 * S + 51 * S);
    CHECK(open_now(b) && info(b).phase == QSAFP_PHASE_WARNING);
    run_until(b, 160 * S - 1);
    CHECK(open_now(b) == false || b->page.deadline_ns == 160 * S);
    b->d.now_ns = 160 * S;
    CHECK(!open_now(b)); /* exactly at the deadline, before any tick */
    (void)qsafp_tick(&b->q);
    CHECK(!b->d.valid && info(b).phase == QSAFP_PHASE_GRACE && b->page.status == QSAFP_STATUS_EXPIRED);
    CHECK(qsafp_service(&b->q) == 0 && !b->d.failsafe);
    run_until(b, 165 * S);
    CHECK(b->d.failsafe && info(b).phase == QSAFP_PHASE_FAILSAFE && info(b).reason == QSAFP_REASON_NETWORK_TIMEOUT);
    free(b);
}

static void renewal_extends_and_grace_resumes(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0);
    run_until(b, 130 * S);
    CHECK(obtain(b) == 0 && info(b).renewals == 1 && info(b).serial == 2);
    run_until(b, 189 * S);
    CHECK(open_now(b) && b->d.valid);
    run_until(b, 192 * S);
    CHECK(!open_now(b) && info(b).phase == QSAFP_PHASE_GRACE);
    CHECK(obtain(b) == 0 && open_now(b) && b->d.valid);
    free(b);
}

static void I4_stale_guard_closes_the_gate(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0 && open_now(b));
    b->d.now_ns += S;
    CHECK(!open_now(b)); /* no tick for stale_after: a dead guard */
    b->d.now_ns -= 50 * S;
    CHECK(!open_now(b)); /* a clock that went back is no reprieve */
    free(b);
}

static void three_denials_close_and_two_do_not(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(open_now(b) && b->d.valid);
        CHECK(qsafp_put(&b->q, token, refusal_of(&b->q, i, b->q.lease_request_hash, QSAFP_REFUSAL_POLICY, token)) == 0);
        const uint64_t next = b->q.log.next;
        CHECK(qsafp_put(&b->q, token, refusal_of(&b->q, i, b->q.lease_request_hash, QSAFP_REFUSAL_POLICY, token)) == 0);
        CHECK(b->q.log.next == next); /* said before: no second record */
    }
    CHECK(!open_now(b) && !b->d.valid && b->d.failsafe && info(b).reason == QSAFP_REASON_VALIDATOR_DENIED && info(b).status == QSAFP_STATUS_DENIED);
    free(b);
}

static void revocations_close_at_once_and_old_serials_do_not(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0 && obtain(b) == 0);
    CHECK(qsafp_put(&b->q, token, revocation_of(&b->q, 5, 1, token)) == QSAFP_E_STALE);
    for (int i = 0; i < 3; i++)
        CHECK(qsafp_put(&b->q, token, revocation_of(&b->q, i, 2, token)) == 0);
    CHECK(!open_now(b) && b->d.failsafe);
    free(b);
}

static void retries_decide_nothing(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0);
    for (int i = 0; i < N; i++)
        CHECK(qsafp_put(&b->q, token, refusal_of(&b->q, i, b->q.lease_request_hash, QSAFP_REFUSAL_RATE, token)) == 0);
    CHECK(open_now(b) && b->d.valid && !b->d.failsafe);
    free(b);
}

static void I5_a_latch_is_released_only_by_the_lease_that_answers_it(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0);
    CHECK(qsafp_begin(&b->q) == 0); /* made before the fail-safe */
    static const int who[M] = {0, 1, 2, 3};
    size_t len = lease_of(&b->q, who, M, 0, token);
    qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
    CHECK(!open_now(b) && !b->d.valid && b->d.failsafe);
    CHECK(qsafp_put(&b->q, token, len) == QSAFP_E_LATCHED);
    CHECK(!open_now(b));
    CHECK(qsafp_service(&b->q) == 0);
    CHECK(obtain(b) == 0 && open_now(b) && b->d.valid && !b->d.failsafe && b->q.st.latch == 0);
    free(b);
}

static void I5_a_latch_survives_reboot(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0);
    qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
    CHECK(qsafp_service(&b->q) == 0);
    wire(b);
    CHECK(qsafp_init(&b->q) == 0);
    (void)qsafp_tick(&b->q);
    CHECK(info(b).phase == QSAFP_PHASE_FAILSAFE && b->d.failsafe && !open_now(b) && b->q.st.boot == 2);
    CHECK(obtain(b) == 0 && open_now(b));
    free(b);
}

static void reboot_ends_the_lease(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0 && open_now(b));
    wire(b);
    CHECK(qsafp_init(&b->q) == 0);
    (void)qsafp_tick(&b->q);
    CHECK(!open_now(b) && !b->d.valid);
    CHECK(obtain(b) == 0 && b->q.lease.serial == 2);
    free(b);
}

static void I6_a_second_begin_returns_the_pending_request(void)
{
    bench_t *b = fresh();
    CHECK(qsafp_begin(&b->q) == 0);
    uint64_t serial = b->q.pending.claims.serial;
    CHECK(b->d.saves >= 2 && b->d.syncs >= 1 && b->q.st.serial == serial);
    CHECK(qsafp_begin(&b->q) == 0 && b->q.pending.claims.serial == serial);
    b->d.now_ns += 31 * S; /* half its duration */
    CHECK(qsafp_begin(&b->q) == 0 && b->q.pending.claims.serial == serial + 1);
    free(b);
}

static void a_request_that_too_many_denied_is_given_up(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0);
    qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
    CHECK(qsafp_begin(&b->q) == 0);
    uint64_t serial = b->q.pending.claims.serial;
    for (int i = 0; i < 3; i++) {
        CHECK(qsafp_begin(&b->q) == 0 && b->q.pending.claims.serial == serial);
        CHECK(qsafp_put(&b->q, token, refusal_of(&b->q, i, b->q.pending.request_hash, QSAFP_REFUSAL_REVOKED, token)) == 0);
    }
    CHECK(qsafp_begin(&b->q) == 0 && b->q.pending.claims.serial == serial + 1);
    free(b);
}

static void request_and_lease_fit_their_sizes(void)
{
    static const int who[M] = {0, 1, 2, 3};
    uint8_t env[8192];
    size_t len = 0;
    bench_t *b = fresh();
    CHECK(obtain(b) == 0 && qsafp_begin(&b->q) == 0);
    printf("request %zu B, lease of four %zu B\n", b->q.pending.request_len, lease_of(&b->q, who, M, 0, token));
    CHECK(b->q.pending.request_len <= 512 && lease_of(&b->q, who, M, 0, token) <= 640);
    CHECK(qsafp_envelope(&b->q, QSAFP_OLD_DEFAULT, env, sizeof env, &len) == 0 && len <= 4096);
    CHECK(qsafp_envelope(&b->q, 0, env, sizeof env, &len) == 0);
    CHECK(qsafp_envelope(&b->q, b->q.pending.claims.log_size + 1, env, sizeof env, &len) == QSAFP_E_RANGE);
    free(b);
}

static void I7_lease_time_counts_from_before_the_nonce(void)
{
    bench_t *b = fresh();
    b->d.entropy_takes_ns = 7 * S;
    CHECK(obtain(b) == 0 && info(b).remaining_ns == 53 * S);
    free(b);
}

int main(void)
{
    I7_lease_time_counts_from_before_the_nonce();
    I1_gate_opens_with_a_lease_and_closes_at_its_end();
    renewal_extends_and_grace_resumes();
    I4_stale_guard_closes_the_gate();
    three_denials_close_and_two_do_not();
    revocations_close_at_once_and_old_serials_do_not();
    retries_decide_nothing();
    I5_a_latch_is_released_only_by_the_lease_that_answers_it();
    I5_a_latch_survives_reboot();
    reboot_ends_the_lease();
    I6_a_second_begin_returns_the_pending_request();
    a_request_that_too_many_denied_is_given_up();
    request_and_lease_fit_their_sizes();
    return DONE("test_lease");
}
