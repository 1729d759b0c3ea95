/* SPDX-License-Identifier: Apache-2.0 */
/* Fail-safe: latch, drive, then tell (HW-12, architecture decision 10). */
#include "core.h"
#include "record.h"

bool needs_people(uint32_t reason)
{
    switch ((qsafp_reason_t)reason) {
    case QSAFP_REASON_NONE:
    case QSAFP_REASON_LEASE_EXPIRED:
    case QSAFP_REASON_NETWORK_TIMEOUT:
    case QSAFP_REASON_BUS:
    case QSAFP_REASON_LOG_FULL:
        return false;
    case QSAFP_REASON_VALIDATOR_DENIED:
    case QSAFP_REASON_ANOMALY:
    case QSAFP_REASON_INVALID_SIGNATURES:
    case QSAFP_REASON_MANUAL:
    case QSAFP_REASON_TAMPER:
        return true;
    }
    return true;
}

/* A repeat of the same or a weaker release class is only counted, so that nobody can hold up a release by repeating himself. */
static bool raise_latch(qsafp_t *q, uint32_t reason)
{
    for (;;) {
        uint32_t was = load32(&q->latch);
        if (was != QSAFP_REASON_NONE && needs_people(reason) <= needs_people(was))
            return false;
        if (cas32(&q->latch, was, reason))
            return true;
    }
}

/* 1..0x00FFFFFF and round again: 0 means never armed, and no generation may read as QSAFP_ARMED. */
static uint32_t next_generation(qsafp_t *q)
{
    uint32_t g = add32(&q->generation, 1);
    if (g > 0x00FFFFFFu) {
        g = 1;
        store32(&q->generation, g);
    }
    return g;
}

void tell_later(qsafp_t *q, uint32_t what)
{
    (void)or32(&q->untold, what);
    port_kick(q);
}

/* Of two that latch at once the later generation stays: a release swaps that one. */
static void disarm(qsafp_t *q, uint32_t g)
{
    uint32_t last;
    do {
        last = g;
        store32(&q->page->armed, last);
        g = load32(&q->generation);
    } while (g != last);
}

void qsafp_trip(qsafp_t *q, qsafp_reason_t reason)
{
    bool raised = raise_latch(q, reason == QSAFP_REASON_NONE ? (uint32_t)QSAFP_REASON_ANOMALY : (uint32_t)reason);
    if (raised)
        disarm(q, next_generation(q)); /* SAFETY: I3 after the latch, so that a release in flight fails its swap */
    (void)q->port->set_lease_valid(q->ctx, 0);        /* refused writes are retried by every tick */
    (void)q->port->set_failsafe(q->ctx, 1);
    tell_later(q, raised ? UNTOLD_FAILSAFE : 0);
}

/* With the hash before it, so that a validator sees that it hashes to what the claims name. */
int keep_latched(qsafp_t *q)
{
    uint8_t *kept = q->failsafe_record;
    uint32_t seq = (uint32_t)q->st.latch_seq;
    int err = qsafp_audit_read(&q->log, seq - 1, kept);
    memcpy(kept, kept + 208, 32);
    return err ? err : qsafp_audit_read(&q->log, seq, kept + 32);
}

static int tell_failsafe(qsafp_t *q)
{
    qsafp_state_t *st = &q->st;
    uint32_t generation = load32(&q->generation);
    qsafp_record_t r;
    int err;
    if (q->latch_saved != generation) { /* once, however often the record is tried: flash wears */
        st->latch = load32(&q->latch);
        st->latch_seq = 0;
        st->generation = generation;
        err = state_save(q); /* SAFETY: I5 before the record: after a cut a latch without one gets a fresh one */
        if (err)
            return err;
        q->latch_saved = generation;
    }
    record_new(&r, QSAFP_EVENT_FAILSAFE_TRIGGERED, st->latch);
    memcpy(r.data, &st->generation, sizeof st->generation);
    q->log.reserve = false; /* the slot that was kept for this */
    err = append(q, &r);
    q->log.reserve = true;
    if (err)
        return err;
    st->latch_seq = r.seq;
    memcpy(st->latch_hash, r.hash, 32);
    err = keep_latched(q);
    return err ? err : sync_and_save(q);
}

int qsafp_service(qsafp_t *q)
{
    uint32_t untold = swap32(&q->untold, 0);
    int err = 0;
    if (untold & UNTOLD_FAILSAFE) {
        set_pending(q, false);
        q->leased = false;
        err = tell_failsafe(q);
        if (err)
            (void)or32(&q->untold, UNTOLD_FAILSAFE); /* told again at the next call; the gate stays closed */
    }
    if (untold & UNTOLD_EXPIRED && note(q, QSAFP_EVENT_LEASE_EXPIRED, QSAFP_REASON_LEASE_EXPIRED, 0, 0))
        qsafp_trip(q, QSAFP_REASON_LOG_FULL);
    return err;
}
