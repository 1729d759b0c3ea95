/* SPDX-License-Identifier: Apache-2.0 */
/* The guard process: opens everything, starts the threads, serves, closes the gate (architecture decision 2). */
#define _GNU_SOURCE
#include "guard.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

enum { NICE = -15 };

int fail(host_t *h, const char *fmt, ...)
{
    va_list v;
    va_start(v, fmt);
    vsnprintf(h->why, h->why_len, fmt, v);
    va_end(v);
    return -1;
}

/* ---- port ---- */

static uint64_t port_now_ns(void *ctx) { (void)ctx; return boot_ns(); }

static uint64_t wall_ms(void *ctx)
{
    struct timespec t;
    (void)ctx;
    clock_gettime(CLOCK_REALTIME_COARSE, &t); /* of the last timer interrupt: a record costs two readings of a clock, this one next to nothing */
    return t.tv_sec < 1700000000 ? 0 : (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u; /* before this was written: not set */
}

static int entropy(void *ctx, uint8_t *buf, size_t len)
{
    (void)ctx;
    return getrandom(buf, len, 0) == (ssize_t)len ? 0 : QSAFP_E_ENTROPY;
}

static int nonce_mac(void *ctx, uint8_t out[32], const uint8_t *msg, size_t len)
{
    const host_t *h = ctx;
    qsafp_hmac_sha256(out, h->o->nonce_key, sizeof h->o->nonce_key, msg, len);
    return 0;
}

static int sign(void *ctx, uint8_t sig[64], const uint8_t *msg, size_t len)
{
    host_t *h = ctx;
    if (h->o->tpm && !h->o->sealed)
        return tpm_sign(h, sig, msg, len);
    return h->sodium.sign(sig, 0, msg, len, h->o->sealed ? h->secret : h->o->secret_key) ? QSAFP_E_ARGUMENT : 0;
}

static int verify_ed25519(void *ctx, const uint8_t sig[64], const uint8_t pk[32], const uint8_t *msg, size_t len)
{
    const host_t *h = ctx;
    return h->sodium.verify(sig, msg, len, pk) ? QSAFP_E_BAD_SIGNATURE : 0;
}

static void lock(void *ctx) { pthread_mutex_lock(&((host_t *)ctx)->lock); }
static void unlock(void *ctx) { pthread_mutex_unlock(&((host_t *)ctx)->lock); }

static void kick(void *ctx)
{
    host_t *h = ctx;
    uint64_t one = 1;
    if (h->serving && pthread_equal(pthread_self(), h->service))
        contain_first(h); /* before the core writes what happened */
    (void)!write(h->deadline_event, &one, sizeof one);
    (void)!write(h->service_event, &one, sizeof one);
}

static int state_load(void *ctx, void *buf, uint32_t len)
{
    host_t *h = ctx;
    return h->bind ? bind_load(h, buf) : file_state_load(ctx, buf, len);
}

static int state_save(void *ctx, const void *buf, uint32_t len)
{
    host_t *h = ctx;
    return h->bind ? bind_save(h, buf) : file_state_save(ctx, buf, len);
}

const qsafp_port_t LINUX_PORT = {
    .now_ns = port_now_ns, .counter_at = counter_at, .wall_ms = wall_ms, .entropy = entropy, .nonce_mac = nonce_mac, .sign = sign,
    .verify_ed25519 = verify_ed25519, .set_lease_valid = pin_lease_valid, .set_failsafe = pin_failsafe, .toggle_validator_req = pin_req,
    .log_read = log_read, .log_prog = log_prog, .log_erase = log_erase, .log_sync = log_sync, .evidence_put = evidence_put,
    .state_load = state_load, .state_save = state_save, .lock = lock, .unlock = unlock, .kick = kick,
    .quote = tpm_quote,
};

/* ---- opening ---- */

static int open_sodium(host_t *h)
{
    void *so = dlopen(h->o->sodium, RTLD_LAZY | RTLD_LOCAL);
    int (*init)(void) = 0;
    if (so) {
        *(void **)&init = dlsym(so, "sodium_init");
        *(void **)&h->sodium.verify = dlsym(so, "crypto_sign_ed25519_verify_detached");
        *(void **)&h->sodium.sign = dlsym(so, "crypto_sign_ed25519_detached");
    }
    bool ok = so && init && h->sodium.verify && h->sodium.sign && init() >= 0;
    return ok ? 0 : fail(h, "%s: no libsodium in it; reinstall pynacl", h->o->sodium);
}

/* The document that was installed by frames since enrolment, if any: malloc'ed. */
static uint8_t *kept_set(const host_t *h, size_t *len)
{
    struct stat st;
    int fd = openat(h->store.dir_fd, "set.cbor", O_RDONLY | O_CLOEXEC);
    uint8_t *bytes = 0;
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size <= QSAFP_SET_MAX)
        bytes = malloc((size_t)st.st_size);
    if (bytes && read(fd, bytes, (size_t)st.st_size) != st.st_size) {
        free(bytes);
        bytes = 0;
    }
    *len = bytes ? (size_t)st.st_size : 0;
    if (fd >= 0)
        close(fd);
    return bytes;
}

/* What is configured, or its successor that was installed since: the higher epoch. */
static int load_set(host_t *h)
{
    qsafp_set_t kept;
    size_t len = 0;
    h->set_len = h->o->set_len;
    h->set_doc = malloc(h->set_len + 1);
    if (!h->set_doc)
        return fail(h, "out of memory");
    memcpy(h->set_doc, h->o->set_doc, h->set_len);
    int err = set_verify(h, &h->q.set, 0, (qsafp_bytes){h->set_doc, h->set_len});
    if (err)
        return fail(h, "the validator set document is not valid (core status %d)", err);
    uint8_t *bytes = kept_set(h, &len);
    if (!bytes)
        return 0;
    err = set_verify(h, &kept, 0, (qsafp_bytes){bytes, len});
    bool same = !err && memcmp(kept.set_id, h->q.set.set_id, sizeof kept.set_id) == 0;
    if (!same || kept.epoch <= h->q.set.epoch) {
        free(bytes);
        return same ? 0 : fail(h, "%s/set.cbor: not valid, or not of the set that is configured (core status %d)", h->o->state_dir, err);
    }
    free(h->set_doc);
    h->set_doc = bytes;
    h->set_len = len;
    h->q.set = kept;
    return 0;
}

/* Sealed: nobody shrinks or grows it or maps it writable; our own mapping was made before. */
static int make_page(host_t *h)
{
    h->page_fd = memfd_create("qsafp-gate", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (h->page_fd < 0 || ftruncate(h->page_fd, QSAFP_GATE_PAGE_BYTES))
        return fail(h, "gate page: %s", strerror(errno));
    void *p = mmap(0, QSAFP_GATE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, h->page_fd, 0);
    if (p == MAP_FAILED || fcntl(h->page_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL))
        return fail(h, "gate page: %s", strerror(errno));
    h->q.page = p;
    h->q.page->counter_hz = h->counter_hz;
    h->q.page->clock_id = CLOCK_BOOTTIME;
    return 0;
}

static void configure(host_t *h)
{
    const qsafp_guard_options_t *o = h->o;
    uint8_t kid[32];
    qsafp_t *q = &h->q;
    if (o->tpm && !o->sealed)
        qsafp_sha256(kid, o->device_pk, sizeof o->device_pk);
    else
        qsafp_sha256(kid, o->secret_key + 32, 32);
    q->port = &LINUX_PORT;
    q->ctx = h;
    q->log.slots = h->store.slots;
    q->cfg = (qsafp_config_t){.alg = o->tpm && !o->sealed ? QSAFP_ALG_ESP256 : QSAFP_ALG_ED25519, .duration_ms = o->duration_ms, .stale_after_ns = o->stale_after_ms * 1000000u, .tick_ns = o->tick_ms * 1000000u, .level = o->level};
    memcpy(q->cfg.ueid, o->ueid, sizeof o->ueid);
    memcpy(q->cfg.kid, kid, sizeof q->cfg.kid);
    memcpy(q->cfg.model, o->model, sizeof o->model);
    memcpy(q->cfg.policy_ms, o->policy_ms, sizeof o->policy_ms);
}

host_t *host_new(const qsafp_guard_options_t *o, char *why, size_t why_len)
{
    host_t *h = calloc(1, sizeof *h);
    if (!h) {
        snprintf(why, why_len, "out of memory");
        return 0;
    }
    h->o = o;
    h->why = why;
    h->why_len = why_len;
    store_t *s = &h->store;
    s->ring.fd = s->state_fd = s->evidence_fd = s->lock_fd = s->seal_fd = s->dir_fd = s->spare_fd = -1;
    h->watchdog.fd = h->watchdog.file = -1;
    h->page_fd = h->gate_fd = h->ctl_fd = h->epoll_fd = h->signal_fd = h->deadline_event = h->service_event = -1;
    pthread_mutexattr_t inherit;
    pthread_mutexattr_init(&inherit);
    pthread_mutexattr_setprotocol(&inherit, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&h->lock, &inherit);
    snprintf(why, why_len, "unknown");
    return h;
}

int qsafp_guard_create(const qsafp_guard_options_t *o, uint8_t log_id[32], char *why, size_t why_len)
{
    host_t *h = host_new(o, why, why_len);
    if (!h)
        return -1;
    int err = store_open(h, true);
    if (!err)
        err = store_start(h) || bind_make(h) ? -1 : 0;
    if (!err) {
        configure(h);
        err = qsafp_create(&h->q);
        if (err)
            (void)fail(h, err == QSAFP_E_BUSY ? "%s: enrolled already" : "%s: the log cannot be created", o->state_dir);
        memcpy(log_id, h->q.log.log_id, 32);
        err = err ? err : bind_made(h);
    }
    tpm_stop(h);
    bind_free(h);
    store_close(h);
    free(h);
    return err;
}

/* ---- threads ---- */

static void *deadline_thread(void *arg)
{
    host_t *h = arg;
    uint64_t sink;
    struct pollfd p[2] = {{.fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC), .events = POLLIN}, {.fd = h->deadline_event, .events = POLLIN}};
    while (!h->stop) {
        uint64_t next = qsafp_tick(&h->q);
        struct itimerspec t = {.it_value = {.tv_sec = (time_t)(next / 1000000000u), .tv_nsec = (long)(next % 1000000000u)}};
        (void)timerfd_settime(p[0].fd, TFD_TIMER_ABSTIME, &t, 0);
        (void)poll(p, 2, (int)h->o->tick_ms + 1);
        if (p[1].revents)
            (void)!read(p[1].fd, &sink, sizeof sink);
    }
    close(p[0].fd);
    return 0;
}

int start_deadline(host_t *h)
{
    pthread_attr_t a;
    struct sched_param rt = {.sched_priority = 50};
    pthread_attr_init(&a);
    pthread_attr_setinheritsched(&a, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&a, SCHED_FIFO);
    pthread_attr_setschedparam(&a, &rt);
    h->fifo = pthread_create(&h->deadline, &a, deadline_thread, h) == 0;
    if (!h->fifo && pthread_create(&h->deadline, 0, deadline_thread, h))
        return fail(h, "cannot start the deadline thread");
    return 0;
}

static bool spare_us(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, "-1000", 5) == 5;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* The highest epoch known before this start. */
static uint64_t epoch_before(host_t *h)
{
    qsafp_state_t st;
    return state_load(h, &st, sizeof st) ? 0 : st.epoch;
}

int host_start(host_t *h, int (*pins)(host_t *))
{
    h->deadline_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    h->service_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->deadline_event < 0 || h->service_event < 0)
        return fail(h, "eventfd: %s", strerror(errno));
    if (open_sodium(h) || store_open(h, false) || load_set(h))
        return -1;
    if (pins(h) || store_start(h) || (h->o->tpm && tpm_start(h)) || bind_start(h)) /* the holder before any thread */
        return -1;
    h->counter_hz = counter_hz();
    configure(h);
    if (make_page(h))
        return -1;
    uint64_t epoch = epoch_before(h);
    int err = qsafp_init(&h->q);
    if (err)
        return explain(h, err);
    if (log_matches(h) || bind_begin(h))
        return -1;
    if (h->q.set.epoch > epoch && set_note(h))
        return fail(h, "%s: cannot record the set document: the disk is full or fails", h->o->state_dir);
    polls_alive(h, 0);
    return 0;
}

void host_stop(host_t *h)
{
    h->stop = true;
    if (!h->q.page)
        return;
    qsafp_deinit(&h->q);
    if (h->deadline)
        pthread_join(h->deadline, 0);
    qsafp_deinit(&h->q); /* after the last tick */
    tpm_hush(h);
}

void host_free(host_t *h)
{
    bind_close(h);
    tpm_stop(h);
    bind_free(h);
    store_close(h);
    free(h->set_doc);
    free(h->incoming);
    qsafp_wipe(h->secret, sizeof h->secret);
    free(h);
}

int qsafp_guard_run(const qsafp_guard_options_t *o, char *why, size_t why_len)
{
    sigset_t mask, was;
    (void)prctl(PR_SET_DUMPABLE, 0); /* keys in memory: no core file, no debugger of our own user */
    host_t *h = host_new(o, why, why_len);
    if (!h)
        return -1;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &mask, &was);
    (void)setpriority(PRIO_PROCESS, 0, NICE); /* where permitted, threads to come included: a denial does not queue behind others' work */
    int err = host_start(h, pins_start) || serve_open(h) || start_deadline(h) || watchdog_start(h) ? -1 : 0;
    if (!err) {
        h->locked = mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0;
        bool spared = spare_us();
        printf("guard: serving %s, board %s%s, %s counter, FIFO %s, memory locked %s, spared by the OOM killer %s, watchdog %s, log %s of %u records, device key in %s%s%s\n", o->run_dir, o->board,
               strcmp(o->board, "simulated") ? "" : " (SIMULATED PINS)", h->counter_hz ? "CPU" : "no CPU", h->fifo ? "yes" : "no",
               h->locked ? "yes" : "no", spared ? "yes" : "no",
               h->watchdog.fd >= 0 ? o->watchdog : "none", h->store.ring.name, log_live(h),
               o->sealed ? "memory, sealed by TPM " : o->tpm ? "TPM " : "a file", o->tpm ? o->tpm : "", o->quote_pcrs ? ", quotes" : "");
        fflush(stdout);
        notify("READY=1");
        err = serve(h);
        notify("STOPPING=1");
        serve_close(h);
    }
    host_stop(h);
    pins_stop(h); /* a holder that hangs is waited for: the watchdog bites */
    watchdog_stop(h, err == 0);
    host_free(h);
    pthread_sigmask(SIG_SETMASK, &was, 0);
    return err;
}
