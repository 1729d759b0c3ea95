/* SPDX-License-Identifier: Apache-2.0 */
/* The 256-byte audit record: bytes, hash, seal (HW-8, HW-9; layout in docs/formats.md). */
#include <string.h>

#include "qsafp.h"
#include "record.h"

static void put(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    while (n--)
        v = v << 8 | p[n];
    return v;
}

void qsafp_record_encode(const qsafp_record_t *r, uint8_t out[256])
{
    memcpy(out, "QAR1", 4);
    put(out + 4, r->event, 2);
    put(out + 6, r->flags, 2);
    put(out + 8, r->seq, 8);
    put(out + 16, r->boot_ns, 8);
    put(out + 24, r->wall_ms, 8);
    put(out + 32, r->boot, 4);
    put(out + 36, r->reason, 4);
    put(out + 40, r->serial, 8);
    memcpy(out + 48, r->model, 32);
    memcpy(out + 80, r->evidence, 32);
    memcpy(out + 112, r->data, 96);
    memcpy(out + 208, r->hash, 32);
    memcpy(out + 240, r->seal, 16);
}

int qsafp_record_decode(qsafp_record_t *r, const uint8_t in[256])
{
    memset(r, 0, sizeof *r);
    if (memcmp(in, "QAR1", 4) != 0)
        return QSAFP_E_MALFORMED;
    r->event = (uint16_t)get(in + 4, 2);
    r->flags = (uint16_t)get(in + 6, 2);
    r->seq = get(in + 8, 8);
    r->boot_ns = get(in + 16, 8);
    r->wall_ms = get(in + 24, 8);
    r->boot = (uint32_t)get(in + 32, 4);
    r->reason = (uint32_t)get(in + 36, 4);
    r->serial = get(in + 40, 8);
    memcpy(r->model, in + 48, 32);
    memcpy(r->evidence, in + 80, 32);
    memcpy(r->data, in + 112, 96);
    memcpy(r->hash, in + 208, 32);
    memcpy(r->seal, in + 240, 16);
    bool event_ok = r->event >= QSAFP_EVENT_LEASE_ISSUED && r->event <= QSAFP_EVENT_CONTAINMENT;
    bool seal_due = r->seq % QSAFP_SECTOR_SLOTS == QSAFP_SECTOR_SLOTS - 1;
    bool flags_ok = !(r->flags & ~(unsigned)RECORD_FLAGS) && !!(r->flags & RECORD_SEALED) == seal_due && !!(r->flags & RECORD_WALL) == (r->wall_ms != 0);
    static const uint8_t none[16];
    if (!event_ok || !flags_ok || (!seal_due && memcmp(r->seal, none, 16) != 0))
        return QSAFP_E_MALFORMED;
    return 0;
}

void qsafp_record_hash(uint8_t out[32], const uint8_t prev[32], const uint8_t rec[256])
{
    qsafp_sha256_t s;
    qsafp_sha256_init(&s);
    qsafp_sha256_update(&s, prev, 32);
    qsafp_sha256_update(&s, rec, 208);
    qsafp_sha256_final(&s, out);
}

int qsafp_audit_verify(const uint8_t *recs, uint64_t n, uint8_t prev[32], uint64_t *bad)
{
    uint64_t seq = 0;
    for (uint64_t i = 0; i < n; i++) {
        qsafp_record_t r;
        uint8_t hash[32];
        const uint8_t *rec = recs + QSAFP_RECORD_BYTES * i;
        int err = qsafp_record_decode(&r, rec);
        qsafp_record_hash(hash, prev, rec);
        if (err || (i && r.seq != seq) || !qsafp_equal(hash, rec + 208, 32)) {
            *bad = i;
            return QSAFP_E_CORRUPT;
        }
        memcpy(prev, hash, 32);
        seq = r.seq + 1;
    }
    return 0;
}

void qsafp_seal_evolve(uint8_t k[32])
{
    uint8_t m[12 + 32];
    memcpy(m, "qsafp-evolve", 12);
    memcpy(m + 12, k, 32);
    qsafp_sha256(k, m, sizeof m);
    qsafp_wipe(m, sizeof m);
}

void qsafp_seal(uint8_t out[16], const uint8_t k[32], const uint8_t hash[32])
{
    uint8_t mac[32];
    qsafp_hmac_sha256(mac, k, 32, hash, 32);
    memcpy(out, mac, 16);
    qsafp_wipe(mac, sizeof mac);
}
