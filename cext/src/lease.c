/* SPDX-License-Identifier: Apache-2.0 */
/* Lease and phases: start, the tick, what a reader sees (HW-4, HW-5, OC-2). */
#include "core.h"

#define STATE_MAGIC 0x31545351u /* "QST1" */

static void state_check(const qsafp_state_t *st, uint8_t out[32])
{
    qsafp_sha256(out, st, offsetof(qsafp_state_t, check));
}

int state_save(qsafp_t *q)
{
    q->st.magic = STATE_MAGIC;
    q->st.version = 1;
    q->st.tree = q->log.tree;
    memcpy(q->st.log_id, q->log.log_id, 32);
    state_check(&q->st, q->st.check);
    return q->port->state_save(q->ctx, &q->st, sizeof q->st);
}

static int state_load(qsafp_t *q)
{
    uint8_t check[32];
    int err = q->port->state_load(q->ctx, &q->st, sizeof q->st);
    if (err)
        return err;
    state_check(&q->st, check);
    bool ok = q->st.magic == STATE_MAGIC && q->st.version == 1 && qsafp_equal(check, q->st.check, 32);
    return ok ? 0 : QSAFP_E_CORRUPT;
}

/* The tree must know a record before its sector is erased, and the state must know the tree. */
static int tree_checkpoint(qsafp_t *q)
{
    if (q->log.next - q->st.tree.size < q->log.slots / 2)
        return 0;
    int err = qsafp_audit_tree(&q->log);
    if (!err)
        err = q->port->log_sync(q->ctx);
    return err ? err : state_save(q);
}

int qsafp_note(qsafp_t *q, qsafp_record_t *r)
{
    r->serial = q->pending.active ? q->pending.claims.serial : q->lease.serial;
    memcpy(r->model, q->cfg.model, sizeof r->model);
    int err = tree_checkpoint(q);
    if (!err)
        err = qsafp_audit_append(&q->log, r);
    if (err)
        qsafp_trip(q, QSAFP_REASON_LOG_FULL);
    return err;
}

int note(qsafp_t *q, qsafp_event_t event, uint32_t reason, const uint8_t evidence[32])
{
    qsafp_record_t r = {.event = (uint16_t)event, .reason = reason};
    if (evidence) {
        r.flags = 4; /* evidence present */
        memcpy(r.evidence, evidence, 32);
    }
    return qsafp_note(q, &r);
}

static bool config_ok(const qsafp_t *q)
{
    const qsafp_config_t *c = &q->cfg;
    const uint64_t month_ms = 31ull * 24 * 3600 * 1000;
    return c->duration_ms >= 1 && c->duration_ms <= month_ms && c->policy_ms[0] <= c->duration_ms && c->policy_ms[1] <= month_ms &&
           c->stale_after_ns >= c->tick_ns && c->tick_ns > 0 && c->stale_after_ns < 1000000000ull * 60 && q->page && c->ueid[0] == 0x01;
}

static void page_init(qsafp_t *q)
{
    uint64_t now = port_now(q), w = 2 * q->cfg.stale_after_ns;
    qsafp_gate_page_t *p = q->page;
    p->magic = QSAFP_GATE_MAGIC;
    store32(&p->armed, load32(&q->generation));
    store64(&p->window_ns, w);
    store64(&p->window, p->counter_hz ? q->port->counter_at(q->ctx, now + w) - q->port->counter_at(q->ctx, now) : 0);
    memcpy(p->model, q->cfg.model, sizeof p->model);
}

int qsafp_create(qsafp_t *q)
{
    int err = q->port->state_load(q->ctx, &q->st, sizeof q->st);
    if (err != QSAFP_E_STORE)
        return err ? err : QSAFP_E_BUSY;
    memset(&q->st, 0, sizeof q->st);
    q->log.port = q->port;
    q->log.ctx = q->ctx;
    err = qsafp_audit_create(&q->log);
    if (!err)
        err = q->port->log_sync(q->ctx);
    return err ? err : state_save(q);
}

static int restore_latch(qsafp_t *q)
{
    q->latch = q->st.latch;
    q->generation = q->st.generation;
    if (!q->latch)
        return 0;
    q->untold = 0;
    int err = qsafp_audit_read(&q->log, (uint32_t)q->st.latch_seq, q->failsafe_record);
    if (err) /* pruned since: a fresh record stands for it */
        q->untold = UNTOLD_FAILSAFE;
    return 0;
}

int qsafp_init(qsafp_t *q)
{
    uint32_t bad = 0;
    if (!config_ok(q))
        return QSAFP_E_ARGUMENT;
    int err = state_load(q);
    if (err)
        return err;
    q->log.port = q->port;
    q->log.ctx = q->ctx;
    q->log.tree = q->st.tree;
    memcpy(q->log.log_id, q->st.log_id, 32);
    q->log.reserve = true;
    err = qsafp_audit_recover(&q->log, &bad);
    if (err)
        return err;
    q->st.boot += 1;
    q->log.boot = q->st.boot;
    err = state_save(q); /* SAFETY: I6 the boot counter is durable before the first nonce */
    if (!err)
        err = restore_latch(q);
    page_init(q);
    (void)q->port->set_lease_valid(q->ctx, 0);
    (void)q->port->set_failsafe(q->ctx, q->latch != 0);
    return err ? err : note(q, QSAFP_EVENT_BOOT, q->latch, 0);
}

void qsafp_deinit(qsafp_t *q)
{
    store64(&q->lease_end_ns, 0);
    store32(&q->page->armed, load32(&q->generation));
    store64(&q->page->deadline_ns, 0);
    store64(&q->page->deadline, 0);
    (void)q->port->set_lease_valid(q->ctx, 0);
}

qsafp_status_t status_of(qsafp_t *q, uint64_t now, qsafp_phase_t *phase)
{
    uint32_t latch = load32(&q->latch);
    uint64_t end = load64(&q->lease_end_ns);
    *phase = latch ? QSAFP_PHASE_FAILSAFE : QSAFP_PHASE_NONE;
    if (latch)
        return latch == QSAFP_REASON_LEASE_EXPIRED || latch == QSAFP_REASON_NETWORK_TIMEOUT ? QSAFP_STATUS_EXPIRED : QSAFP_STATUS_DENIED;
    if (load32(&q->page->armed) != QSAFP_ARMED || !end)
        return q->pending.active ? QSAFP_STATUS_PENDING : QSAFP_STATUS_UNINITIALIZED;
    bool warn = now >= end - q->lease.policy_ms[0] * 1000000u;
    *phase = now >= end ? QSAFP_PHASE_GRACE : warn ? QSAFP_PHASE_WARNING : QSAFP_PHASE_ACTIVE;
    return now >= end ? QSAFP_STATUS_EXPIRED : QSAFP_STATUS_VALID;
}

/* The part of the page that readers take under the seqlock. */
static void publish(qsafp_t *q, uint64_t now)
{
    qsafp_gate_page_t *p = q->page;
    qsafp_phase_t phase;
    port_lock(q);
    qsafp_status_t status = status_of(q, now, &phase);
    store32(&p->seq, p->seq + 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    p->serial = q->lease.serial;
    p->status = (uint32_t)status;
    p->phase = (uint16_t)phase;
    p->reason = phase == QSAFP_PHASE_GRACE ? (uint32_t)QSAFP_REASON_LEASE_EXPIRED : load32(&q->latch);
    memcpy(p->lease_id, q->lease.lease_id, sizeof p->lease_id);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    store32(&p->seq, p->seq + 1);
    port_unlock(q);
}

/* The only writer of the deadline.  A lease that changes meanwhile is taken up before this returns. */
static uint64_t move_deadline(qsafp_t *q, uint64_t now)
{
    uint64_t end, deadline;
    do {
        end = load64(&q->lease_end_ns);
        deadline = end < now + q->cfg.stale_after_ns ? end : now + q->cfg.stale_after_ns;
        store64(&q->page->deadline_ns, deadline);
        store64(&q->page->deadline, deadline && q->page->counter_hz ? q->port->counter_at(q->ctx, deadline) : 0);
    } while (load64(&q->lease_end_ns) != end);
    return end;
}

static void drive(qsafp_t *q, uint64_t now)
{
    bool open = qsafp_gate_check_ns(q->page, now);
    (void)q->port->set_lease_valid(q->ctx, open);
    if (open && load32(&q->page->armed) != QSAFP_ARMED)
        (void)q->port->set_lease_valid(q->ctx, 0); /* SAFETY: I4 a fail-safe came between the look and the pin */
    (void)q->port->set_failsafe(q->ctx, load32(&q->latch) != 0);
}

/* Grace holds, its end latches.  `end` = 0: nothing was ever leased. */
static void expire(qsafp_t *q, uint64_t now, uint64_t end)
{
    if (!end || now < end || load32(&q->page->armed) != QSAFP_ARMED)
        return;
    if (!(or32(&q->untold, 0) & UNTOLD_EXPIRED) && q->expired_end != end) {
        q->expired_end = end;
        (void)or32(&q->untold, UNTOLD_EXPIRED);
        port_kick(q);
    }
    if (now - end >= q->cfg.policy_ms[1] * 1000000u)
        qsafp_trip(q, load32(&q->answered) ? QSAFP_REASON_LEASE_EXPIRED : QSAFP_REASON_NETWORK_TIMEOUT);
}

uint64_t qsafp_tick(qsafp_t *q)
{
    uint64_t now = port_now(q);
    uint64_t end = move_deadline(q, now);
    drive(q, now);
    expire(q, now, end);
    publish(q, now);
    uint64_t next = now + q->cfg.tick_ns;
    uint64_t fail = end + q->cfg.policy_ms[1] * 1000000u;
    if (end > now && end < next)
        next = end;
    else if (end && fail > now && fail < next)
        next = fail;
    return next;
}

void qsafp_info(qsafp_t *q, qsafp_info_t *out)
{
    qsafp_phase_t phase;
    uint64_t now = port_now(q), end = load64(&q->lease_end_ns);
    memset(out, 0, sizeof *out);
    port_lock(q);
    out->status = (uint32_t)status_of(q, now, &phase);
    port_unlock(q);
    out->phase = (uint16_t)phase;
    out->remaining_ns = out->status == QSAFP_STATUS_VALID && end > now ? end - now : 0;
    out->duration_ms = q->lease.duration_ms;
    out->serial = q->lease.serial;
    out->reason = phase == QSAFP_PHASE_GRACE ? (uint32_t)QSAFP_REASON_LEASE_EXPIRED : load32(&q->latch);
    out->generation = load32(&q->generation);
    out->approvals = q->approvals;
    out->total = q->set.n;
    out->renewals = q->renewals;
    memcpy(out->model, q->cfg.model, 32);
    memcpy(out->lease_id, q->lease.lease_id, 16);
    bool renew = !q->leased || now + q->lease.duration_ms * 500000u >= end;
    out->flags = (uint8_t)((renew ? QSAFP_INFO_RENEW : 0) | (q->contained ? QSAFP_INFO_CONTAINED : 0) | (q->set.lab ? QSAFP_INFO_LAB : 0) |
                           (q->isolated ? QSAFP_INFO_ISOLATED : 0));
}
