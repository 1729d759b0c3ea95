/* SPDX-License-Identifier: Apache-2.0 */
/* What a board promises the core.  Every function takes its own `ctx` first and returns 0 or a (negative)
 * qsafp_error_t; none may call back into the core.  Functions marked ANY THREAD are called by the service
 * and the deadline thread; all others by the service thread alone. */
#ifndef QSAFP_PORT_H
#define QSAFP_PORT_H

#include <stddef.h>
#include <stdint.h>

typedef struct { const uint8_t *p; size_t len; } qsafp_bytes;

typedef struct {
    /* Boot-time clock, ns: never goes back, counts suspend where the board can.  ANY THREAD. */
    uint64_t (*now_ns)(void *ctx);
    /* CPU counter value that equals boot time `ns`; 0 if the board has no trusted counter.  ANY THREAD. */
    uint64_t (*counter_at)(void *ctx, uint64_t ns);
    /* Wall clock, Unix ms; 0 if it is not known to be set.  Recorded, never trusted. */
    uint64_t (*wall_ms)(void *ctx);
    /* Fills buf with entropy, or fails; partial entropy is a failure. */
    int (*entropy)(void *ctx, uint8_t *buf, size_t len);
    /* HMAC-SHA-256 under the device nonce key, which never leaves the port (HW-11). */
    int (*nonce_mac)(void *ctx, uint8_t out[32], const uint8_t *msg, size_t len);
    /* Signature under the device key, which never leaves the port (HW-11), of the algorithm that cfg.alg names: Ed25519, or
     * ESP256 as r || s, big-endian, s at most half the order. */
    int (*sign)(void *ctx, uint8_t sig[64], const uint8_t *msg, size_t len);
    /* 0 if sig verifies.  The core has refused edge-case points and S >= L before it asks. */
    int (*verify_ed25519)(void *ctx, const uint8_t sig[64], const uint8_t pk[32], const uint8_t *msg, size_t len);

    /* Drive LEASE_VALID / FAILSAFE; 0 is the safe level of the first.  A failed call is retried every tick.  ANY THREAD. */
    int (*set_lease_valid)(void *ctx, int level);
    int (*set_failsafe)(void *ctx, int level);
    /* Toggle VALIDATOR_REQ once per query (HW-13). */
    int (*toggle_validator_req)(void *ctx);

    /* Append-only store of the audit log: `slots` x 256 bytes.  Erased bytes read 0xFF; prog may be cut
     * short by power loss at any byte; the slot that a cut left half written is given to prog again, which
     * replaces what is there.  sync returns once everything programmed before it is durable. */
    int (*log_read)(void *ctx, uint32_t off, void *buf, uint32_t len);
    int (*log_prog)(void *ctx, uint32_t off, const void *buf, uint32_t len);
    int (*log_erase)(void *ctx, uint32_t sector); /* one sector of 16 slots becomes 0xFF */
    int (*log_sync)(void *ctx);
    /* Evidence: bytes stored durably under their SHA-256 before this returns 0. */
    int (*evidence_put)(void *ctx, const uint8_t hash[32], const uint8_t *bytes, size_t len);
    /* The guard's small state: replaced whole and durably, or left as it was.  load: QSAFP_E_STORE if none was ever saved. */
    int (*state_load)(void *ctx, void *buf, uint32_t len);
    int (*state_save)(void *ctx, const void *buf, uint32_t len);

    /* A lock held for well under a microsecond around published fields; may be 0 on a single thread.  ANY THREAD. */
    void (*lock)(void *ctx);
    void (*unlock)(void *ctx);
    /* Wake the deadline thread for qsafp_tick and the service thread for qsafp_service; may be 0 where one loop calls both.  ANY THREAD. */
    void (*kick)(void *ctx);

    /* What attests the state of this device to this request (docs/formats.md, Quote), named by the hash of its payload; *quote stays as it
     * is until the next call.  May be 0: requests come without. */
    int (*quote)(void *ctx, const uint8_t request_hash[32], qsafp_bytes *quote);
} qsafp_port_t;

#endif
