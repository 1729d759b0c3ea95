/* SPDX-License-Identifier: Apache-2.0 */
/* The 256-byte audit record: bytes, hash, seal (HW-8, HW-9; layout in docs/formats.md). */
#include <string.h>

#include "record.h"
#include "shape.h"

void record_new(qsafp_record_t *r, qsafp_event_t event, uint32_t reason)
{
    memset(r, 0, sizeof *r);
    r->event = (uint16_t)event;
    r->reason = reason;
}

int record_check(const qsafp_record_t *r)
{
    bool seal_due = record_sealed((uint32_t)r->seq);
    unsigned flags = r->flags & (unsigned)~(RECORD_EVIDENCE | RECORD_REPORTED);
    unsigned expected = (r->wall_ms ? RECORD_WALL : 0u) | (seal_due ? RECORD_SEALED : 0u);
    bool event_ok = r->event >= QSAFP_EVENT_LEASE_ISSUED && r->event <= QSAFP_EVENT_LOG_ANCHORED;
    static const uint8_t zeros[sizeof r->seal];
    bool seal_ok = seal_due || memcmp(r->seal, zeros, sizeof zeros) == 0;
    return r->magic == QSAFP_RECORD_MAGIC && r->seq < QSAFP_SEQ_MAX && event_ok && flags == expected && seal_ok ? 0 : QSAFP_E_MALFORMED;
}

int qsafp_record_decode(qsafp_record_t *r, const uint8_t in[256])
{
    memcpy(r, in, sizeof *r);
    return record_check(r);
}

void qsafp_record_hash(uint8_t out[32], const uint8_t prev[32], const uint8_t rec[256])
{
    qsafp_sha256_240(out, prev, rec);
}

int qsafp_audit_verify(const uint8_t *recs, uint64_t n, uint8_t prev[32], uint64_t *bad)
{
    const uint8_t *head = prev;
    uint64_t seq = 0;
    for (uint64_t i = 0; i < n; i++) {
        qsafp_record_t r;
        uint8_t hash[32];
        const uint8_t *rec = recs + QSAFP_RECORD_BYTES * i;
        int err = qsafp_record_decode(&r, rec);
        qsafp_record_hash(hash, head, rec);
        if (err || (i && r.seq != seq) || memcmp(hash, rec + 208, sizeof hash) != 0) {
            *bad = i;
            return QSAFP_E_CORRUPT;
        }
        head = rec + 208;
        seq = r.seq + 1;
    }
    memmove(prev, head, 32);
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
