/* SPDX-License-Identifier: Apache-2.0 */
/* What the figures are compared with.  No product code: the C library and the CPU only (tests/python/test_bench.py holds that). */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

API uint64_t floor_boot_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t counter(void)
{
#if defined(__x86_64__)
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return (uint64_t)hi << 32 | lo;
#elif defined(__aarch64__)
    uint64_t v;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(v) : : "memory");
    return v;
#else
    return floor_boot_ns();
#endif
}

/* The read that may not overtake what stands before it: what a check must use. */
static inline uint64_t ordered_counter(void)
{
#if defined(__x86_64__)
    __asm__ volatile("lfence" : : : "memory");
#elif defined(__aarch64__)
    __asm__ volatile("isb" : : : "memory");
#endif
    return counter();
}

/* ns for n passes; the value feeds a branch. */
API uint64_t floor_counter_loop(uint64_t n)
{
    uint64_t odd = 0, start = floor_boot_ns();
    for (uint64_t i = 0; i < n; i++)
        if (counter() == 1)
            odd++;
    return floor_boot_ns() - start + odd;
}

API uint64_t floor_ordered_loop(uint64_t n)
{
    uint64_t odd = 0, start = floor_boot_ns();
    for (uint64_t i = 0; i < n; i++)
        if (ordered_counter() == 1)
            odd++;
    return floor_boot_ns() - start + odd;
}

/* Latency of n small durable writes to one file, ns each. */
API int floor_write_sync(int fd, uint64_t n, uint32_t size, uint64_t *out)
{
    uint8_t bytes[65536];
    memset(bytes, 0x5A, sizeof bytes);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t start = floor_boot_ns();
        bytes[0]++;
        if (pwrite(fd, bytes, size, (off_t)(i % 1024 * size)) != (ssize_t)size || fdatasync(fd))
            return -1;
        out[i] = floor_boot_ns() - start;
    }
    return 0;
}

/* Bytes per second of record bytes: 64 KB to a ring file, made durable, and to an export file, not made durable. */
API double floor_durable_rate(int ring, int export_, uint64_t for_ns, uint64_t ring_bytes)
{
    static uint8_t bytes[65536];
    uint64_t done = 0, start = floor_boot_ns(), now = start;
    memset(bytes, 0x5A, sizeof bytes);
    for (; now - start < for_ns; now = floor_boot_ns()) {
        bytes[0]++;
        if (pwrite(ring, bytes, sizeof bytes, (off_t)(done % ring_bytes)) != sizeof bytes || fdatasync(ring))
            return -1;
        if (write(export_, bytes, sizeof bytes) != sizeof bytes)
            return -1;
        done += sizeof bytes;
    }
    return (double)done * 1e9 / (double)(now - start);
}

/* How late a timer wakes a loop that does nothing else, ns each. */
API int floor_timer_wake(uint64_t n, uint64_t delay_ns, uint64_t *out)
{
    int fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC);
    uint64_t fired;
    for (uint64_t i = 0; i < n && fd >= 0; i++) {
        uint64_t at = floor_boot_ns() + delay_ns;
        struct itimerspec t = {.it_value = {.tv_sec = (time_t)(at / 1000000000u), .tv_nsec = (long)(at % 1000000000u)}};
        if (timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, 0) || read(fd, &fired, sizeof fired) != sizeof fired)
            return -1;
        out[i] = floor_boot_ns() - at;
    }
    return fd < 0 ? -1 : close(fd);
}

/* ---- how long a store takes to be seen on another core ---- */

typedef struct { _Alignas(64) uint64_t stop; _Alignas(64) uint64_t word, seen_at; int cpu; } seen_t;

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

static void *watch(void *arg)
{
    seen_t *s = arg;
    uint64_t last = 0;
    pin(s->cpu);
    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        uint64_t v = __atomic_load_n(&s->word, __ATOMIC_ACQUIRE);
        if (v == last)
            continue;
        last = v;
        __atomic_store_n(&s->seen_at, ordered_counter(), __ATOMIC_RELEASE);
    }
    return 0;
}

/* Counter ticks from store to sight, n times. */
API int floor_visibility(uint64_t n, int cpu, uint64_t *out)
{
    static seen_t s;
    pthread_t t;
    s = (seen_t){.cpu = cpu};
    if (pthread_create(&t, 0, watch, &s))
        return -1;
    for (uint64_t i = 0; i < n; i++) {
        __atomic_store_n(&s.seen_at, 0, __ATOMIC_RELAXED);
        uint64_t until = counter() + 2000;
        while (counter() < until)
            ;
        uint64_t start = ordered_counter(), seen;
        __atomic_store_n(&s.word, i + 1, __ATOMIC_SEQ_CST);
        while (!(seen = __atomic_load_n(&s.seen_at, __ATOMIC_ACQUIRE)))
            ;
        out[i] = seen > start ? seen - start : 0;
    }
    __atomic_store_n(&s.stop, 1, __ATOMIC_RELAXED);
    return pthread_join(t, 0);
}

/* From the order to the kernel's report that a control group is frozen, ns; -1 after two seconds. */
API int64_t floor_freeze(int freeze_fd, int events_fd)
{
    char text[128];
    uint64_t start = floor_boot_ns();
    if (pwrite(freeze_fd, "1", 1, 0) != 1)
        return -1;
    while (floor_boot_ns() - start < 2000000000u) {
        ssize_t n = pread(events_fd, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = 0;
        if (strstr(text, "frozen 1"))
            return (int64_t)(floor_boot_ns() - start);
    }
    return -1;
}

/* Boot time at which a file of the kernel's holds `text`, looked at every 20 us; 0 after `until_ns`. */
API uint64_t floor_wait_text(int fd, const char *want, uint64_t until_ns)
{
    char text[128];
    while (floor_boot_ns() < until_ns) {
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = 0;
        if (strstr(text, want))
            return floor_boot_ns();
        usleep(20);
    }
    return 0;
}

/* ns for `count` verifications by the library behind `path`. */
API int64_t floor_verify_ed25519(const char *path, const uint8_t *sigs, const uint8_t *keys, const uint8_t *msgs, const uint32_t *shape)
{
    uint32_t count = shape[0], len = shape[1];
    int (*verify)(const uint8_t *, const uint8_t *, unsigned long long, const uint8_t *) = 0;
    void *so = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    if (so)
        *(void **)&verify = dlsym(so, "crypto_sign_ed25519_verify_detached");
    if (!verify)
        return -1;
    uint64_t start = floor_boot_ns();
    for (uint32_t i = 0; i < count; i++)
        if (verify(sigs + 64 * i, msgs + (size_t)len * i, len, keys + 32 * i))
            return -1;
    return (int64_t)(floor_boot_ns() - start);
}

/* ---- Python's own cost: a type that does nothing ---- */

static int noop_bool(PyObject *self) { (void)self; return 1; }
static PyObject *noop_call(PyObject *self, PyObject *unused) { (void)self; (void)unused; Py_RETURN_NONE; }
static PyMethodDef noop_methods[] = {{"call", noop_call, METH_NOARGS, 0}, {0, 0, 0, 0}};
static PyType_Slot noop_slots[] = {{Py_nb_bool, (void *)noop_bool}, {Py_tp_methods, noop_methods}, {0, 0}};
static PyType_Spec noop_spec = {"bench_floors.Noop", sizeof(PyObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, noop_slots};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "bench_floors", 0, -1, 0, 0, 0, 0, 0};

PyMODINIT_FUNC PyInit_bench_floors(void)
{
    PyObject *m = PyModule_Create(&module), *type = PyType_FromSpec(&noop_spec);
    if (!m || !type || PyModule_AddObject(m, "Noop", type)) {
        Py_XDECREF(m);
        return 0;
    }
    return m;
}
