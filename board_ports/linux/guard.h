/* SPDX-License-Identifier: Apache-2.0 */
/* The guard as a Linux process (architecture decision 2): what its starter tells it. */
#ifndef QSAFP_GUARD_H
#define QSAFP_GUARD_H

#include "qsafp.h"

/* The lines of a board (HW-13); the last one is the input. */
typedef enum { LINE_LEASE_VALID, LINE_FAILSAFE, LINE_VALIDATOR_REQ, LINE_LEASE_RENEW, LINES } qsafp_line_t;
enum { LINE_ACTIVE_LOW = 1, LINE_OPEN_DRAIN = 2, LINE_PULL_UP = 4, LINE_PULL_DOWN = 8, LINE_BIAS_OFF = 16 };

/* Where a line is: the label of its chip (0: the board has no such line), and its name there, or its offset where that is 0.  Of an
 * input, how long the kernel shall wait for it to settle. */
typedef struct { const char *chip, *name; uint32_t offset, flags, debounce_us; } qsafp_line_spec_t;

/* What the audit log's ring lies on; all but `kind` zero for a file in state_dir. */
typedef enum { LOG_FILE, LOG_SPI, LOG_I2C } qsafp_log_kind_t;
typedef struct {
    const char *device;
    qsafp_log_kind_t kind;
    uint32_t hz;                   /* SPI */
    uint32_t address, bytes, page; /* I2C */
    uint32_t live_min;             /* fewer records on hand refuse the start */
    uint32_t erase;                /* what is there goes at enrolment */
} qsafp_log_spec_t;

typedef struct {
    const char *run_dir, *state_dir; /* sockets and pins; log, state, evidence */
    const char *sodium;              /* path of the shared object that has libsodium (PyNaCl's) */
    const char *board;               /* "simulated", or what its lines are called in messages */
    qsafp_line_spec_t lines[LINES];
    const char *watchdog;            /* /dev/watchdogN, or 0 */
    const char *uart;                /* a serial line that takes commands as ctl.sock does, or 0 */
    qsafp_log_spec_t log;
    const char *tpm;                 /* a TCTI configuration: the device key is in that TPM, device.tpm its blobs; or 0: it is secret_key */
    const char *lease;               /* its name */
    uint32_t tpm_nv;                 /* first of the NV indices that bind state and log to that TPM, or 0 */
    uint32_t sealed;                 /* device.sealed is an Ed25519 seed which only that TPM opens */
    uint64_t anchor_ms, anchor_min_ms; /* the log's head is anchored so often; never sooner than that */
    uint8_t device_pk[64];           /* then: x || y */
    const uint8_t *set_doc;
    size_t set_len;
    uint8_t ueid[33], model[32];
    uint8_t secret_key[64], nonce_key[32], seal_key[32]; /* device key as libsodium keeps it: seed, public key */
    uint64_t duration_ms, policy_ms[4], stale_after_ms, tick_ms, drain_ms, level;
    uint64_t linger_ms;    /* how long the pin holder stays after the guard died */
    uint64_t evidence_max; /* bytes */
    uint64_t degrade;      /* on_log_full: records or evidence that may be lost before the gate closes; 0: none */
    uint32_t agent_uid, watchdog_s, uart_baud;
    uint32_t quote_pcrs;   /* a bit each: requests come with a quote of them, by the key of attest.tpm; 0: none */
} qsafp_guard_options_t;

enum { QSAFP_TPM_KEY_MAX = 1024 };
/* tpm.c: makes a device key; x || y, and what becomes device.tpm (*n: its room, then its bytes).  0, or the reason in `why`. */
int qsafp_tpm_create(const char *place, uint8_t pk[64], uint8_t *file, size_t *n, char *why, size_t why_len);
/* tpm_quote.c: makes an attestation key; `file` becomes attest.tpm.  ek: the endorsement key; certificate: its, DER, if the TPM has
 * one; pcr: what those hold that a bit of `pcrs` names. */
typedef struct {
    uint32_t pcrs;
    uint8_t ak[64], ek[64], file[QSAFP_TPM_KEY_MAX], certificate[4096], pcr[24][32];
    size_t file_len, certificate_len;
} qsafp_attest_t;
int qsafp_tpm_attest(const char *place, qsafp_attest_t *a, char *why, size_t why_len);
/* Opens the enroller's challenge, TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, with the endorsement key for the key of attest.tpm. */
typedef struct { uint8_t file[QSAFP_TPM_KEY_MAX], challenge[512], secret[32]; size_t file_len, challenge_len; } qsafp_activate_t;
int qsafp_tpm_activate(const char *place, qsafp_activate_t *a, char *why, size_t why_len);
/* tpm_seal.c: the same for a seed that is sealed; *n: bytes of device.sealed, at most QSAFP_TPM_KEY_MAX. */
int qsafp_tpm_seal(const char *place, const uint8_t seed[32], const uint8_t nonce_key[32], uint8_t *file, size_t *n, char *why, size_t why_len);
/* tpm_nv.c: the value of the anchor that begins at index `base` + 1. */
int qsafp_tpm_anchor(const char *place, uint32_t base, uint8_t value[32], char *why, size_t why_len);
/* Record 0 and the first state on blank stores.  0, or negative and the reason in `why`. */
int qsafp_guard_create(const qsafp_guard_options_t *o, uint8_t log_id[32], char *why, size_t why_len);
/* Serves until SIGTERM or SIGINT; then closes the gate.  0, or negative and the reason in `why`. */
int qsafp_guard_run(const qsafp_guard_options_t *o, char *why, size_t why_len);

/* own.c: a log of the calling program's own, in a folder that is there; one thread at a time.  0, or the reason in `why`. */
typedef struct qsafp_own_log qsafp_own_log_t;
qsafp_own_log_t *qsafp_own_log_open(const char *dir, bool create, char *why, size_t why_len);
/* data: 96 bytes or 0.  Not durable before sync; 0 or a negative core status. */
int qsafp_own_log_append(qsafp_own_log_t *l, uint16_t event, uint32_t reason, const uint8_t data[96]);
/* True if the next append waits for nothing. */
bool qsafp_own_log_ready(qsafp_own_log_t *l);
int qsafp_own_log_sync(qsafp_own_log_t *l);
uint64_t qsafp_own_log_size(const qsafp_own_log_t *l, uint8_t head[32]);
void qsafp_own_log_close(qsafp_own_log_t *l);

/* self.c: the whole guard inside the calling program, but for pins, sockets and workloads: self-policed.  One thread at a time.
 * `o` and what it points to must outlive it.  0, or the reason in `why`. */
typedef struct qsafp_self qsafp_self_t;
qsafp_self_t *qsafp_self_open(const qsafp_guard_options_t *o, char *why, size_t why_len);
int qsafp_self_wire(const qsafp_self_t *s); /* the caller's end of its command socket: one frame a packet */
int qsafp_self_page(const qsafp_self_t *s); /* the gate page's descriptor */
void qsafp_self_step(qsafp_self_t *s);      /* answers one frame, writes what the deadline thread latched */
void qsafp_self_close(qsafp_self_t *s);

#endif
