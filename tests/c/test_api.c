/* SPDX-License-Identifier: Apache-2.0 */
/* The names of the hardware integration spec over the core (HW-17). */
#include "device.h"
#include "qsafp_api.h"

static uint8_t buffer[QSAFP_RESPONSE_MAX];
typedef struct { bench_t *b; size_t sent; uint32_t timeout; int fail; } peer_t;

static int peer_send(void *ctx, const uint8_t *request, size_t len)
{
    peer_t *p = ctx;
    p->sent = request == buffer ? len : 0;
    return p->fail;
}

/* A relay that collects the quorum on its own: the answer is a whole lease. */
static int peer_exchange(void *ctx, qsafp_bytes request, uint32_t timeout_ms, uint8_t *answer, size_t cap, size_t *len)
{
    static const int who[] = {0, 1, 2, 3};
    peer_t *p = ctx;
    CHECK(request.len > 400 && cap == sizeof buffer);
    p->timeout = timeout_ms;
    *len = lease_of(&p->b->q, who, 4, 0, answer);
    return p->fail;
}

static qsafp_network_t network(peer_t *p)
{
    return (qsafp_network_t){peer_send, peer_exchange, p, buffer, sizeof buffer};
}

static void a_synchronous_query_opens_and_validate_says_so(void)
{
    bench_t *b = fresh();
    peer_t p = {.b = b};
    qsafp_network_t net = network(&p);
    qsafp_lease_info_t i;
    CHECK(qsafp_validate_lease(&b->q) == QSAFP_STATUS_UNINITIALIZED);
    qsafp_get_lease_info(&b->q, &i);
    CHECK(i.expires_ns == 0 && i.total == 6 && i.approvals == 0);
    CHECK(qsafp_request_lease_renewal(&b->q, &net) == 0 && p.sent > 400);
    CHECK(qsafp_validate_lease(&b->q) != QSAFP_STATUS_VALID); /* asking opens nothing */
    CHECK(qsafp_query_validator_sync(&b->q, &net, 250) == 0 && p.timeout == 250);
    CHECK(qsafp_check_lease_expiry(&b->q) > 0 && b->d.valid); /* the timer moves the deadline and drives the pin */
    CHECK(qsafp_validate_lease(&b->q) == QSAFP_STATUS_VALID);
    qsafp_get_lease_info(&b->q, &i);
    CHECK(i.issued_ns == 100 * S && i.expires_ns == 160 * S && i.remaining_ns == 60 * S && i.approvals == 4 && i.renewals == 0);
    free(b);
}

static void validate_is_expired_at_the_deadline_before_any_timer(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0 && qsafp_validate_lease(&b->q) == QSAFP_STATUS_VALID);
    b->d.now_ns += 60 * S;
    CHECK(b->page.status == QSAFP_STATUS_VALID && qsafp_validate_lease(&b->q) == QSAFP_STATUS_EXPIRED);
    free(b);
}

static void a_triggered_failsafe_closes_before_it_returns(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0);
    qsafp_trigger_failsafe(&b->q, QSAFP_REASON_MANUAL);
    CHECK(qsafp_validate_lease(&b->q) != QSAFP_STATUS_VALID && !b->d.valid && b->d.failsafe);
    free(b);
}

static void events_are_logged_read_and_verified(void)
{
    bench_t *b = fresh();
    uint8_t recs[8][QSAFP_RECORD_BYTES], data[97] = "12 images";
    uint32_t count = 99;
    uint64_t bad = 99, next = b->q.log.next;
    CHECK(qsafp_log_event(&b->q, QSAFP_EVENT_INFERENCE_COMPLETED, data, 9) == 0 && b->q.log.next == next + 1);
    CHECK(qsafp_log_event(&b->q, QSAFP_EVENT_INFERENCE_COMPLETED, data, sizeof data) == QSAFP_E_TOO_LARGE && b->q.log.next == next + 1);
    CHECK(qsafp_retrieve_audit_log(&b->q, next, 8, recs, &count) == 0 && count == 1 && memcmp(recs[0] + 112, data, 9) == 0);
    CHECK(qsafp_retrieve_audit_log(&b->q, 0, 2, recs, &count) == 0 && count == 2);
    CHECK(qsafp_retrieve_audit_log(&b->q, next + 1, 8, recs, &count) == 0 && count == 0);
    CHECK(qsafp_verify_audit_chain(&b->q, 0, next + 1, &bad) == 0);
    CHECK(qsafp_verify_audit_chain(&b->q, next, next + 1, &bad) == 0);
    CHECK(qsafp_verify_audit_chain(&b->q, 0, next + 2, &bad) == QSAFP_E_RANGE);
    CHECK(qsafp_verify_audit_chain(&b->q, 2, 1, &bad) == QSAFP_E_RANGE);
    b->d.log[256 + 120] ^= 1;
    CHECK(qsafp_verify_audit_chain(&b->q, 0, next + 1, &bad) == QSAFP_E_CORRUPT && bad == 1);
    CHECK(qsafp_verify_audit_chain(&b->q, 1, next + 1, &bad) == QSAFP_E_CORRUPT && bad == 1);
    CHECK(qsafp_verify_audit_chain(&b->q, 2, next + 1, &bad) == 0); /* the link from record 1 stands on its stored hash */
    free(b);
}

static void a_network_that_fails_says_so_and_changes_nothing(void)
{
    bench_t *b = fresh();
    peer_t p = {.b = b, .fail = QSAFP_E_BUSY};
    qsafp_network_t net = network(&p);
    CHECK(qsafp_request_lease_renewal(&b->q, &net) == QSAFP_E_BUSY);
    CHECK(qsafp_query_validator_sync(&b->q, &net, 1) == QSAFP_E_BUSY && !open_now(b));
    net.cap = 100;
    CHECK(qsafp_request_lease_renewal(&b->q, &net) != 0);
    free(b);
}

int main(void)
{
    a_synchronous_query_opens_and_validate_says_so();
    validate_is_expired_at_the_deadline_before_any_timer();
    a_triggered_failsafe_closes_before_it_returns();
    events_are_logged_read_and_verified();
    a_network_that_fails_says_so_and_changes_nothing();
    return DONE("test_api");
}
