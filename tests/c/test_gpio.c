/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of a board through the GPIO character device: what the kernel is asked for, and what is said when it refuses (HW-13).
 * The chips are ours, behind ioctl: files whose content is their label. */
#define _GNU_SOURCE
#define TEST "test_gpio"
#include <fcntl.h>
#include <linux/gpio.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host_stub.h"

static int chip_ioctl(int fd, unsigned long what, void *arg);
static int chip_open(const char *path, int flags);
static char dir[] = P_tmpdir "/qsafp-gpio-XXXXXX";
#define GPIO_DEV dir
#define ioctl chip_ioctl
#define open chip_open
#include "../../board_ports/linux/gpio_cdev.c"
#undef open
#undef ioctl

enum { CHIP_LINES = 8 };

/* What the fake kernel does, and what it was asked. */
static struct {
    int open_error, request_error, value_error, set_error; /* errno of the next calls, or 0 */
    bool used[CHIP_LINES], unnamed;
    const char *consumer;
    struct gpio_v2_line_request asked[LINES];
    unsigned requests;
    uint64_t level, driven;
} kernel;

static int chip_open(const char *path, int flags)
{
    if (kernel.open_error)
        return errno = kernel.open_error, -1;
    return open(path, flags);
}

static int chip_info(int fd, struct gpiochip_info *info)
{
    memset(info, 0, sizeof *info);
    info->lines = CHIP_LINES;
    return pread(fd, info->label, sizeof info->label, 0) > 0 ? 0 : -1;
}

static int line_info(struct gpio_v2_line_info *info)
{
    uint32_t n = info->offset;
    if (n >= CHIP_LINES)
        return errno = EINVAL, -1;
    if (!kernel.unnamed)
        snprintf(info->name, sizeof info->name, "L%u", n);
    info->flags = kernel.used[n] ? GPIO_V2_LINE_FLAG_USED : 0;
    if (kernel.used[n] && kernel.consumer)
        snprintf(info->consumer, sizeof info->consumer, "%s", kernel.consumer);
    return 0;
}

static int line_request(struct gpio_v2_line_request *r)
{
    if (kernel.request_error)
        return errno = kernel.request_error, -1;
    kernel.asked[kernel.requests++] = *r;
    r->fd = memfd_create("line", MFD_CLOEXEC);
    return 0;
}

static int chip_ioctl(int fd, unsigned long what, void *arg)
{
    struct gpio_v2_line_values *v = arg;
    if (what == GPIO_GET_CHIPINFO_IOCTL)
        return chip_info(fd, arg);
    if (what == GPIO_V2_GET_LINEINFO_IOCTL)
        return line_info(arg);
    if (what == GPIO_V2_GET_LINE_IOCTL)
        return line_request(arg);
    if (what == GPIO_V2_LINE_SET_VALUES_IOCTL)
        return kernel.set_error ? (errno = kernel.set_error, -1) : (kernel.driven = v->bits, 0);
    if (what == GPIO_V2_LINE_GET_VALUES_IOCTL)
        return kernel.value_error ? (errno = kernel.value_error, -1) : (v->bits = kernel.level, 0);
    return errno = ENOTTY, -1;
}

static qsafp_guard_options_t board(void)
{
    qsafp_guard_options_t o = {.board = "b"};
    for (uint32_t i = 0; i < LINES; i++)
        o.lines[i] = (qsafp_line_spec_t){.chip = "second", .offset = i};
    memset(&kernel, 0, sizeof kernel);
    return o;
}

static unsigned open_files(void)
{
    unsigned n = 0;
    for (int fd = 3; fd < 64; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void refused_with(const qsafp_guard_options_t *o, const char *said)
{
    char why[200] = {0};
    unsigned before = open_files();
    void *ctx = claim(o, why, sizeof why);
    if (ctx || !strstr(why, said))
        printf("# wanted \"%s\", got \"%s\"\n", said, ctx ? "(claimed)" : why);
    CHECK(!ctx && strstr(why, said));
    CHECK(open_files() == before); /* what was claimed before was given back */
}

static void outputs_begin_low_and_the_input_has_both_edges(void)
{
    char why[200];
    qsafp_guard_options_t o = board();
    gpio_t *g = claim(&o, why, sizeof why);
    CHECK(g && kernel.requests == LINES);
    for (uint32_t i = 0; i < LINES; i++) {
        const struct gpio_v2_line_request *r = &kernel.asked[i];
        uint64_t edges_ = GPIO_V2_LINE_FLAG_EDGE_RISING | GPIO_V2_LINE_FLAG_EDGE_FALLING;
        CHECK(r->num_lines == 1 && r->offsets[0] == i && strncmp(r->consumer, "qsafp ", 6) == 0 && strcmp(r->consumer + 6, NAMES[i]) == 0);
        CHECK(r->config.flags == (i == LINE_LEASE_RENEW ? GPIO_V2_LINE_FLAG_INPUT | edges_ : GPIO_V2_LINE_FLAG_OUTPUT));
        CHECK(r->config.num_attrs == (i != LINE_LEASE_RENEW));
        CHECK(i == LINE_LEASE_RENEW || (r->config.attrs[0].attr.id == GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES && !r->config.attrs[0].attr.values && r->config.attrs[0].mask == 1));
    }
    CHECK(drive(g, LINE_LEASE_VALID, 7) == 0 && kernel.driven == 1);
    CHECK(drive(g, LINE_LEASE_VALID, 0) == 0 && kernel.driven == 0);
    release(g);
}

/* What a board may say of a line, in our words and in the kernel's. */
static void every_option_reaches_the_kernel(void)
{
    static const struct { uint32_t flags, debounce_us; uint64_t wanted; } table[] = {
        {LINE_ACTIVE_LOW, 0, GPIO_V2_LINE_FLAG_ACTIVE_LOW}, {LINE_OPEN_DRAIN, 0, GPIO_V2_LINE_FLAG_OPEN_DRAIN},
        {LINE_PULL_UP, 0, GPIO_V2_LINE_FLAG_BIAS_PULL_UP}, {LINE_PULL_DOWN, 0, GPIO_V2_LINE_FLAG_BIAS_PULL_DOWN},
        {LINE_BIAS_OFF, 0, GPIO_V2_LINE_FLAG_BIAS_DISABLED}, {0, 5000, 0},
        {LINE_ACTIVE_LOW | LINE_PULL_UP, 1, GPIO_V2_LINE_FLAG_ACTIVE_LOW | GPIO_V2_LINE_FLAG_BIAS_PULL_UP}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        for (unsigned k = 0; k < LINES; k += LINES - 1) { /* an output, and the input */
            char why[200];
            qsafp_guard_options_t o = board();
            o.lines[k].flags = table[i].flags;
            o.lines[k].debounce_us = k == LINE_LEASE_RENEW ? table[i].debounce_us : 0;
            gpio_t *g = claim(&o, why, sizeof why);
            const struct gpio_v2_line_config *c = &kernel.asked[k].config;
            uint64_t way = GPIO_V2_LINE_FLAG_OUTPUT | GPIO_V2_LINE_FLAG_INPUT | GPIO_V2_LINE_FLAG_EDGE_RISING | GPIO_V2_LINE_FLAG_EDGE_FALLING;
            CHECK(g && (c->flags & ~way) == table[i].wanted);
            if (k == LINE_LEASE_RENEW && table[i].debounce_us)
                CHECK(c->num_attrs == 1 && c->attrs[0].attr.id == GPIO_V2_LINE_ATTR_ID_DEBOUNCE && c->attrs[0].attr.debounce_period_us == table[i].debounce_us && c->attrs[0].mask == 1);
            release(g);
        }
}

static void a_line_is_found_by_name_and_a_missing_one_is_none(void)
{
    char why[200];
    qsafp_guard_options_t o = board();
    o.lines[LINE_LEASE_VALID] = (qsafp_line_spec_t){.chip = "first", .name = "L6"};
    o.lines[LINE_VALIDATOR_REQ].chip = 0;
    gpio_t *g = claim(&o, why, sizeof why);
    CHECK(g && kernel.asked[0].offsets[0] == 6 && kernel.requests == LINES - 1);
    CHECK(drive(g, LINE_VALIDATOR_REQ, 1) == 0); /* a board without it: nothing to do is no failure */
    release(g);
}

static void what_is_wrong_is_named(void)
{
    qsafp_guard_options_t o = board();
    o.lines[0].chip = "third", refused_with(&o, "no GPIO chip is labelled \"third\"; qsafp board check lists those here");
    o = board(), o.lines[2].name = "X", refused_with(&o, "chip second has no line named \"X\" for VALIDATOR_REQ");
    o = board(), o.lines[3].offset = 8, refused_with(&o, "chip second has 8 lines, none at 8 for LEASE_RENEW");
    o = board(), kernel.unnamed = true, o.lines[0].name = "L0", refused_with(&o, "has no line named \"L0\"");
    o = board(), kernel.open_error = EACCES, refused_with(&o, "permission denied; add the guard's user to the group that owns them (gpio)");
    o = board(), kernel.open_error = EPERM, refused_with(&o, "allow the device to its unit");
}

static void a_busy_line_names_its_owner(void)
{
    qsafp_guard_options_t o = board();
    kernel.used[1] = true, kernel.consumer = "fan";
    refused_with(&o, "second line 1 (L1) is in use by \"fan\" (qsafp board check names its process); free it, or choose another line for FAILSAFE");
    kernel.consumer = 0; /* pin control has it: nobody is named */
    refused_with(&o, "in use by \"the kernel\"");
    o = board(), kernel.request_error = EBUSY, refused_with(&o, "second line 0 for LEASE_VALID: Device or resource busy");
}

static void a_line_of_the_wrong_direction_is_named(void)
{
    qsafp_guard_options_t o = board();
    kernel.request_error = EINVAL, refused_with(&o, "line 0 for LEASE_VALID: Invalid argument; can this line be an output");
    for (unsigned i = 0; i < LINE_LEASE_RENEW; i++)
        o.lines[i].chip = 0;
    refused_with(&o, "line 3 for LEASE_RENEW: Invalid argument; can this line be an input with edges");
}

static void a_chip_that_goes_away_is_an_error_and_no_level(void)
{
    char why[200];
    int level = 1;
    qsafp_guard_options_t o = board();
    gpio_t *g = claim(&o, why, sizeof why);
    CHECK(g && input(g) >= 0);
    kernel.level = 1;
    CHECK(edges(g, &level) == 0 && level == 1);
    kernel.level = 0;
    CHECK(write(input(g), (char[48]){0}, 48) == 48 && lseek(input(g), 0, SEEK_SET) == 0);
    CHECK(edges(g, &level) == 1 && level == 0);
    kernel.value_error = kernel.set_error = ENODEV;
    CHECK(edges(g, &level) < 0 && drive(g, LINE_LEASE_VALID, 0) < 0);
    release(g);
}

static void chip(const char *name, const char *label)
{
    char path[sizeof dir + 32];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "we");
    CHECK(f && fwrite(label, 1, strlen(label), f) == strlen(label) && fclose(f) == 0);
}

int main(void)
{
    char path[sizeof dir + 32];
    CHECK(mkdtemp(dir));
    chip("gpiochip0", "first");
    chip("gpiochip10", "second");
    outputs_begin_low_and_the_input_has_both_edges();
    every_option_reaches_the_kernel();
    a_line_is_found_by_name_and_a_missing_one_is_none();
    what_is_wrong_is_named();
    a_busy_line_names_its_owner();
    a_line_of_the_wrong_direction_is_named();
    a_chip_that_goes_away_is_an_error_and_no_level();
    for (int i = 0; i <= 10; i += 10) {
        snprintf(path, sizeof path, "%s/gpiochip%d", dir, i);
        CHECK(unlink(path) == 0);
    }
    CHECK(rmdir(dir) == 0);
    printf(TEST ": %u passed, 0 failed\n", passed);
    return 0;
}
