/* SPDX-License-Identifier: Apache-2.0 */
/* Start, tick and loop of the monitor (HW-2, HW-4, HW-5). */
#include "monitor.h"
#include "nor.h"

#include "qsafp_ed25519.h"

monitor_t m;
uint32_t monitor_ready;
__attribute__((section(".gate"))) qsafp_gate_page_t gate_page;

void say(const char *text)
{
    while (*text)
        board_line_put((uint8_t)*text++);
}

void monitor_halt(const char *why)
{
    __atomic_store_n(&m.halted, READY, __ATOMIC_RELEASE); /* whichever core this is, the monitor's own follows */
    __atomic_store_n(&gate_page.armed, 0, __ATOMIC_RELEASE);
    board_pin(PIN_LEASE_VALID, 0);
    board_pin(PIN_FAILSAFE, 1);
    contain_all();
    say("qsafp monitor: halted: ");
    say(why);
    say("\r\n");
    arch_halt();
}

void monitor_note(qsafp_record_t *r)
{
    if (qsafp_note(&m.q, r))
        m.lost_records++;
}

/* SPEC: HW-4 10 Hz without drift: the next tick is due a period after this one was due, whenever it came. */
void monitor_timer(void)
{
    qsafp_t *q = &m.q;
    if (__atomic_load_n(&m.halted, __ATOMIC_ACQUIRE))
        monitor_halt("a trap of its own");
    uint64_t wish = qsafp_tick(q), now = monitor_port.now_ns(&m);
    bool open = qsafp_gate_check_ns(q->page, now);
    if ((m.opened && !open) || q->latch || m.contain)
        contain_all(); /* SPEC: HW-12 a latch contains a payload that nothing was leased to yet, too */
    m.opened = open;
    if (now >= m.tick_at) {
        m.ticks++;
        m.tick_at += q->cfg.tick_ns;
        if (now >= m.tick_at) {
            m.late++;
            m.tick_at = now + q->cfg.tick_ns;
        }
    }
    uint64_t next = wish < m.tick_at ? wish : m.tick_at;
    arch_alarm((next + NS_PER_TICK - 1) / NS_PER_TICK);
}

static int load_set(void)
{
    const fuses_t *f = (const fuses_t *)FUSES_BASE;
    const qsafp_set_io_t io = {.port = &monitor_port, .ctx = &m, .scratch = m.command.env, .cap = sizeof m.command.env};
    return qsafp_set_load(&m.q.set, 0, (qsafp_bytes){(const uint8_t *)SET_BASE, f->set_bytes}, &io);
}

static void configure(void)
{
    const fuses_t *f = (const fuses_t *)FUSES_BASE;
    qsafp_config_t *c = &m.q.cfg;
    uint8_t hash[32];
    qsafp_ed25519_public(m.secret + 32, m.secret);
    qsafp_sha256(hash, m.secret + 32, 32);
    memcpy(c->kid, hash, sizeof c->kid);
    memcpy(c->ueid, f->ueid, sizeof c->ueid);
    memcpy(c->model, f->model, sizeof c->model);
    memcpy(c->policy_ms, f->policy_ms, sizeof c->policy_ms);
    c->alg = QSAFP_ALG_ED25519;
    c->duration_ms = f->duration_ms;
    c->stale_after_ns = 1000000000u;
    c->tick_ns = 100000000u;
    c->level = 1; /* a claim: no attestation key signs what was booted */
    gate_page.counter_hz = 1000000000u / NS_PER_TICK;
    m.q.port = &monitor_port;
    m.q.ctx = &m;
    m.q.page = &gate_page;
    m.q.log.slots = QSAFP_LOG_SLOTS;
    m.q.workloads = 1;
    m.command.q = &m.q;
    boot_measure(&m.q);
}

/* A blank store is enrolled: record 0 and the first state. */
static int start_core(void)
{
    int err = qsafp_create(&m.q);
    if (err && err != QSAFP_E_BUSY)
        return err;
    memset(&m.q.st, 0, sizeof m.q.st);
    memset(&m.q.log, 0, sizeof m.q.log);
    m.q.log.slots = QSAFP_LOG_SLOTS;
    return qsafp_init(&m.q);
}

static void start(void)
{
    if (!nor_ready())
        monitor_halt("no flash for log and state");
    if (fuses_read())
        monitor_halt("no device keys");
    if (entropy_take())
        monitor_halt("no entropy");
    if (store_start() || seal_start())
        monitor_halt("flash cannot be used");
    configure();
    if (load_set())
        monitor_halt("no valid validator set");
    int err = start_core();
    qsafp_wipe(m.command.env, sizeof m.command.env);
    if (err)
        monitor_halt(err == QSAFP_E_CORRUPT ? "log or state is corrupt" : "log or state cannot be used");
    if (m.q.latch)
        contain_all(); /* SPEC: HW-12 a latch survives reset: the payload waits for its release */
}

/* SPEC: HW-2 the counter rises once the image has obtained a lease. */
static void keep(void)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_ANOMALY, .reason = QSAFP_REASON_ANOMALY};
    if (m.kept || !m.q.leased)
        return;
    m.kept = true;
    if (boot_keep())
        monitor_note(&r);
}

/* A host is answered once what it asked for is durable. */
static bool work(void)
{
    look_at_renew();
    bool any = serve_line() | (m.q.untold != 0);
    contain_act();
    if (qsafp_service(&m.q))
        qsafp_trip(&m.q, QSAFP_REASON_LOG_FULL);
    keep();
    any |= contain_tell();
    answer_line();
    any |= tell_reports();
    for (unsigned i = 1; i < CORES; i++)
        any |= serve_core(&m.core[i]);
    return any;
}

/* A tick may leave something to tell after the look at it and before the lock; none comes behind it. */
static void rest(void)
{
    bool was = arch_lock();
    if (!m.q.untold && !board_line_waits())
        arch_wait_line();
    arch_unlock(was);
}

void monitor_main(void)
{
    board_start();
    say("qsafp monitor: " BOARD_NAME "\r\n");
    say("qsafp monitor: keys and entropy are a loader's\r\n");
    arch_start();
    start();
    m.tick_at = m.first_tick_ns = monitor_port.now_ns(&m);
    arch_alarm(0);
    say("qsafp monitor: serving\r\n");
    board_line_put(0);
    __atomic_store_n(&monitor_ready, READY, __ATOMIC_RELEASE); /* SPEC: HW-T1 the payload comes after */
    for (unsigned i = 1; i < CORES; i++)
        arch_poke(i);
    for (;;)
        if (!work())
            rest();
}
