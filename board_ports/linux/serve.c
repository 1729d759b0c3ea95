/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets (docs/formats.md): one loop over gate.sock, ctl.sock, their clients, kicks and signals. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "host.h"

enum { RECORDS_PER_SECOND = 10, CTL_PLACES = 8 };

static int listen_at(host_t *h, const char *name, mode_t mode)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int n = snprintf(a.sun_path, sizeof a.sun_path, "%s/%s", h->o->run_dir, name);
    if (n < 0 || (size_t)n >= sizeof a.sun_path)
        return fail(h, "%s/%s: longer than the %zu bytes a socket path may have; use a shorter directory", h->o->run_dir, name, sizeof a.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    (void)unlink(a.sun_path); /* ours by the lock on the state directory */
    mode_t was = umask(0777 & ~mode);
    int err = fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 128);
    umask(was);
    return err ? fail(h, "%s: %s", a.sun_path, strerror(errno)) : fd;
}

static int watch(host_t *h, int fd, void *what)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = what};
    return epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, fd, &e);
}

int serve_open(host_t *h)
{
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    h->gate_fd = listen_at(h, "gate.sock", 0666);
    h->ctl_fd = h->gate_fd < 0 ? -1 : listen_at(h, "ctl.sock", 0600);
    if (h->ctl_fd < 0)
        return -1;
    h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    h->signal_fd = signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK);
    bool ok = h->epoll_fd >= 0 && h->signal_fd >= 0 && !watch(h, h->gate_fd, &h->gate_fd) && !watch(h, h->ctl_fd, &h->ctl_fd) &&
              !watch(h, h->signal_fd, &h->signal_fd) && !watch(h, h->service_event, &h->service_event) && !watch(h, h->pins.wake, &h->pins);
    return ok ? uart_open(h) : fail(h, "epoll: %s", strerror(errno));
}

/* ---- clients ---- */

static bool send_page(host_t *h, int fd)
{
    uint8_t hello[8] = {'Q', 'G', 'P', '1', QSAFP_ABI};
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } ctl = {{0}};
    struct iovec v = {hello, sizeof hello};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl.bytes, .msg_controllen = sizeof ctl.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &h->page_fd, sizeof(int));
    return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof hello;
}

static void drop_fds(client_t *c)
{
    while (c->nfds)
        close(c->fds[--c->nfds]);
}

void client_close(host_t *h, client_t *c)
{
    workload_gone(h, c);
    if (h->poller == c) {
        h->poller = 0;
        polls_alive(h, 0);
    }
    if (h->line == c)
        h->line = 0;
    free(c->line);
    drop_fds(c);
    close(c->fd);
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (h->clients[i] == c)
            h->clients[i] = 0;
    free(c);
}

/* Takes the descriptor, if there is a place; 0 if not. */
client_t *client_new(host_t *h, int fd, bool ctl, uid_t uid)
{
    int i = 0, places = ctl ? CLIENTS_MAX : CLIENTS_MAX - CTL_PLACES; /* workloads cannot keep the agent out */
    while (i < places && h->clients[i])
        i++;
    client_t *c = i < places ? calloc(1, sizeof *c) : 0;
    if (!c || watch(h, fd, c)) {
        free(c);
        return 0;
    }
    *c = (client_t){.fd = fd, .ctl = ctl, .uid = uid, .workload = -1, .host = h};
    c->cmd.q = &h->q;
    c->cmd.restricted = !ctl;
    c->cmd.workload = workload_command;
    c->cmd.host = c;
    return h->clients[i] = c;
}

static void accept_client(host_t *h, int listener)
{
    struct ucred who = {0};
    socklen_t len = sizeof who;
    int fd = accept4(listener, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    bool ctl = listener == h->ctl_fd;
    bool ok = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 && (!ctl || who.uid == h->o->agent_uid || who.uid == geteuid() || who.uid == 0);
    client_t *c = ok ? client_new(h, fd, ctl, who.uid) : 0;
    if (!c)
        close(fd);
    else if (!ctl && !send_page(h, fd))
        client_close(h, c);
}

static ssize_t receive(client_t *c, uint8_t *frame, size_t cap)
{
    union { char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))]; struct cmsghdr align; } ctl;
    struct iovec v = {frame, cap};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl.bytes, .msg_controllen = sizeof ctl.bytes};
    drop_fds(c);
    ssize_t n = recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC);
    for (struct cmsghdr *k = n >= 0 ? CMSG_FIRSTHDR(&m) : 0; k; k = CMSG_NXTHDR(&m, k)) {
        if (k->cmsg_level != SOL_SOCKET || k->cmsg_type != SCM_RIGHTS)
            continue;
        c->nfds = (int)((k->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(c->fds, CMSG_DATA(k), (size_t)c->nfds * sizeof(int));
    }
    return m.msg_flags & MSG_TRUNC ? (ssize_t)cap : n; /* too long by length: the parser says so */
}

/* At most ten records a second per uid, the excess refused: nobody may fill the log (docs/formats.md, Sockets). */
static bool too_many(host_t *h, client_t *c, const uint8_t *f, size_t n)
{
    unsigned i = 0;
    bool drained = n == 7 && f[1] == QSAFP_OPCODE_WORKLOAD && f[4] == 1; /* at most one record for each order */
    if (c->ctl || n < 4 || f[1] == QSAFP_OPCODE_STATUS || f[1] == QSAFP_OPCODE_VERSION || drained)
        return false;
    if (bind_crowded(h))
        return true;
    uint64_t second = boot_ns() / 1000000000u;
    if (h->second != second)
        h->nspent = 0;
    h->second = second;
    while (i < h->nspent && h->spent[i].uid != c->uid)
        i++;
    if (i == UIDS_MAX)
        return true;
    if (i == h->nspent) {
        h->spent[h->nspent].uid = c->uid;
        h->spent[h->nspent++].used = 0;
    }
    return h->spent[i].used++ >= RECORDS_PER_SECOND;
}

/* A client that does not read is let go. */
static bool reply(const client_t *c, const uint8_t *frame, size_t n) { return c->line ? uart_write(c, frame, n) : write(c->fd, frame, n) == (ssize_t)n; }

bool answer(client_t *c, uint8_t tag, qsafp_command_status_t status, const void *p, size_t n)
{
    uint8_t f[5 + QSAFP_FRAME_MAX + 2] = {0xA5, tag, (uint8_t)status, (uint8_t)n, (uint8_t)(n >> 8)};
    if (n)
        memcpy(f + 5, p, n);
    uint16_t crc = qsafp_crc16(f, 5 + n);
    f[5 + n] = (uint8_t)crc;
    f[6 + n] = (uint8_t)(crc >> 8);
    return reply(c, f, 7 + n);
}

/* degrade(n): what workloads report is dropped, counted, before it crowds the guard's own records out (HW-8). */
static bool drop_event(host_t *h, const uint8_t *f, size_t n)
{
    store_t *s = &h->store;
    if (!s->degrade || n < 2 || f[1] != QSAFP_OPCODE_LOG_EVENT || !log_crowded(h) || s->lost_events + s->lost_evidence >= s->degrade)
        return false;
    s->lost_events++;
    return true;
}

/* An order is waited for here, outside the frame machine: the answer comes when there is one. */
static bool is_wait(const client_t *c, const uint8_t *f, size_t n)
{
    return n == 7 && f[1] == QSAFP_OPCODE_WORKLOAD && f[2] == 1 && f[3] == 0 && f[4] == 3 && c->workload >= 0 &&
           (uint16_t)(f[5] | f[6] << 8) == qsafp_crc16(f, 5);
}

/* Begin signs, and where quotes are asked for, read quotes. */
static bool asks_tpm(const host_t *h, const uint8_t *f, size_t n)
{
    return h->tpm && n > 4 && f[1] == QSAFP_OPCODE_RENEW && f[4] <= (h->o->quote_pcrs != 0);
}

/* The TPM may take seconds: all others are served meanwhile, this one is not heard. */
static void ask_with_tpm(host_t *h, client_t *c, const uint8_t *f, size_t n)
{
    (void)epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, c->fd, 0);
    h->asking = c;
    qsafp_command(&c->cmd, f, n);
    h->asking = 0;
    (void)watch(h, c->fd, c);
}

bool one_frame(host_t *h, client_t *c)
{
    uint8_t f[LINE_FRAME_BYTES + 1];
    if (c->line)
        return uart_read(h, c);
    ssize_t n = receive(c, f, sizeof f);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    return n && serve_frame(h, c, f, (size_t)n);
}

bool serve_frame(host_t *h, client_t *c, const uint8_t *f, size_t n)
{
    if (is_wait(c, f, n)) {
        c->waiting = true;
        c->wait_tag = f[0];
        (void)order_answer(h, c);
        return true;
    }
    bool ok = true;
    if (too_many(h, c, f, n) || drop_event(h, f, n))
        return answer(c, f[0], QSAFP_COMMAND_STATUS_RATE_LIMITED, 0, 0);
    if (h->asking && (asks_tpm(h, f, n) || (n > 1 && f[1] == QSAFP_OPCODE_SET)))
        return answer(c, f[0], QSAFP_COMMAND_STATUS_BUSY, 0, 0); /* what would change the request that is made */
    if (host_command(h, c, f, n, &ok))
        return ok;
    size_t ready = c->ctl && c->cmd.put_have == c->cmd.put_total ? c->cmd.put_have : 0;
    if (asks_tpm(h, f, n) && h->serving)
        ask_with_tpm(h, c, f, n);
    else
        qsafp_command(&c->cmd, f, n);
    after_put(h, c, f, n, ready);
    show_bound(h, c, f);
    show_renew(h, c, f);
    return reply(c, c->cmd.out, c->cmd.out_len);
}

/* What is not there any more, or never came to be: bytes pruned, entries lost; events dropped. */
void note_losses(host_t *h)
{
    store_t *s = &h->store;
    if (s->evidence_pruned || s->untold_evidence) {
        qsafp_record_t r = {.event = QSAFP_EVENT_EVIDENCE_PRUNED};
        memcpy(r.data, &s->evidence_pruned, 8);
        memcpy(r.data + 8, &s->untold_evidence, 8);
        s->evidence_pruned = s->untold_evidence = 0;
        (void)!qsafp_note(&h->q, &r);
    }
    if (s->lost_events && !log_crowded(h)) {
        qsafp_record_t r = {.event = QSAFP_EVENT_ANOMALY, .reason = QSAFP_REASON_LOG_FULL};
        memcpy(r.data, &s->lost_events, 8);
        s->lost_events = 0;
        (void)!qsafp_note(&h->q, &r);
    }
}

static bool event(host_t *h, struct epoll_event *e)
{
    uint64_t sink;
    struct signalfd_siginfo signal;
    if (e->data.ptr == &h->gate_fd || e->data.ptr == &h->ctl_fd)
        accept_client(h, *(int *)e->data.ptr);
    else if (e->data.ptr == &h->signal_fd)
        return read(h->signal_fd, &signal, sizeof signal) < 0;
    else if (e->data.ptr == &h->service_event) {
        if (read(h->service_event, &sink, sizeof sink) > 0 && !pins_drive(h))
            fprintf(stderr, "guard: the pin holder hangs, the lines of board %s stay as they are: stopped\n", h->o->board);
    } else if (!one_frame(h, e->data.ptr))
        client_close(h, e->data.ptr);
    return true;
}

/* The service manager hears of us while the deadline thread, too, does its work. */
static uint64_t feed(const host_t *h, uint64_t beat, uint64_t told)
{
    uint64_t now = boot_ns(), ticked = __atomic_load_n(&h->pins.s->heartbeat_ns, __ATOMIC_SEQ_CST);
    if (!beat || now - told < beat / 2 || now - ticked > h->pins.s->stale_ns)
        return told;
    notify("WATCHDOG=1");
    return now;
}

static int at_most(int wait, int most) { return most >= 0 && (wait < 0 || wait > most) ? most : wait; }

/* A line that went away is looked for every second; `wait` is cut to that. */
static int seek_line(host_t *h, int wait)
{
    uint64_t now = boot_ns();
    if (!h->o->uart || h->line)
        return wait;
    if (now - h->loop.tried_ns >= 1000000000u) {
        h->loop.tried_ns = now;
        (void)uart_open(h);
    }
    return at_most(wait, 1000);
}

static bool over(host_t *h, int err)
{
    h->loop.over = true;
    h->loop.err = err;
    return false;
}

bool serve_turn(host_t *h, int most_ms)
{
    struct epoll_event e; /* one at a time: a client that is closed has no event left */
    if (h->loop.over)
        return false;
    h->loop.told_ns = feed(h, h->loop.beat_ns, h->loop.told_ns);
    int wait = at_most(seek_line(h, h->loop.wait_ms), most_ms);
    if (h->loop.beat_ns)
        wait = at_most(wait, (int)(h->loop.beat_ns / 1000000u));
    int n = epoll_wait(h->epoll_fd, &e, 1, wait);
    if (n < 0 && errno != EINTR)
        return over(h, fail(h, "epoll: %s", strerror(errno)));
    if (n > 0 && e.data.ptr == &h->pins && !pins_heard(h))
        return over(h, fail(h, "the pin holder is gone: nobody drives the lines"));
    if (n > 0 && e.data.ptr != &h->pins && !event(h, &e))
        return over(h, 0);
    contain_first(h);
    bool failed = qsafp_service(&h->q) != 0; /* told again */
    h->loop.wait_ms = contain(h);
    note_losses(h);
    h->loop.wait_ms = at_most(h->loop.wait_ms, bind_step(h));
    if (failed || (h->loop.wait_ms < 0 && h->q.untold))
        h->loop.wait_ms = 100;
    return true;
}

int serve(host_t *h)
{
    h->loop.beat_ns = watchdog_ns();
    h->service = pthread_self();
    h->serving = true;
    while (serve_turn(h, -1))
        ;
    return h->loop.err;
}

void serve_close(host_t *h)
{
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (h->clients[i])
            client_close(h, h->clients[i]);
}
