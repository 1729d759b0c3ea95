/* SPDX-License-Identifier: Apache-2.0 */
/* The watchdog (HW-12) over a device that is a file and a fake ioctl: armed, read back, fed only while the deadline thread ticks,
 * disarmed at a clean end, left alone after three resets without a lease, armed again by one. */
#define _GNU_SOURCE
#define TEST "test_watchdog"
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

#include "host_stub.h"

static char root[] = P_tmpdir "/qsafp-watchdog-XXXXXX", boot_id[200];
static struct { _Atomic int fed, refuse, fixed, timeout, most; } fake;

static int fake_ioctl(int fd, unsigned long what, int *value);
static int note_it(qsafp_t *q, qsafp_record_t *fill);

#define ioctl fake_ioctl
#define BOOT_ID boot_id
#define qsafp_note note_it
#include "../../board_ports/linux/watchdog.c"
#undef ioctl

static int fake_ioctl(int fd, unsigned long what, int *value)
{
    (void)fd;
    if (fake.refuse || (fake.fixed && what == WDIOC_SETTIMEOUT)) {
        errno = fake.refuse ? EIO : EOPNOTSUPP;
        return -1;
    }
    if (what == WDIOC_KEEPALIVE)
        fake.fed++;
    else if (what == WDIOC_SETTIMEOUT)
        fake.timeout = *value < fake.most ? *value : fake.most;
    else if (what == WDIOC_GETTIMEOUT)
        *value = fake.timeout;
    else
        return -1;
    return 0;
}

uint64_t boot_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The store's, with one slot and no hash: what is kept across starts. */
static bool disk_full;
int slots_load(int fd, void *buf, uint32_t len, uint64_t *count)
{
    *count = 1;
    return pread(fd, buf, len, 0) == (ssize_t)len ? 0 : QSAFP_E_STORE;
}
int slots_save(int fd, const void *buf, uint32_t len, uint64_t *count)
{
    ++*count;
    return !disk_full && pwrite(fd, buf, len, 0) == (ssize_t)len ? 0 : QSAFP_E_STORE;
}

static bool hangs;
bool pins_drive(const host_t *h)
{
    (void)h;
    return !hangs;
}

static unsigned noted;
static int note_it(qsafp_t *q, qsafp_record_t *fill)
{
    uint32_t resets;
    (void)q;
    memcpy(&resets, fill->data, sizeof resets);
    CHECK(fill->event == QSAFP_EVENT_ANOMALY && fill->reason == QSAFP_REASON_ANOMALY && !fill->flags && resets);
    noted++;
    return 0;
}

static char why[300], path[300];
static pins_shared_t shared = {.stale_ns = 1000000000};
static qsafp_gate_page_t page;
static qsafp_guard_options_t options = {.watchdog_s = 15, .state_dir = root};

static host_t fresh(void)
{
    host_t h = {.o = &options, .why = why, .why_len = sizeof why};
    h.watchdog.fd = h.watchdog.file = -1;
    h.pins.s = &shared;
    h.q.page = &page;
    h.store.dir_fd = open(root, O_RDONLY | O_DIRECTORY);
    why[0] = 0;
    return h;
}

static void write_text(const char *name, const char *text)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static size_t read_text(const char *name, char *to, size_t len)
{
    int fd = open(name, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, to, len) : 0;
    if (fd >= 0)
        close(fd);
    return n > 0 ? (size_t)n : 0;
}

static size_t device_holds(char *text, size_t len) { return read_text(path, text, len); }

static void ticks(void) { __atomic_store_n(&shared.heartbeat_ns, boot_ns(), __ATOMIC_SEQ_CST); }

static void wait_for_food(int more)
{
    int want = fake.fed + more;
    for (uint64_t end = boot_ns() + 20000000000u; fake.fed < want && boot_ns() < end;) {
        ticks();
        poll(0, 0, 5);
    }
    CHECK(fake.fed >= want);
}

static void end(host_t *h)
{
    h->stop = true;
    watchdog_stop(h, true);
    close(h->store.dir_fd);
}

static void it_is_fed_while_the_deadline_ticks_and_disarmed_at_the_end(void)
{
    host_t h = fresh();
    char text[8];
    write_text(path, "");
    fake.most = 60;
    ticks();
    CHECK(watchdog_start(&h) == 0);
    CHECK(fake.timeout == 15 && h.watchdog.fd >= 0);
    wait_for_food(3);
    end(&h);
    CHECK(device_holds(text, sizeof text) == 1 && text[0] == 'V');
    CHECK(h.watchdog.fd == -1);
}

static void it_bites_after_an_end_that_is_none(void)
{
    host_t h = fresh();
    char text[8];
    write_text(path, "");
    CHECK(watchdog_start(&h) == 0);
    h.stop = true;
    watchdog_stop(&h, false);
    close(h.store.dir_fd);
    CHECK(device_holds(text, sizeof text) == 0 && h.watchdog.fd == -1);
}

static void it_starves(uint64_t ticked)
{
    host_t h = fresh();
    write_text(path, "");
    __atomic_store_n(&shared.heartbeat_ns, ticked, __ATOMIC_SEQ_CST);
    int fed = fake.fed;
    CHECK(watchdog_start(&h) == 0);
    for (int i = 0; i < 5; i++) {
        look(&h);
        poll(0, 0, 20);
    }
    CHECK(fake.fed == fed);
    end(&h);
}

static void it_starves_when_the_deadline_thread_stops(void) { it_starves(boot_ns() - 2 * shared.stale_ns); }

static void it_starves_when_the_pin_holder_hangs(void)
{
    hangs = true;
    it_starves(boot_ns());
    hangs = false;
}

static void a_timeout_that_is_not_kept_refuses_the_start(void)
{
    host_t h = fresh();
    char text[8];
    write_text(path, "");
    options.watchdog_s = 90;
    fake.most = 60; /* shorter is fine: it bites earlier */
    CHECK(watchdog_start(&h) == 0);
    end(&h);
    fake.most = 0;
    h = fresh();
    write_text(path, "");
    CHECK(watchdog_start(&h) < 0 && strstr(why, "asked for 90 s, it will wait 0 s"));
    CHECK(device_holds(text, sizeof text) == 1 && text[0] == 'V'); /* not left armed */
    end(&h);
    h = fresh();
    fake.refuse = 1;
    CHECK(watchdog_start(&h) < 0 && strstr(why, "its timeout cannot be set"));
    fake.refuse = 0;
    fake.most = 60;
    options.watchdog_s = 15;
    end(&h);
}

static void one_whose_time_is_fixed_is_taken_as_it_is(void)
{
    host_t h = fresh();
    write_text(path, "");
    fake.fixed = 1;
    fake.timeout = 15;
    CHECK(watchdog_start(&h) == 0);
    end(&h);
    h = fresh();
    write_text(path, "");
    fake.timeout = 60;
    CHECK(watchdog_start(&h) < 0 && strstr(why, "asked for 15 s, it will wait 60 s"));
    end(&h);
    fake.fixed = 0;
}

static void one_that_is_not_there_names_itself(void)
{
    host_t h = fresh();
    options.watchdog = "/dev/null/watchdog0";
    CHECK(watchdog_start(&h) < 0 && strstr(why, "watchdog /dev/null/watchdog0: Not a directory"));
    options.watchdog = path;
    end(&h);
}

static void boots(unsigned n)
{
    char id[40];
    snprintf(id, sizeof id, "%036u\n", n);
    write_text(boot_id, id);
}

/* What was kept, brought back after a clean end: as a reset leaves it. */
static void ends_by_a_reset(host_t *h)
{
    char kept[240];
    watchdog_state_t s;
    snprintf(kept, sizeof kept, "%s/watchdog.bin", root);
    CHECK(read_text(kept, (char *)&s, sizeof s) == sizeof s);
    end(h);
    int fd = open(kept, O_WRONLY);
    CHECK(pwrite(fd, &s, sizeof s, 0) == sizeof s);
    close(fd);
}

static void three_resets_without_a_lease_and_it_is_left_alone_until_one(void)
{
    host_t h;
    noted = 0;
    for (unsigned n = 0; n <= 3; n++) {
        boots(n);
        for (int start = 0; start < 2; start++) { /* the guard alone starts again: the same boot counts once */
            h = fresh();
            CHECK(watchdog_start(&h) == 0 && h.watchdog.resets == n);
            CHECK((h.watchdog.fd >= 0) == (n < 3) && noted == n);
            if (n < 3 || start == 0)
                ends_by_a_reset(&h);
        }
    }
    h.stop = true;
    pthread_join(h.watchdog.thread, 0);
    h.watchdog.thread = 0;
    page = (qsafp_gate_page_t){.armed = QSAFP_ARMED, .deadline_ns = boot_ns() + 500000000, .window_ns = 1000000000};
    look(&h);
    look(&h);
    CHECK(h.watchdog.fd >= 0 && h.watchdog.resets == 0);
    page.armed = 0;
    ends_by_a_reset(&h);
    boots(4);
    h = fresh();
    CHECK(watchdog_start(&h) == 0 && h.watchdog.resets == 1 && h.watchdog.fd >= 0);
    end(&h);
    boots(5); /* after a clean end nothing is counted */
    h = fresh();
    CHECK(watchdog_start(&h) == 0 && h.watchdog.resets == 1);
    end(&h);
}

static void what_cannot_be_counted_is_not_armed(void)
{
    host_t h = fresh();
    char text[8];
    write_text(path, "");
    disk_full = true;
    CHECK(watchdog_start(&h) < 0 && strstr(why, "watchdog.bin: cannot be written") && h.watchdog.fd < 0);
    disk_full = false;
    end(&h);
    CHECK(unlink(boot_id) == 0);
    h = fresh();
    CHECK(watchdog_start(&h) < 0 && strstr(why, "boot_id: cannot be read") && h.watchdog.fd < 0);
    end(&h);
    CHECK(device_holds(text, sizeof text) == 0);
}

int main(void)
{
    CHECK(mkdtemp(root));
    snprintf(boot_id, sizeof boot_id, "%s/boot_id", root);
    snprintf(path, sizeof path, "%s/watchdog0", root);
    boots(0);
    options.watchdog = path;
    it_is_fed_while_the_deadline_ticks_and_disarmed_at_the_end();
    it_bites_after_an_end_that_is_none();
    it_starves_when_the_deadline_thread_stops();
    it_starves_when_the_pin_holder_hangs();
    a_timeout_that_is_not_kept_refuses_the_start();
    one_whose_time_is_fixed_is_taken_as_it_is();
    one_that_is_not_there_names_itself();
    three_resets_without_a_lease_and_it_is_left_alone_until_one();
    what_cannot_be_counted_is_not_armed();
    snprintf(boot_id, sizeof boot_id, "%s/watchdog.bin", root);
    CHECK(unlink(path) == 0 && unlink(boot_id) == 0 && rmdir(root) == 0);
    printf(TEST ": %u passed, 0 failed\n", passed);
    return 0;
}
