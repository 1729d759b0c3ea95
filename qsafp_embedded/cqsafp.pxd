# SPDX-License-Identifier: Apache-2.0
# The C core in header order; see cext/include/ for every promise.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "qsafp_gate.h" nogil:
    const uint32_t QSAFP_GATE_MAGIC
    const uint32_t QSAFP_ARMED
    const uint32_t QSAFP_GATE_PAGE_BYTES
    ctypedef struct qsafp_gate_page_t:
        uint32_t magic
        uint32_t armed
        uint64_t deadline
        uint64_t deadline_ns
        uint64_t window
        uint64_t window_ns
        uint64_t counter_hz
        uint64_t serial
        uint32_t status
        uint32_t seq
        uint16_t phase
        uint16_t clock_id
        uint32_t reason
        uint8_t model[32]
        uint8_t lease_id[16]
    bint qsafp_gate_check_ns(const qsafp_gate_page_t *page, uint64_t now_ns)
    bint qsafp_gate_check_counter(const qsafp_gate_page_t *page)
    uint64_t qsafp_counter()


cdef extern from "qsafp_hash.h" nogil:
    void qsafp_sha256(uint8_t *out, const void *p, size_t n)


cdef extern from "qsafp_mldsa65.h" nogil:
    ctypedef struct qsafp_mldsa65_msg_t:
        const uint8_t *msg
        size_t msg_len
        const uint8_t *ctx
        size_t ctx_len
    int qsafp_mldsa65_verify_c "qsafp_mldsa65_verify"(const uint8_t *pk, const qsafp_mldsa65_msg_t *m, const uint8_t *sig)


cdef extern from "qsafp_ed25519_edge.h" nogil:
    int qsafp_ed25519_edge_ok(const uint8_t *sig, const uint8_t *pk)


cdef extern from "qsafp.h" nogil:
    ctypedef struct qsafp_bytes:
        const uint8_t *p
        size_t len
    ctypedef struct qsafp_cbor_r:
        const uint8_t *p
        const uint8_t *end
        int err
    ctypedef struct qsafp_cbor_w:
        uint8_t *p
        uint8_t *end
        int err
    cdef enum:
        QSAFP_CBOR_UINT
        QSAFP_CBOR_NEG
        QSAFP_CBOR_BSTR
        QSAFP_CBOR_TSTR
        QSAFP_CBOR_ARRAY
        QSAFP_CBOR_MAP
        QSAFP_CBOR_TAG
        QSAFP_CBOR_SIMPLE
    qsafp_cbor_r qsafp_cbor_reader(const void *p, size_t n)
    int qsafp_cbor_peek(const qsafp_cbor_r *r)
    uint64_t qsafp_cbor_head(qsafp_cbor_r *r, int major)
    qsafp_bytes qsafp_cbor_bstr(qsafp_cbor_r *r)
    qsafp_bytes qsafp_cbor_tstr(qsafp_cbor_r *r)
    bint qsafp_cbor_null(qsafp_cbor_r *r)
    bint qsafp_cbor_bool(qsafp_cbor_r *r)
    int qsafp_cbor_done(const qsafp_cbor_r *r)
    qsafp_cbor_w qsafp_cbor_writer(void *p, size_t n)
    void qsafp_cbor_put(qsafp_cbor_w *w, int major, uint64_t arg)

    ctypedef struct qsafp_claims_t:
        uint64_t iat
        uint8_t lease_id[16]
        uint8_t nonce[16]
        uint8_t ueid[33]
        uint64_t duration_ms
        uint64_t serial
        uint8_t model[32]
        uint8_t log_id[32]
        uint64_t log_size
        uint8_t log_root[32]
        uint64_t policy_ms[4]
        bint has_failsafe
        uint64_t failsafe_seq
        uint8_t failsafe_hash[32]
        uint64_t level
        bint lab
        uint64_t epoch
        uint8_t set_id[16]
    int qsafp_claims_encode(const qsafp_claims_t *c, uint8_t *out, size_t cap, size_t *len)
    int qsafp_claims_decode(qsafp_claims_t *c, const uint8_t *p, size_t n)

    ctypedef struct qsafp_tree_t:
        uint32_t size
        uint8_t peak[32][32]
        uint32_t from_ "from"
        uint32_t kept
    ctypedef struct qsafp_range_t:
        uint32_t from_ "from"
        uint32_t to
        uint8_t count
        uint8_t hash[64][32]
    void qsafp_tree_leaf(uint8_t *out, const uint8_t *record_hash)
    int qsafp_tree_append(qsafp_tree_t *t, const uint8_t *leaf)
    void qsafp_tree_root(const qsafp_tree_t *t, uint8_t *root)
    int qsafp_tree_extend(qsafp_tree_t *t, const qsafp_range_t *r)

    ctypedef struct qsafp_record_t:
        uint16_t event
        uint16_t flags
        uint64_t seq
        uint64_t boot_ns
        uint64_t wall_ms
        uint32_t boot
        uint32_t reason
        uint64_t serial
        uint8_t model[32]
        uint8_t evidence[32]
        uint8_t data[96]
        uint8_t hash[32]
        uint8_t seal[16]
    int qsafp_record_decode(qsafp_record_t *r, const uint8_t *rec)
    void qsafp_record_hash(uint8_t *out, const uint8_t *prev, const uint8_t *rec)
    int qsafp_audit_verify(const uint8_t *recs, uint64_t n, uint8_t *prev, uint64_t *bad)
    void qsafp_seal_evolve(uint8_t *k)
    void qsafp_seal(uint8_t *out, const uint8_t *k, const uint8_t *hash)

    const uint32_t QSAFP_SEQ_MAX
    uint16_t qsafp_crc16(const uint8_t *p, size_t n)
    size_t qsafp_cobs_encode(uint8_t *out, const uint8_t *data, size_t n)
    int qsafp_cobs_decode(uint8_t *out, size_t *out_len, const uint8_t *data, size_t n)
    int QSAFP_E_BAD_SIGNATURE


cdef extern from "guard.h" nogil:
    enum:
        LINES
    ctypedef struct qsafp_line_spec_t:
        const char *chip
        const char *name
        uint32_t offset
        uint32_t flags
        uint32_t debounce_us
    ctypedef enum qsafp_log_kind_t:
        pass
    ctypedef struct qsafp_log_spec_t:
        const char *device
        qsafp_log_kind_t kind
        uint32_t hz
        uint32_t address
        uint32_t bytes
        uint32_t page
        uint32_t live_min
        uint32_t erase
    ctypedef struct qsafp_guard_options_t:
        const char *run_dir
        const char *state_dir
        const char *sodium
        const char *board
        qsafp_line_spec_t lines[LINES]
        const char *watchdog
        const char *uart
        qsafp_log_spec_t log
        const char *tpm
        const char *lease
        uint32_t tpm_nv
        uint32_t sealed
        uint64_t anchor_ms
        uint64_t anchor_min_ms
        uint8_t device_pk[64]
        const uint8_t *set_doc
        size_t set_len
        uint8_t ueid[33]
        uint8_t model[32]
        uint8_t secret_key[64]
        uint8_t nonce_key[32]
        uint8_t seal_key[32]
        uint64_t duration_ms
        uint64_t policy_ms[4]
        uint64_t stale_after_ms
        uint64_t tick_ms
        uint64_t drain_ms
        uint64_t level
        uint64_t linger_ms
        uint64_t evidence_max
        uint64_t degrade
        uint32_t agent_uid
        uint32_t watchdog_s
        uint32_t uart_baud
        uint32_t quote_pcrs
    enum:
        QSAFP_TPM_KEY_MAX
    ctypedef struct qsafp_attest_t:
        uint32_t pcrs
        uint8_t ak[64]
        uint8_t ek[64]
        uint8_t file[1024]
        uint8_t certificate[4096]
        uint8_t pcr[24][32]
        size_t file_len, certificate_len
    int qsafp_tpm_attest(const char *place, qsafp_attest_t *a, char *why, size_t why_len)
    ctypedef struct qsafp_activate_t:
        uint8_t file[1024]
        uint8_t challenge[512]
        uint8_t secret[32]
        size_t file_len, challenge_len
    int qsafp_tpm_activate(const char *place, qsafp_activate_t *a, char *why, size_t why_len)
    int qsafp_tpm_create(const char *place, uint8_t *pk, uint8_t *file, size_t *n, char *why, size_t why_len)
    int qsafp_tpm_seal(const char *place, const uint8_t *seed, const uint8_t *nonce_key, uint8_t *file, size_t *n, char *why, size_t why_len)
    int qsafp_tpm_anchor(const char *place, uint32_t base, uint8_t *value, char *why, size_t why_len)
    int qsafp_guard_create(const qsafp_guard_options_t *o, uint8_t *log_id, char *why, size_t why_len)
    int qsafp_guard_run(const qsafp_guard_options_t *o, char *why, size_t why_len)

    ctypedef struct qsafp_own_log_t:
        pass
    qsafp_own_log_t *qsafp_own_log_open(const char *dir, bint create, char *why, size_t why_len)
    int qsafp_own_log_append(qsafp_own_log_t *l, uint16_t event, uint32_t reason, const uint8_t *data)
    bint qsafp_own_log_ready(qsafp_own_log_t *l)
    int qsafp_own_log_sync(qsafp_own_log_t *l)
    uint64_t qsafp_own_log_size(const qsafp_own_log_t *l, uint8_t *head)
    void qsafp_own_log_close(qsafp_own_log_t *l)

    ctypedef struct qsafp_self_t:
        pass
    qsafp_self_t *qsafp_self_open(const qsafp_guard_options_t *o, char *why, size_t why_len)
    int qsafp_self_wire(const qsafp_self_t *s)
    int qsafp_self_page(const qsafp_self_t *s)
    void qsafp_self_step(qsafp_self_t *s)
    void qsafp_self_close(qsafp_self_t *s)
