/* SPDX-License-Identifier: Apache-2.0 */
/* Works only while the gate is open: attaches once, checks before each batch.  C11 and C++17; needs qsafp_gate.h alone.
 *   cc -Icext/include examples/gate.c -o gate && ./gate /run/qsafp/main/gate.sock 10 */
#ifndef _GNU_SOURCE /* C++ has it */
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "qsafp_gate.h"

/* The guard's page, read-only, or 0.  Who serves the socket must be root or us: another's page is another's permission. */
static const qsafp_gate_page_t *attach(const char *path)
{
    struct sockaddr_un at;
    struct ucred who;
    socklen_t len = sizeof who;
    char hello[8] = {0};
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } ctl;
    struct iovec v = {hello, sizeof hello};
    struct msghdr m;
    int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), fd = -1;
    memset(&at, 0, sizeof at), memset(&m, 0, sizeof m);
    at.sun_family = AF_UNIX;
    strncpy(at.sun_path, path, sizeof at.sun_path - 1);
    m.msg_iov = &v, m.msg_iovlen = 1, m.msg_control = ctl.bytes, m.msg_controllen = sizeof ctl.bytes;
    if (s < 0 || connect(s, (struct sockaddr *)&at, sizeof at) || getsockopt(s, SOL_SOCKET, SO_PEERCRED, &who, &len))
        return 0;
    if ((who.uid != 0 && who.uid != geteuid()) || recvmsg(s, &m, MSG_CMSG_CLOEXEC) != sizeof hello || memcmp(hello, "QGP1\1\0\0", 8) != 0)
        return 0;
    if (CMSG_FIRSTHDR(&m) && CMSG_FIRSTHDR(&m)->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    void *p = mmap(0, QSAFP_GATE_PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    return p == MAP_FAILED || ((const qsafp_gate_page_t *)p)->magic != QSAFP_GATE_MAGIC ? 0 : (const qsafp_gate_page_t *)p;
}

static bool may_act(const qsafp_gate_page_t *page)
{
    struct timespec t;
    if (page->counter_hz && qsafp_gate_check_counter(page))
        return true;
    clock_gettime(CLOCK_BOOTTIME, &t); /* the slow path: no counter that can be trusted, or a second look before giving up */
    return qsafp_gate_check_ns(page, (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec);
}

int main(int argc, char **argv)
{
    const qsafp_gate_page_t *page = argc == 3 ? attach(argv[1]) : 0;
    int i = 0, batches = page ? atoi(argv[2]) : 0;
    for (; i < batches && may_act(page); i++)
        printf("batch %d done\n", i);
    fprintf(stderr, "%s", !page ? "no gate; usage: gate SOCKET BATCHES\n" : i < batches ? "the gate is closed\n" : "");
    return !page ? 2 : i < batches;
}
