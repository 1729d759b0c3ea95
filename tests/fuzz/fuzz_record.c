/* SPDX-License-Identifier: Apache-2.0 */
/* Records and recovery: whatever is done to a log, recovery either refuses it or goes on from records that were written, none of
 * them changed.  Input: patches of four bytes {slot, byte, length, value} over a real log, or raw bytes as records. */
#include "fuzz.h"

enum { SLOTS = 64, BYTES = SLOTS * 256 };

typedef struct { device_t d; qsafp_audit_t a; } log_t;

static log_t base[4], now; /* short, a sector from its end, turned once, turned with a cut erase ahead */

static void log_on(qsafp_audit_t *a, device_t *d)
{
    memset(a, 0, sizeof *a);
    a->port = &PORT;
    a->ctx = d;
    a->slots = SLOTS;
    a->reserve = true;
}

static void make(log_t *l, uint64_t records)
{
    memset(l->d.log, 0xFF, sizeof l->d.log);
    log_on(&l->a, &l->d);
    WANT(qsafp_audit_create(&l->a) == 0);
    for (uint32_t i = 0; l->a.next < records; i++) {
        qsafp_record_t r = {.event = (uint16_t)(1 + i % 12), .reason = i, .data = {(uint8_t)i}};
        WANT(qsafp_audit_append(&l->a, &r) == 0 && qsafp_audit_tree(&l->a) == 0);
    }
}

static void prepare(void)
{
    static const uint64_t records[4] = {5, 47, 150, 161};
    for (int i = 0; i < 4 && !base[i].a.port; i++)
        make(&base[i], records[i]);
    memset(base[3].d.log + 48 * 256 + 1000, 0xFF, 500);
}

/* Both hold sequence s alike, but for the seal, which is written later. */
static bool same(log_t *x, log_t *y, uint32_t s)
{
    uint8_t p[256], q[256];
    return qsafp_audit_read(&x->a, s, p) == 0 && qsafp_audit_read(&y->a, s, q) == 0 && !memcmp(p, q, s % 16 == 15 ? 240 : 256);
}

static void recover_is_honest(log_t *b)
{
    uint32_t bad = 0;
    qsafp_audit_t again;
    log_on(&now.a, &now.d);
    now.a.tree = b->a.tree;
    memcpy(now.a.log_id, b->a.log_id, 32);
    int err = qsafp_audit_recover(&now.a, &bad);
    WANT(err <= 0 && bad < SLOTS);
    if (err)
        return;
    WANT(now.a.next == b->a.next && now.a.first >= b->a.first && now.a.first <= b->a.next); /* the tree promised its size: no tail is lost */
    for (uint32_t s = now.a.first + (now.a.first > 0); s < now.a.next; s++) /* the hash before the oldest is gone with it */
        WANT(same(&now, b, s));
    qsafp_record_t r = {.event = QSAFP_EVENT_WORKLOAD_REPORT};
    WANT(qsafp_audit_append(&now.a, &r) == 0 && r.seq >= b->a.next && !memcmp(now.a.head, r.hash, 32));
    log_on(&again, &now.d);
    again.tree = now.a.tree;
    memcpy(again.log_id, b->a.log_id, 32);
    WANT(qsafp_audit_recover(&again, &bad) == 0 && again.next == now.a.next && !memcmp(again.head, now.a.head, 32));
}

static void patched(log_t *b, const uint8_t *p, size_t n)
{
    memcpy(now.d.log, b->d.log, BYTES);
    for (; n >= 4; p += 4, n -= 4) {
        size_t at = (size_t)p[0] % SLOTS * 256 + p[1], len = p[2] % 32;
        for (size_t i = at; i <= at + len && i < BYTES; i++)
            now.d.log[i] = len ? p[3] : now.d.log[i] ^ p[3];
    }
    recover_is_honest(b);
}

static void raw(const uint8_t *p, size_t n)
{
    qsafp_record_t r;
    uint8_t out[256], prev[32] = {0};
    uint64_t bad = 0, count = n / 256;
    if (!count)
        return;
    if (qsafp_record_decode(&r, p) == 0) {
        memcpy(out, &r, sizeof r);
        WANT(!memcmp(out, p, 256) && r.event && r.magic == QSAFP_RECORD_MAGIC);
    }
    int err = qsafp_audit_verify(p, count, prev, &bad);
    WANT(err == 0 ? !memcmp(prev, p + (count - 1) * 256 + 208, 32) : err == QSAFP_E_CORRUPT && bad < count);
    if (n <= BYTES) { /* as a whole log of its own */
        uint32_t slot = 0;
        memset(now.d.log, 0xFF, BYTES);
        memcpy(now.d.log, p, n);
        log_on(&now.a, &now.d);
        now.a.tree.size = r.seq % 8 ? 0 : (uint32_t)r.seq;
        WANT(qsafp_audit_recover(&now.a, &slot) || (now.a.next > now.a.first && now.a.next - now.a.first <= SLOTS));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    prepare();
    if (size == 0)
        return 0;
    if (data[0] == 'r')
        raw(data + 1, size - 1);
    else
        patched(&base[data[0] % 4], data + 1, size - 1);
    return 0;
}

static void seeds(void)
{
    static const char *const patches[] = {"p\x05\x00\x01\xFF", "q\x2F\xD0\x00\x01", "r", "s\x30\x00\x1F\xFF\x30\x80\x1F\x00", "p\x00\x04\x00\x01", "s\x20\xF0\x0F\x00"};
    static const uint8_t lengths[] = {5, 5, 1, 9, 5, 5};
    prepare();
    for (size_t i = 0; i < sizeof lengths; i++)
        seed(patches[i], lengths[i]);
    seed_as("r", base[0].d.log, 3 * 256);
    seed_as("r", base[2].d.log + 32 * 256, 4 * 256);
}
