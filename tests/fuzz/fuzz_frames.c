/* SPDX-License-Identifier: Apache-2.0 */
/* Command frames: a session of frames, ticks and time.  Every frame is answered in form; the gate opens only after a finish of a true
 * lease; a workload's connection neither opens, stops nor asks; COBS round-trips and its decoder stays inside. */
#include "fuzz.h"

static snapshot_t start;
static qsafp_command_t command;
static uint8_t frame[4 + QSAFP_FRAME_MAX + 64], token[QSAFP_RESPONSE_MAX];

static void answer_is_well_formed(const qsafp_command_t *c, uint8_t tag)
{
    size_t n = c->out_len;
    WANT(n >= 7 && n <= sizeof c->out && c->out[0] == 0xA5 && c->out[1] == tag);
    WANT((size_t)(c->out[3] | c->out[4] << 8) + 7 == n);
    WANT(qsafp_crc16(c->out, n - 2) == (c->out[n - 2] | c->out[n - 1] << 8));
}

static void cobs(const uint8_t *p, size_t n)
{
    static uint8_t enc[2048], dec[2048];
    size_t len = 0;
    size_t e = qsafp_cobs_encode(enc, p, n);
    WANT(e <= n + n / 254 + 1 && !memchr(enc, 0, e));
    WANT(qsafp_cobs_decode(dec, &len, enc, e) == 0 && len == n && !memcmp(dec, p, n));
    if (qsafp_cobs_decode(dec, &len, p, n) == 0)
        WANT(n && len < n && qsafp_cobs_encode(enc, dec, len) <= n + 1);
}

/* The pending request's lease, if the session put exactly that; all else must leave a closed gate closed. */
static bool true_lease(const bench_t *b, const qsafp_command_t *c, size_t n)
{
    static const int who[M] = {0, 1, 2, 3};
    return b->q.pending.active && n == lease_of(&b->q, who, M, 0, token) && !memcmp(c->put, token, n);
}

static void one_frame(bench_t *b, qsafp_command_t *c, const uint8_t *p, size_t n)
{
    bool was_open = open_now(b), finish = n >= 7 && p[1] == QSAFP_OPCODE_RENEW && p[4] == 3;
    uint32_t latch = b->q.latch;
    uint64_t serial = b->q.st.serial;
    bool truly = finish && true_lease(b, c, c->put_have);
    qsafp_command(c, p, n);
    answer_is_well_formed(c, n ? p[0] : 0);
    if (c->restricted)
        WANT(b->q.st.serial == serial && open_now(b) == was_open && (b->q.latch == latch || b->q.latch == QSAFP_REASON_LOG_FULL));
    (void)qsafp_tick(&b->q);
    WANT(was_open || !open_now(b) || truly);
    want_safe(b);
}

/* {op, ...}: f{len u16}{head and payload; length and CRC are made right}, g the same as it is, t{steps of 0.1 s}, L the true lease, w workload's side. */
static void session(const uint8_t *p, size_t n)
{
    static const int who[M] = {0, 1, 2, 3};
    bench_t *b = restored(&start);
    qsafp_command_t *c = &command;
    memset(c, 0, sizeof *c);
    c->q = &b->q;
    for (int steps = 0; n >= 3 && steps < 40; steps++) {
        size_t len = (size_t)(p[1] | p[2] << 8) % (QSAFP_FRAME_MAX + 10);
        uint8_t op = p[0];
        p += 3, n -= 3;
        if (op == 't') {
            b->d.now_ns += len % 64 * (S / 10);
            want_safe(b);
        } else if (op == 'w') {
            c->restricted = true;
        } else if (op == 'L' && b->q.pending.active) {
            size_t k = lease_of(&b->q, who, M, 0, c->put);
            c->put_have = c->put_total = (uint32_t)k;
        } else if (op == 'f' || op == 'g') {
            len = len < n ? len : n;
            memcpy(frame, p, len);
            p += len, n -= len;
            if (op == 'f' && len >= 4 && len <= QSAFP_FRAME_MAX + 4) {
                frame[2] = (uint8_t)(len - 4);
                frame[3] = (uint8_t)((len - 4) >> 8);
                uint16_t crc = qsafp_crc16(frame, len);
                memcpy(frame + len, &crc, 2);
                len += 2;
            }
            one_frame(b, c, frame, len);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!start.b)
        keep(&start, fresh());
    if (size == 0 || size > 1600)
        return 0;
    if (data[0] == 'c')
        cobs(data + 1, size - 1);
    else
        session(data + 1, size - 1);
    return 0;
}

static void seeds(void)
{
    static const struct { const char *p; size_t n; } list[] = {
#define SEED(s) {s, sizeof s - 1}
        SEED("sf\x05\x00\x01\x02\x00\x00\x00L\x00\x00" "f\x05\x00\x02\x02\x00\x00\x03t\x05\x00t\x0F\x00"), /* begin, lease, finish */
        SEED("sf\x05\x00\x01\x02\x00\x00\x00" "f\x11\x00\x02\x02\x00\x00\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x00\x00\x00\x00"), /* begin, read */
        SEED("sf\x05\x00\x01\x02\x00\x00\x00L\x00\x00" "f\x05\x00\x02\x02\x00\x00\x03" "f\x08\x00\x07\x04\x00\x00\x06\x00\x00\x00" "f\x08\x00\x07\x04\x00\x00\x06\x00\x00\x00"), /* fail-safe twice */
        SEED("sf\x04\x00\x01\x00\x00\x00" "f\x04\x00\x02\x01\x00\x00" "f\x0E\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00"), /* version, status, log */
        SEED("sw\x00\x00" "f\x0C\x00\x01\x06\x00\x00\x0A\x00\x01\x00\x00\x00xy" "f\x05\x00\x01\x02\x00\x00\x00"), /* a workload reports, then asks */
        SEED("sf\x0D\x00\x05\x02\x00\x00\x02\x00\x00\x00\x00\x04\x00\x00\x00\xD8\x62" "f\x0F\x00\x06\x02\x00\x00\x02\x02\x00\x00\x00\x04\x00\x00\x00\x84\x40" "f\x05\x00\x07\x02\x00\x00\x03"),
        SEED("sg\x06\x00\x01\x02\x01\x00\x00\x00"),
        SEED("c\x01\x02\x00\x03\x00\x00"),
        SEED("c\x05\x01\x02\x03\x04\x01\x01"),
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        seed(list[i].p, list[i].n);
}
