/* SPDX-License-Identifier: Apache-2.0 */
/* Lease and phases: start, the tick, what a reader sees (HW-4, HW-5, OC-2). */
#include "core.h"
#include "record.h"
#include "shape.h"

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
    return err ? err : sync_and_save(q);
}

int append(qsafp_t *q, qsafp_record_t *r)
{
    r->serial = q->pending.active ? q->pending.claims.serial : q->lease.serial;
    memcpy(r->model, q->cfg.model, sizeof r->model);
    return qsafp_audit_append(&q->log, r);
}

int qsafp_note(qsafp_t *q, qsafp_record_t *r)
{
    int err = tree_checkpoint(q);
    if (!err)
        err = append(q, r);
    if (err)
        qsafp_trip(q, QSAFP_REASON_LOG_FULL);
    return err;
}

int note(qsafp_t *q, qsafp_event_t event, uint32_t reason, const uint8_t evidence[32], int index)
{
    qsafp_record_t r;
    record_new(&r, event, reason);
    r.data[0] = (uint8_t)index;
    if (evidence) {
        r.flags = RECORD_EVIDENCE;
        memcpy(r.evidence, evidence, 32);
    }
    return qsafp_note(q, &r);
}

static bool config_ok(const qsafp_t *q)
{
    const qsafp_config_t *c = &q->cfg;
    return duration_ok(c->duration_ms) && c->policy_ms[0] <= c->duration_ms && (!c->policy_ms[1] || duration_ok(c->policy_ms[1])) &&
           c->tick_ns - 1 < c->stale_after_ns && c->stale_after_ns < 1000000000ull * 60 && q->page && c->ueid[0] == 0x01 &&
           (c->alg == QSAFP_ALG_ED25519 || c->alg == QSAFP_ALG_ESP256);
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
    return err ? err : sync_and_save(q);
}

static void restore_latch(qsafp_t *q)
{
    q->latch = q->st.latch;
    q->generation = q->st.generation;
    q->untold = q->latch && keep_latched(q) ? UNTOLD_FAILSAFE : 0; /* pruned since: a fresh record stands for it */
}

int qsafp_init(qsafp_t *q)
{
    uint32_t bad = 0;
    if (!config_ok(q))
        return QSAFP_E_ARGUMENT;
    int err = state_load(q);
    if (err)
        return err;
    if (q->set.epoch < q->st.epoch)
        return QSAFP_E_WRONG_EPOCH; /* whom a later set replaced does not come back */
    q->st.epoch = q->set.epoch;
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
        restore_latch(q);
    page_init(q);
    (void)q->port->set_lease_valid(q->ctx, 0);
    (void)q->port->set_failsafe(q->ctx, q->latch != 0);
    return err ? err : note(q, QSAFP_EVENT_BOOT, q->latch, 0, 0);
}

void qsafp_deinit(qsafp_t *q)
{
    store64(&q->lease_end_ns, 0);
    page_close(q);
    (void)q->port->set_lease_valid(q->ctx, 0);
}

static void see(qsafp_view_t *v, qsafp_status_t status, qsafp_phase_t phase)
{
    v->status = (uint32_t)status;
    v->phase = (uint16_t)phase;
}

void look_at(qsafp_t *q, uint64_t now, qsafp_view_t *v)
{
    uint32_t latch = load32(&q->latch);
    uint64_t end = load64(&q->lease_end_ns);
    v->reason = latch;
    v->remaining_ns = 0;
    if (latch)
        see(v, latch == QSAFP_REASON_LEASE_EXPIRED || latch == QSAFP_REASON_NETWORK_TIMEOUT ? QSAFP_STATUS_EXPIRED : QSAFP_STATUS_DENIED, QSAFP_PHASE_FAILSAFE);
    else if (!end || !armed(q))
        see(v, q->pending.active ? QSAFP_STATUS_PENDING : QSAFP_STATUS_UNINITIALIZED, QSAFP_PHASE_NONE);
    else if (now >= end) {
        see(v, QSAFP_STATUS_EXPIRED, QSAFP_PHASE_GRACE);
        v->reason = QSAFP_REASON_LEASE_EXPIRED;
    } else {
        v->remaining_ns = end - now;
        see(v, QSAFP_STATUS_VALID, v->remaining_ns <= ns_of(q->lease.policy_ms[0]) ? QSAFP_PHASE_WARNING : QSAFP_PHASE_ACTIVE);
    }
}

/* The deadline moves here alone.  A lease that changes meanwhile is taken up before this returns. */
static uint64_t move_deadline(qsafp_t *q, uint64_t now)
{
    uint64_t end, last = now + q->cfg.stale_after_ns;
    do {
        end = load64(&q->lease_end_ns);
        page_deadline(q, end < last ? end : last);
    } while (load64(&q->lease_end_ns) != end);
    return end;
}

static void drive(qsafp_t *q, uint64_t now)
{
    bool open = qsafp_gate_check_ns(q->page, now);
    (void)q->port->set_lease_valid(q->ctx, open);
    if (open && !armed(q))
        (void)q->port->set_lease_valid(q->ctx, 0); /* SAFETY: I4 a fail-safe came between the look and the pin */
    (void)q->port->set_failsafe(q->ctx, load32(&q->latch) != 0);
}

/* Grace holds, its end latches.  `end` = 0: nothing was ever leased. */
static void expire(qsafp_t *q, uint64_t now, uint64_t end)
{
    if (!end || now < end || !armed(q))
        return;
    if (q->expired_end != end && !(load32(&q->untold) & UNTOLD_EXPIRED)) {
        q->expired_end = end;
        tell_later(q, UNTOLD_EXPIRED);
    }
    if (now - end >= ns_of(q->cfg.policy_ms[1]))
        qsafp_trip(q, load32(&q->answered) ? QSAFP_REASON_LEASE_EXPIRED : QSAFP_REASON_NETWORK_TIMEOUT);
}

uint64_t qsafp_tick(qsafp_t *q)
{
    uint64_t now = port_now(q), next = q->cfg.tick_ns;
    uint64_t end = move_deadline(q, now);
    drive(q, now);
    expire(q, now, end);
    page_publish(q, now);
    if (!end)
        return now + next;
    uint64_t to = end > now ? end - now : end + ns_of(q->cfg.policy_ms[1]) - now; /* wraps far beyond the next tick when past */
    return now + (to - 1 < next ? to : next);
}

/* The status answer, taken from the guard in wire order. */
#define PART(field) {offsetof(qsafp_t, field), sizeof(((qsafp_t *)0)->field)}
static const struct { uint16_t at, size; } PARTS[] = {
    PART(view.remaining_ns), PART(lease.duration_ms), PART(lease.serial), PART(view.status), PART(view.phase), PART(view.reason),
    PART(view.generation), PART(approvals), PART(set.n), PART(renewals), PART(cfg.model), PART(lease.lease_id), PART(view.flags),
    PART(view.log_next), PART(view.lease_size), PART(cfg.ueid), PART(log.log_id), PART(log.head), PART(st.latch_seq), PART(st.latch_hash),
    PART(st.boot), PART(view.now_ns), PART(view.denied),
};
enum { INFO_PARTS = 13 };

static void refresh(qsafp_t *q)
{
    qsafp_view_t *v = &q->view;
    v->now_ns = port_now(q);
    port_lock(q);
    look_at(q, v->now_ns, v);
    port_unlock(q);
    v->generation = load32(&q->generation);
    v->log_next = q->log.next;
    v->lease_size = q->st.lease_tree.size;
    v->denied = q->lease_denied | q->pending.denied; /* who said no, by index */
    bool renew = v->remaining_ns <= ns_of(q->lease.duration_ms) / 2;
    v->flags = (uint8_t)(renew * QSAFP_INFO_RENEW | q->contained * QSAFP_INFO_CONTAINED | q->set.lab * QSAFP_INFO_LAB | q->isolated * QSAFP_INFO_ISOLATED);
}

static size_t gather(qsafp_t *q, size_t parts, uint8_t *out)
{
    size_t len = 0;
    refresh(q);
    for (size_t i = 0; i < parts; len += PARTS[i++].size)
        memcpy(out + len, (const uint8_t *)q + PARTS[i].at, PARTS[i].size);
    return len;
}

void qsafp_info(qsafp_t *q, qsafp_info_t *out)
{
    (void)gather(q, INFO_PARTS, (uint8_t *)out);
}

size_t status_answer(qsafp_t *q, uint8_t *out)
{
    return gather(q, sizeof PARTS / sizeof *PARTS, out);
}
