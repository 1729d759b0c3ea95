/* SPDX-License-Identifier: Apache-2.0 */
/* The core under the names of the hardware integration spec (HW-17), for programs that hold a core of their own: firmware, tests,
 * embedding.  Such a program polices itself; under an OS, link qsafp_gate.h and let a guard hold the core.
 * qsafp_init and qsafp_deinit are those of qsafp.h: hardware id, lease seconds, timer and storage stand in cfg and the port,
 * validators, threshold and total in the set document. */
#ifndef QSAFP_API_H
#define QSAFP_API_H

#include "qsafp.h"

typedef struct {
    uint8_t id[16];
    uint64_t issued_ns, expires_ns, remaining_ns;   /* boot time; all 0 without a lease */
    uint8_t approvals, total;
    uint32_t renewals;
} qsafp_lease_info_t;

/* How a request leaves and an answer comes: the host's network, never the core's.  Both get ctx first and return 0 or a negative status. */
typedef struct {
    int (*send)(void *ctx, const uint8_t *request, size_t len);                 /* returns at once; answers go to qsafp_put */
    /* Sends, waits at most timeout_ms for one answer, fills *answer_len of at most cap bytes. */
    int (*exchange)(void *ctx, qsafp_bytes request, uint32_t timeout_ms, uint8_t *answer, size_t cap, size_t *answer_len);
    void *ctx;
    uint8_t *buf; size_t cap;                                                   /* room for one envelope, then one answer */
} qsafp_network_t;

/* HW-5.  Status now: the page decides, by the clock; any thread.  Never VALID with a closed gate. */
static inline qsafp_status_t qsafp_validate_lease(const qsafp_t *q)
{
    if (qsafp_gate_check_ns(q->page, q->port->now_ns(q->ctx)))
        return QSAFP_STATUS_VALID;
    uint32_t status = __atomic_load_n(&q->page->status, __ATOMIC_ACQUIRE);
    return status == QSAFP_STATUS_VALID ? QSAFP_STATUS_EXPIRED : (qsafp_status_t)status; /* the timer has not said so yet */
}

/* Service thread. */
static inline void qsafp_get_lease_info(qsafp_t *q, qsafp_lease_info_t *out)
{
    qsafp_info_t i;
    const qsafp_lease_info_t none = {.total = q->set.n};
    qsafp_info(q, &i);
    *out = none;
    if (!q->leased)
        return;
    __builtin_memcpy(out->id, i.lease_id, sizeof out->id);
    out->expires_ns = q->lease_end_ns;
    out->issued_ns = q->lease_end_ns - i.duration_ms * 1000000u;
    out->remaining_ns = i.remaining_ns;
    out->approvals = i.approvals;
    out->renewals = i.renewals;
}

/* HW-4.  Timer handler only; returns ns until it wants to be called again at the latest. */
static inline uint64_t qsafp_check_lease_expiry(qsafp_t *q)
{
    return qsafp_tick(q);
}

/* HW-6.  Makes (or repeats) the request and hands it to net->send; inference goes on.  Errors: of qsafp_begin, qsafp_envelope, send. */
QSAFP_MUST_USE static inline int qsafp_request_lease_renewal(qsafp_t *q, const qsafp_network_t *net)
{
    size_t len = 0;
    int err = qsafp_begin(q);
    if (!err)
        err = qsafp_envelope(q, QSAFP_OLD_DEFAULT, net->buf, net->cap, &len);
    return err ? err : net->send(net->ctx, net->buf, len);
}

/* As above, and waits for one answer, which is counted like any other.  Errors also: of exchange, qsafp_put. */
QSAFP_MUST_USE static inline int qsafp_query_validator_sync(qsafp_t *q, const qsafp_network_t *net, uint32_t timeout_ms)
{
    size_t len = 0, got = 0;
    int err = qsafp_begin(q);
    if (!err)
        err = qsafp_envelope(q, QSAFP_OLD_DEFAULT, net->buf, net->cap, &len);
    if (!err)
        err = net->exchange(net->ctx, (qsafp_bytes){net->buf, len}, timeout_ms, net->buf, net->cap, &got);
    return err ? err : qsafp_put(q, net->buf, got);
}

/* HW-9.  len <= 96 bytes of data; -TOO_LARGE above. */
QSAFP_MUST_USE static inline int qsafp_log_event(qsafp_t *q, qsafp_event_t event, const void *data, size_t len)
{
    qsafp_record_t r = {.event = event};
    if (len > sizeof r.data)
        return QSAFP_E_TOO_LARGE;
    __builtin_memcpy(r.data, data, len);
    return qsafp_note(q, &r);
}

/* HW-8.  Copies at most `max` records from sequence `start` on; *count says how many. */
QSAFP_MUST_USE static inline int qsafp_retrieve_audit_log(qsafp_t *q, uint64_t start, uint32_t max, uint8_t (*out)[QSAFP_RECORD_BYTES], uint32_t *count)
{
    int err = 0;
    uint64_t seq = start < q->log.first ? q->log.first : start;
    for (*count = 0; !err && *count < max && seq + *count < q->log.next; *count += !err)
        err = qsafp_audit_read(&q->log, (uint32_t)(seq + *count), out[*count]);
    return err;
}

/* Verifies the live records [start, end): each hash is that of its bytes and of the record before.  What stood before the oldest live
 * record was pruned, so that one is taken as it is.  *bad names the sequence that fails. */
QSAFP_MUST_USE static inline int qsafp_verify_audit_chain(qsafp_t *q, uint64_t start, uint64_t end, uint64_t *bad)
{
    uint8_t rec[QSAFP_RECORD_BYTES], prev[32] = {0};
    uint64_t ignored;
    int err = start < q->log.first || end > q->log.next || start > end ? QSAFP_E_RANGE : 0;
    const uint64_t anchor = start > q->log.first ? start - 1 : start; /* its hash is what the first link starts from */
    for (*bad = anchor; !err && *bad < end; *bad += !err) {
        err = qsafp_audit_read(&q->log, (uint32_t)*bad, rec);
        if (!err && *bad == anchor && anchor > 0)
            __builtin_memcpy(prev, rec + offsetof(qsafp_record_t, hash), sizeof prev);
        else if (!err)
            err = qsafp_audit_verify(rec, 1, prev, &ignored);
    }
    return err;
}

/* HW-12.  Any thread: latches and drives before it returns; the records follow from qsafp_service. */
static inline void qsafp_trigger_failsafe(qsafp_t *q, qsafp_reason_t reason)
{
    qsafp_trip(q, reason);
}

#endif
