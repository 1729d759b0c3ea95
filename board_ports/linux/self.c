/* SPDX-License-Identifier: Apache-2.0 */
/* A guard inside the program that it guards: self-policed, for tests and embedding.  It closes its gate as any guard does, on the
 * same core, store and timer; nothing stops the program from not asking. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host.h"

struct qsafp_self { host_t *h; client_t c; int ours; char why[256]; };

/* No board: the levels are kept where nobody reads them. */
static int no_pins(host_t *h)
{
    h->pins.s = calloc(1, sizeof *h->pins.s);
    h->pins.wake = open("/dev/null", O_WRONLY | O_CLOEXEC);
    return h->pins.s && h->pins.wake >= 0 ? 0 : fail(h, "out of memory");
}

/* The log says who wrote it. */
static int confess(host_t *h)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_CONFIG_CHANGE};
    memcpy(r.data, "self-policed", 12);
    return qsafp_note(&h->q, &r);
}

static int begin(qsafp_self_t *s)
{
    int pair[2];
    sigset_t all, was;
    if (host_start(s->h, no_pins))
        return -1;
    if (confess(s->h) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return fail(s->h, "%s", strerror(errno));
    (void)fcntl(pair[1], F_SETFL, O_NONBLOCK);
    s->ours = pair[0];
    s->c = (client_t){.fd = pair[1], .ctl = true, .uid = geteuid(), .workload = -1, .host = s->h};
    s->c.cmd.q = &s->h->q;
    s->c.cmd.host = &s->c;
    sigfillset(&all); /* the program's signals are for its own threads */
    pthread_sigmask(SIG_SETMASK, &all, &was);
    int err = start_deadline(s->h);
    pthread_sigmask(SIG_SETMASK, &was, 0);
    return err;
}

qsafp_self_t *qsafp_self_open(const qsafp_guard_options_t *o, char *why, size_t why_len)
{
    qsafp_self_t *s = calloc(1, sizeof *s);
    if (s)
        s->h = host_new(o, s->why, sizeof s->why);
    if (s && s->h) {
        s->ours = s->c.fd = -1;
        if (begin(s) == 0)
            return s;
    }
    snprintf(why, why_len, "%s", s && s->h ? s->why : "out of memory");
    qsafp_self_close(s);
    return 0;
}

int qsafp_self_wire(const qsafp_self_t *s) { return s->ours; }
int qsafp_self_page(const qsafp_self_t *s) { return s->h->page_fd; }

void qsafp_self_step(qsafp_self_t *s)
{
    (void)one_frame(s->h, &s->c);
    (void)!qsafp_service(&s->h->q); /* what it cannot write it writes at the next step */
    note_losses(s->h);
    (void)bind_step(s->h);
}

void qsafp_self_close(qsafp_self_t *s)
{
    if (s && s->h) {
        host_stop(s->h);
        bind_close(s->h);
        if (s->h->q.page)
            munmap(s->h->q.page, QSAFP_GATE_PAGE_BYTES);
        free(s->h->pins.s);
        if (s->h->pins.wake > 0)
            close(s->h->pins.wake);
        const int fds[] = {s->ours, s->c.fd, s->h->page_fd, s->h->deadline_event, s->h->service_event};
        for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
            if (fds[i] >= 0)
                close(fds[i]);
        host_free(s->h);
    }
    free(s);
}
