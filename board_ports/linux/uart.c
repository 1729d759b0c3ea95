/* SPDX-License-Identifier: Apache-2.0 */
/* Command frames over a serial line: this guard is another board's coprocessor (HW-14; docs/formats.md, Command frames).
 *
 * Who holds the other end is the agent.  Noise is a frame with a wrong checksum, and answered as one; a line that goes away is
 * opened again every second. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "host.h"

enum { BLOCK_BYTES = LINE_FRAME_BYTES + LINE_FRAME_BYTES / 254 + 2 };

/* What came of a frame that is not whole yet; of one longer than any, its beginning, whose checksum is wrong. */
struct line { size_t have; uint8_t block[BLOCK_BYTES]; };

static speed_t speed_of(uint64_t baud)
{
    static const struct { uint32_t baud; speed_t speed; } known[] = {
        {9600, B9600}, {19200, B19200}, {38400, B38400}, {57600, B57600}, {115200, B115200}, {230400, B230400}, {460800, B460800}, {921600, B921600}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].baud == baud)
            return known[i].speed;
    return B0;
}

static int open_line(host_t *h)
{
    struct termios t;
    speed_t speed = speed_of(h->o->uart_baud);
    int fd = open(h->o->uart, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return fail(h, "uart %s: %s%s", h->o->uart, strerror(errno), errno == EACCES ? "; add the guard's user to the group that owns it (dialout)" : "");
    if (speed == B0 || tcgetattr(fd, &t)) {
        int err = fail(h, "uart %s: %s", h->o->uart, speed == B0 ? "no such speed" : strerror(errno));
        close(fd);
        return err;
    }
    cfmakeraw(&t);
    t.c_cflag = (t.c_cflag & (tcflag_t)~CRTSCTS) | CLOCAL | CREAD;
    if (cfsetspeed(&t, speed) || tcsetattr(fd, TCSANOW, &t)) {
        int err = fail(h, "uart %s: %s", h->o->uart, strerror(errno));
        close(fd);
        return err;
    }
    return fd;
}

int uart_open(host_t *h)
{
    if (!h->o->uart || h->line)
        return 0;
    int fd = open_line(h);
    line_t *line = fd >= 0 ? calloc(1, sizeof *line) : 0;
    client_t *c = line ? client_new(h, fd, true, h->o->agent_uid) : 0;
    if (!c) {
        free(line);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    c->line = line;
    h->line = c;
    return 0;
}

bool uart_write(const client_t *c, const uint8_t *frame, size_t n)
{
    uint8_t out[BLOCK_BYTES + 1];
    size_t len = qsafp_cobs_encode(out, frame, n);
    out[len++] = 0;
    (void)!write(c->fd, out, len); /* what does not fit is lost: the other side asks again, and gets the same answer */
    return true;
}

static void whole(host_t *h, client_t *c)
{
    line_t *l = c->line;
    uint8_t frame[BLOCK_BYTES] = {0};
    size_t n = 0;
    if (!l->have)
        return;
    if (qsafp_cobs_decode(frame, &n, l->block, l->have))
        n = 0; /* no frame: the checksum of nothing is wrong too */
    l->have = 0;
    (void)serve_frame(h, c, frame, n);
}

bool uart_read(host_t *h, client_t *c)
{
    line_t *l = c->line;
    uint8_t bytes[1024];
    ssize_t n = read(c->fd, bytes, sizeof bytes);
    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    for (ssize_t i = 0; i < n; i++) {
        if (!bytes[i])
            whole(h, c);
        else if (l->have < sizeof l->block)
            l->block[l->have++] = bytes[i];
    }
    return true;
}
