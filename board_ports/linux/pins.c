/* SPDX-License-Identifier: Apache-2.0 */
/* The pin holder (HW-13): a process forked before the guard has threads, sole owner of the lines.
 *
 * It drives what the guard wants while the guard lives and ticks; on end of file, or when the heartbeat is older than
 * stale_after, LEASE_VALID falls.  Lines may keep their level when their owner dies, so it outlives the guard.
 *
 * The one input asks for a renewal.  It is looked at after the outputs were driven, at most twice in DEBOUNCE_NS while it moves, and
 * moves none of them: the holder tells the guard, whose status then says that a renewal is wanted. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host.h"

enum { PULSE_NS = 200000000, PERIOD_NS = 2000000000 };
enum { DEAD_TRIES = 4, DEAD_AGAIN = 20 }; /* some 150 ms of a line that does not obey; said again every second */
enum { APART_NS = 50000000, HUNG = 20 };  /* so many ticks so far apart without the holder: it hangs */
enum { UNKNOWN = -1 };                    /* neither level */
enum { HEARD_PRESS = 0, HEARD_DEAD = 1 }; /* what the holder tells the guard, a byte each */
enum { DEBOUNCE_NS = 20000000, PRESS_NS = 1000000000 };

/* LEASE_RENEW.  moving: edges came, and until `quiet_ns` those that follow wait unread. */
typedef struct { int fd, level; bool moving; uint64_t quiet_ns, pressed_ns; } input_t;
typedef struct { const qsafp_lines_t *lines; void *ctx; pins_shared_t *s; int sock; bool alive; int level[LINES]; unsigned misses[LINES]; uint64_t failsafe_since, dead_since; input_t in; } holder_t;

static bool simulated(const host_t *h) { return strcmp(h->o->board, "simulated") == 0; }

static uint32_t get(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }

/* A guard that is gone, or that reads nothing, is not waited for. */
static void say(const holder_t *o, uint8_t what) { (void)!send(o->sock, &what, 1, MSG_DONTWAIT | MSG_NOSIGNAL); }

/* Tried again at every turn, since a write that was refused may have taken; a line that never obeys is a fail-safe of the guard's
 * (I4: nothing else may say that all is well), and again after a release. */
static void set(holder_t *o, qsafp_line_t line, int level)
{
    if (o->level[line] == level)
        return;
    bool ok = o->lines->drive(o->ctx, line, level) == 0;
    o->level[line] = ok ? level : UNKNOWN;
    o->misses[line] = ok ? 0 : o->misses[line] + 1;
    if (o->misses[line] % DEAD_AGAIN == DEAD_TRIES)
        say(o, HEARD_DEAD);
}

/* Drives everything; returns ms until something changes by itself. */
static int drive(holder_t *o)
{
    uint64_t beat = __atomic_load_n(&o->s->heartbeat_ns, __ATOMIC_SEQ_CST), now = boot_ns(); /* in this order: a tick between them is not ahead */
    bool fresh = o->alive && beat && now - beat <= o->s->stale_ns;
    bool failsafe = get(&o->s->failsafe) || !fresh;
    set(o, LINE_LEASE_VALID, fresh && get(&o->s->valid)); /* SAFETY: I4 low when nobody vouches */
    set(o, LINE_VALIDATOR_REQ, get(&o->s->req) & 1);
    __atomic_store_n(&o->s->unseen, 0, __ATOMIC_SEQ_CST);
    if (!failsafe) {
        o->failsafe_since = 0;
        set(o, LINE_FAILSAFE, 0);
        return 50;
    }
    if (!o->failsafe_since)
        o->failsafe_since = now;
    uint64_t at = (now - o->failsafe_since) % PERIOD_NS;
    set(o, LINE_FAILSAFE, at < PULSE_NS);
    return at < PULSE_NS ? (int)((PULSE_NS - at) / 1000000) + 1 : 50;
}

/* A press is a rising edge and a line that is quiet for DEBOUNCE_NS after it; within PRESS_NS of the one before it is dropped. */
static void listen_to(holder_t *o)
{
    input_t *in = &o->in;
    uint64_t now = boot_ns();
    int level = in->level;
    if (in->fd < 0 || now < in->quiet_ns)
        return;
    int edges = o->lines->edges(o->ctx, &level);
    if (edges < 0)
        in->fd = -1; /* renewals go on at half of each lease */
    bool press = edges == 0 && level && !in->level && now - in->pressed_ns >= PRESS_NS;
    in->moving = edges > 0;
    if (in->moving)
        in->quiet_ns = now + DEBOUNCE_NS;
    else
        in->level = level;
    if (!press)
        return;
    in->pressed_ns = now;
    say(o, HEARD_PRESS);
}

/* Until the guard says something, the input moves, or `wait` ms are over. */
static void await(holder_t *o, int wait)
{
    uint8_t bytes[256];
    uint64_t now = boot_ns();
    struct pollfd p[2] = {{.fd = o->alive ? o->sock : -1, .events = POLLIN}, {.fd = o->alive && !o->in.moving ? o->in.fd : -1, .events = POLLIN}};
    if (o->in.moving)
        wait = now < o->in.quiet_ns ? (int)((o->in.quiet_ns - now) / 1000000) + 1 : 0;
    if (poll(p, 2, wait) <= 0 || !p[0].revents)
        return;
    ssize_t n = read(o->sock, bytes, sizeof bytes);
    if (n > 0 || (n < 0 && errno == EINTR))
        return;
    o->alive = false;
    o->dead_since = boot_ns();
}

static void hold(holder_t *o)
{
    for (;;) {
        int wait = drive(o);
        if (o->alive)
            listen_to(o);
        else
            signal(SIGTERM, SIG_DFL); /* take_over's, now that the lines were driven */
        await(o, wait);
        if (!o->alive && (get(&o->s->quit) || boot_ns() - o->dead_since > o->s->linger_ns))
            break;
    }
    for (int i = 0; i < DEAD_TRIES; i++) {
        set(o, LINE_LEASE_VALID, 0);
        set(o, LINE_FAILSAFE, 0);
        (void)poll(0, 0, o->level[LINE_LEASE_VALID] ? 10 : 0);
    }
}

/* One holder at a time: one whose guard is gone gives way, one whose guard lives (of another state directory) does not.  The lock is
 * held until this process ends. */
static int take_over(const char *run_dir, char *why, size_t why_len)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/pins.lock", run_dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    for (int i = 0; fd >= 0 && i < 200; i++) {
        struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        if (fcntl(fd, F_SETLK, &l) == 0)
            return 0;
        if (fcntl(fd, F_GETLK, &l) == 0 && l.l_type != F_UNLCK && l.l_pid > 0 && i % 20 == 0)
            kill(l.l_pid, SIGTERM);
        (void)poll(0, 0, 10);
    }
    snprintf(why, why_len, "%s/pins.lock: %s", run_dir, fd < 0 ? strerror(errno) : "held by another process");
    return -1;
}

static _Noreturn void child(host_t *h, int sock, int ready)
{
    holder_t o = {.lines = simulated(h) ? &QSAFP_LINES_SIMULATED : &QSAFP_LINES_GPIO, .s = h->pins.s, .sock = sock, .alive = true};
    char why[200] = {0};
    const struct sched_param rt = {.sched_priority = 50};
    prctl(PR_SET_NAME, "qsafp-pins");
    (void)sched_setscheduler(0, SCHED_FIFO, &rt); /* as the deadline thread, where permitted: it is the last step to the line */
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 256; fd++) { /* nothing of the guard's stays open here, its lock least of all */
        if (fd <= 2 && null >= 0)
            (void)dup2(null, fd);
        else if (fd != sock && fd != ready)
            close(fd);
    }
    static const int theirs[] = {SIGINT, SIGQUIT, SIGHUP, SIGTERM}; /* for the guard; the end of file follows */
    for (unsigned i = 0; i < sizeof theirs / sizeof *theirs; i++)
        signal(theirs[i], SIG_IGN); /* SAFETY: I4 who drives the line outlives who wants it */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, 0);
    o.ctx = take_over(h->o->run_dir, why, sizeof why) ? 0 : o.lines->claim(h->o, why, sizeof why);
    (void)!write(ready, why, strlen(why));
    close(ready);
    if (!o.ctx)
        _exit(1);
    o.in.fd = o.lines->input ? o.lines->input(o.ctx) : -1;
    if (o.in.fd >= 0 && o.lines->edges(o.ctx, &o.in.level) < 0) /* held down from the start is no press */
        o.in.fd = -1;
    hold(&o);
    o.lines->release(o.ctx);
    _exit(0);
}

int pins_start(host_t *h)
{
    int pair[2], ready[2];
    char why[200];
    if (!simulated(h) && !h->o->lines[LINE_LEASE_VALID].chip)
        return fail(h, "board \"%s\": it has no line for LEASE_VALID", h->o->board);
    h->pins.s = mmap(0, sizeof *h->pins.s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (h->pins.s == MAP_FAILED || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) || pipe2(ready, O_CLOEXEC))
        return fail(h, "pins: %s", strerror(errno));
    h->pins.s->stale_ns = h->o->stale_after_ms * 1000000u;
    h->pins.s->linger_ns = h->o->linger_ms * 1000000u;
    h->pins.s->heartbeat_ns = boot_ns();
    h->pins.holder = fork();
    if (h->pins.holder < 0)
        return fail(h, "pins: %s", strerror(errno));
    if (h->pins.holder == 0) {
        close(pair[0]);
        close(ready[0]);
        child(h, pair[1], ready[1]);
    }
    close(pair[1]);
    close(ready[1]);
    h->pins.wake = pair[0];
    (void)fcntl(h->pins.wake, F_SETFL, O_NONBLOCK);
    ssize_t n = read(ready[0], why, sizeof why - 1);
    close(ready[0]);
    return n > 0 ? fail(h, "pins: %.*s", (int)n, why) : n < 0 ? fail(h, "pins: the holder did not start") : 0;
}

void pins_stop(host_t *h)
{
    if (h->pins.holder <= 0)
        return;
    __atomic_store_n(&h->pins.s->valid, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&h->pins.s->quit, 1, __ATOMIC_SEQ_CST);
    close(h->pins.wake);
    waitpid(h->pins.holder, 0, 0);
}

static int want(host_t *h, uint32_t *p, uint32_t level)
{
    if (__atomic_exchange_n(p, level, __ATOMIC_SEQ_CST) == level)
        return 0;
    ssize_t n = write(h->pins.wake, "", 1);
    return n == 1 || errno == EAGAIN ? 0 : QSAFP_E_STORE; /* a full pipe is a wake-up on its way */
}

/* False: the holder hangs, in a driver perhaps, and the lines stay as they are. */
bool pins_drive(const host_t *h) { return get(&h->pins.s->unseen) < HUNG; }

/* Counted in ticks, since a suspended board has none. */
static void count_unseen(host_t *h, uint64_t now)
{
    if (h->pins.holder <= 0 || now - __atomic_load_n(&h->pins.counted_ns, __ATOMIC_SEQ_CST) < APART_NS)
        return;
    __atomic_store_n(&h->pins.counted_ns, now, __ATOMIC_SEQ_CST);
    if (__atomic_add_fetch(&h->pins.s->unseen, 1, __ATOMIC_SEQ_CST) % HUNG == 0)
        qsafp_trip(&h->q, QSAFP_REASON_ANOMALY); /* SAFETY: I4 what nobody drives is no permission */
}

int pin_lease_valid(void *ctx, int level)
{
    host_t *h = ctx;
    uint64_t now = boot_ns();
    __atomic_store_n(&h->pins.s->heartbeat_ns, now, __ATOMIC_SEQ_CST); /* only the tick vouches for the line */
    int err = want(h, &h->pins.s->valid, level != 0);
    count_unseen(h, now); /* last: a fail-safe's low stays */
    return err;
}

int pin_failsafe(void *ctx, int level)
{
    host_t *h = ctx;
    return want(h, &h->pins.s->failsafe, level != 0);
}

int pin_req(void *ctx)
{
    host_t *h = ctx;
    return want(h, &h->pins.s->req, get(&h->pins.s->req) ^ 1u);
}

/* Service thread, once `wake` turned readable: LEASE_RENEW was pressed, or a line is dead.  False: the holder is gone. */
bool pins_heard(host_t *h)
{
    uint8_t bytes[16];
    ssize_t n = read(h->pins.wake, bytes, sizeof bytes);
    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    if (memchr(bytes, HEARD_PRESS, (size_t)n)) {
        h->pins.asked = true;
        h->pins.asked_serial = h->q.lease.serial;
    }
    if (memchr(bytes, HEARD_DEAD, (size_t)n)) {
        fprintf(stderr, "guard: a line of board %s cannot be driven: stopped; see qsafp board check\n", h->o->board);
        qsafp_trip(&h->q, QSAFP_REASON_ANOMALY);
    }
    return true;
}

/* Somebody asked, and no lease came since. */
bool pins_renew_wanted(const host_t *h) { return h->pins.asked && h->pins.asked_serial == h->q.lease.serial; }
