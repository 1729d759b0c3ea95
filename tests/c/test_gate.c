/* SPDX-License-Identifier: Apache-2.0 */
/* The gate page and its check: zeroed and blank pages, every bit flipped, window edges, clocks that go back, forward and round. */
#include "device.h"

static const uint64_t NOW = 1000 * S, WINDOW = 2 * S;
static const uint64_t NOWS[] = {0, 1, S, 1000 * S, UINT64_MAX / 2, UINT64_MAX - 1, UINT64_MAX};

static qsafp_gate_page_t page_of(uint32_t armed, uint64_t deadline)
{
    return (qsafp_gate_page_t){.magic = QSAFP_GATE_MAGIC, .armed = armed, .deadline = deadline, .deadline_ns = deadline, .window = WINDOW, .window_ns = WINDOW};
}

/* The definition, spelled another way and in more bits than the check has. */
static bool defined_open(const qsafp_gate_page_t *p, uint64_t now)
{
    __extension__ typedef unsigned __int128 wide;
    return p->armed == QSAFP_ARMED && p->deadline_ns > now && (wide)p->deadline_ns <= (wide)now + p->window_ns;
}

static void I1_blank_memory_is_closed_at_any_time(void)
{
    static const uint8_t fills[] = {0x00, 0xFF, 0x5A, 0xAA, 0x55};
    for (size_t k = 0; k < sizeof fills; k++) {
        qsafp_gate_page_t p;
        memset(&p, fills[k], sizeof p);
        for (size_t i = 0; i < sizeof NOWS / sizeof *NOWS; i++)
            CHECK(!qsafp_gate_check_ns(&p, NOWS[i]));
        CHECK(!qsafp_gate_check_counter(&p));
    }
}

static void I1_window_edges(void)
{
    static const struct { int64_t ahead; bool open; } row[] = {{-1, false}, {0, false}, {1, true}, {2, true}, {2 * (int64_t)S - 1, true},
                                                               {2 * (int64_t)S, true}, {2 * (int64_t)S + 1, false}, {INT64_MAX, false}, {INT64_MIN, false}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        qsafp_gate_page_t p = page_of(QSAFP_ARMED, NOW + (uint64_t)row[i].ahead);
        CHECK(qsafp_gate_check_ns(&p, NOW) == row[i].open);
        CHECK(qsafp_gate_open(QSAFP_ARMED, NOW + (uint64_t)row[i].ahead, WINDOW, NOW) == row[i].open);
        p.window_ns = 0;
        CHECK(!qsafp_gate_check_ns(&p, NOW)); /* no window, no gate */
    }
}

static void I1_a_clock_that_goes_back_forward_or_round_closes(void)
{
    qsafp_gate_page_t p = page_of(QSAFP_ARMED, NOW + S);
    CHECK(qsafp_gate_check_ns(&p, NOW));
    static const uint64_t at[] = {0, 1, 998 * S, 1001 * S, 1001 * S + 1, 2000 * S, UINT64_MAX / 2, UINT64_MAX};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        CHECK(!qsafp_gate_check_ns(&p, at[i]));
    CHECK(!qsafp_gate_check_ns(&p, 999 * S - 1) && qsafp_gate_check_ns(&p, 999 * S)); /* back by less than the window only */
    p = page_of(QSAFP_ARMED, 5);
    CHECK(!qsafp_gate_check_ns(&p, UINT64_MAX - 5 - WINDOW)); /* a counter about to wrap: far ahead */
    p = page_of(QSAFP_ARMED, 0);
    for (size_t i = 0; i + 3 < sizeof NOWS / sizeof *NOWS; i++)
        CHECK(!qsafp_gate_check_ns(&p, NOWS[i])); /* deadline zero: nothing leased */
    p = page_of(QSAFP_ARMED, UINT64_MAX);
    CHECK(!qsafp_gate_check_ns(&p, NOW));
}

/* Whatever bit of an open page is flipped, the check says what the definition says; a bit of `armed` closes it; none opens it past its window. */
static void I1_every_flipped_bit_of_an_open_page(void)
{
    size_t wrong = 0, still = 0;
    for (unsigned bit = 0; bit < 128 * 8; bit++) {
        qsafp_gate_page_t p = page_of(QSAFP_ARMED, NOW + S);
        ((uint8_t *)&p)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        bool in_armed = bit / 32 == 1;
        for (uint64_t now = NOW - 4 * S; now <= NOW + 4 * S; now += S / 4)
            wrong += qsafp_gate_check_ns(&p, now) != defined_open(&p, now) || (in_armed && qsafp_gate_check_ns(&p, now));
        still += qsafp_gate_check_ns(&p, NOW);
    }
    CHECK(wrong == 0 && still > 0);
}

/* A closed page stays closed whatever single bit of its armed word or window flips: every generation is bits away. */
static void I1_no_single_bit_arms_a_closed_page(void)
{
    size_t opened = 0;
    int nearest = 32;
    for (uint32_t g = 0; g <= 0x00FFFFFF; g++) {
        int away = __builtin_popcount(g ^ QSAFP_ARMED);
        nearest = away < nearest ? away : nearest;
    }
    CHECK(nearest >= 4);
    for (unsigned bit = 32; bit < 64; bit++) {
        qsafp_gate_page_t p = page_of(7, NOW + S);
        ((uint8_t *)&p)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        opened += qsafp_gate_check_ns(&p, NOW);
    }
    for (unsigned bit = 0; bit < 64; bit++) { /* past deadlines: no window is wide enough */
        qsafp_gate_page_t p = page_of(QSAFP_ARMED, NOW - S);
        p.window_ns ^= (uint64_t)1 << bit;
        opened += qsafp_gate_check_ns(&p, NOW);
    }
    CHECK(opened == 0);
}

static void the_counter_check_reads_its_own_fields(void)
{
    if (!qsafp_counter()) {
        CHECK(qsafp_counter() == 0); /* no counter here: readers use boot time */
        return;
    }
    const uint64_t far = (uint64_t)1 << 50;
    qsafp_gate_page_t p = page_of(QSAFP_ARMED, 0);
    p.window = far;
    p.deadline = qsafp_counter() + far / 2;
    CHECK(qsafp_gate_check_counter(&p) && !qsafp_gate_check_ns(&p, NOW));
    p.armed = 3;
    CHECK(!qsafp_gate_check_counter(&p));
    p.armed = QSAFP_ARMED;
    p.deadline = qsafp_counter() - 1;
    CHECK(!qsafp_gate_check_counter(&p));
    p.deadline = qsafp_counter() + 2 * far;
    CHECK(!qsafp_gate_check_counter(&p));
    uint64_t before = qsafp_counter(), after = qsafp_counter();
    CHECK(after >= before);
}

/* A device whose board has a counter: 3 ticks a nanosecond. */
static bench_t *with_counter(void)
{
    bench_t *b = fresh();
    wire(b);
    b->page.counter_hz = 3 * S;
    CHECK(qsafp_init(&b->q) == 0);
    return b;
}

static bool open_by_counter(const bench_t *b, uint64_t now_ns)
{
    return qsafp_gate_open(b->page.armed, b->page.deadline, b->page.window, 3 * now_ns);
}

static void I1_both_clocks_open_and_close_together(void)
{
    bench_t *b = with_counter();
    CHECK(b->page.window == 6 * S && b->page.window_ns == 2 * S && !open_by_counter(b, b->d.now_ns));
    CHECK(obtain(b) == 0 && open_now(b) && open_by_counter(b, b->d.now_ns));
    CHECK(b->page.deadline_ns == b->d.now_ns + S && b->page.deadline == 3 * b->page.deadline_ns);
    CHECK(open_by_counter(b, b->d.now_ns + S - 1) && !open_by_counter(b, b->d.now_ns + S) && !qsafp_gate_check_ns(&b->page, b->d.now_ns + S)); /* stale */
    b->d.now_ns = 159 * S + S / 2;
    (void)qsafp_tick(&b->q);
    CHECK(b->page.deadline_ns == 160 * S && b->page.deadline == 480 * S); /* never past the lease's end */
    CHECK(open_by_counter(b, 160 * S - 1) && !open_by_counter(b, 160 * S));
    free(b);
    b = fresh(); /* a board without: the counter's fields stay zero */
    CHECK(obtain(b) == 0 && open_now(b) && b->page.deadline == 0 && b->page.window == 0 && !open_by_counter(b, b->d.now_ns));
    free(b);
}

static void the_rest_of_the_page_is_written_between_even_counts(void)
{
    bench_t *b = fresh();
    uint32_t seq = b->page.seq;
    uint8_t model[32] = {7};
    CHECK(b->page.magic == QSAFP_GATE_MAGIC && seq % 2 == 0 && memcmp(b->page.model, model, 32) == 0 && b->page.armed == 0);
    CHECK(obtain(b) == 0);
    CHECK(b->page.seq == seq + 2 && b->page.serial == 1 && b->page.status == QSAFP_STATUS_VALID && b->page.phase == QSAFP_PHASE_ACTIVE && b->page.reason == 0);
    CHECK(memcmp(b->page.lease_id, b->q.lease.lease_id, 16) == 0 && b->page.zero == 0);
    qsafp_trip(&b->q, QSAFP_REASON_BUS);
    (void)qsafp_tick(&b->q);
    CHECK(b->page.seq == seq + 4 && b->page.status == QSAFP_STATUS_DENIED && b->page.phase == QSAFP_PHASE_FAILSAFE && b->page.reason == QSAFP_REASON_BUS);
    CHECK(b->page.armed == 1);
    free(b);
}

static void a_guard_that_stops_closes_the_page_for_good(void)
{
    bench_t *b = with_counter();
    CHECK(obtain(b) == 0 && open_now(b) && b->d.valid);
    qsafp_deinit(&b->q);
    CHECK(!open_now(b) && !b->d.valid && b->page.armed != QSAFP_ARMED && b->page.deadline_ns == 0 && b->page.deadline == 0);
    (void)qsafp_tick(&b->q); /* a last tick of the deadline thread opens nothing */
    CHECK(!open_now(b) && !b->d.valid && b->page.deadline_ns == 0);
    free(b);
}

int main(void)
{
    I1_blank_memory_is_closed_at_any_time();
    I1_window_edges();
    I1_a_clock_that_goes_back_forward_or_round_closes();
    I1_every_flipped_bit_of_an_open_page();
    I1_no_single_bit_arms_a_closed_page();
    the_counter_check_reads_its_own_fields();
    I1_both_clocks_open_and_close_together();
    the_rest_of_the_page_is_written_between_even_counts();
    a_guard_that_stops_closes_the_page_for_good();
    return DONE("test_gate");
}
