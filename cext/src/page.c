/* SPDX-License-Identifier: Apache-2.0 */
/* The gate page: how it is written (HW-5; layout in docs/formats.md). */
#include "core.h"

bool armed(const qsafp_t *q)
{
    return load32(&q->page->armed) == QSAFP_ARMED;
}

void page_deadline(qsafp_t *q, uint64_t ns)
{
    qsafp_gate_page_t *p = q->page;
    store64(&p->deadline_ns, ns);
    store64(&p->deadline, ns && p->counter_hz ? q->port->counter_at(q->ctx, ns) : 0);
}

void page_init(qsafp_t *q)
{
    uint64_t now = port_now(q), w = 2 * q->cfg.stale_after_ns;
    qsafp_gate_page_t *p = q->page;
    p->magic = QSAFP_GATE_MAGIC;
    store32(&p->armed, load32(&q->generation));
    store64(&p->window_ns, w);
    store64(&p->window, p->counter_hz ? q->port->counter_at(q->ctx, now + w) - q->port->counter_at(q->ctx, now) : 0);
    memcpy(p->model, q->cfg.model, sizeof p->model);
}

void page_close(qsafp_t *q)
{
    store32(&q->page->armed, load32(&q->generation));
    page_deadline(q, 0);
}

/* The part of the page that readers take under the seqlock. */
void page_publish(qsafp_t *q, uint64_t now)
{
    qsafp_gate_page_t *p = q->page;
    qsafp_view_t v;
    port_lock(q);
    look_at(q, now, &v);
    store32(&p->seq, p->seq + 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    p->serial = q->lease.serial;
    p->status = v.status;
    p->phase = v.phase;
    p->reason = v.reason;
    memcpy(p->lease_id, q->lease.lease_id, sizeof p->lease_id);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    store32(&p->seq, p->seq + 1);
    port_unlock(q);
}
