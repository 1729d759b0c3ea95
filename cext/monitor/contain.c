/* SPDX-License-Identifier: Apache-2.0 */
/* Containment: every core of the payload stands still, then the declared region is as it was (HW-12). */
#include "monitor.h"

enum { STEP_FREEZE = 2, STEP_ROLLBACK = 4, STEP_THAW = 5 };

/* A core says that it runs and then looks at `contain`; the monitor sets that and then looks whether it runs: one of them sees the other. */
static uint32_t get(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static void set(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }

void contain_all(void)
{
    if (!m.contain) {
        set(&m.contain, 1);
        m.contain_ns = monitor_port.now_ns(&m);
    }
    for (unsigned i = 1; i < CORES; i++)
        if (get(&m.core[i].state) == CORE_RUNS)
            arch_poke(i); /* with each tick again */
}

void core_still(core_t *c)
{
    if (c->state == CORE_PARKED)
        return;
    c->parked_ns = monitor_port.now_ns(&m);
    set(&c->state, CORE_PARKED);
}

bool core_hold(core_t *c)
{
    for (;;)
        if (get(&m.contain)) {
            core_still(c);
            arch_unpoke((unsigned)(c - m.core));
            if (get(&m.contain))
                arch_wait();
        } else if (c->state != CORE_RUNS)
            set(&c->state, CORE_RUNS);
        else
            return c->restarts != m.restarts;
}

bool core_park(core_t *c)
{
    bool anew = core_hold(c);
    c->restarts = m.restarts;
    return anew;
}

static bool all_parked(void)
{
    for (unsigned i = 1; i < CORES; i++)
        if (get(&m.core[i].state) == CORE_RUNS)
            return false;
    return true;
}

/* `ns` after containment began. */
static void tell(uint8_t step, uint8_t result, uint64_t ns)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_CONTAINMENT, .reason = m.q.latch};
    r.data[0] = step;
    memcpy(r.data + 2, &ns, sizeof ns);
    r.data[10] = result;
    memcpy(r.data + 16, "payload", 7);
    monitor_note(&r);
}

/* What is wrong stays as it is: a copy that does not hash to what it was is not put anywhere. */
static uint8_t roll_back(void)
{
    const checkpoint_t *c = &m.checkpoint;
    uint8_t hash[32];
    if (!c->bytes)
        return 1;
    qsafp_sha256(hash, (const void *)CHECKPOINT_BASE, c->bytes);
    if (!qsafp_equal(hash, c->hash, sizeof hash))
        return 2;
    memcpy((void *)c->base, (const void *)CHECKPOINT_BASE, c->bytes);
    return 0;
}

/* The gate may close between the look and the release: both under the lock. */
static bool release(void)
{
    bool was = arch_lock(), open = qsafp_gate_check_ns(&gate_page, monitor_port.now_ns(&m));
    if (open) {
        if (m.rolled_back)
            set(&m.restarts, m.restarts + 1);
        set(&m.contain, 0);
        for (unsigned i = 1; i < CORES; i++)
            arch_poke(i);
    }
    arch_unlock(was);
    return open;
}

static uint64_t last_parked(void)
{
    uint64_t last = m.contain_ns;
    for (unsigned i = 1; i < CORES; i++)
        if (m.core[i].parked_ns > last)
            last = m.core[i].parked_ns;
    return last;
}

static uint64_t since(void) { return monitor_port.now_ns(&m) - m.contain_ns; }

/* All of it before anything is told. */
void contain_act(void)
{
    bool parked = m.contain && all_parked() && !m.checkpoint.left;
    if (parked && !m.q.contained)
        m.frozen_ns = last_parked() - m.contain_ns;
    m.q.contained = parked;
    if (!parked || !m.q.latch || m.rolled_back)
        return;
    m.rollback = roll_back();
    m.rollback_ns = since();
    m.rolled_back = true;
}

bool contain_tell(void)
{
    if (!m.contain)
        return false;
    if (!m.q.contained)
        return true; /* not yet: look again */
    bool any = !m.frozen || m.rolled_back != m.told_rollback;
    if (!m.frozen)
        tell(STEP_FREEZE, 0, m.frozen_ns);
    m.frozen = true;
    if (m.rolled_back && !m.told_rollback)
        tell(STEP_ROLLBACK, m.rollback, m.rollback_ns);
    m.told_rollback = m.rolled_back;
    if (!release())
        return any;
    m.frozen = m.rolled_back = m.told_rollback = m.q.contained = false;
    tell(STEP_THAW, 0, since());
    return true;
}
