/* SPDX-License-Identifier: Apache-2.0 */
/* The pin holder (HW-13): LEASE_VALID stays high only while the deadline thread vouches for it; nothing else that the guard does
 * stands for that. */
#define _GNU_SOURCE
#define TEST "test_pins"
#include <string.h>
#include <time.h>

#include "host_stub.h"

#define qsafp_trip stop_the_device
static void stop_the_device(qsafp_t *q, qsafp_reason_t reason);
#include "../../board_ports/linux/pins.c"

/* The board: levels in memory that the holder and we share, and a pipe for LEASE_RENEW: `1` high, `0` low, `x` breaks it. */
static uint32_t *level;
static int button[2];
enum { GONE = 1, GRUDGING = 2 }; /* level[LINES + 1]: the chip is gone; it obeys, and says that it did not */

static void *claim(const qsafp_guard_options_t *o, char *why, size_t why_len)
{
    (void)o, (void)why, (void)why_len;
    return level;
}

static int drive_line(void *ctx, qsafp_line_t line, int to)
{
    (void)ctx;
    uint32_t how = get(&level[LINES + 1]), *refusals = &level[LINES + 2];
    if (line == LINE_LEASE_VALID && get(refusals) && __atomic_fetch_sub(refusals, 1, __ATOMIC_SEQ_CST))
        return -1;
    if (how != GONE)
        __atomic_store_n(&level[line], (uint32_t)to, __ATOMIC_SEQ_CST);
    return how ? -1 : 0;
}

static void release(void *ctx) { (void)ctx; }

static int input_line(void *ctx)
{
    (void)ctx;
    return button[0];
}

static int edges(void *ctx, int *to)
{
    char c[64];
    ssize_t n = read(button[0], c, sizeof c);
    (void)ctx;
    if (n > 0)
        __atomic_store_n(&level[LINE_LEASE_RENEW], c[n - 1] == '1', __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&level[LINES], 1, __ATOMIC_SEQ_CST); /* how often the line was looked at */
    *to = (int)get(&level[LINE_LEASE_RENEW]);
    return n > 0 && memchr(c, 'x', (size_t)n) ? -1 : n > 0;
}

const qsafp_lines_t QSAFP_LINES_SIMULATED = {
    .claim = claim, .drive = drive_line, .release = release, .input = input_line, .edges = edges};
static void *claim_none(const qsafp_guard_options_t *o, char *why, size_t why_len)
{
    snprintf(why, why_len, "no chip %s", o->lines[LINE_LEASE_VALID].chip);
    return 0;
}
const qsafp_lines_t QSAFP_LINES_GPIO = {.claim = claim_none};

static pins_shared_t *beats; /* whose guard ticks just after anybody read the clock */

uint64_t boot_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    uint64_t now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    if (beats)
        beats->heartbeat_ns = now + 1;
    return now;
}

static bool becomes(qsafp_line_t line, uint32_t to)
{
    const struct timespec nap = {.tv_nsec = 1000000};
    for (int i = 0; i < 20000; i++) {
        if (get(&level[line]) == to)
            return true;
        nanosleep(&nap, 0);
    }
    return false;
}

static void nap_ms(long ms)
{
    const struct timespec nap = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&nap, 0);
}

static void press(const char *edges_of_it)
{
    CHECK(write(button[1], edges_of_it, strlen(edges_of_it)) == (ssize_t)strlen(edges_of_it));
}

/* How often the guard was told within `ms`. */
static int told(host_t *h, uint64_t ms)
{
    int times = 0;
    for (uint64_t end = boot_ns() + ms * 1000000u; boot_ns() < end; nap_ms(1)) {
        uint8_t c;
        while (recv(h->pins.wake, &c, 1, MSG_PEEK) == 1) {
            CHECK(pins_heard(h));
            times++;
        }
    }
    return times;
}

static bool told_once(host_t *h)
{
    for (int i = 0; i < 200; i++)
        if (told(h, 100))
            return told(h, 100) == 0;
    return false;
}

static void a_press_asks_once_and_until_a_lease_comes(host_t *h)
{
    h->q.lease.serial = 7;
    CHECK(!pins_renew_wanted(h));
    press("1");
    CHECK(told_once(h) && pins_renew_wanted(h));
    CHECK(told(h, 1200) == 0); /* stuck: the level is no edge */
    press("01");
    CHECK(told(h, 200) == 0); /* it shook */
    h->q.lease.serial = 8;
    CHECK(!pins_renew_wanted(h));
    press("0");
    CHECK(told(h, 100) == 0);
}

static void bounces_are_one_press_and_a_glitch_is_none(host_t *h)
{
    for (int i = 0; i < 7; i++) {
        press(i & 1 ? "0" : "1");
        nap_ms(2);
    }
    CHECK(told_once(h));
    press("0101010");
    CHECK(told(h, 1100) == 0);
    for (int i = 0; i < 100; i++) {
        uint64_t begun = boot_ns();
        press("1");
        nap_ms(5);
        press("0");
        bool brief = boot_ns() - begun < 15000000u; /* a machine that is slow makes a press of it: once more */
        int times = told(h, 100);
        CHECK(!brief || times == 0);
        if (brief)
            return;
        (void)told(h, 1100);
    }
    CHECK(!"no glitch of less than 15 ms in a hundred");
}

/* The line moves on and on: the holder looks at it a hundred times a second at most, the guard hears nothing, LEASE_VALID still falls. */
static void I4_a_storm_of_edges_costs_little_and_moves_no_output(host_t *h)
{
    h->q.lease.serial = 9;
    h->pins.s->stale_ns = 20000000000u;
    CHECK(pin_lease_valid(h, 1) == 0 && becomes(LINE_LEASE_VALID, 1));
    uint32_t looks = get(&level[LINES]);
    uint64_t begun = boot_ns();
    int times = 0;
    while (boot_ns() - begun < 500000000u) {
        press("10101010");
        CHECK(pin_lease_valid(h, 1) == 0);
        times += told(h, 2);
        CHECK(get(&level[LINE_LEASE_VALID]) == 1 && get(&level[LINE_FAILSAFE]) == 0);
    }
    CHECK((get(&level[LINES]) - looks) * 10000000ull <= boot_ns() - begun + 40000000u);
    h->pins.s->stale_ns = 100000000u;
    for (begun = boot_ns(); get(&level[LINE_LEASE_VALID]); nap_ms(1)) {
        CHECK(boot_ns() - begun < 20000000000u);
        press("10");
    }
    CHECK(times == 0 && !pins_renew_wanted(h));
    CHECK(told(h, 200) == 0);
}

/* A button that is pressed as fast as it can be. */
static void a_second_lies_between_two_requests(host_t *h)
{
    uint64_t begun = boot_ns();
    int times = 0;
    for (int i = 0; i < 30; i++) {
        press(i & 1 ? "0" : "1");
        times += told(h, 50);
    }
    press("0");
    CHECK(times >= 1 && (uint64_t)times <= (boot_ns() - begun) / 1000000000u + 1);
    CHECK(told(h, 1100) == 0);
}

static void a_broken_input_is_left_alone(host_t *h)
{
    press("x");
    CHECK(told(h, 100) == 0);
    uint32_t looks = get(&level[LINES]);
    press("1");
    CHECK(told(h, 300) == 0 && get(&level[LINES]) == looks);
    CHECK(pin_lease_valid(h, 1) == 0 && becomes(LINE_LEASE_VALID, 1));
}

static void held_down_from_the_start_is_no_press(host_t *h)
{
    press("1");
    CHECK(pins_start(h) == 0);
    CHECK(told(h, 200) == 0 && get(&level[LINE_LEASE_RENEW]) == 1);
    press("0");
    CHECK(told(h, 200) == 0);
    press("1");
    CHECK(told_once(h));
}

static void the_guard_hears_that_the_holder_is_gone(host_t *h)
{
    CHECK(kill(h->pins.holder, SIGKILL) == 0);
    waitpid(h->pins.holder, 0, 0);
    CHECK(!pins_heard(h));
}

/* The holder of a guard that died lingers with the lines; the next guard's takes them from it, and gives them up at its end. */
static void a_holder_whose_guard_is_gone_gives_way(const qsafp_guard_options_t *o)
{
    static char why[200];
    host_t one = {.o = o, .why = why, .why_len = sizeof why}, two = one;
    int status;
    CHECK(pins_start(&one) == 0);
    CHECK(pin_lease_valid(&one, 1) == 0);
    close(one.pins.wake); /* as a death does */
    CHECK(becomes(LINE_LEASE_VALID, 0));
    CHECK(waitpid(one.pins.holder, &status, WNOHANG) == 0);
    CHECK(pins_start(&two) == 0);
    CHECK(waitpid(one.pins.holder, &status, 0) == one.pins.holder && WIFSIGNALED(status));
    pins_stop(&two);
}

static void a_board_says_why_its_lines_cannot_be_had(const qsafp_guard_options_t *simulated_board)
{
    char why[200] = {0};
    qsafp_guard_options_t o = *simulated_board;
    host_t h = {.o = &o, .why = why, .why_len = sizeof why};
    o.board = "b";
    CHECK(pins_start(&h) < 0 && strcmp(why, "board \"b\": it has no line for LEASE_VALID") == 0);
    o.lines[LINE_LEASE_VALID].chip = "c";
    CHECK(pins_start(&h) < 0 && strcmp(why, "pins: no chip c") == 0);
}

static unsigned tripped;
static void stop_the_device(qsafp_t *q, qsafp_reason_t reason)
{
    (void)q;
    tripped += reason == QSAFP_REASON_ANOMALY;
}

static void obeys(uint32_t how) { __atomic_store_n(&level[LINES + 1], how, __ATOMIC_SEQ_CST); }

static void a_line_that_does_not_obey_stops_the_device(host_t *h)
{
    struct pollfd p = {.fd = h->pins.wake, .events = POLLIN};
    obeys(GONE);
    CHECK(pin_lease_valid(h, 0) == 0);
    CHECK(poll(&p, 1, 20000) == 1);
    CHECK(pins_heard(h) && tripped == 1 && !pins_renew_wanted(h));
    CHECK(get(&level[LINE_LEASE_VALID]) == 1);
    CHECK(poll(&p, 1, 20000) == 1); /* whoever released it meanwhile hears of it again */
    CHECK(pins_heard(h) && tripped == 2);
    obeys(0);
    CHECK(becomes(LINE_LEASE_VALID, 0)); /* it was tried again all the time */
    CHECK(pin_lease_valid(h, 1) == 0 && becomes(LINE_LEASE_VALID, 1));
    (void)told(h, 100);
    CHECK(told(h, 200) == 0);
}

/* The line rose, and the driver said that it did not: low is then not what it is, and must be driven. */
static void I4_a_refused_rise_is_driven_low_all_the_same(host_t *h)
{
    CHECK(pin_lease_valid(h, 0) == 0 && becomes(LINE_LEASE_VALID, 0));
    obeys(GRUDGING);
    CHECK(pin_lease_valid(h, 1) == 0 && becomes(LINE_LEASE_VALID, 1));
    CHECK(pin_lease_valid(h, 0) == 0 && becomes(LINE_LEASE_VALID, 0));
    obeys(0);
    (void)told(h, 100);
}

/* Whatever ends the programs of a terminal or a service one by one: the guard may, and then somebody must drive the line. */
static void I4_only_the_guards_end_ends_the_holder(host_t *h)
{
    static const int sent[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT};
    for (unsigned i = 0; i < sizeof sent / sizeof *sent; i++) {
        CHECK(pin_lease_valid(h, 1) == 0 && becomes(LINE_LEASE_VALID, 1));
        CHECK(kill(h->pins.holder, sent[i]) == 0);
        CHECK(pin_lease_valid(h, 0) == 0 && becomes(LINE_LEASE_VALID, 0));
    }
}

/* A driver that never returns: the lines stay as they are, and nobody says so but the guard's own ticks. */
static void I4_a_holder_that_hangs_stops_the_device(host_t *h)
{
    unsigned before = tripped;
    CHECK(pin_lease_valid(h, 1) == 0 && becomes(LINE_LEASE_VALID, 1) && pins_drive(h));
    CHECK(kill(h->pins.holder, SIGSTOP) == 0);
    for (uint64_t end = boot_ns() + 20000000000u; tripped == before && boot_ns() < end; nap_ms(5))
        CHECK(pin_lease_valid(h, 0) == 0);
    CHECK(tripped == before + 1 && !pins_drive(h) && get(&level[LINE_LEASE_VALID]) == 1);
    CHECK(kill(h->pins.holder, SIGCONT) == 0);
    CHECK(becomes(LINE_LEASE_VALID, 0));
    for (uint64_t end = boot_ns() + 20000000000u; !pins_drive(h) && boot_ns() < end;)
        nap_ms(1);
    CHECK(pins_drive(h));
}

static void a_tick_between_two_looks_is_no_stale_one(void)
{
    pins_shared_t s = {.valid = 1, .stale_ns = 1000000000, .heartbeat_ns = boot_ns()};
    holder_t o = {.lines = &QSAFP_LINES_SIMULATED, .ctx = level, .s = &s, .alive = true};
    beats = &s;
    (void)drive(&o);
    beats = 0;
    CHECK(o.level[LINE_LEASE_VALID] == 1 && o.level[LINE_FAILSAFE] == 0);
    memset(level, 0, LINES * sizeof *level);
}

int main(void)
{
    static char why[200];
    static char dir[] = P_tmpdir "/qsafp-pins-XXXXXX", lock[sizeof dir + 16];
    static const qsafp_guard_options_t o = {.board = "simulated", .run_dir = dir, .stale_after_ms = 100, .linger_ms = 10000};
    static host_t h = {.o = &o, .why = why, .why_len = sizeof why};
    CHECK(mkdtemp(dir));
    level = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(level != MAP_FAILED);
    int line[2];
    CHECK(pipe2(line, O_NONBLOCK) == 0);
    for (int i = 0; i < 2; i++)
        CHECK((button[i] = fcntl(line[i], F_DUPFD, 300)) >= 300); /* the holder closes what is below */
    a_board_says_why_its_lines_cannot_be_had(&o);
    a_holder_whose_guard_is_gone_gives_way(&o);
    a_tick_between_two_looks_is_no_stale_one();
    CHECK(pins_start(&h) == 0);
    CHECK(pin_failsafe(&h, 0) == 0 && pin_lease_valid(&h, 1) == 0);
    CHECK(becomes(LINE_LEASE_VALID, 1));
    h.pins.s->stale_ns = 20000000000u;
    a_line_that_does_not_obey_stops_the_device(&h);
    I4_a_refused_rise_is_driven_low_all_the_same(&h);
    I4_only_the_guards_end_ends_the_holder(&h);
    I4_a_holder_that_hangs_stops_the_device(&h);
    a_press_asks_once_and_until_a_lease_comes(&h);
    bounces_are_one_press_and_a_glitch_is_none(&h);
    I4_a_storm_of_edges_costs_little_and_moves_no_output(&h);
    a_second_lies_between_two_requests(&h);
    /* The deadline thread hangs; the service thread goes on asking validators. */
    bool fell = false;
    for (uint64_t end = boot_ns() + 20000000000u; !fell && boot_ns() < end;) {
        const struct timespec nap = {.tv_nsec = 5000000};
        CHECK(pin_req(&h) == 0 && pin_failsafe(&h, 0) == 0);
        nanosleep(&nap, 0);
        fell = get(&level[LINE_LEASE_VALID]) == 0;
    }
    CHECK(fell);
    CHECK(becomes(LINE_FAILSAFE, 1));
    bool back = false;
    for (uint64_t end = boot_ns() + 20000000000u; !back && boot_ns() < end; back = get(&level[LINE_LEASE_VALID]) == 1) {
        const struct timespec nap = {.tv_nsec = 5000000};
        CHECK(pin_lease_valid(&h, 1) == 0);
        nanosleep(&nap, 0);
    }
    CHECK(back);
    a_broken_input_is_left_alone(&h);
    __atomic_store_n(&level[LINES + 2], DEAD_TRIES - 1, __ATOMIC_SEQ_CST); /* the last low, too, is tried again */
    pins_stop(&h);
    CHECK(get(&level[LINE_LEASE_VALID]) == 0);
    held_down_from_the_start_is_no_press(&h);
    the_guard_hears_that_the_holder_is_gone(&h);
    snprintf(lock, sizeof lock, "%s/pins.lock", dir);
    CHECK(unlink(lock) == 0 && rmdir(dir) == 0);
    printf(TEST ": %u passed, 0 failed\n", passed);
    return 0;
}
