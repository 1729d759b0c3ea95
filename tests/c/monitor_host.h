/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's loop, its service calls and its containment on this machine: a board, a port and memory for tests. */
#ifndef MONITOR_HOST_H
#define MONITOR_HOST_H

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* A board of this test's own, in place of any board's map. */
#define HIFIVE_UNLEASHED_MONITOR_MAP_H
#include <stdint.h>
static uint8_t ram[0x8000], copy_of_it[0x2000];
#define HARTS 3
#define PIN_LEASE_RENEW 5
#define PAYLOAD_RAM ((uint64_t)(uintptr_t)ram)
#define RAM_END (PAYLOAD_RAM + sizeof ram)
#define CHECKPOINT_BASE ((uintptr_t)copy_of_it)
#define CHECKPOINT_BYTES sizeof copy_of_it
#define NS_PER_TICK 1u
#define BOARD_NAME "test"
#define FUSES_BASE ((uintptr_t)ram)
#define SET_BASE ((uintptr_t)ram)
#define PIN_LEASE_VALID 0
#define PIN_FAILSAFE 1

#include "monitor.h"
#define get get_of_calls
#define set set_of_calls
#include "../../cext/monitor/calls.c"
#undef get
#undef set
#include "../../cext/monitor/contain.c"
#define start start_of_monitor
#include "../../cext/monitor/monitor.c"
#undef start

static uint8_t part[QSAFP_LOG_SLOTS * QSAFP_RECORD_BYTES];
static qsafp_state_t kept;
static bool has_state;
static uint64_t clock_ns, dice = 0x9E3779B97F4A7C15u;
static int checks;

static inline uint64_t roll(void)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return dice;
}

/* ---- architecture and board ---- */

static bool reachable(uint64_t at, size_t n) { return at >= PAYLOAD_RAM && at < RAM_END && n <= RAM_END - at; }

int arch_copy_in(void *to, uint64_t from, size_t n)
{
    if (!reachable(from, n))
        return -1;
    memcpy(to, (const void *)(uintptr_t)from, n);
    return 0;
}

int arch_copy_out(uint64_t to, const void *from, size_t n)
{
    if (!reachable(to, n))
        return -1;
    memcpy((void *)(uintptr_t)to, from, n);
    return 0;
}

/* Armed, a fail-safe comes between a call and its answer, and all of containment. */
static bool armed;

void arch_yield(void)
{
    if (armed && !m.contain) {
        qsafp_trip(&m.q, QSAFP_REASON_MANUAL);
        contain_all();
        return; /* the caller sees it before it is answered */
    }
    contain_act();
    (void)serve_core(&m.core[1]);
}

void arch_poke(unsigned core) { assert(core < CORES); }
void arch_unpoke(unsigned core) { assert(core < CORES); }

/* Released. */
void arch_wait(void)
{
    m.restarts += m.rolled_back;
    m.contain = m.rolled_back = m.q.contained = 0;
}

/* The timer's interrupt is taken at the last moment that lets it. */
static void (*last_moment)(void);
bool arch_lock(void)
{
    if (last_moment)
        last_moment();
    return false;
}

void arch_unlock(bool was) { (void)was; }

static unsigned rests;
void arch_wait_line(void) { rests++; }

static struct { const uint8_t *next; size_t left, have; uint64_t byte_ns; bool trips; uint8_t said[8192]; } line;

/* Where it trips, the last byte is what stops the device. */
int board_line_get(void)
{
    if (!line.left)
        return -1;
    clock_ns += line.byte_ns;
    if (!--line.left && line.trips)
        qsafp_trip(&m.q, QSAFP_REASON_MANUAL);
    return *line.next++;
}

void board_line_put(uint8_t byte)
{
    assert(line.have < sizeof line.said);
    assert(!m.q.latch || kept.latch == m.q.latch); /* durable before anybody is told */
    line.said[line.have++] = byte;
}

bool board_line_waits(void) { return line.left != 0; }
bool board_pin_get(unsigned pin) { return pin == 0; }
/* What monitor.c needs beside, none of which is asked here. */
void arch_start(void) { assert(0); }
void arch_halt(void) { abort(); }
void arch_alarm(uint64_t ticks) { (void)ticks; }
void board_start(void) { assert(0); }
void board_pin(unsigned pin, int v) { (void)pin; (void)v; assert(0); }
bool nor_ready(void) { return false; }
int fuses_read(void) { return -1; }
int entropy_take(void) { return -1; }
int store_start(void) { return -1; }
int seal_start(void) { return -1; }
void boot_measure(qsafp_t *q) { (void)q; }
int boot_keep(void) { return 0; }
void qsafp_ed25519_public(uint8_t pk[32], const uint8_t seed[32]) { (void)pk; (void)seed; }

/* ---- the port: all of it in memory ---- */

static uint64_t now(void *c) { (void)c; return clock_ns += 1000; }
static uint64_t same_ns(void *c, uint64_t ns) { (void)c; return ns; }
static uint64_t zero(void *c) { (void)c; return 0; }
static int entropy(void *c, uint8_t *b, size_t n) { (void)c; memset(b, 7, n); return 0; }
static int mac(void *c, uint8_t out[32], const uint8_t *p, size_t n) { (void)c; qsafp_sha256(out, p, n); return 0; }
static int sign(void *c, uint8_t sig[64], const uint8_t *p, size_t n) { (void)c; (void)p; (void)n; memset(sig, 1, 64); return 0; }
static int refuse(void *c, const uint8_t s[64], const uint8_t k[32], const uint8_t *p, size_t n) { (void)c; (void)s; (void)k; (void)p; (void)n; return -1; }
static int driven; /* pins, how often */
static int level(void *c, int v) { (void)c; (void)v; driven++; return 0; }
static int toggle(void *c) { (void)c; return 0; }
static int part_read(void *c, uint32_t off, void *b, uint32_t n) { (void)c; memcpy(b, part + off, n); return 0; }
static int part_prog(void *c, uint32_t off, const void *b, uint32_t n) { (void)c; memcpy(part + off, b, n); return 0; }
static int part_erase(void *c, uint32_t s) { (void)c; memset(part + s * 4096, 0xFF, 4096); return 0; }
static int evidence(void *c, const uint8_t h[32], const uint8_t *b, size_t n) { (void)c; (void)h; (void)b; (void)n; return 0; }
static int load(void *c, void *b, uint32_t n) { (void)c; memcpy(b, &kept, n); return has_state ? 0 : QSAFP_E_STORE; }
static int save(void *c, const void *b, uint32_t n) { (void)c; memcpy(&kept, b, n); has_state = true; return 0; }
const qsafp_port_t monitor_port = {
    .now_ns = now, .counter_at = same_ns, .wall_ms = zero, .entropy = entropy, .nonce_mac = mac, .sign = sign, .verify_ed25519 = refuse,
    .set_lease_valid = level, .set_failsafe = level, .toggle_validator_req = toggle, .log_read = part_read, .log_prog = part_prog,
    .log_erase = part_erase, .log_sync = toggle, .evidence_put = evidence, .state_load = load, .state_save = save,
};

static inline void start(void)
{
    qsafp_t *q = &m.q;
    memset(part, 0xFF, sizeof part);
    q->port = &monitor_port;
    q->page = &gate_page;
    q->log.slots = QSAFP_LOG_SLOTS;
    q->cfg = (qsafp_config_t){.ueid = {1}, .alg = QSAFP_ALG_ED25519, .duration_ms = 60000, .stale_after_ns = 1000000000, .tick_ns = 100000000};
    q->set = (qsafp_set_t){.m = 2, .n = 3, .suite = QSAFP_SUITE_ED25519, .max_duration_ms = 60000};
    m.command.q = q;
    assert(!qsafp_create(q));
    assert(!qsafp_init(q));
}

/* ---- what must hold after any call ---- */

static inline void check_closed(void)
{
    assert(gate_page.armed != QSAFP_ARMED);
    assert(!qsafp_gate_check_ns(&gate_page, clock_ns));
    checks++;
}

#endif
