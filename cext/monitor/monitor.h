/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor: the core at the highest privilege of a board (docs/design.md, Monitor).
 *
 * One core of the processor is the monitor's own: its loop is the core's service thread, its timer interrupt the deadline thread.
 * The payload runs on the other cores, one privilege level down.  What it asks for comes by a service call, is copied into monitor
 * memory once, and is answered by the monitor's core; it stands still meanwhile. */
#ifndef QSAFP_MONITOR_H
#define QSAFP_MONITOR_H

#include <stdbool.h>
#include <string.h>

#include "monitor_map.h"
#include "qsafp.h"

enum { CORES = HARTS, REPORTS = 16, FRAME_BYTES = 4 + QSAFP_FRAME_MAX + 4, ENCODED_BYTES = FRAME_BYTES + FRAME_BYTES / 254 + 2 };

/* ---- service calls: arguments and results as docs/design.md lists them ---- */

enum { CALL_NONE = 0, CALL_FRAME = 1, CALL_CHECKPOINT = 2 };
enum { CALL_OK = 0, CALL_UNSUPPORTED = -2, CALL_BAD_ARGUMENT = -3, CALL_DENIED = -4, CALL_BAD_ADDRESS = -5 };

/* What the processor said when the payload reached for what it may not have. */
typedef struct { uint64_t cause, at, address; } report_t;

typedef enum { CORE_ABSENT, CORE_RUNS, CORE_PARKED } core_state_t;

/* One core of the payload.  It alone writes `call`, `arg`, `put`, `state`; the monitor's core clears `call` and writes the rest. */
typedef struct {
    uint32_t state, call, put, told, lost, restarts;
    uint64_t parked_ns;
    uintptr_t arg[2], value;
    intptr_t err;
    report_t report[REPORTS];
    uint8_t frame[FRAME_BYTES];
} core_t;

/* What a factory burns into fuses; on emulated boards it is loaded beside the monitor (SAFETY.md). */
typedef struct {
    uint32_t magic, version;
    uint8_t ueid[33], zero[7];
    uint8_t seed[32], nonce_key[32], seal_key[32], model[32];
    uint64_t duration_ms, policy_ms[4];
    uint32_t set_bytes, zero2;
    uint8_t check[32]; /* SHA-256 of all before */
} fuses_t;
#define FUSES_MAGIC 0x31534651u /* "QFS1" */

/* A copy that the payload cannot reach, of no bytes if there is none; `left` of them are still to be copied, for core `of`. */
typedef struct { uintptr_t base, bytes, left; uint8_t hash[32]; const core_t *of; qsafp_sha256_t sum; } checkpoint_t;

/* Small and often used fields come first: near offsets are short instructions. */
typedef struct {
    uint32_t contain;                 /* not 0: no core may run the payload */
    uint32_t halted;                  /* not 0: for good */
    uint32_t restarts;                /* of the payload, after rollbacks */
    bool opened;                      /* tick: the gate was open at the last one */
    bool frozen, rolled_back, told_rollback; /* service: what was done and recorded of this containment */
    uint8_t rollback;                 /* how it went */
    uint64_t contain_ns, frozen_ns, rollback_ns; /* when it began; how long after that both were done */
    uint64_t tick_at, first_tick_ns;  /* when the next tick is due, and the first was */
    uint32_t lost_records;
    uint32_t ticks, late;             /* ticks so far; those that came a whole period late */
    uint64_t budget_ns; uint32_t budget; /* records that the payload may still cause in this second */
    uint64_t envelope_ns, line_first_ns; /* when it had the last envelope made; until when a renewal of the line's keeps its own waiting */
    uint8_t secret[64], nonce_key[32], seal_key[32], pool[32]; /* seed and public key; nonce key; the log's; entropy */
    uint32_t drawn; int query;        /* from the pool; level of VALIDATOR_REQ */
    uint64_t failsafe_ns;             /* since when FAILSAFE pulses */
    uint32_t state_count, state_place;
    uint32_t seal_epoch, seal_slot; bool seal_kept; /* of seal_key, and where it lies */
    bool pressed, renew_level; uint32_t looked; /* LEASE_RENEW, and the tick of the last look */
    bool kept;                        /* boot_keep was called */
    bool log_looked;                  /* the slot that is written next was seen to be erased */
    bool masked;                      /* the core's lock is held: what the timer's mask was */
    bool answer_due;                  /* a frame of the line was obeyed */
    size_t line_have; uint64_t line_ns;
    qsafp_t q;
    qsafp_command_t command;
    unsigned channel;                 /* whose frame `command` answered last: a core of the payload's, or 0 for the line */
    qsafp_confirm_t confirm[CORES];   /* of each: none spoils another's fail-safe */
    core_t core[CORES];
    checkpoint_t checkpoint;
    uint8_t line[ENCODED_BYTES];
} monitor_t;

#define READY 0x52454459u

extern monitor_t m;
extern uint32_t monitor_ready;      /* READY: the other cores may come in */
extern qsafp_gate_page_t gate_page; /* alone in its 4 KB, which the payload may read */

/* monitor.c */
void monitor_main(void) __attribute__((noreturn));
/* Timer interrupt of the monitor's core. */
void monitor_timer(void);
/* Says why, drives FAILSAFE, stops for good. */
void monitor_halt(const char *why) __attribute__((noreturn));
void say(const char *text);
/* A log that takes nothing closes the gate by itself. */
void monitor_note(qsafp_record_t *r);

/* boot_calls.c behind a boot stage, boot_none.c alone */
/* Puts the image's hash into requests; halts if the boot stage's table is not the one this monitor was made for. */
void boot_measure(qsafp_t *q);
/* After a lease: no older image boots from now on.  0, or QSAFP_E_STORE. */
int boot_keep(void);

/* port.c */
extern const qsafp_port_t monitor_port;
int fuses_read(void);
int entropy_take(void);
bool nor_ready(void);

/* calls.c: on the core that called */
typedef struct { intptr_t err; uintptr_t value; } result_t; /* registers */
result_t call_frame(core_t *c, const uintptr_t arg[4]);
result_t call_checkpoint(core_t *c, uintptr_t base, uintptr_t bytes);
qsafp_status_t call_validate(void);
void report(core_t *c, const report_t *what);
/* calls.c: on the monitor's core */
bool serve_core(core_t *c);
/* Obeys one frame at most; answer_line says what came of it. */
bool serve_line(void);
void answer_line(void);
bool tell_reports(void);
void look_at_renew(void);

/* contain.c */
void contain_all(void);
/* On the monitor's core, in this order around qsafp_service; true if there was something to do. */
void contain_act(void);
bool contain_tell(void);
/* On the payload's core: stands still while it must; true if the payload starts anew, which core_park takes note of. */
bool core_hold(core_t *c);
bool core_park(core_t *c);
/* It runs no payload now. */
void core_still(core_t *c);

/* ---- what the architecture brings (arch/) ---- */

uint64_t arch_ticks(void);               /* of the clock at MTIME_HZ */
void arch_alarm(uint64_t ticks);         /* the timer of the monitor's core fires there, at once if it is past */
bool arch_lock(void);                    /* holds the timer off; what it was */
void arch_unlock(bool was);
void arch_poke(unsigned core);           /* wakes a core: it looks at `contain`, or at `call` */
void arch_unpoke(unsigned core);
void arch_wait(void);                    /* until an interrupt, masked or not, may be pending */
void arch_halt(void) __attribute__((noreturn)); /* for good: no other context of this core goes on either */
void arch_yield(void);                   /* in a payload's wait: lets the monitor work where both share a core */
void arch_wait_line(void);               /* as arch_wait, and for a byte on the line; its caller holds the lock */
void arch_start(void);                   /* the monitor's core: protection, timer on */
/* Under the rights of the payload that called: 0, or not 0 at a fault. */
int arch_copy_in(void *to, uintptr_t from, size_t n);
int arch_copy_out(uintptr_t to, const void *from, size_t n);

/* ---- what the board brings (board_ports/) ---- */

void board_start(void);                  /* pins at their safe levels, the line ready */
void board_irq_start(void);              /* the line's interrupt reaches the monitor's core alone */
void board_irq_done(void);
bool board_line_waits(void);             /* a byte is there */
int board_line_get(void);                /* a byte, or -1 */
void board_line_put(uint8_t byte);
void board_pin(unsigned pin, int level);
bool board_pin_get(unsigned pin);
void board_spi_select(bool on);
uint8_t board_spi(uint8_t byte);

#endif
