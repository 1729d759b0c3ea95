/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the state machine: atomic words, and what its files share.
 *
 *   who writes what (docs/design.md draws it)
 *     page->armed      qsafp_trip (any thread) closes; qsafp_put alone arms, by compare-and-swap
 *     page->deadline   qsafp_tick alone
 *     lease_end_ns     qsafp_put alone
 *     latch            qsafp_trip raises; qsafp_put clears on release, before it arms
 *
 *   I1 open only while armed and the deadline lies ahead, inside the window
 *   I2 armed only by m valid votes over bytes this guard proposed
 *   I3 a fail-safe wins every race with a lease: armed ends as its generation
 *   I4 LEASE_VALID is high only while status is VALID
 *   I5 a latch is cleared only by a lease that answers its record
 *   I6 a serial, head or signature leaves only after it is durable
 *   I7 lease time counts from before the nonce is made
 *   I8 the log that a request covers is durable when the request is signed */
#ifndef QSAFP_CORE_H
#define QSAFP_CORE_H

#include <string.h>

#include "qsafp.h"

enum { UNTOLD_FAILSAFE = 1, UNTOLD_EXPIRED = 2 };

#if defined(__GCC_HAVE_SYNC_COMPARE_AND_SWAP_4)
static inline uint32_t load32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline void store32(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
static inline uint32_t add32(uint32_t *p, uint32_t v) { return __atomic_add_fetch(p, v, __ATOMIC_SEQ_CST); }
static inline uint32_t or32(uint32_t *p, uint32_t v) { return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST); }
static inline uint32_t swap32(uint32_t *p, uint32_t v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
bool cas32(uint32_t *p, uint32_t expect, uint32_t v); /* port.c: a loop on 32-bit processors */
#else /* PORTABILITY: ARMv6-M has no exclusive access; there the tick runs in the service loop, never beside it */
static inline uint32_t load32(const uint32_t *p) { return *(const volatile uint32_t *)p; }
static inline void store32(uint32_t *p, uint32_t v) { *(volatile uint32_t *)p = v; }
static inline uint32_t add32(uint32_t *p, uint32_t v) { store32(p, load32(p) + v); return load32(p); }
static inline uint32_t or32(uint32_t *p, uint32_t v) { uint32_t was = load32(p); store32(p, was | v); return was; }
static inline uint32_t swap32(uint32_t *p, uint32_t v) { uint32_t was = load32(p); store32(p, v); return was; }
static inline bool cas32(uint32_t *p, uint32_t expect, uint32_t v)
{
    if (load32(p) != expect)
        return false;
    store32(p, v);
    return true;
}
#endif

static inline uint64_t load64(const uint64_t *p) { return qsafp_gate_load(p); }
#if defined(__GCC_HAVE_SYNC_COMPARE_AND_SWAP_8) || __SIZEOF_POINTER__ == 8
void store64(uint64_t *p, uint64_t v); /* port.c: a loop on 32-bit processors */
#else
static inline void store64(uint64_t *p, uint64_t v) { *(volatile uint64_t *)p = v; }
#endif

/* Of a span that this guard was configured with or granted: at most 31 days (config_ok), so 32 bits of ms. */
static inline uint64_t ns_of(uint64_t ms) { return (uint64_t)(uint32_t)ms * 1000000u; }

/* port.c: the optional calls, where the board has them. */
void port_lock(const qsafp_t *q);
void port_unlock(const qsafp_t *q);
void port_kick(const qsafp_t *q);
uint64_t port_now(const qsafp_t *q);
/* The deadline thread publishes whether a request is pending: it changes under the lock. */
void set_pending(qsafp_t *q, bool active);
/* The token's hash, and the token under it in the evidence store. */
QSAFP_MUST_USE int keep_evidence(qsafp_t *q, const uint8_t *token, size_t len, uint8_t hash[32]);
/* Log and state durable, in this order. */
QSAFP_MUST_USE int sync_and_save(qsafp_t *q);

/* page.c */
bool armed(const qsafp_t *q);
void page_init(qsafp_t *q);
void page_deadline(qsafp_t *q, uint64_t ns);
/* The part that readers take under the seqlock. */
void page_publish(qsafp_t *q, uint64_t now);
/* Closed for good. */
void page_close(qsafp_t *q);

/* lease.c */
/* Status, phase, reason and what remains. */
void look_at(qsafp_t *q, uint64_t now, qsafp_view_t *v);
/* The answer to command 0x01; returns its length. */
size_t status_answer(qsafp_t *q, uint8_t *out);
QSAFP_MUST_USE int state_save(qsafp_t *q);
/* A record as it is, under the serial and model of now: qsafp_note without its checkpoint and its trip. */
QSAFP_MUST_USE int append(qsafp_t *q, qsafp_record_t *r);
/* A record with evidence (or 0) and one byte of data, the validator it is about. */
QSAFP_MUST_USE int note(qsafp_t *q, qsafp_event_t event, uint32_t reason, const uint8_t evidence[32], int index);
/* request.c */
bool pending_live(const qsafp_t *q);
/* A request that too many refused is given up: people who release it later need not wait for its end. */
bool votes_left(const qsafp_t *q);
/* verify.c: a signature by the validator with this index, as cose_verify. */
QSAFP_MUST_USE int vote_verify(qsafp_t *q, qsafp_tbs_t *what, const qsafp_cose_sig *s, int index);
/* failsafe.c: the latched record for envelopes; what the service thread records, bits of UNTOLD_; and true if people must consent
 * before `reason` is released (requirements note 12) */
QSAFP_MUST_USE int keep_latched(qsafp_t *q);
void tell_later(qsafp_t *q, uint32_t what);
bool needs_people(uint32_t reason);

#endif
