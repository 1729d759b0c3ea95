/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's store in a life of a device: records, a lease, a fail-safe.  The power is cut at each operation of that life, and at each
 * operation of the start after it (HW-8).  The test that includes this brings the part, whose bytes are `part`. */
#ifndef STORE_LIFE_H
#define STORE_LIFE_H

#include "device.h"

#include "../../cext/monitor/seal.c"
#define place state_place_of
#include "../../cext/monitor/store.c"
#undef place

enum { RECORDS = 100, LEASE_AT = 30, TRIP_AT = 70, SLOTS_OF_RING = 5 * QSAFP_SECTOR_SLOTS, TORN_WAYS = 2 };

monitor_t m;
static uint8_t part[PART], as_cut[PART];
static int operations, cut_at;   /* programs and erases; the one that is cut, 0 for none */
static int torn;                 /* the way in which a cut one is half done */
static bool dead, ignores;       /* ignores: it takes programs and erases, and does nothing */
static void power_on(void);

/* At the begin of each operation: whether it is the one that is cut.  After that the part does nothing. */
static bool cut(void)
{
    bool now = ++operations == cut_at;
    dead |= now;
    return now;
}

static uint64_t clock_ns;
static uint64_t now(void *c) { (void)c; return clock_ns += 1000; }
const qsafp_port_t monitor_port = {.now_ns = now};
static qsafp_port_t port;
static bench_t bench;

/* What the device answered for: it must hold whatever comes. */
static struct { uint64_t serial; uint32_t records; bool latch; } promised;

static void promise(void)
{
    promised.records = bench.q.log.next;
    promised.serial = bench.q.st.serial;
    promised.latch = bench.q.st.latch != 0;
}

static void wire_store(void)
{
    wire(&bench);
    port = PORT;
    port.log_read = log_read;
    port.log_prog = log_prog;
    port.log_erase = log_erase;
    port.log_sync = log_sync;
    port.state_load = state_read;
    port.state_save = state_write;
    bench.q.port = &port;
    bench.q.log.slots = SLOTS_OF_RING;
}

static int boot(void)
{
    dead = false;
    power_on();
    memset(&m, 0, sizeof m);
    memset(m.seal_key, 0x5A, sizeof m.seal_key);
    wire_store();
    int err = store_start();
    if (!err)
        err = seal_start();
    if (!err)
        err = qsafp_create(&bench.q);
    if (err && err != QSAFP_E_BUSY)
        return err;
    wire_store();
    return qsafp_init(&bench.q);
}

static int stop(void)
{
    qsafp_trip(&bench.q, QSAFP_REASON_MANUAL);
    return qsafp_service(&bench.q);
}

static int act(int i)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_ANOMALY};
    int err = i == LEASE_AT ? obtain(&bench) : i == TRIP_AT ? stop() : 0;
    assert(err || i < LEASE_AT || i >= TRIP_AT || open_now(&bench));
    return err ? err : qsafp_note(&bench.q, &r);
}

/* Up to the cut or the end. */
static void live(void)
{
    int err = boot();
    for (int i = 0; i < RECORDS && !err; i++) {
        promise();
        err = act(i);
    }
    if (!err)
        promise();
    (void)qsafp_tick(&bench.q);
    assert(!open_now(&bench) && !bench.d.valid); /* cut or stopped: closed within a tick */
}

/* Seals of all whole sectors that are on hand, from the key that was there before the first. */
static void check_seals(void)
{
    uint8_t key[32], seal[16], rec[QSAFP_RECORD_BYTES];
    uint32_t epoch = 0;
    memset(key, 0x5A, sizeof key);
    for (uint32_t seq = bench.q.log.first | 15; seq < bench.q.log.next; seq += 16) {
        while (epoch < seq / 16) {
            qsafp_seal_evolve(key);
            epoch++;
        }
        assert(!qsafp_audit_read(&bench.q.log, seq, rec));
        qsafp_seal(seal, key, rec + 208);
        assert(!memcmp(seal, rec + 240, sizeof seal));
    }
}

static void old_keys_are_nowhere(void)
{
    uint8_t key[32];
    memset(key, 0x5A, sizeof key);
    for (uint32_t e = 0; e < m.seal_epoch; e++) {
        for (unsigned i = 0; i + sizeof key <= PART; i++)
            assert(memcmp(part + i, key, sizeof key));
        qsafp_seal_evolve(key);
    }
}

/* Starts and holds what was promised; how many operations that took, cut at one of them or not at all. */
static int starts(int at)
{
    operations = 0;
    cut_at = at;
    int err = boot();
    assert(at || !err || !promised.records); /* enrolment that was cut is begun anew, on blank flash */
    if (!err && !dead) {
        assert(bench.q.log.next >= promised.records && bench.q.st.serial >= promised.serial);
        assert(!promised.latch || bench.q.latch);
        check_seals();
        (void)qsafp_tick(&bench.q);
    }
    assert(!open_now(&bench) && !bench.d.valid);
    return operations;
}

/* A cut in the life of the device, then one at each operation of the start after it. */
static int run(int at)
{
    memset(part, 0xFF, sizeof part);
    memset(&bench, 0, sizeof bench);
    memset(&promised, 0, sizeof promised);
    bench.d.now_ns = 100 * S;
    operations = 0;
    cut_at = at;
    live();
    int total = operations;
    memcpy(as_cut, part, sizeof part);
    int again = starts(0);
    (void)starts(0);
    for (int k = 1; at && k <= again; k++, tests_passed++) {
        memcpy(part, as_cut, sizeof part);
        (void)starts(k);
        (void)starts(0);
    }
    tests_passed++;
    return total;
}

/* No program counts that the part only seems to have taken. */
static void a_part_that_ignores_programs_is_noticed(void)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_ANOMALY};
    memset(part, 0xFF, sizeof part);
    assert(!boot() && !qsafp_note(&bench.q, &r) && !obtain(&bench) && open_now(&bench));
    ignores = true;
    CHECK(qsafp_note(&bench.q, &r) == QSAFP_E_STORE);
    CHECK(state_write(0, &bench.q.st, sizeof bench.q.st) == QSAFP_E_STORE);
    (void)qsafp_tick(&bench.q);
    CHECK(!open_now(&bench) && !bench.d.valid);
    ignores = false;
}

/* Every cut, torn in every way; fails if there was next to nothing to cut. */
static void run_all(void)
{
    a_part_that_ignores_programs_is_noticed();
    int total = run(0);
    assert(total > 100 && m.seal_epoch > 4);
    old_keys_are_nowhere();
    for (torn = 0; torn < TORN_WAYS; torn++)
        for (int n = 1; n <= total; n++)
            run(n);
}

#endif
