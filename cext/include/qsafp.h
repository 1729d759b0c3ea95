/* SPDX-License-Identifier: Apache-2.0 */
/* The QSAFP core: everything a host may call.
 *
 * State belongs to the caller: no heap, no globals.  Functions return 0 or a negative qsafp_error_t and change
 * nothing on error unless they say so.  One thread, the *service thread*, calls everything but qsafp_tick and
 * qsafp_trip, which the deadline thread may call at any moment (architecture.md, decisions 2 and 10). */
#ifndef QSAFP_H
#define QSAFP_H

#include <stdbool.h>

#include "qsafp_gate.h"
#include "qsafp_hash.h"
#include "qsafp_port.h"
#include "qsafp_tables.h"

#define QSAFP_ABI 1u
#define QSAFP_MUST_USE __attribute__((warn_unused_result))

enum {
    QSAFP_VALIDATORS_MAX = 16,
    QSAFP_SET_KEYS_MAX = 4,
    QSAFP_KIDS = 2 * QSAFP_VALIDATORS_MAX + QSAFP_SET_KEYS_MAX,
    QSAFP_RECORD_BYTES = 256,
    QSAFP_SECTOR_SLOTS = 16,
    QSAFP_LOG_SLOTS = 1040,
    QSAFP_REQUEST_MAX = 1024,     /* COSE_Sign1 request; 512 with Ed25519 in practice, a test holds it */
    QSAFP_PAYLOAD_MAX = 448,      /* lease claims */
    QSAFP_SET_MAX = 65536,
    QSAFP_RESPONSE_MAX = 16384,   /* one lease, refusal or revocation (HW-3: response buffer) */
    QSAFP_PEAKS_MAX = 32,         /* roots of a compact range */
    QSAFP_FRAME_MAX = 1024,
};

/* ---- cbor.c: strict deterministic CBOR (RFC 8949 4.2.1); no floats, no indefinite lengths, no other tags than asked for ---- */

typedef struct { const uint8_t *p, *end; int err; } qsafp_cbor_r;      /* err: first error, then every read returns 0 */
typedef struct { uint8_t *p, *end; int err; } qsafp_cbor_w;

enum { QSAFP_CBOR_UINT, QSAFP_CBOR_NEG, QSAFP_CBOR_BSTR, QSAFP_CBOR_TSTR, QSAFP_CBOR_ARRAY, QSAFP_CBOR_MAP, QSAFP_CBOR_TAG, QSAFP_CBOR_SIMPLE };

qsafp_cbor_r qsafp_cbor_reader(const void *p, size_t n);
int qsafp_cbor_peek(const qsafp_cbor_r *r);                               /* major type, or negative */
uint64_t qsafp_cbor_head(qsafp_cbor_r *r, int major);                     /* argument of an item of this major type, shortest form only */
int64_t qsafp_cbor_int(qsafp_cbor_r *r);
qsafp_bytes qsafp_cbor_bstr(qsafp_cbor_r *r);
qsafp_bytes qsafp_cbor_tstr(qsafp_cbor_r *r);                             /* valid UTF-8 only */
void qsafp_cbor_fixed(qsafp_cbor_r *r, void *out, size_t n);              /* a bstr of exactly n bytes */
bool qsafp_cbor_null(qsafp_cbor_r *r);                                    /* consumes null and returns true, else leaves it */
bool qsafp_cbor_bool(qsafp_cbor_r *r);
qsafp_bytes qsafp_cbor_skip(qsafp_cbor_r *r);                             /* one whole item, checked; depth <= 8; returns its bytes */
int qsafp_cbor_done(const qsafp_cbor_r *r);                               /* 0, the error, or -TRAILING */

qsafp_cbor_w qsafp_cbor_writer(void *p, size_t n);
void qsafp_cbor_put(qsafp_cbor_w *w, int major, uint64_t arg);
void qsafp_cbor_put_int(qsafp_cbor_w *w, int64_t v);
void qsafp_cbor_put_bstr(qsafp_cbor_w *w, const void *p, size_t n);
void qsafp_cbor_put_raw(qsafp_cbor_w *w, const void *p, size_t n);
void qsafp_cbor_put_null(qsafp_cbor_w *w);

/* ---- token.c: claims and COSE objects ---- */

typedef struct {
    uint64_t iat;                 /* key 6; 0 unknown */
    uint8_t lease_id[16];         /* 7 */
    uint8_t nonce[16];            /* 10 */
    uint8_t ueid[33];             /* 256 */
    uint64_t duration_ms;         /* -65537 */
    uint64_t serial;              /* -65538 */
    uint8_t model[32];            /* -65539 */
    uint8_t log_id[32]; uint64_t log_size; uint8_t log_root[32]; /* -65540 */
    uint64_t policy_ms[4];        /* -65541: warning, grace, initial, extension */
    bool has_failsafe; uint64_t failsafe_seq; uint8_t failsafe_hash[32]; /* -65542 */
    uint64_t level; bool lab;     /* -65543: map {1: level, 2: quotas map (absent now), 3: LAB bool} */
    uint64_t epoch;               /* -65544 */
    uint8_t set_id[16];           /* -65545 */
} qsafp_claims_t;

QSAFP_MUST_USE int qsafp_claims_encode(const qsafp_claims_t *c, uint8_t *out, size_t cap, size_t *len);
QSAFP_MUST_USE int qsafp_claims_decode(qsafp_claims_t *c, const uint8_t *p, size_t n); /* refuses anything that would not encode back to the same bytes */

/* Sig_structure of RFC 9052 4.4, written whole: ["Signature"|"Signature1", body h'', sign_protected (only "Signature"), aad, payload]. */
typedef struct { const char *aad; bool sign1; qsafp_bytes protected_, payload; } qsafp_tbs_t;
QSAFP_MUST_USE int qsafp_tbs(const qsafp_tbs_t *t, uint8_t *out, size_t cap, size_t *len);

enum { QSAFP_ALG_ED25519 = -19, QSAFP_ALG_MLDSA65 = -49, QSAFP_ALG_ESP256 = -9 }; /* the last: of a device's requests alone */
typedef struct { int32_t alg; uint8_t kid[8]; qsafp_bytes protected_, payload, sig; } qsafp_cose_sig;   /* views into the object; payload of a COSE_Sign1 alone */

/* COSE_Sign1 (tag 18). */
QSAFP_MUST_USE int qsafp_sign1_parse(qsafp_cose_sig *s, const uint8_t *p, size_t n);
/* COSE_Sign (tag 98): payload, then signatures one after the other from *sigs with qsafp_sign_next. */
QSAFP_MUST_USE int qsafp_sign_parse(qsafp_bytes *payload, qsafp_cbor_r *sigs, uint64_t *count, const uint8_t *p, size_t n);
QSAFP_MUST_USE int qsafp_sign_next(qsafp_cose_sig *s, qsafp_cbor_r *sigs);

/* ---- set.c: the pinned validator set ---- */

typedef enum { QSAFP_SUITE_ED25519 = 1, QSAFP_SUITE_MLDSA65 = 2, QSAFP_SUITE_HYBRID = 3 } qsafp_suite_t;
typedef struct { uint8_t ed25519[32]; const uint8_t *mldsa65; /* into the document, or 0 */ } qsafp_validator_t;
typedef struct {
    uint8_t set_id[16]; uint64_t epoch; uint8_t m, n, suite; bool lab;
    uint64_t max_duration_ms;
    qsafp_validator_t v[QSAFP_VALIDATORS_MAX];   /* by index */
    uint8_t set_keys[QSAFP_SET_KEYS_MAX][32]; uint8_t set_k, set_r;
    uint8_t kid[QSAFP_KIDS][8];                  /* of validator i: Ed25519 at 2i, ML-DSA-65 at 2i + 1; then of the set keys; zeros: no such key */
} qsafp_set_t;
/* Set document: COSE_Sign by set keys (Ed25519) over the map
 * {1: set id bstr16, 2: epoch, 3: m, 4: [validator...], 5: suite, 6: LAB bool, 7: [k, [set key bstr32...]], 8: {1: max duration ms}}
 * validator = [index uint, [endpoint tstr <= 4], [SPKI SHA-256 bstr32...], ed25519 bstr32 / null, mldsa65 bstr1952 / null].
 * Verifies k signatures of the document's own keys, and of `old`'s keys and epoch + 1 when old is not 0.  `doc` must outlive `out`.
 * scratch: room for the Sig_structure, 64 bytes more than the document. */
typedef struct { const qsafp_port_t *port; void *ctx; uint8_t *scratch; size_t cap; } qsafp_set_io_t;
QSAFP_MUST_USE int qsafp_set_load(qsafp_set_t *out, const qsafp_set_t *old, qsafp_bytes doc, const qsafp_set_io_t *io);
/* Index of the validator whose key a signature names, if the suite has its algorithm, or -1. */
int qsafp_set_signer(const qsafp_set_t *set, const qsafp_cose_sig *s);

/* ---- tree.c: RFC 9162 Merkle tree over record hashes ---- */

/* A log ends before 2^31 records: at one a second, after 68 years.  On the wire sequences and sizes have 64 bits. */
#define QSAFP_SEQ_MAX 0x7FFFFFFFu
typedef struct { uint32_t size; uint8_t peak[QSAFP_PEAKS_MAX][32]; } qsafp_peaks_t; /* peaks left to right, popcount(size) of them */
/* A tree also keeps the nodes from `from` to the end of the peak that holds it, as it grows: with the peaks behind that one they are
 * the compact range [from, size), so that a device proves what it did since its lease even when those records are pruned. */
typedef struct {
    uint32_t size; uint8_t peak[QSAFP_PEAKS_MAX][32];                                /* as qsafp_peaks_t */
    uint32_t from, kept; uint8_t since[QSAFP_PEAKS_MAX][32];
} qsafp_tree_t;
void qsafp_tree_leaf(uint8_t out[32], const uint8_t record_hash[32]);
QSAFP_MUST_USE int qsafp_tree_append(qsafp_tree_t *t, const uint8_t leaf[32]);
void qsafp_tree_root(const qsafp_tree_t *t, uint8_t root[32]);                      /* size 0: SHA-256 of nothing */
/* Compact range [old, new): the left-to-right roots of the maximal perfect subtrees that, appended to the peaks of [0, old), give [0, new).
 * leaf(ctx, index, out) yields leaf hashes still on hand. */
typedef int (*qsafp_leaf_fn)(void *ctx, uint32_t index, uint8_t out[32]);
typedef struct { uint32_t from, to; uint8_t count; uint8_t hash[2 * QSAFP_PEAKS_MAX][32]; } qsafp_range_t;
QSAFP_MUST_USE int qsafp_tree_range(qsafp_range_t *r, qsafp_leaf_fn leaf, void *ctx);      /* from, to given; fills count, hash */
QSAFP_MUST_USE int qsafp_tree_grow(qsafp_tree_t *t, uint32_t to, qsafp_leaf_fn leaf, void *ctx); /* append leaves up to size `to` */
void qsafp_tree_since(qsafp_range_t *r, const qsafp_tree_t *t);                            /* the range [t.from, t.size) */
QSAFP_MUST_USE int qsafp_tree_extend(qsafp_tree_t *t, const qsafp_range_t *r);             /* verifier side: t.size must equal r.from */

/* ---- audit.c: the hash-chained log of 256-byte records (docs/formats.md) ---- */

/* The record as it is stored, byte for byte. */
typedef struct {
    uint32_t magic;
    uint16_t event, flags;
    uint64_t seq, boot_ns, wall_ms;
    uint32_t boot, reason;
    uint64_t serial;
    uint8_t model[32], evidence[32], data[96], hash[32], seal[16];
} qsafp_record_t;
#define QSAFP_RECORD_MAGIC 0x31524151u        /* "QAR1" */
QSAFP_MUST_USE int qsafp_record_decode(qsafp_record_t *r, const uint8_t in[256]);          /* magic, event, flags, padding; not the chain */
void qsafp_record_hash(uint8_t out[32], const uint8_t prev[32], const uint8_t rec[256]);

typedef struct {
    const qsafp_port_t *port; void *ctx;
    uint32_t slots, boot;                   /* ring size, multiple of 16; boot counter stamped into records */
    uint32_t first, next;                   /* live sequences [first, next) */
    uint8_t head[32], log_id[32];           /* hash of next - 1; hash of record 0 */
    uint32_t erased_upto;                   /* sequences below this may be programmed; at least one whole sector ahead */
    bool failed;                            /* a write failed: nothing more is accepted until recovered */
    bool reserve;                           /* set but while the fail-safe record is written: it may use the kept sector */
    qsafp_tree_t tree;                      /* lazily extended, over [0, tree.size) */
} qsafp_audit_t;
/* Recover from the store.  The caller presets slots, and from its durable state tree and log_id (zero if none).  Finds the ring, checks the chain, drops only a torn tail.  -CORRUPT names the slot in *bad. */
QSAFP_MUST_USE int qsafp_audit_recover(qsafp_audit_t *a, uint32_t *bad);
QSAFP_MUST_USE int qsafp_audit_create(qsafp_audit_t *a);                     /* writes record 0; the store must be blank */
/* Fill event, reason, serial, model, evidence, data of `r`; append sets the rest and programs the store.  Not durable before log_sync. */
QSAFP_MUST_USE int qsafp_audit_append(qsafp_audit_t *a, qsafp_record_t *r);
QSAFP_MUST_USE int qsafp_audit_read(qsafp_audit_t *a, uint32_t seq, uint8_t out[256]);
QSAFP_MUST_USE int qsafp_audit_leaf(void *a, uint32_t seq, uint8_t out[32]); /* a qsafp_leaf_fn of the log: the record as a leaf */
QSAFP_MUST_USE int qsafp_audit_tree(qsafp_audit_t *a);                       /* extend the tree to next */
/* Verify `n` consecutive records as exported; *bad names the first that fails.  prev: hash before the first. */
QSAFP_MUST_USE int qsafp_audit_verify(const uint8_t *recs, uint64_t n, uint8_t prev[32], uint64_t *bad);
void qsafp_seal_evolve(uint8_t k[32]);                                       /* K_{e+1} = SHA-256("qsafp-evolve" || K_e) */
void qsafp_seal(uint8_t out[16], const uint8_t k[32], const uint8_t hash[32]);

/* ---- lease.c, quorum.c, failsafe.c: the state machine ---- */

typedef struct {
    uint8_t ueid[33], kid[8], model[32];
    int32_t alg;                            /* of the device key: QSAFP_ALG_ED25519 or _ESP256; kid is its id */
    uint64_t duration_ms, policy_ms[4];
    uint64_t stale_after_ns, tick_ns;       /* 1 s, 100 ms by default */
    uint64_t level;
} qsafp_config_t;

/* Durable small state (about 3.2 KB); saved before anything that depends on it becomes visible (decision 7). */
typedef struct {
    uint32_t magic, version, boot, generation;  /* "QST1", 1 */
    uint64_t serial, epoch;
    uint8_t log_id[32];
    uint32_t latch, unused;                     /* reason, 0 none */
    uint64_t latch_seq; uint8_t latch_hash[32]; /* the fail-safe record a release must answer */
    qsafp_tree_t tree;                          /* as of the last save, from the previous lease on */
    qsafp_peaks_t lease_tree;                   /* at the previous lease */
    uint8_t check[32];                          /* SHA-256 over all before */
} qsafp_state_t;

typedef struct {
    bool active;
    bool forged;                                /* a verification failed for this request */
    uint16_t denied, spent;                     /* bit per validator index */
    uint32_t generation; uint64_t t0_ns; qsafp_claims_t claims;
    size_t payload_len, request_len;
    uint8_t random[32];                                       /* nonce, lease id */
    uint8_t request_hash[32];                                 /* SHA-256 of the request's payload: refusals name it */
    uint8_t payload[QSAFP_PAYLOAD_MAX];                       /* lease payload: what validators sign */
    uint8_t request[QSAFP_REQUEST_MAX];                       /* COSE_Sign1 by the device */
    qsafp_tree_t tree;                                        /* at claims.log_size */
} qsafp_pending_t;

/* What a reader sees at one moment. */
typedef struct {
    uint64_t now_ns, remaining_ns, log_next, lease_size;
    uint32_t status, reason, generation; uint16_t phase, denied; uint8_t flags;
} qsafp_view_t;

/* Small and often used fields come first: near offsets are short instructions. */
typedef struct {
    const qsafp_port_t *port; void *ctx;
    qsafp_gate_page_t *page;
    /* Shared with the deadline thread: aligned words, atomic access only. */
    uint32_t generation, latch, untold, answered;
    uint64_t lease_end_ns;
    uint64_t expired_end;                       /* deadline thread only: the end whose expiry was told */
    /* Service thread only; published fields change under the port's lock. */
    uint32_t workloads, renewals, latch_saved;  /* the last: generation of the latch that the state holds */
    bool contained, isolated;                   /* set by the host, as are workloads and input_hash */
    bool leased; uint8_t approvals; uint16_t lease_denied;
    size_t lease_token_len;
    qsafp_view_t view;                          /* as of the last qsafp_info */
    qsafp_config_t cfg;
    uint8_t lease_request_hash[32], input_hash[32];
    qsafp_claims_t lease;
    qsafp_pending_t pending;
    qsafp_audit_t log;
    qsafp_set_t set;
    qsafp_state_t st;
    uint8_t failsafe_record[32 + QSAFP_RECORD_BYTES];                  /* the hash before the record a release answers, and it */
    uint8_t evidence, measurement[32];                                 /* qsafp_evidence_t; set by a monitor: SHA-256 of its own image */
    uint8_t scratch[QSAFP_RESPONSE_MAX / 16];                          /* Sig_structures: 1 KB */
    uint8_t lease_token[QSAFP_RESPONSE_MAX];                           /* the previous lease, for validators that are behind */
} qsafp_t;

/* Enrolment: record 0 and the first state on a blank store.  -QSAFP_E_BUSY if there is a state already. */
QSAFP_MUST_USE int qsafp_create(qsafp_t *q);
/* Start: loads state, raises the boot counter durably, recovers the log, restores a latch, writes BOOT.  The gate stays closed. */
QSAFP_MUST_USE int qsafp_init(qsafp_t *q);      /* port, ctx, cfg, set, page, evidence filled in by the caller, the rest zero */
/* Stop: closes the gate for good and drives LEASE_VALID low; the latch and the log stay as they are. */
void qsafp_deinit(qsafp_t *q);
/* Make (or return) the pending request: nonce, VALIDATOR_QUERY record durable, tree, signature.  Toggles VALIDATOR_REQ. */
QSAFP_MUST_USE int qsafp_begin(qsafp_t *q);
#define QSAFP_OLD_DEFAULT UINT64_MAX          /* the previous lease's log size, else 0 */
/* The envelope for a validator that last approved log size `old`; with_lease adds the previous lease. */
QSAFP_MUST_USE int qsafp_envelope(qsafp_t *q, uint64_t old, uint8_t *out, size_t cap, size_t *len);
/* One lease, refusal or revocation as received; verifies, counts, and for a lease of m approvals opens the gate. Returns 0 if it was
 * a lease that now runs, or a refusal that was counted; a negative status says why it was not. */
QSAFP_MUST_USE int qsafp_put(qsafp_t *q, const uint8_t *token, size_t len);
/* Latch, drive: any thread, no lock, no disk.  The service thread tells (records) in qsafp_service. */
void qsafp_trip(qsafp_t *q, qsafp_reason_t reason);
/* Deadline thread, every tick and at each deadline: moves the page deadline, drives pins, latches expiry after grace. Returns ns of its next deadline. */
uint64_t qsafp_tick(qsafp_t *q);
/* Service thread, after a kick: writes what the deadline thread latched. */
QSAFP_MUST_USE int qsafp_service(qsafp_t *q);

/* Packed: the head of the status answer (command 0x01), byte for byte. */
typedef struct __attribute__((packed)) {
    uint64_t remaining_ns, duration_ms, serial; uint32_t status; uint16_t phase; uint32_t reason, generation;
    uint8_t approvals, total; uint32_t renewals; uint8_t model[32], lease_id[16]; uint8_t flags;
} qsafp_info_t;
enum { QSAFP_INFO_RENEW = 1, QSAFP_INFO_CONTAINED = 2, QSAFP_INFO_LAB = 4, QSAFP_INFO_ISOLATED = 8 };
void qsafp_info(qsafp_t *q, qsafp_info_t *out);
/* Append a record of the caller's; a store that fails closes the gate (LOG_FULL).  fill: event, reason, evidence, data. */
QSAFP_MUST_USE int qsafp_note(qsafp_t *q, qsafp_record_t *fill);

/* ---- command.c: frames (HW-14) ---- */

uint16_t qsafp_crc16(const uint8_t *p, size_t n);

typedef struct { uint64_t ns; uint32_t reason; uint8_t tag; } qsafp_confirm_t; /* a fail-safe is sent twice: the first */

typedef struct qsafp_command {
    qsafp_t *q;
    bool restricted;                                                  /* gate.sock: opcodes 0, 1, 6, 7 only */
    qsafp_confirm_t confirm;
    int (*workload)(struct qsafp_command *c, const uint8_t *p, size_t n); void *host; /* opcode 0x07, the host's; 0: none */
    size_t last_len, out_len, env_len;
    uint32_t put_have, put_total;
    uint64_t env_old, env_serial;                                     /* what env answers; serial 0: nothing */
    uint8_t out[5 + QSAFP_FRAME_MAX + 2];                             /* the answer */
    uint8_t last[4 + QSAFP_FRAME_MAX + 2];                            /* repeated tag: cached answer */
    uint8_t put[QSAFP_RESPONSE_MAX];                                  /* chunked lease, refusal, set */
    uint8_t env[QSAFP_RESPONSE_MAX + 4096];                           /* the envelope */
} qsafp_command_t;
/* One whole frame in, one whole answer in c->out. Always answers. */
void qsafp_command(qsafp_command_t *c, const uint8_t *frame, size_t len);
/* COBS for byte streams: returns encoded length without delimiter; decode -MALFORMED. */
size_t qsafp_cobs_encode(uint8_t *out, const uint8_t *in, size_t n);
QSAFP_MUST_USE int qsafp_cobs_decode(uint8_t *out, size_t *out_len, const uint8_t *in, size_t n);

#endif
