/* SPDX-License-Identifier: Apache-2.0 */
/* Command frames from the line and from the payload; what the payload was caught at (HW-5, HW-14). */
#include "monitor.h"

enum { RECORDS_PER_S = 10, SLICE = 4096 };
#define SECOND_NS 1000000000u
#define SILENCE_NS (SECOND_NS / 10)
#define LINE_FIRST_NS (30ull * SECOND_NS)

static uint32_t get(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static void set(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

/* ---- on the core that called ---- */

qsafp_status_t call_validate(void)
{
    if (qsafp_gate_check_ns(&gate_page, monitor_port.now_ns(&m)))
        return QSAFP_STATUS_VALID;
    uint32_t status = get(&gate_page.status);
    return status == QSAFP_STATUS_VALID ? QSAFP_STATUS_EXPIRED : (qsafp_status_t)status; /* the timer has not said so yet */
}

/* Stands still until the monitor's core has answered; counts as parked meanwhile if it must. */
static result_t post(core_t *c, uint32_t call)
{
    set(&c->call, call);
    arch_poke(0);
    while (get(&c->call)) {
        if (get(&m.contain))
            core_still(c);
        arch_yield();
    }
    return (result_t){c->err, c->value};
}

/* arg: frame, its length, room for the answer, its length. */
result_t call_frame(core_t *c, const uintptr_t arg[4])
{
    if (arg[1] > FRAME_BYTES || arg[3] < 5 + QSAFP_FRAME_MAX + 2)
        return (result_t){CALL_BAD_ARGUMENT, 0};
    if (arch_copy_in(c->frame, arg[0], arg[1]))
        return (result_t){CALL_BAD_ADDRESS, 0};
    c->arg[0] = arg[1];
    result_t r = post(c, CALL_FRAME);
    if (core_hold(c))
        return r; /* the caller is gone: what was rolled back stays as it is */
    if (!r.err && arch_copy_out(arg[2], c->frame, r.value))
        r.err = CALL_BAD_ADDRESS;
    return r;
}

result_t call_checkpoint(core_t *c, uintptr_t base, uintptr_t bytes)
{
    if (base < PAYLOAD_RAM || base >= RAM_END || !bytes || bytes > CHECKPOINT_BYTES || bytes > RAM_END - base)
        return (result_t){CALL_BAD_ARGUMENT, 0};
    c->arg[0] = base;
    c->arg[1] = bytes;
    return post(c, CALL_CHECKPOINT);
}

void report(core_t *c, const report_t *what)
{
    if (c->put - get(&c->told) == REPORTS) {
        c->lost++;
        return;
    }
    c->report[c->put % REPORTS] = *what;
    set(&c->put, c->put + 1);
    arch_poke(0);
}

/* ---- on the monitor's core ---- */

/* SPEC: HW-9 a payload that floods fills neither the log nor the flash's life. */
static bool may_record(void)
{
    uint64_t now = monitor_port.now_ns(&m);
    if (now - m.budget_ns >= SECOND_NS) {
        m.budget_ns = now;
        m.budget = RECORDS_PER_S;
    }
    if (!m.budget)
        return false;
    m.budget--;
    return true;
}

/* An envelope that is made anew reads most of the log: one a second. */
static bool may_read(const uint8_t *f, size_t n)
{
    uint64_t now = monitor_port.now_ns(&m);
    if (n > 12 && memcmp(f + 5, &m.command.env_old, 8) == 0 && m.command.env_serial == m.q.pending.claims.serial)
        return true;
    bool may = now - m.envelope_ns >= SECOND_NS;
    if (may)
        m.envelope_ns = now;
    return may;
}

/* What the payload asks for costs neither the log nor the line's host its turn.  Of a renewal 0 begins, 1 reads, 2 uploads, 3 finishes. */
static bool may_ask(const uint8_t *f, size_t n)
{
    if (n <= 4 || (f[1] != QSAFP_OPCODE_RENEW && f[1] != QSAFP_OPCODE_LOG_EVENT))
        return true;
    if (f[1] == QSAFP_OPCODE_LOG_EVENT)
        return may_record();
    if (monitor_port.now_ns(&m) < m.line_first_ns)
        return false;
    return f[4] == 1 ? may_read(f, n) : f[4] == 2 || may_record();
}

static size_t too_many(uint8_t tag, uint8_t out[7])
{
    const uint8_t head[5] = {0xA5, tag, QSAFP_COMMAND_STATUS_RATE_LIMITED, 0, 0};
    uint16_t crc = qsafp_crc16(head, sizeof head);
    memcpy(out, head, sizeof head);
    memcpy(out + 5, &crc, sizeof crc);
    return 7;
}

/* LEASE_RENEW was pressed (HW-13): the status says what it says when a renewal is due, until one is begun. */
static void show_renew(void)
{
    uint8_t *out = m.command.out;
    size_t len = m.command.out_len;
    m.pressed &= !m.q.pending.active;
    if (!m.pressed || len < 5 + sizeof(qsafp_info_t) || m.command.last[1] != QSAFP_OPCODE_STATUS)
        return;
    out[5 + offsetof(qsafp_info_t, flags)] |= QSAFP_INFO_RENEW;
    uint16_t crc = qsafp_crc16(out, len - sizeof crc);
    memcpy(out + len - sizeof crc, &crc, sizeof crc);
}

/* Ten looks a second: a level that holds for one is a press, and a storm of edges costs nothing. */
void look_at_renew(void)
{
    if (m.looked == m.ticks)
        return;
    m.looked = m.ticks;
    bool level = board_pin_get(PIN_LEASE_RENEW);
    m.pressed |= level && !m.renew_level;
    m.renew_level = level;
}

/* An answer kept for one channel's repeat is not given to another. */
static void command(unsigned channel, const uint8_t *frame, size_t n)
{
    if (m.channel != channel)
        m.command.last_len = 0;
    m.channel = channel;
    m.command.confirm = m.confirm[channel];
    qsafp_command(&m.command, frame, n);
    m.confirm[channel] = m.command.confirm;
    show_renew();
}

static void answer_frame(core_t *c)
{
    size_t n = c->arg[0];
    if (!may_ask(c->frame, n)) {
        c->value = too_many(c->frame[0], c->frame);
        return;
    }
    command((unsigned)(c - m.core), c->frame, n);
    memcpy(c->frame, m.command.out, m.command.out_len);
    c->value = m.command.out_len;
}

/* The newest one counts; it is hashed where the payload cannot change it any more.  A slice at a time, since the line waits; true at the last. */
static bool take_checkpoint(const core_t *c)
{
    checkpoint_t *k = &m.checkpoint;
    if (k->left && k->of != c)
        return false;
    if (!k->left) {
        *k = (checkpoint_t){.base = c->arg[0], .bytes = c->arg[1], .left = c->arg[1], .of = c};
        qsafp_sha256_init(&k->sum);
    }
    size_t part = k->left < SLICE ? k->left : SLICE, at = k->bytes - k->left;
    void *copy = (uint8_t *)CHECKPOINT_BASE + at;
    memcpy(copy, (const uint8_t *)k->base + at, part);
    qsafp_sha256_update(&k->sum, copy, part);
    k->left -= part;
    if (!k->left)
        qsafp_sha256_final(&k->sum, k->hash);
    return !k->left;
}

bool serve_core(core_t *c)
{
    uint32_t call = get(&c->call);
    if (!call)
        return false;
    c->err = CALL_OK;
    c->value = 0;
    if (call == CALL_FRAME)
        answer_frame(c);
    if (call == CALL_FRAME || take_checkpoint(c))
        set(&c->call, CALL_NONE);
    return true;
}

void answer_line(void)
{
    uint8_t out[ENCODED_BYTES];
    if (!m.answer_due)
        return;
    m.answer_due = false;
    size_t len = qsafp_cobs_encode(out, m.command.out, m.command.out_len);
    for (size_t i = 0; i < len; i++)
        board_line_put(out[i]);
    board_line_put(0);
}

static void whole(void)
{
    size_t n = 0;
    uint8_t frame[ENCODED_BYTES];
    if (qsafp_cobs_decode(frame, &n, m.line, m.line_have))
        n = 0; /* no frame: the checksum of nothing is wrong too */
    m.line_have = 0;
    m.answer_due = true;
    command(0, frame, n);
    if (n > 4 && frame[1] == QSAFP_OPCODE_RENEW)
        m.line_first_ns = m.q.pending.active || m.command.put_have ? monitor_port.now_ns(&m) + LINE_FIRST_NS : 0;
}

/* Silence is a line that was seen empty: bytes that had to wait for us are no new frame. */
bool serve_line(void)
{
    bool any = false;
    for (int byte; !m.answer_due && (byte = board_line_get()) >= 0; any = true) {
        if (byte && m.line_have < sizeof m.line)
            m.line[m.line_have++] = (uint8_t)byte;
        else if (!byte && m.line_have)
            whole();
    }
    uint64_t now = monitor_port.now_ns(&m); /* bytes may have kept coming for long */
    if (any)
        m.line_ns = now;
    else if (now - m.line_ns > SILENCE_NS)
        m.line_have = 0;
    return any;
}

/* ANOMALY, reason TAMPER: core, cause, instruction, address, and how many more there were. */
static void tell_report(core_t *c, const report_t *what)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_ANOMALY, .reason = QSAFP_REASON_TAMPER};
    r.data[0] = (uint8_t)(c - m.core);
    memcpy(r.data + 8, what, sizeof *what);
    memcpy(r.data + 32, &c->lost, sizeof c->lost);
    c->lost = 0;
    monitor_note(&r);
}

bool tell_reports(void)
{
    bool any = false;
    for (unsigned i = 1; i < CORES; i++) {
        core_t *c = &m.core[i];
        while (c->told != get(&c->put) && may_record()) {
            tell_report(c, &c->report[c->told % REPORTS]);
            set(&c->told, c->told + 1);
            any = true;
        }
    }
    return any;
}
