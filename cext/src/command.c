/* SPDX-License-Identifier: Apache-2.0 */
/* Command frames: one state machine for sockets, UART, SPI and service calls (HW-14, docs/formats.md). */
#include "core.h"
#include "record.h"

enum { HEAD = 4, ANSWER_HEAD = 5, CHUNK = 1000 };
enum { RENEW_BEGIN = 0, RENEW_READ = 1, RENEW_PUT = 2, RENEW_FINISH = 3 };

static uint16_t get16(const uint8_t *p) { uint16_t v; __builtin_memcpy(&v, p, sizeof v); return v; }
static uint32_t get32(const uint8_t *p) { uint32_t v; __builtin_memcpy(&v, p, sizeof v); return v; }
static uint64_t get64(const uint8_t *p) { uint64_t v; __builtin_memcpy(&v, p, sizeof v); return v; }

enum {
    FOR_WORKLOADS = 1u << QSAFP_OPCODE_VERSION | 1u << QSAFP_OPCODE_STATUS | 1u << QSAFP_OPCODE_LOG_EVENT | 1u << QSAFP_OPCODE_WORKLOAD,
    EVENTS_OF_WORKLOADS = 1u << QSAFP_EVENT_INFERENCE_STARTED | 1u << QSAFP_EVENT_INFERENCE_COMPLETED | 1u << QSAFP_EVENT_ANOMALY |
                          1u << QSAFP_EVENT_WORKLOAD_REPORT,
    REASONS_OF_HOSTS = 1u << QSAFP_REASON_MANUAL | 1u << QSAFP_REASON_BUS | 1u << QSAFP_REASON_ANOMALY,
};

static bool member(unsigned mask, uint32_t of)
{
    return of < 32 && mask >> of & 1;
}

uint16_t qsafp_crc16(const uint8_t *p, size_t n)
{
    uint16_t crc = 0xFFFF;
    for (size_t i = 0; i < n; i++) {
        crc = (uint16_t)(crc ^ (unsigned)p[i] << 8);
        for (int b = 0; b < 8; b++)
            crc = (uint16_t)(crc & 0x8000 ? (unsigned)crc << 1 ^ 0x1021 : (unsigned)crc << 1);
    }
    return crc;
}

/* ---- the answer under construction: out holds head, then what was put; finish adds length and CRC ---- */

static void put_bytes(qsafp_command_t *c, const void *p, size_t n)
{
    memcpy(c->out + c->out_len, p, n);
    c->out_len += n;
}

static void put32(qsafp_command_t *c, uint32_t v) { put_bytes(c, &v, sizeof v); }
static void put64(qsafp_command_t *c, uint64_t v) { put_bytes(c, &v, sizeof v); }

static void finish(qsafp_command_t *c, uint8_t tag, qsafp_command_status_t status)
{
    uint16_t len = (uint16_t)(c->out_len - ANSWER_HEAD), crc;
    c->out[0] = 0xA5;
    c->out[1] = tag;
    c->out[2] = (uint8_t)status;
    __builtin_memcpy(c->out + 3, &len, sizeof len);
    crc = qsafp_crc16(c->out, c->out_len);
    put_bytes(c, &crc, sizeof crc);
}

/* ---- opcodes: payload in, answer payload appended, status back ---- */

static qsafp_command_status_t op_version(qsafp_command_t *c)
{
    const uint8_t answer[7] = {QSAFP_ABI, 0, 0, 0, c->q->set.suite, (uint8_t)QSAFP_FRAME_MAX, QSAFP_FRAME_MAX >> 8};
    put_bytes(c, answer, sizeof answer);
    return QSAFP_COMMAND_STATUS_OK;
}

static qsafp_command_status_t op_status(qsafp_command_t *c)
{
    c->out_len += status_answer(c->q, c->out + c->out_len);
    return QSAFP_COMMAND_STATUS_OK;
}

static qsafp_command_status_t renew_begin(qsafp_command_t *c)
{
    int err = qsafp_begin(c->q);
    c->put_have = 0;
    if (err)
        return err == QSAFP_E_KEY ? QSAFP_COMMAND_STATUS_KEY_FAILED : QSAFP_COMMAND_STATUS_STORE_FAILED;
    put32(c, (uint32_t)c->q->pending.request_len);
    put64(c, c->q->pending.claims.serial);
    return QSAFP_COMMAND_STATUS_OK;
}

static qsafp_command_status_t renew_read(qsafp_command_t *c, const uint8_t *p, size_t n)
{
    if (n != 12)
        return QSAFP_COMMAND_STATUS_BAD_LENGTH;
    uint64_t old = get64(p), serial = c->q->pending.claims.serial;
    uint32_t off = get32(p + 8);
    if (!pending_live(c->q))
        return QSAFP_COMMAND_STATUS_NO_REQUEST;
    if (c->env_old != old || c->env_serial != serial) {
        c->env_serial = 0;
        int err = qsafp_envelope(c->q, old, c->env, sizeof c->env, &c->env_len);
        if (err)
            return err == QSAFP_E_KEY ? QSAFP_COMMAND_STATUS_KEY_FAILED : QSAFP_COMMAND_STATUS_BAD_ARGUMENT;
        c->env_old = old;
        c->env_serial = serial;
    }
    if (off > c->env_len)
        return QSAFP_COMMAND_STATUS_BAD_ARGUMENT;
    size_t chunk = c->env_len - off < CHUNK ? c->env_len - off : CHUNK;
    put32(c, (uint32_t)c->env_len);
    put_bytes(c, c->env + off, chunk);
    return QSAFP_COMMAND_STATUS_OK;
}

static qsafp_command_status_t renew_put(qsafp_command_t *c, const uint8_t *p, size_t n)
{
    if (n < 9)
        return QSAFP_COMMAND_STATUS_BAD_LENGTH;
    uint32_t off = get32(p), total = get32(p + 4);
    size_t chunk = n - 8;
    if (off == 0) {
        c->put_have = 0;
        c->put_total = total;
    }
    if (!total || total > sizeof c->put || total != c->put_total || off != c->put_have || chunk > total - off)
        return QSAFP_COMMAND_STATUS_BAD_ARGUMENT;
    memcpy(c->put + off, p + 8, chunk);
    c->put_have = off + (uint32_t)chunk;
    return QSAFP_COMMAND_STATUS_OK;
}

static qsafp_command_status_t renew_finish(qsafp_command_t *c)
{
    if (!c->put_total || c->put_have != c->put_total)
        return QSAFP_COMMAND_STATUS_INCOMPLETE;
    uint32_t len = c->put_have;
    c->put_have = c->put_total = 0;
    int err = qsafp_put(c->q, c->put, len);
    const uint8_t code = (uint8_t)-err;
    put_bytes(c, &code, 1);
    return err ? QSAFP_COMMAND_STATUS_REFUSED : QSAFP_COMMAND_STATUS_OK;
}

static qsafp_command_status_t op_renew(qsafp_command_t *c, const uint8_t *p, size_t n)
{
    if (n < 1)
        return QSAFP_COMMAND_STATUS_BAD_LENGTH;
    switch (p[0]) {
    case RENEW_BEGIN:
        return n == 1 ? renew_begin(c) : QSAFP_COMMAND_STATUS_BAD_LENGTH;
    case RENEW_READ:
        return renew_read(c, p + 1, n - 1);
    case RENEW_PUT:
        return renew_put(c, p + 1, n - 1);
    case RENEW_FINISH:
        return n == 1 ? renew_finish(c) : QSAFP_COMMAND_STATUS_BAD_LENGTH;
    default:
        return QSAFP_COMMAND_STATUS_BAD_ARGUMENT;
    }
}

/* start u64, count u16 -> next u64 and up to three records: a fourth leaves no room for the header. */
static qsafp_command_status_t op_read_log(qsafp_command_t *c, const uint8_t *p, size_t n)
{
    const qsafp_audit_t *log = &c->q->log;
    if (n != 10)
        return QSAFP_COMMAND_STATUS_BAD_LENGTH;
    uint64_t start = get64(p);
    uint32_t seq = start < log->first ? log->first : start < log->next ? (uint32_t)start : log->next;
    unsigned count = get16(p + 8) < 3 ? get16(p + 8) : 3;
    put64(c, log->next);
    for (; count && seq < log->next; count--, seq++) {
        if (qsafp_audit_read(&c->q->log, seq, c->out + c->out_len))
            return QSAFP_COMMAND_STATUS_STORE_FAILED;
        c->out_len += QSAFP_RECORD_BYTES;
    }
    return QSAFP_COMMAND_STATUS_OK;
}

/* Sent twice with the same bytes and tag within 1 s: a wire that glitches once stops nothing; always obeyed then. */
static qsafp_command_status_t op_failsafe(qsafp_command_t *c, uint8_t tag, const uint8_t *p, size_t n)
{
    if (n != 4)
        return QSAFP_COMMAND_STATUS_BAD_LENGTH;
    uint32_t reason = get32(p);
    uint64_t now = port_now(c->q);
    if (!member(REASONS_OF_HOSTS, reason))
        return QSAFP_COMMAND_STATUS_BAD_ARGUMENT;
    if (c->confirm.ns && c->confirm.tag == tag && c->confirm.reason == reason && now - c->confirm.ns <= 1000000000u) {
        c->confirm.ns = 0;
        qsafp_trip(c->q, (qsafp_reason_t)reason);
        return qsafp_service(c->q) ? QSAFP_COMMAND_STATUS_STORE_FAILED : QSAFP_COMMAND_STATUS_OK;
    }
    c->confirm = (qsafp_confirm_t){now, reason, tag};
    return QSAFP_COMMAND_STATUS_CONFIRM;
}

/* event u16, reason u32, data <= 96: only what a workload may report (HW-9); marked as such. */
static qsafp_command_status_t op_log_event(qsafp_command_t *c, const uint8_t *p, size_t n)
{
    if (n < 6 || n > 6 + 96)
        return QSAFP_COMMAND_STATUS_BAD_LENGTH;
    uint16_t event = get16(p);
    if (!member(EVENTS_OF_WORKLOADS, event))
        return QSAFP_COMMAND_STATUS_BAD_ARGUMENT;
    qsafp_record_t r;
    record_new(&r, (qsafp_event_t)event, get32(p + 2));
    r.flags = RECORD_REPORTED;
    memcpy(r.data, p + 6, n - 6);
    return qsafp_note(c->q, &r) ? QSAFP_COMMAND_STATUS_STORE_FAILED : QSAFP_COMMAND_STATUS_OK;
}

static qsafp_command_status_t dispatch(qsafp_command_t *c, const uint8_t *f, const uint8_t *p, size_t n)
{
    if (c->restricted && !member(FOR_WORKLOADS, f[1]))
        return QSAFP_COMMAND_STATUS_NOT_ALLOWED;
    switch (f[1]) {
    case QSAFP_OPCODE_VERSION:
        return n ? QSAFP_COMMAND_STATUS_BAD_LENGTH : op_version(c);
    case QSAFP_OPCODE_STATUS:
        return n ? QSAFP_COMMAND_STATUS_BAD_LENGTH : op_status(c);
    case QSAFP_OPCODE_RENEW:
        return op_renew(c, p, n);
    case QSAFP_OPCODE_READ_LOG:
        return op_read_log(c, p, n);
    case QSAFP_OPCODE_FAILSAFE:
        return op_failsafe(c, f[0], p, n);
    case QSAFP_OPCODE_LOG_EVENT:
        return op_log_event(c, p, n);
    case QSAFP_OPCODE_WORKLOAD:
        return c->workload ? (qsafp_command_status_t)c->workload(c, p, n) : QSAFP_COMMAND_STATUS_BAD_OPCODE;
    default:
        return QSAFP_COMMAND_STATUS_BAD_OPCODE;
    }
}

/* Only effects that must not happen twice come from the cache: the fail-safe is meant to be sent twice, reads are harmless. */
static bool cached(const qsafp_command_t *c, const uint8_t *f, size_t len)
{
    bool once = len > 4 && ((f[1] == QSAFP_OPCODE_RENEW && f[4] >= RENEW_PUT) || f[1] == QSAFP_OPCODE_LOG_EVENT || f[1] == QSAFP_OPCODE_WORKLOAD);
    return once && len == c->last_len && memcmp(f, c->last, len) == 0;
}

static qsafp_command_status_t check(const uint8_t *f, size_t len)
{
    if (len < HEAD + 2 || len > HEAD + QSAFP_FRAME_MAX + 2 || (size_t)get16(f + 2) + HEAD + 2 != len)
        return QSAFP_COMMAND_STATUS_BAD_LENGTH;
    return get16(f + len - 2) == qsafp_crc16(f, len - 2) ? QSAFP_COMMAND_STATUS_OK : QSAFP_COMMAND_STATUS_BAD_CRC;
}

void qsafp_command(qsafp_command_t *c, const uint8_t *f, size_t len)
{
    qsafp_command_status_t status = check(f, len);
    if (status == QSAFP_COMMAND_STATUS_OK && cached(c, f, len))
        return; /* out still holds the answer */
    c->out_len = ANSWER_HEAD;
    if (status == QSAFP_COMMAND_STATUS_OK) {
        memcpy(c->last, f, len);
        c->last_len = len;
        status = dispatch(c, f, f + HEAD, len - HEAD - 2);
    } else {
        c->last_len = 0;
    }
    finish(c, len ? f[0] : 0, status);
}
