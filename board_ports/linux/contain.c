/* SPDX-License-Identifier: Apache-2.0 */
/* Containment: what holds workloads while the gate is closed (HW-12, architecture decision 10).
 *
 *   RUNNING -> DRAINING (has a runner: told to finish its batch, bounded) -> FREEZING -> FROZEN     while the gate is closed
 *   FROZEN -> KILLED + order ROLLBACK    once a fail-safe is latched, where there is a runner
 *   FROZEN -> RUNNING (thaw)             when the gate opens; a KILLED one is the runner's to restart (order THAW) */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "host.h"

enum { SUB_REGISTER = 0, SUB_DRAINED = 1, SUB_CHECKPOINT = 2, SUB_WAIT = 3, SUB_REPORT = 4 };
enum { STEP_DRAIN = 1, STEP_FREEZE = 2, STEP_KILL = 3, STEP_ROLLBACK = 4, STEP_THAW = 5, STEP_GONE = 6, STEP_REGISTER = 7 };
enum { FREEZE_LIMIT_NS = 2000000000, NAME_MAX_BYTES = 32 };

static void put64(uint8_t *p, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

/* data: step, workload, result i32, ns u64, name */
static void tell(host_t *h, const load_t *l, int step, uint64_t ns, int result)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_CONTAINMENT, .reason = h->q.latch};
    r.data[0] = (uint8_t)step;
    r.data[1] = (uint8_t)(l - h->loads);
    put64(r.data + 2, ns);
    r.data[10] = (uint8_t)result;
    memcpy(r.data + 16, l->name, NAME_MAX_BYTES);
    (void)!qsafp_note(&h->q, &r); /* a log that fails trips the gate by itself */
}

/* A runner's workload leads a process group of its own: all of it where the kernel can (Linux 6.9), else the one process. */
static int signal_load(const load_t *l, int sig)
{
    enum { PROCESS_GROUP = 4 };
    if (l->kind == 1 && syscall(SYS_pidfd_send_signal, l->pidfd, sig, 0, PROCESS_GROUP) == 0)
        return 0;
    return (int)syscall(SYS_pidfd_send_signal, l->pidfd, sig, 0, 0);
}

static int put_fd(int fd, const char *text)
{
    return fd >= 0 && pwrite(fd, text, 1, 0) == 1 ? 0 : -1;
}

/* cgroup where it was handed over, else a signal to the one process: status says which (freeze_fd). */
static int freeze(const load_t *l, bool on)
{
    if (l->freeze_fd >= 0)
        return put_fd(l->freeze_fd, on ? "1" : "0");
    return signal_load(l, on ? SIGSTOP : SIGCONT);
}

static int kill_load(const load_t *l)
{
    return l->kill_fd >= 0 ? put_fd(l->kill_fd, "1") : signal_load(l, SIGKILL);
}

static bool frozen(const load_t *l)
{
    char text[128];
    if (l->events_fd < 0)
        return true; /* nobody can tell: the order was taken */
    ssize_t n = pread(l->events_fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    return strstr(text, "frozen 1") != 0;
}

static void order(host_t *h, load_t *l, order_t what)
{
    if (l->kind != 1 || !l->client || l->norders == sizeof l->orders)
        return;
    l->orders[l->norders++] = (uint8_t)what;
    (void)order_answer(h, l->client);
}

/* A wait that was answered with nothing is answered now. */
bool order_answer(host_t *h, client_t *c)
{
    if (!c->waiting || c->workload < 0 || !h->loads[c->workload].norders)
        return false;
    load_t *l = &h->loads[c->workload];
    const uint8_t what = l->orders[0];
    memmove(l->orders, l->orders + 1, --l->norders);
    c->waiting = false;
    return answer(c, c->wait_tag, QSAFP_COMMAND_STATUS_OK, &what, 1);
}

/* ---- the steps ---- */

static void begin(load_t *l, load_state_t state)
{
    l->state = state;
    l->since_ns = boot_ns();
}

static void start_freeze(load_t *l)
{
    begin(l, LOAD_FREEZING);
    l->refused = freeze(l, true) ? errno : 0;
}

static void first_step(host_t *h, load_t *l)
{
    if (l->kind == 1 && h->o->drain_ms) {
        begin(l, LOAD_DRAINING);
        order(h, l, ORDER_DRAIN);
    } else {
        start_freeze(l);
    }
}

/* The first step of every workload, at once: it calls nothing of the core and waits for no disk (decision 10: latch, drive,
 * then tell). */
void contain_first(host_t *h)
{
    uint64_t now = boot_ns();
    if (qsafp_gate_check_ns(h->q.page, now))
        return;
    if (!h->closed_ns)
        h->closed_ns = now;
    for (int i = 0; i < WORKLOADS_MAX; i++)
        if (h->loads[i].state == LOAD_RUNNING)
            first_step(h, &h->loads[i]);
}

static void hold(host_t *h, load_t *l, uint64_t now)
{
    uint64_t drain_ns = h->o->drain_ms * 1000000u;
    if (l->state == LOAD_RUNNING) {
        first_step(h, l);
    } else if (l->state == LOAD_DRAINING && now - l->since_ns >= drain_ns) {
        tell(h, l, STEP_DRAIN, now - l->since_ns, 1); /* bounded: not drained in time */
        start_freeze(l);
    }
    if (l->refused) {
        tell(h, l, STEP_FREEZE, 0, l->refused);
        l->refused = 0;
    }
    if (l->state == LOAD_FREEZING && (frozen(l) || now - l->since_ns > FREEZE_LIMIT_NS)) {
        bool ok = frozen(l);
        tell(h, l, STEP_FREEZE, boot_ns() - h->closed_ns, ok ? 0 : 1);
        begin(l, LOAD_FROZEN);
        order(h, l, ORDER_FREEZE);
    }
    if (l->state == LOAD_FROZEN && h->q.latch && l->kind == 1) {
        int err = kill_load(l);
        tell(h, l, STEP_KILL, boot_ns() - h->closed_ns, err ? errno : 0);
        begin(l, LOAD_KILLED);
        order(h, l, ORDER_KILL);
        order(h, l, ORDER_ROLLBACK);
    }
}

static void let_go(host_t *h, load_t *l, uint64_t now)
{
    if (l->state == LOAD_RUNNING || l->state == LOAD_FREE)
        return;
    if (l->state != LOAD_KILLED)
        (void)freeze(l, false);
    tell(h, l, STEP_THAW, now - l->since_ns, 0);
    begin(l, LOAD_RUNNING);
    order(h, l, ORDER_THAW);
}

/* Ms until the next step is due; -1: nothing pends. */
int contain(host_t *h)
{
    uint64_t now = boot_ns();
    bool open = qsafp_gate_check_ns(h->q.page, now);
    int wait = -1;
    uint8_t contained = 0;
    if (open)
        h->closed_ns = 0;
    else if (!h->closed_ns)
        h->closed_ns = now;
    for (int i = 0; i < WORKLOADS_MAX; i++) {
        load_t *l = &h->loads[i];
        if (l->state == LOAD_FREE)
            continue;
        if (open)
            let_go(h, l, now);
        else
            hold(h, l, now);
        if (l->state == LOAD_DRAINING || l->state == LOAD_FREEZING)
            wait = 1;
        else if (l->state != LOAD_RUNNING && wait < 0)
            wait = 100; /* a late tick may have closed the gate and open it again without a word */
        contained |= l->state >= LOAD_FROZEN;
    }
    h->q.contained = contained;
    return wait;
}

/* ---- what a workload says ---- */

static void close_fds(load_t *l)
{
    const int fds[] = {l->pidfd, l->freeze_fd, l->kill_fd, l->events_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

/* The uid that the process behind a pidfd runs as; -1: no pidfd, or gone. */
static long uid_behind(int pidfd)
{
    char path[64], line[128];
    long pid = -1;
    struct stat st = {0};
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Pid: %ld", &pid) == 1)
            break;
    if (f)
        fclose(f);
    snprintf(path, sizeof path, "/proc/%ld", pid);
    bool ok = pid > 0 && stat(path, &st) == 0;
    bool there = syscall(SYS_pidfd_send_signal, pidfd, 0, 0, 0) == 0 || errno == EPERM; /* so its number was not another's */
    return ok && there ? (long)st.st_uid : -1;
}

/* We may be root: only what the client itself may signal or freeze, so that nobody borrows our rights. */
static bool may_hold(const client_t *c)
{
    enum { CGROUP2 = 0x63677270 };
    long uid = uid_behind(c->fds[0]);
    if (uid < 0 || (c->uid != 0 && uid != (long)c->uid) || (c->nfds != 1 && c->nfds != FDS_MAX))
        return false;
    for (int k = 1; k < c->nfds; k++) {
        struct statfs fs;
        if (fstatfs(c->fds[k], &fs) || fs.f_type != CGROUP2)
            return false;
    }
    return true;
}

static bool ended(const load_t *l)
{
    struct pollfd p = {.fd = l->pidfd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

/* A free place; or the client's own again, once what it held has ended: a runner restarts on the connection it has. */
static load_t *place(host_t *h, const client_t *c)
{
    if (c->workload >= 0)
        return h->loads[c->workload].kind == 1 && ended(&h->loads[c->workload]) ? &h->loads[c->workload] : 0;
    for (int i = 0; i < WORKLOADS_MAX; i++)
        if (h->loads[i].state == LOAD_FREE)
            return &h->loads[i];
    return 0;
}

static int register_load(host_t *h, client_t *c, const uint8_t *p, size_t n)
{
    if (n < 3 || n > 2 + NAME_MAX_BYTES || p[1] > 1 || c->nfds < 1 || !may_hold(c))
        return QSAFP_COMMAND_STATUS_BAD_ARGUMENT;
    load_t *l = place(h, c);
    if (!l)
        return QSAFP_COMMAND_STATUS_BUSY;
    if (c->workload >= 0)
        close_fds(l);
    else
        h->q.workloads++;
    *l = (load_t){.state = LOAD_RUNNING, .client = c, .kind = p[1], .pidfd = c->fds[0], .freeze_fd = -1, .kill_fd = -1, .events_fd = -1};
    int *const slot[] = {&l->freeze_fd, &l->kill_fd, &l->events_fd};
    for (int k = 1; k < c->nfds; k++)
        *slot[k - 1] = c->fds[k];
    c->nfds = 0; /* ours now */
    memcpy(l->name, p + 2, n - 2);
    c->workload = (int)(l - h->loads);
    tell(h, l, STEP_REGISTER, 0, 0);
    c->cmd.out[c->cmd.out_len++] = (uint8_t)c->workload;
    return QSAFP_COMMAND_STATUS_OK;
}

static int report(host_t *h, load_t *l, const uint8_t *p, size_t n)
{
    uint64_t ns = 0;
    if (n != 11)
        return QSAFP_COMMAND_STATUS_BAD_LENGTH;
    for (unsigned i = 0; i < 8; i++)
        ns |= (uint64_t)p[2 + i] << (8 * i);
    tell(h, l, p[1], ns, p[10]);
    return QSAFP_COMMAND_STATUS_OK;
}

/* Opcode 0x07; `c` is embedded in its client. */
int workload_command(qsafp_command_t *cmd, const uint8_t *p, size_t n)
{
    client_t *c = cmd->host;
    host_t *h = c->host;
    load_t *l = c->workload >= 0 ? &h->loads[c->workload] : 0;
    if (!n)
        return QSAFP_COMMAND_STATUS_BAD_LENGTH;
    if (p[0] == SUB_REGISTER)
        return register_load(h, c, p, n);
    if (!l)
        return QSAFP_COMMAND_STATUS_NOT_ALLOWED;
    if (p[0] == SUB_DRAINED && l->state == LOAD_DRAINING) {
        tell(h, l, STEP_DRAIN, boot_ns() - l->since_ns, 0);
        start_freeze(l);
        return QSAFP_COMMAND_STATUS_OK;
    }
    if (p[0] == SUB_CHECKPOINT && n == 41) {
        qsafp_record_t r = {.event = QSAFP_EVENT_WORKLOAD_REPORT, .flags = 8};
        memcpy(r.data, p, n);
        return qsafp_note(&h->q, &r) ? QSAFP_COMMAND_STATUS_STORE_FAILED : QSAFP_COMMAND_STATUS_OK;
    }
    if (p[0] == SUB_REPORT)
        return report(h, l, p, n);
    return p[0] == SUB_DRAINED ? QSAFP_COMMAND_STATUS_OK : QSAFP_COMMAND_STATUS_BAD_ARGUMENT;
}

/* End of file unregisters.  What had a runner does not outlive it, or a workload could escape by killing it; nor does what is held. */
void workload_gone(host_t *h, client_t *c)
{
    if (c->workload < 0)
        return;
    load_t *l = &h->loads[c->workload];
    if (l->kind == 1 || (l->state != LOAD_RUNNING && l->state != LOAD_KILLED))
        (void)kill_load(l);
    tell(h, l, STEP_GONE, 0, 0);
    close_fds(l);
    l->state = LOAD_FREE;
    c->workload = -1;
    h->q.workloads--;
}
