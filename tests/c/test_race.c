/* SPDX-License-Identifier: Apache-2.0 */
/* Races between the deadline thread, the service thread and a fail-safe: one thread is parked in each of its port calls in turn
 * while another runs; then all of them run free (built with ThreadSanitizer too). */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "device.h"

static const int FIRST[M] = {0, 1, 2, 3};

/* Shared by the threads of one scenario; the device's own counters are the service thread's alone. */
static struct {
    pthread_mutex_t page, park;
    pthread_cond_t moved;
    uint64_t now_ns;
    uint32_t valid, failsafe, kicks;
    pthread_t who;     /* parked is this thread ... */
    int left;          /* ... in its port call number `left` from now; 0: in none */
    int calls;         /* port calls it made */
    bool parked, go, done;
} r;

static void pass(void)
{
    pthread_mutex_lock(&r.park);
    if (r.left && pthread_equal(pthread_self(), r.who)) {
        r.calls++;
        if (r.calls == r.left) {
            r.parked = true;
            pthread_cond_broadcast(&r.moved);
            while (!r.go)
                pthread_cond_wait(&r.moved, &r.park);
        }
    }
    pthread_mutex_unlock(&r.park);
}

static uint64_t r_now(void *c)
{
    (void)c;
    uint64_t now = __atomic_load_n(&r.now_ns, __ATOMIC_SEQ_CST); /* read, then parked: what follows is computed from an old time */
    pass();
    return now;
}
static uint64_t r_counter(void *c, uint64_t ns) { (void)c; pass(); return ns * 3; }
static int r_valid(void *c, int v) { (void)c; pass(); __atomic_store_n(&r.valid, (uint32_t)v, __ATOMIC_SEQ_CST); return 0; }
static int r_failsafe(void *c, int v) { (void)c; pass(); __atomic_store_n(&r.failsafe, (uint32_t)v, __ATOMIC_SEQ_CST); return 0; }
static void r_kick(void *c) { (void)c; pass(); (void)__atomic_add_fetch(&r.kicks, 1, __ATOMIC_SEQ_CST); }
static void r_lock(void *c) { (void)c; assert(pthread_mutex_lock(&r.page) == 0); }
static void r_unlock(void *c) { (void)c; assert(pthread_mutex_unlock(&r.page) == 0); pass(); } /* held by this thread, or it ends here */
static int r_prog(void *c, uint32_t off, const void *b, uint32_t n) { pass(); return d_prog(c, off, b, n); }
static int r_sync(void *c) { pass(); return d_sync(c); }
static int r_save(void *c, const void *b, uint32_t n) { pass(); return d_save(c, b, n); }
static int r_evidence(void *c, const uint8_t h[32], const uint8_t *b, size_t n) { pass(); return d_evidence(c, h, b, n); }
static int r_verify(void *c, const uint8_t sig[64], const uint8_t pk[32], const uint8_t *m, size_t n) { pass(); return d_verify(c, sig, pk, m, n); }

static qsafp_port_t port;

static bench_t *threaded(void)
{
    bench_t *b = fresh();
    port = PORT;
    port.now_ns = r_now, port.counter_at = r_counter, port.set_lease_valid = r_valid, port.set_failsafe = r_failsafe, port.kick = r_kick;
    port.lock = r_lock, port.unlock = r_unlock, port.log_prog = r_prog, port.log_sync = r_sync, port.state_save = r_save;
    port.evidence_put = r_evidence, port.verify_ed25519 = r_verify;
    memset(&r, 0, sizeof r);
    pthread_mutexattr_t checked;
    pthread_mutexattr_init(&checked);
    pthread_mutexattr_settype(&checked, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&r.page, &checked);
    pthread_mutex_init(&r.park, 0);
    pthread_cond_init(&r.moved, 0);
    r.now_ns = 100 * S;
    wire(b);
    b->q.port = &port;
    b->page.counter_hz = 3 * S;
    CHECK(qsafp_init(&b->q) == 0);
    return b;
}

static bool is_open(const bench_t *b) { return qsafp_gate_check_ns(&b->page, __atomic_load_n(&r.now_ns, __ATOMIC_SEQ_CST)); }

static uint8_t token[QSAFP_RESPONSE_MAX];
static size_t token_len;

static void ask(bench_t *b)
{
    CHECK(qsafp_begin(&b->q) == 0);
    token_len = lease_of(&b->q, FIRST, M, 0, token);
}

/* ---- one thread parked, another runs ---- */

static int last_put;

static void tick(bench_t *b) { (void)qsafp_tick(&b->q); }
static void stop(bench_t *b) { qsafp_trip(&b->q, QSAFP_REASON_MANUAL); }
static void soft_stop(bench_t *b) { qsafp_trip(&b->q, QSAFP_REASON_BUS); }
static void put(bench_t *b) { last_put = qsafp_put(&b->q, token, token_len); }
static void ask_and_put(bench_t *b)
{
    last_put = qsafp_begin(&b->q);
    if (!last_put)
        last_put = qsafp_put(&b->q, token, lease_of(&b->q, FIRST, M, 0, token));
}
static void late_stop(bench_t *b)
{
    (void)__atomic_add_fetch(&r.now_ns, 10 * S, __ATOMIC_SEQ_CST); /* parked for ten seconds */
    stop(b);
}

typedef struct { bench_t *b; void (*does)(bench_t *b); } thread_t;

static void *thread_main(void *arg)
{
    const thread_t *t = arg;
    pthread_mutex_lock(&r.park);
    r.who = pthread_self();
    pthread_mutex_unlock(&r.park);
    t->does(t->b);
    pthread_mutex_lock(&r.park);
    r.done = true;
    pthread_cond_broadcast(&r.moved);
    pthread_mutex_unlock(&r.park);
    return 0;
}

/* Runs `parked` in a thread of its own up to its port call number `at`, then `meanwhile` to its end, then the rest.
 * False if it made fewer calls. */
static bool race(bench_t *b, void (*parked)(bench_t *b), void (*meanwhile)(bench_t *b), int at)
{
    thread_t t = {b, parked};
    pthread_t id;
    r.left = at;
    r.calls = 0;
    r.parked = r.go = r.done = false;
    int err = pthread_create(&id, 0, thread_main, &t);
    assert(!err);
    pthread_mutex_lock(&r.park);
    while (!r.parked && !r.done)
        pthread_cond_wait(&r.moved, &r.park);
    bool got = r.parked;
    pthread_mutex_unlock(&r.park);
    if (got)
        meanwhile(b);
    pthread_mutex_lock(&r.park);
    r.go = true;
    pthread_cond_broadcast(&r.moved);
    pthread_mutex_unlock(&r.park);
    pthread_join(id, 0);
    r.left = 0;
    return got;
}

static bench_t *asked(void)
{
    bench_t *b = threaded();
    ask(b);
    return b;
}

static bench_t *running(void)
{
    bench_t *b = asked();
    put(b);
    tick(b);
    CHECK(is_open(b) && r.valid == 1 && last_put == 0);
    return b;
}

static bench_t *running_and_asked(void)
{
    bench_t *b = running();
    ask(b);
    return b;
}

static bench_t *stopped_by_the_bus_and_asked(void)
{
    bench_t *b = running();
    qsafp_trip(&b->q, QSAFP_REASON_BUS);
    CHECK(qsafp_service(&b->q) == 0 && !is_open(b));
    ask(b);
    return b;
}

static bench_t *at_the_end_of_grace_and_asked(void)
{
    bench_t *b = running();
    r.now_ns = 140 * S;
    ask(b);
    r.now_ns = 165 * S;
    return b;
}

/* I3, I4: whatever was parked where, the fail-safe has won when both are through, and it holds.  A tick that had seen no latch may
 * still lower FAILSAFE: the kick brings the next one. */
static bool stop_won(bench_t *b)
{
    bool won = r.kicks > 0;
    for (int i = 0; i < 3; i++) {
        won = won && !is_open(b) && b->page.armed == b->q.generation && b->q.latch != 0 && r.valid == 0 && (i == 0 || r.failsafe == 1);
        tick(b);
    }
    return won;
}

/* One or the other, but not both and never a line that lies. */
static bool stopped_or_open(bench_t *b)
{
    tick(b);
    return b->q.latch ? stop_won(b) : is_open(b) && last_put == 0 && r.valid == 1 && r.failsafe == 0;
}

static bool open_throughout(bench_t *b)
{
    bool open = is_open(b);
    tick(b);
    return open && is_open(b) && last_put == 0 && r.valid == 1 && b->page.deadline_ns == r.now_ns + S && b->q.lease.serial == 2;
}

static bool opened(bench_t *b)
{
    tick(b);
    return is_open(b) && last_put == 0 && r.valid == 1 && b->q.latch == 0;
}

static bool nothing_opened(bench_t *b)
{
    return last_put != 0 && stop_won(b);
}

typedef struct {
    const char *name;
    bench_t *(*from)(void);
    void (*parked)(bench_t *b), (*meanwhile)(bench_t *b);
    bool (*after)(bench_t *b);
    int calls;      /* port calls of the parked one: the count is part of the test */
} race_t;

static const race_t RACES[] = {
    {"a tick, a stop", running, tick, stop, stop_won, 5},
    {"a tick that slept ten seconds, a stop", running, tick, late_stop, stop_won, 5},
    {"the first lease, a stop", asked, put, stop, stop_won, 11},
    {"a renewal, a stop", running_and_asked, put, stop, stop_won, 11},
    {"a release, a stronger stop", stopped_by_the_bus_and_asked, put, stop, stop_won, 14},
    {"a stop, a renewal", running_and_asked, stop, put, nothing_opened, 3},
    {"a stop, a tick", running, stop, tick, stop_won, 3},
    {"a stop, a stronger stop", running, soft_stop, stop, stop_won, 3},
    {"a tick that ends grace, a renewal", at_the_end_of_grace_and_asked, tick, put, stopped_or_open, 9},
    {"a tick, a renewal", running_and_asked, tick, put, open_throughout, 5},
    {"a tick, the first lease", asked, tick, put, opened, 4},
};

static void I3_a_fail_safe_wins_wherever_another_thread_is_parked(void)
{
    for (size_t i = 0; i < sizeof RACES / sizeof *RACES; i++) {
        const race_t *k = &RACES[i];
        int calls = 0;
        for (bool got = true; got; calls += got) {
            bench_t *b = k->from();
            last_put = 0;
            got = race(b, k->parked, k->meanwhile, calls + 1);
            bool ok = !got || k->after(b);
            CHECK(ok);
            if (!ok)
                printf("  %s: parked in call %d\n", k->name, calls + 1);
            free(b);
        }
        CHECK(calls == k->calls);
        if (calls != k->calls)
            printf("  %s: %d calls, not %d\n", k->name, calls, k->calls);
    }
}

/* Until the stop is through, no lease of a later request can answer it; from its last call (kick) on, one can. */
static void I5_a_stop_that_is_not_yet_told_cannot_be_answered(void)
{
    for (int at = 1; at <= 3; at++) {
        bench_t *b = running();
        CHECK(race(b, stop, ask_and_put, at));
        tick(b);
        CHECK(at < 3 ? last_put != 0 && stop_won(b) : last_put == 0 && is_open(b));
        free(b);
    }
}

/* ---- all threads run free ---- */

enum { ROUNDS = 150 };

static struct { bench_t *b; bool end, shut; uint32_t ticks, round, tripped, opened; } f;

static uint32_t get(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static void set(bool *p, bool v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
static bool is(const bool *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }

static void *deadline_thread(void *arg)
{
    (void)arg;
    while (!is(&f.end)) {
        tick(f.b);
        (void)__atomic_add_fetch(&f.ticks, 1, __ATOMIC_SEQ_CST);
        sched_yield();
    }
    return 0;
}

/* Trips once a round, by turns for a reason that people release and one that any lease does. */
static void *stop_thread(void *arg)
{
    const uint32_t odd = *(const uint32_t *)arg;
    for (uint32_t n = 1; n <= ROUNDS; n++) {
        while (get(&f.round) < n)
            sched_yield();
        qsafp_trip(&f.b->q, n % 2 == odd ? QSAFP_REASON_MANUAL : QSAFP_REASON_BUS);
        (void)__atomic_add_fetch(&f.tripped, 1, __ATOMIC_SEQ_CST);
    }
    return 0;
}

/* A workload: sees the gate open at no moment between a stop that is through and the lease that answers it. */
static void *reader_thread(void *arg)
{
    (void)arg;
    while (!is(&f.end)) {
        uint32_t round = get(&f.round);
        bool open = is(&f.shut) && is_open(f.b);
        if (open && is(&f.shut) && get(&f.round) == round)
            (void)__atomic_add_fetch(&f.opened, 1, __ATOMIC_SEQ_CST);
        sched_yield();
    }
    return 0;
}

static void two_more_ticks(void)
{
    for (uint32_t from = get(&f.ticks); get(&f.ticks) - from < 2;)
        sched_yield();
}

static void I3_a_fail_safe_wins_while_everything_runs(void)
{
    static const uint32_t parity[2] = {0, 1};
    pthread_t id[4];
    memset(&f, 0, sizeof f);
    f.b = running();
    int err = pthread_create(&id[0], 0, deadline_thread, 0) || pthread_create(&id[1], 0, reader_thread, 0) ||
              pthread_create(&id[2], 0, stop_thread, (void *)(uintptr_t)&parity[0]) || pthread_create(&id[3], 0, stop_thread, (void *)(uintptr_t)&parity[1]);
    assert(!err);
    for (uint32_t n = 1; n <= ROUNDS; n++) {
        qsafp_info_t info;
        (void)__atomic_add_fetch(&r.now_ns, S / 10, __ATOMIC_SEQ_CST);
        ask(f.b);
        (void)__atomic_add_fetch(&f.round, 1, __ATOMIC_SEQ_CST); /* both stops and the lease race */
        put(f.b);
        qsafp_info(&f.b->q, &info);
        while (get(&f.tripped) < 2 * n)
            sched_yield();
        CHECK(!is_open(f.b) && get(&f.b->q.latch) == QSAFP_REASON_MANUAL && get(&f.b->page.armed) == get(&f.b->q.generation));
        set(&f.shut, true);
        two_more_ticks();
        CHECK(!is_open(f.b) && get(&r.valid) == 0 && get(&r.failsafe) == 1);
        CHECK(qsafp_service(&f.b->q) == 0);
        ask(f.b);
        set(&f.shut, false);
        put(f.b);
        two_more_ticks();
        CHECK(last_put == 0 && is_open(f.b) && get(&r.valid) == 1 && get(&r.failsafe) == 0);
        qsafp_info(&f.b->q, &info);
        CHECK(info.status == QSAFP_STATUS_VALID && info.serial == f.b->q.lease.serial);
    }
    set(&f.end, true);
    for (int i = 0; i < 4; i++)
        pthread_join(id[i], 0);
    CHECK(f.opened == 0);
    free(f.b);
}

/* Before the first lease: the page says whether a request is pending while requests come and go. */
static void requests_come_and_go_beside_the_tick(void)
{
    pthread_t id;
    memset(&f, 0, sizeof f);
    f.b = threaded();
    int err = pthread_create(&id, 0, deadline_thread, 0);
    assert(!err);
    for (uint32_t n = 1; n <= ROUNDS; n++) {
        ask(f.b);
        two_more_ticks();
        qsafp_info_t info;
        qsafp_info(&f.b->q, &info);
        CHECK(info.status == QSAFP_STATUS_PENDING && !is_open(f.b) && get(&r.valid) == 0 && f.b->q.pending.claims.serial == n);
        (void)__atomic_add_fetch(&r.now_ns, 31 * S, __ATOMIC_SEQ_CST); /* over half its duration */
    }
    ask(f.b);
    put(f.b);
    two_more_ticks();
    CHECK(is_open(f.b) && get(&r.valid) == 1);
    set(&f.end, true);
    pthread_join(id, 0);
    free(f.b);
}

int main(void)
{
    (void)alarm(240); /* a deadlock ends as a failure */
    I3_a_fail_safe_wins_wherever_another_thread_is_parked();
    I5_a_stop_that_is_not_yet_told_cannot_be_answered();
    I3_a_fail_safe_wins_while_everything_runs();
    requests_come_and_go_beside_the_tick();
    return DONE("test_race");
}
