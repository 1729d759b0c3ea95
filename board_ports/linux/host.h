/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the Linux port: one guard process, its threads and what each owns.
 *
 *   service thread   sockets, workloads, every core call but two
 *   deadline thread  qsafp_tick, nothing else: no lock that is held long, no disk (decision 2)
 *   log writer       ring file, fdatasync, seals
 *   pin holder       a process of its own; sole owner of the lines, outlives the guard */
#ifndef QSAFP_HOST_H
#define QSAFP_HOST_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "lines.h"
#include "ring.h"

enum { CLIENTS_MAX = 64, WORKLOADS_MAX = 16, FDS_MAX = 4, UIDS_MAX = 32 };
enum { LINE_FRAME_BYTES = 4 + QSAFP_FRAME_MAX + 2 };
enum { LOG_QUEUE = 768, LOG_GROUP = 32 }; /* entries that wait; pages of one commit: at most */

typedef struct {
    ring_t ring;
    int state_fd, evidence_fd, lock_fd, seal_fd, dir_fd, spare_fd;
    uint32_t slots, depth, group;      /* of the ring; entries that may wait; pages of one commit */
    uint8_t *image;                    /* the ring as the core sees it */
    pthread_mutex_t lock;              /* over image and queue; never held across a system call */
    pthread_cond_t more, done;
    uint32_t queue[LOG_QUEUE];         /* slots written, or ERASE | sector */
    uint64_t queued, durable;          /* how many entries went in, and are on the disk */
    bool stop, failed, stuck;          /* stuck: the last write failed and is tried again */
    pthread_t writer;
    uint64_t state_count, spare_count;
    uint64_t evidence_size, evidence_old, evidence_pruned;
    uint64_t lost_evidence, lost_events; /* since the disk last took everything; degrade(n) bounds them */
    uint64_t untold_evidence, degrade;
    uint8_t seal_key[32]; uint64_t seal_epoch, seal_count; /* the writer's */
} store_t;

typedef struct {
    uint32_t valid, failsafe, req;     /* wanted levels */
    uint32_t quit, unseen;             /* unseen: ticks of the guard since the holder drove */
    uint64_t heartbeat_ns, stale_ns, linger_ns;
} pins_shared_t;

typedef struct { pins_shared_t *s; int wake; pid_t holder; bool asked; uint64_t asked_serial, counted_ns; } pins_t; /* asked: LEASE_RENEW, while that lease ran */

typedef struct { int fd, file; uint64_t saves; uint32_t resets; pthread_t thread; } watchdog_t; /* fd: armed while >= 0; the rest is its thread's */

typedef struct {
    int (*verify)(const unsigned char *sig, const unsigned char *m, unsigned long long n, const unsigned char *pk);
    int (*sign)(unsigned char *sig, unsigned long long *siglen, const unsigned char *m, unsigned long long n, const unsigned char *sk);
} sodium_t;

struct host;
typedef struct line line_t;
typedef struct {
    int fd;
    line_t *line;                      /* a byte stream and not packets */
    bool ctl;
    uid_t uid;
    int workload;                      /* index, or -1 */
    bool waiting; uint8_t wait_tag;    /* for an order */
    int fds[FDS_MAX]; int nfds;        /* came with the frame in hand */
    struct host *host;
    qsafp_command_t cmd;
} client_t;

typedef enum { ORDER_NONE, ORDER_DRAIN, ORDER_FREEZE, ORDER_THAW, ORDER_KILL, ORDER_ROLLBACK } order_t;
typedef enum { LOAD_FREE, LOAD_RUNNING, LOAD_DRAINING, LOAD_FREEZING, LOAD_FROZEN, LOAD_KILLED } load_state_t;

typedef struct {
    load_state_t state;
    client_t *client;
    uint8_t kind;                      /* 0: freezes and resumes; 1: has a runner that drains, rolls back and restarts */
    char name[33];
    int pidfd, freeze_fd, kill_fd, events_fd;
    uint64_t since_ns;                 /* when the step began */
    int refused;                       /* errno of a freeze that did not take, until it is on record */
    uint8_t orders[8]; unsigned norders;
} load_t;

typedef struct host {
    const qsafp_guard_options_t *o;
    qsafp_t q;
    uint8_t *set_doc, *incoming;       /* the document in force; the next one as it arrives */
    size_t set_len;
    uint32_t incoming_have, incoming_total;
    client_t *poller;                  /* who told how many polls are alive */
    unsigned polls;
    uint64_t told_serial; uint16_t told; /* equivocators on record for this request */
    store_t store;
    pins_t pins;
    watchdog_t watchdog;
    sodium_t sodium;
    struct tpm *tpm;                   /* or 0: the device key is in memory */
    uint8_t secret[64];                /* the device key that the TPM unsealed */
    const client_t *asking;            /* whose request the core makes while the TPM is at work; others are served */
    struct bind *bind;                 /* or 0: state and log are not bound to the TPM */
    struct { uint64_t beat_ns, told_ns, tried_ns; int wait_ms, err; bool over; } loop;
    uint64_t counter_hz;
    int page_fd, deadline_event, service_event, gate_fd, ctl_fd, signal_fd, epoll_fd;
    pthread_mutex_t lock;
    pthread_t deadline;
    _Atomic bool stop;
    client_t *clients[CLIENTS_MAX], *line; /* line: the one behind the UART */
    struct { uid_t uid; unsigned used; } spent[UIDS_MAX]; /* frames that may make records, in this second; outlives connections */
    unsigned nspent; uint64_t second;
    load_t loads[WORKLOADS_MAX];
    pthread_t service; bool serving;   /* who may look at loads */
    uint64_t closed_ns;                /* when containment began; 0 while open */
    char *why; size_t why_len;
    bool fifo, locked;
} host_t;

/* Every function returns 0 or negative and says why in h->why. */
int fail(host_t *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint64_t boot_ns(void);
extern const qsafp_port_t LINUX_PORT;
/* guard.c */
host_t *host_new(const qsafp_guard_options_t *o, char *why, size_t why_len);
int host_start(host_t *h, int (*pins)(host_t *));
int start_deadline(host_t *h);
void host_stop(host_t *h);
void host_free(host_t *h);

/* store.c */
int store_open(host_t *h, bool create);
int store_start(host_t *h);
void store_close(host_t *h);
int seal_save(store_t *s, uint64_t epoch, const uint8_t key[32]); /* durable, then in force */
/* repair.c */
int store_repair(host_t *h);
int log_matches(host_t *h);
int log_read(void *ctx, uint32_t off, void *buf, uint32_t len);
int log_prog(void *ctx, uint32_t off, const void *buf, uint32_t len);
int log_erase(void *ctx, uint32_t sector);
int log_sync(void *ctx);
bool log_crowded(host_t *h);
uint64_t log_queued(host_t *h);     /* entries so far; they are durable once log_durable has come there */
uint64_t log_durable(host_t *h);
uint32_t log_live(const host_t *h); /* records that are on hand at least, once that many were written */
int ring_broken(host_t *h);         /* says why */
/* files.c */
int open_in(host_t *h, const char *name, bool create);
int evidence_recover(store_t *s);
int evidence_put(void *ctx, const uint8_t hash[32], const uint8_t *bytes, size_t len);
int slots_load(int fd, void *buf, uint32_t len, uint64_t *count);
int slots_save(int fd, const void *buf, uint32_t len, uint64_t *count);
void slots_forget(int fd, uint64_t count);
int file_state_load(void *ctx, void *buf, uint32_t len);
int file_state_save(void *ctx, const void *buf, uint32_t len);
/* tpm.c, tpm_key.c */
int tpm_start(host_t *h);
int tpm_sign(host_t *h, uint8_t sig[64], const uint8_t *msg, size_t len); /* waits for seconds at most */
int tpm_quote(void *ctx, const uint8_t request_hash[32], qsafp_bytes *quote);
void tpm_hush(host_t *h); /* nobody listens any more to the end of a job */
void tpm_stop(host_t *h);
/* bind.c: state and log bound to a TPM's NV memory; all do nothing without tpm_nv */
typedef struct __attribute__((packed)) { uint8_t key, bound; uint64_t seq, age_ms; } bind_view_t; /* docs/formats.md, status answer */
int bind_start(host_t *h);      /* before the core starts: state, log and TPM are of one time */
int bind_begin(host_t *h);      /* after: the counter rises */
int bind_step(host_t *h);       /* returns ms to its next turn, or -1 */
void bind_close(host_t *h);
void bind_free(host_t *h);
int bind_save(host_t *h, const void *state);
int bind_load(host_t *h, void *state);
int bind_make(host_t *h);       /* enrolment: before the core creates its state, and after */
int bind_made(host_t *h);
bool bind_crowded(const host_t *h);
void bind_view(const host_t *h, bind_view_t *v);
/* clock.c */
uint64_t counter_hz(void);
uint64_t counter_at(void *ctx, uint64_t ns);
/* pins.c */
int pins_start(host_t *h);
void pins_stop(host_t *h);
int pin_lease_valid(void *ctx, int level);
int pin_failsafe(void *ctx, int level);
int pin_req(void *ctx);
bool pins_heard(host_t *h);
bool pins_drive(const host_t *h);
bool pins_renew_wanted(const host_t *h);
/* serve.c */
int serve_open(host_t *h);
int serve(host_t *h);
bool serve_turn(host_t *h, int most_ms); /* false once it is time to stop */
void serve_close(host_t *h);
bool one_frame(host_t *h, client_t *c);
bool serve_frame(host_t *h, client_t *c, const uint8_t *f, size_t n);
client_t *client_new(host_t *h, int fd, bool ctl, uid_t uid);
void note_losses(host_t *h);
void client_close(host_t *h, client_t *c);
bool answer(client_t *c, uint8_t tag, qsafp_command_status_t status, const void *p, size_t n);
/* contain.c */
int workload_command(qsafp_command_t *c, const uint8_t *p, size_t n);
void workload_gone(host_t *h, client_t *c);
int contain(host_t *h);
void contain_first(host_t *h);
bool order_answer(host_t *h, client_t *c);
/* operate.c */
int set_verify(host_t *h, qsafp_set_t *out, const qsafp_set_t *old, qsafp_bytes doc);
int set_note(host_t *h);
void polls_alive(host_t *h, unsigned alive);
bool host_command(host_t *h, client_t *c, const uint8_t *f, size_t len, bool *ok);
void show_bound(const host_t *h, client_t *c, const uint8_t *f);
void show_renew(const host_t *h, client_t *c, const uint8_t *f);
void after_put(host_t *h, const client_t *c, const uint8_t *f, size_t len, size_t n);
/* explain.c */
int explain(host_t *h, int err);
/* uart.c: a client on a serial line.  uart_read is false once the line is gone. */
int uart_open(host_t *h);
bool uart_read(host_t *h, client_t *c);
bool uart_write(const client_t *c, const uint8_t *frame, size_t n);

/* watchdog.c */
int watchdog_start(host_t *h);
void watchdog_stop(host_t *h, bool clean);

/* notify.c */
void notify(const char *text);
uint64_t watchdog_ns(void);

#endif
