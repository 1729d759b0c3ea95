/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of a real board, through the GPIO character device, version 2 of its interface (HW-13).
 *
 * A line is found by its chip's label and its own name, or its offset where a chip names none: numbers of /dev/gpiochipN change
 * from boot to boot.  Each line is requested alone, so that the error names the one that cannot be had. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/gpio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lines.h"

#ifndef GPIO_DEV
#define GPIO_DEV "/dev"
#endif

static const char *const NAMES[LINES] = {"LEASE_VALID", "FAILSAFE", "VALIDATOR_REQ", "LEASE_RENEW"};

typedef struct { int fd[LINES]; } gpio_t;
typedef struct { char *why; size_t why_len; const qsafp_line_spec_t *spec; const char *line; } search_t;

#define SAY(s, ...) ((void)snprintf((s)->why, (s)->why_len, __VA_ARGS__), -1)

static int is_chip(const struct dirent *e) { return strncmp(e->d_name, "gpiochip", 8) == 0; }

/* The chip with that label, opened; the first by number, if there are two. */
static int open_chip(const search_t *s)
{
    struct dirent **found;
    int fd = -1, denied = 0, n = scandir(GPIO_DEV, &found, is_chip, versionsort);
    for (int i = 0; i < n; i++) {
        char path[300];
        struct gpiochip_info info;
        snprintf(path, sizeof path, "%s/%s", GPIO_DEV, found[i]->d_name);
        int at = fd < 0 ? open(path, O_RDWR | O_CLOEXEC) : -1;
        denied |= at < 0 && (errno == EACCES || errno == EPERM);
        if (at >= 0 && ioctl(at, GPIO_GET_CHIPINFO_IOCTL, &info) == 0 && strncmp(info.label, s->spec->chip, sizeof info.label) == 0)
            fd = at;
        else if (at >= 0)
            close(at);
        free(found[i]);
    }
    if (n >= 0)
        free(found);
    if (fd < 0 && denied)
        return SAY(s, "/dev/gpiochip*: permission denied; add the guard's user to the group that owns them (gpio), or allow the device to its unit");
    return fd < 0 ? SAY(s, "no GPIO chip is labelled \"%s\"; qsafp board check lists those here", s->spec->chip) : fd;
}

static bool look(int chip, uint32_t offset, struct gpio_v2_line_info *info)
{
    *info = (struct gpio_v2_line_info){.offset = offset};
    return ioctl(chip, GPIO_V2_GET_LINEINFO_IOCTL, info) == 0;
}

/* What the kernel knows of the line, its offset with it. */
static int find_line(const search_t *s, int chip, struct gpio_v2_line_info *info)
{
    const char *label = s->spec->chip, *name = s->spec->name;
    struct gpiochip_info c;
    if (ioctl(chip, GPIO_GET_CHIPINFO_IOCTL, &c))
        return SAY(s, "%s: %s", label, strerror(errno));
    if (!name && s->spec->offset >= c.lines)
        return SAY(s, "chip %s has %u lines, none at %u for %s", label, c.lines, s->spec->offset, s->line);
    if (!name)
        return look(chip, s->spec->offset, info) ? 0 : SAY(s, "%s line %u: %s", label, s->spec->offset, strerror(errno));
    for (uint32_t i = 0; i < c.lines; i++)
        if (look(chip, i, info) && strncmp(info->name, name, sizeof info->name) == 0)
            return 0;
    return SAY(s, "chip %s has no line named \"%s\" for %s", label, name, s->line);
}

static uint64_t kernel_flags(uint32_t flags)
{
    static const uint64_t of[] = {GPIO_V2_LINE_FLAG_ACTIVE_LOW, GPIO_V2_LINE_FLAG_OPEN_DRAIN, GPIO_V2_LINE_FLAG_BIAS_PULL_UP, GPIO_V2_LINE_FLAG_BIAS_PULL_DOWN, GPIO_V2_LINE_FLAG_BIAS_DISABLED};
    uint64_t out = 0;
    for (unsigned i = 0; i < sizeof of / sizeof *of; i++)
        out |= flags >> i & 1 ? of[i] : 0;
    return out;
}

/* The line's descriptor: an output low from its first moment, or an input with both edges. */
static int request(const search_t *s, int chip, bool input)
{
    struct gpio_v2_line_info info;
    struct gpio_v2_line_request r = {.num_lines = 1};
    const struct gpio_v2_line_attribute low = {.id = GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES};
    const struct gpio_v2_line_attribute settle = {.id = GPIO_V2_LINE_ATTR_ID_DEBOUNCE, .debounce_period_us = s->spec->debounce_us};
    if (find_line(s, chip, &info))
        return -1;
    if (info.flags & GPIO_V2_LINE_FLAG_USED)
        return SAY(s, "%s line %u (%s) is in use by \"%s\" (qsafp board check names its process); free it, or choose another line for %s",
                   s->spec->chip, info.offset, info.name, *info.consumer ? info.consumer : "the kernel", s->line);
    r.offsets[0] = info.offset;
    snprintf(r.consumer, sizeof r.consumer, "qsafp %s", s->line);
    r.config.flags = kernel_flags(s->spec->flags);
    r.config.flags |= input ? GPIO_V2_LINE_FLAG_INPUT | GPIO_V2_LINE_FLAG_EDGE_RISING | GPIO_V2_LINE_FLAG_EDGE_FALLING : GPIO_V2_LINE_FLAG_OUTPUT;
    r.config.num_attrs = !input || s->spec->debounce_us;
    if (r.config.num_attrs)
        r.config.attrs[0] = (struct gpio_v2_line_config_attribute){.attr = input ? settle : low, .mask = 1};
    if (ioctl(chip, GPIO_V2_GET_LINE_IOCTL, &r))
        return SAY(s, "%s line %u for %s: %s%s", s->spec->chip, info.offset, s->line, strerror(errno),
                   errno != EINVAL ? "" : input ? "; can this line be an input with edges, with this bias?" : "; can this line be an output, with this bias?");
    (void)fcntl(r.fd, F_SETFL, O_NONBLOCK);
    (void)fcntl(r.fd, F_SETFD, FD_CLOEXEC);
    return r.fd;
}

static void release(void *ctx)
{
    gpio_t *g = ctx;
    for (int i = 0; i < LINES; i++)
        if (g->fd[i] >= 0)
            close(g->fd[i]);
    free(g);
}

static void *claim(const qsafp_guard_options_t *o, char *why, size_t why_len)
{
    gpio_t *g = malloc(sizeof *g);
    bool ok = g != 0;
    for (int i = 0; g && i < LINES; i++)
        g->fd[i] = -1;
    for (int i = 0; ok && i < LINES; i++) {
        const search_t s = {why, why_len, &o->lines[i], NAMES[i]};
        if (!s.spec->chip)
            continue; /* a board without this line */
        int chip = open_chip(&s);
        g->fd[i] = chip >= 0 ? request(&s, chip, i == LINE_LEASE_RENEW) : -1;
        ok = g->fd[i] >= 0;
        if (chip >= 0)
            close(chip);
    }
    if (ok)
        return g;
    if (g)
        release(g);
    return 0;
}

static int drive(void *ctx, qsafp_line_t line, int level)
{
    const gpio_t *g = ctx;
    struct gpio_v2_line_values v = {.bits = level != 0, .mask = 1};
    return g->fd[line] < 0 ? 0 : ioctl(g->fd[line], GPIO_V2_LINE_SET_VALUES_IOCTL, &v);
}

static int input(void *ctx) { return ((gpio_t *)ctx)->fd[LINE_LEASE_RENEW]; }

static int edges(void *ctx, int *level)
{
    const gpio_t *g = ctx;
    struct gpio_v2_line_event events[16];
    struct gpio_v2_line_values v = {.mask = 1};
    ssize_t n = read(g->fd[LINE_LEASE_RENEW], events, sizeof events);
    if (n < 0 && errno != EAGAIN)
        return -1;
    if (ioctl(g->fd[LINE_LEASE_RENEW], GPIO_V2_LINE_GET_VALUES_IOCTL, &v))
        return -1;
    *level = (int)(v.bits & 1);
    return n > 0;
}

const qsafp_lines_t QSAFP_LINES_GPIO = {.claim = claim, .drive = drive, .release = release, .input = input, .edges = edges};
