/* SPDX-License-Identifier: Apache-2.0 */
/* The measured side in C: the core and the Linux port linked as they are, called as a host calls them.
 *
 * Every function returns ns, counter ticks, or a negative status; arrays belong to the caller. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host.h"

#define API __attribute__((visibility("default")))

/* ---- the gate of a running guard ---- */

API void *subject_map(int fd)
{
    void *p = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
    return p == MAP_FAILED ? 0 : p;
}

API uint64_t subject_gate_loop(const qsafp_gate_page_t *page, uint64_t n, uint64_t *closed)
{
    uint64_t start = boot_ns();
    for (uint64_t i = 0; i < n; i++)
        if (!qsafp_gate_check_counter(page))
            *closed += 1;
    return boot_ns() - start;
}

static bool open_now(const qsafp_gate_page_t *page)
{
    return page->counter_hz ? qsafp_gate_check_counter(page) : qsafp_gate_check_ns(page, boot_ns());
}

/* Boot time at which the gate is first seen closed; 0 if it is open until `until_ns`.  Sleeps until `spin_from_ns`. */
API uint64_t subject_wait_closed(const qsafp_gate_page_t *page, uint64_t spin_from_ns, uint64_t until_ns)
{
    uint64_t now;
    while ((now = boot_ns()) + 200000 < spin_from_ns)
        usleep(now + 2000000 < spin_from_ns ? 1000 : 50);
    while ((now = boot_ns()) < until_ns)
        if (!open_now(page) && !open_now(page)) /* once more, as every reader does */
            return boot_ns();
    return 0;
}

/* The deadline as the page has it: a dead guard moves it no more. */
API uint64_t subject_deadline_ns(const qsafp_gate_page_t *page) { return qsafp_gate_load(&page->deadline_ns); }

API uint64_t subject_wait_open(const qsafp_gate_page_t *page, uint64_t until_ns)
{
    while (boot_ns() < until_ns) {
        if (open_now(page))
            return boot_ns();
        usleep(50);
    }
    return 0;
}

/* Checks until `until_ns`: out[0] checks, out[1] first looks that failed, out[2] false closes (failed twice), out[3] longest pause ns. */
API void subject_false_closes(const qsafp_gate_page_t *page, uint64_t until_ns, uint64_t out[4])
{
    uint64_t last = boot_ns(), now;
    while ((now = boot_ns()) < until_ns) {
        out[3] = now - last > out[3] ? now - last : out[3];
        last = now;
        out[0]++;
        if (open_now(page))
            continue;
        out[1]++;
        out[2] += !open_now(page);
    }
}

/* Stamps the first n changes of the page's serial: out[2i] serial, out[2i+1] boot time. */
API uint64_t subject_serials(const qsafp_gate_page_t *page, uint64_t n, uint64_t *out, const uint32_t *stop)
{
    uint64_t last = qsafp_gate_load(&page->serial), i = 0;
    while (i < n && !__atomic_load_n(stop, __ATOMIC_RELAXED)) {
        uint64_t v = qsafp_gate_load(&page->serial);
        if (v == last) {
            usleep(20);
            continue;
        }
        last = v;
        out[2 * i] = v;
        out[2 * i++ + 1] = boot_ns();
    }
    return i;
}

/* The simulated board's file (board_ports/simulated/lines.c). */
typedef struct { char mark[16]; uint32_t level[4]; uint64_t changed_ns[4]; } board_t;

/* When LEASE_VALID last changed, once it is `level`; 0 after `until_ns`. */
API uint64_t subject_pin(const board_t *b, uint32_t level, uint64_t until_ns)
{
    while (boot_ns() < until_ns) {
        uint64_t at = __atomic_load_n(&b->changed_ns[LINE_LEASE_VALID], __ATOMIC_SEQ_CST);
        if (at && __atomic_load_n(&b->level[LINE_LEASE_VALID], __ATOMIC_SEQ_CST) == level) {
            usleep(30); /* level is stored before its stamp */
            return __atomic_load_n(&b->changed_ns[LINE_LEASE_VALID], __ATOMIC_SEQ_CST);
        }
        usleep(20);
    }
    return 0;
}

/* ---- the audit log over the file store, its writer running ---- */

typedef struct { host_t h; qsafp_audit_t a; qsafp_guard_options_t o; char why[256]; } log_t;

API log_t *subject_log_open(const char *dir)
{
    log_t *l = calloc(1, sizeof *l);
    if (!l)
        return 0;
    l->o = (qsafp_guard_options_t){.state_dir = dir, .evidence_max = 1u << 20};
    l->h.o = &l->o;
    l->h.why = l->why;
    l->h.why_len = sizeof l->why;
    l->a = (qsafp_audit_t){.port = &LINUX_PORT, .ctx = &l->h, .slots = QSAFP_LOG_SLOTS};
    return store_open(&l->h, true) || store_start(&l->h) || qsafp_audit_create(&l->a) ? 0 : l;
}

API void subject_log_close(log_t *l)
{
    store_close(&l->h);
    free(l);
}

API int subject_log_drain(log_t *l)
{
    int err = qsafp_audit_tree(&l->a);
    return err ? err : log_sync(&l->h);
}

static int append_one(log_t *l)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_INFERENCE_COMPLETED};
    return qsafp_audit_append(&l->a, &r);
}

/* ns of n appends in a row. */
API int64_t subject_log_burst(log_t *l, uint32_t n)
{
    uint64_t start = boot_ns();
    for (uint32_t i = 0; i < n; i++)
        if (append_one(l))
            return -1;
    return (int64_t)(boot_ns() - start);
}

API int subject_log_single(log_t *l, uint64_t n, uint64_t *out)
{
    for (uint64_t i = 0; i < n; i++) {
        uint64_t start = boot_ns();
        int err = append_one(l);
        if (!err)
            err = log_sync(&l->h);
        out[i] = boot_ns() - start;
        if (!err)
            err = i % 256 == 255 ? qsafp_audit_tree(&l->a) : 0; /* a guard does so at every request */
        if (err)
            return err;
    }
    return 0;
}

/* Record bytes per second below the durable mark, every record read back and exported to a file on the way. */
API double subject_log_rate(log_t *l, int export_fd, uint64_t for_ns)
{
    static uint8_t out[256 * QSAFP_RECORD_BYTES];
    uint64_t start = boot_ns(), first = l->a.next, exported = first;
    (void)!subject_log_drain(l);
    while (boot_ns() - start < for_ns) {
        for (int i = 0; i < 64; i++)
            if (append_one(l))
                return -1;
        while (l->a.next - exported >= 256) {
            for (uint64_t i = 0; i < 256; i++)
                if (qsafp_audit_read(&l->a, exported + i, out + i * QSAFP_RECORD_BYTES))
                    return -2;
            if (write(export_fd, out, sizeof out) != sizeof out || qsafp_audit_tree(&l->a))
                return -3;
            exported += 256;
        }
    }
    uint64_t end = boot_ns();
    pthread_mutex_lock(&l->h.store.lock);
    uint64_t behind = l->h.store.queued - l->h.store.durable;
    pthread_mutex_unlock(&l->h.store.lock);
    return (double)((l->a.next - first - behind) * QSAFP_RECORD_BYTES) * 1e9 / (double)(end - start);
}

/* n chained records, as an export holds them. */
API void subject_chain(uint8_t *out, uint64_t n)
{
    uint8_t prev[32] = {0};
    for (uint64_t i = 0; i < n; i++) {
        qsafp_record_t r = {.magic = QSAFP_RECORD_MAGIC, .event = i ? QSAFP_EVENT_INFERENCE_COMPLETED : QSAFP_EVENT_LOG_CREATED, .seq = i};
        r.flags = i % QSAFP_SECTOR_SLOTS == QSAFP_SECTOR_SLOTS - 1 ? 2 : 0;
        if (r.flags)
            memset(r.seal, 0x5A, sizeof r.seal);
        qsafp_record_hash(r.hash, prev, (const uint8_t *)&r);
        memcpy(prev, r.hash, 32);
        memcpy(out + i * QSAFP_RECORD_BYTES, &r, sizeof r);
    }
}

API int64_t subject_verify_log(const uint8_t *recs, uint64_t n)
{
    uint8_t prev[32] = {0};
    uint64_t bad, start = boot_ns();
    int err = qsafp_audit_verify(recs, n, prev, &bad);
    return err ? err : (int64_t)(boot_ns() - start);
}

/* ---- a whole core over memory: no disk, no thread ---- */

typedef struct {
    qsafp_t q;
    host_t h;
    qsafp_guard_options_t o;
    _Alignas(64) qsafp_gate_page_t page;
    qsafp_port_t port;
    uint8_t log[QSAFP_LOG_SLOTS * QSAFP_RECORD_BYTES], state[sizeof(qsafp_state_t)], *doc;
    bool has_state;
} core_t;

static core_t *of(void *ctx) { return (core_t *)((char *)ctx - offsetof(core_t, h)); }
static int mem_read(void *c, uint32_t off, void *b, uint32_t n) { memcpy(b, of(c)->log + off, n); return 0; }
static int mem_prog(void *c, uint32_t off, const void *b, uint32_t n) { memcpy(of(c)->log + off, b, n); return 0; }
static int mem_erase(void *c, uint32_t s) { memset(of(c)->log + s * 4096u, 0xFF, 4096); return 0; }
static int mem_sync(void *c) { (void)c; return 0; }
static int mem_evidence(void *c, const uint8_t h[32], const uint8_t *b, size_t n) { (void)c; (void)h; (void)b; (void)n; return 0; }
static int mem_load(void *c, void *b, uint32_t n) { memcpy(b, of(c)->state, n); return of(c)->has_state ? 0 : QSAFP_E_STORE; }
static int mem_save(void *c, const void *b, uint32_t n) { memcpy(of(c)->state, b, n); of(c)->has_state = true; return 0; }
static int mem_pin(void *c, int level) { (void)c; (void)level; return 0; }
static int mem_req(void *c) { (void)c; return 0; }
static int mem_sign(void *c, uint8_t sig[64], const uint8_t *m, size_t n) { (void)c; (void)m; (void)n; memset(sig, 0, 64); return 0; }

/* libsodium verifies as in the guard; the device's own signature, which nothing here looks at, is left out. */
static int load_sodium(core_t *c, const char *path)
{
    void *so = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    if (so)
        *(void **)&c->h.sodium.verify = dlsym(so, "crypto_sign_ed25519_verify_detached");
    return c->h.sodium.verify ? 0 : -1;
}

API core_t *subject_core(const uint8_t *set_doc, uint32_t len, const char *sodium)
{
    core_t *c = calloc(1, sizeof *c);
    if (!c || load_sodium(c, sodium))
        return 0;
    memset(c->log, 0xFF, sizeof c->log);
    c->port = LINUX_PORT;
    c->port.log_read = mem_read, c->port.log_prog = mem_prog, c->port.log_erase = mem_erase, c->port.log_sync = mem_sync;
    c->port.evidence_put = mem_evidence, c->port.state_load = mem_load, c->port.state_save = mem_save, c->port.sign = mem_sign;
    c->port.set_lease_valid = c->port.set_failsafe = mem_pin, c->port.toggle_validator_req = mem_req;
    c->port.lock = c->port.unlock = c->port.kick = 0;
    c->h.o = &c->o;
    c->h.counter_hz = counter_hz();
    c->page.counter_hz = c->h.counter_hz;
    uint8_t *scratch = malloc(len + 64u);
    c->doc = malloc(len);
    if (!scratch || !c->doc)
        return 0;
    memcpy(c->doc, set_doc, len);
    const qsafp_set_io_t io = {.port = &c->port, .ctx = &c->h, .scratch = scratch, .cap = len + 64u};
    int err = qsafp_set_load(&c->q.set, 0, (qsafp_bytes){c->doc, len}, &io);
    free(scratch);
    c->q.port = &c->port, c->q.ctx = &c->h, c->q.page = &c->page, c->q.log.slots = QSAFP_LOG_SLOTS;
    c->q.cfg = (qsafp_config_t){.alg = QSAFP_ALG_ED25519, .duration_ms = 3600000, .policy_ms = {1000, 1000, 0, 0}, .stale_after_ns = 1000000000, .tick_ns = 100000000};
    c->q.cfg.ueid[0] = 1;
    if (!err)
        err = qsafp_create(&c->q);
    return err || qsafp_init(&c->q) ? 0 : c;
}

/* The next request's payload, which validators sign; its length or a negative status. */
API int subject_core_begin(core_t *c, uint8_t *payload)
{
    c->q.pending.active = false;
    int err = qsafp_begin(&c->q);
    memcpy(payload, c->q.pending.payload, c->q.pending.payload_len);
    return err ? err : (int)c->q.pending.payload_len;
}

/* Token bytes in, verdict out: ns, or a negative status. */
API int64_t subject_core_put(core_t *c, const uint8_t *token, uint32_t len)
{
    uint64_t start = boot_ns();
    int err = qsafp_put(&c->q, token, len);
    return err ? err : (int64_t)(boot_ns() - start);
}

/* ---- decision to closed gate, seen on the other core ---- */

typedef struct { core_t *c; int cpu; uint32_t stop, go; uint64_t seen; } eye_t;

static void *eye(void *arg)
{
    eye_t *e = arg;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(e->cpu, &set);
    (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    for (uint32_t turn = 0; !__atomic_load_n(&e->stop, __ATOMIC_RELAXED);) {
        uint32_t go = __atomic_load_n(&e->go, __ATOMIC_ACQUIRE);
        if (go == turn)
            continue;
        if (qsafp_gate_check_counter(&e->c->page))
            continue;
        turn = go;
        __atomic_store_n(&e->seen, qsafp_counter(), __ATOMIC_RELEASE);
    }
    return 0;
}

/* Counter ticks from the decision (the last denial is counted) to a reader's refusal, n times. */
API int subject_trip(core_t *c, uint64_t n, int cpu, uint64_t *out)
{
    eye_t e = {.c = c, .cpu = cpu};
    pthread_t t;
    if (!c->h.counter_hz || pthread_create(&t, 0, eye, &e))
        return -1;
    for (uint64_t i = 0; i < n; i++) {
        c->q.latch = 0;
        __atomic_store_n(&c->q.lease_end_ns, boot_ns() + 3600000000000u, __ATOMIC_SEQ_CST);
        __atomic_store_n(&c->page.armed, QSAFP_ARMED, __ATOMIC_SEQ_CST);
        (void)qsafp_tick(&c->q);
        __atomic_store_n(&e.seen, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&e.go, (uint32_t)i + 1, __ATOMIC_RELEASE);
        uint64_t until = qsafp_counter() + 4000, seen;
        while (qsafp_counter() < until)
            ;
        uint64_t start = qsafp_counter();
        qsafp_trip(&c->q, QSAFP_REASON_VALIDATOR_DENIED);
        while (!(seen = __atomic_load_n(&e.seen, __ATOMIC_ACQUIRE)))
            ;
        out[i] = seen > start ? seen - start : 0;
    }
    __atomic_store_n(&e.stop, 1, __ATOMIC_RELAXED);
    return pthread_join(t, 0);
}

API uint64_t subject_hz(void) { return counter_hz(); }
