/* SPDX-License-Identifier: Apache-2.0 */
/* What the monitor promises the core: clock, keys, pins (HW-10, HW-11, HW-13). */
#include "monitor.h"

#include "nor.h"
#include "qsafp_ed25519.h"

enum { PULSE_NS = 100000000, PULSE_PERIOD_NS = 1000000000 };

static uint64_t now_ns(void *ctx)
{
    (void)ctx;
    return arch_ticks() * NS_PER_TICK;
}

static uint64_t counter_at(void *ctx, uint64_t ns)
{
    (void)ctx;
    return ns / NS_PER_TICK;
}

static uint64_t wall_ms(void *ctx)
{
    (void)ctx;
    return 0; /* no clock that keeps the time of day */
}

int fuses_read(void)
{
    const fuses_t *f = (const fuses_t *)FUSES_BASE;
    uint8_t hash[32];
    qsafp_sha256(hash, f, offsetof(fuses_t, check));
    if (f->magic != FUSES_MAGIC || f->version != 1 || !qsafp_equal(hash, f->check, sizeof hash))
        return QSAFP_E_KEY;
    memcpy(m.secret, f->seed, 32);
    memcpy(m.nonce_key, f->nonce_key, sizeof m.nonce_key);
    memcpy(m.seal_key, f->seal_key, sizeof m.seal_key);
    return 0;
}

/* The board has no source: 32 bytes come from outside at each start, and none is a failure. */
int entropy_take(void)
{
    static const uint8_t none[sizeof m.pool];
    memcpy(m.pool, (const void *)ENTROPY_BASE, sizeof m.pool);
    memset((void *)ENTROPY_BASE, 0, sizeof m.pool); /* once */
    return qsafp_equal(m.pool, none, sizeof none) ? QSAFP_E_ENTROPY : 0;
}

/* HMAC in counter mode over the pool. */
static int entropy(void *ctx, uint8_t *buf, size_t len)
{
    uint8_t block[32];
    (void)ctx;
    for (size_t at = 0; at < len; at += sizeof block) {
        m.drawn++;
        qsafp_hmac_sha256(block, m.pool, sizeof m.pool, &m.drawn, sizeof m.drawn);
        memcpy(buf + at, block, len - at < sizeof block ? len - at : sizeof block);
    }
    qsafp_wipe(block, sizeof block);
    return 0;
}

static int nonce_mac(void *ctx, uint8_t out[32], const uint8_t *msg, size_t len)
{
    (void)ctx;
    qsafp_hmac_sha256(out, m.nonce_key, sizeof m.nonce_key, msg, len);
    return 0;
}

static int sign(void *ctx, uint8_t sig[64], const uint8_t *msg, size_t len)
{
    (void)ctx;
    qsafp_ed25519_sign(sig, m.secret, msg, len);
    return 0;
}

static int verify(void *ctx, const uint8_t sig[64], const uint8_t pk[32], const uint8_t *msg, size_t len)
{
    (void)ctx;
    return qsafp_ed25519_verify(sig, pk, msg, len);
}

static int set_lease_valid(void *ctx, int level)
{
    (void)ctx;
    board_pin(PIN_LEASE_VALID, level);
    return 0;
}

/* Pulses, 100 ms of every second, so that a stuck line does not pass for one. */
static int set_failsafe(void *ctx, int level)
{
    uint64_t now = now_ns(ctx);
    if (!level)
        m.failsafe_ns = 0;
    else if (!m.failsafe_ns)
        m.failsafe_ns = now;
    board_pin(PIN_FAILSAFE, level && (now - m.failsafe_ns) % PULSE_PERIOD_NS < PULSE_NS);
    return 0;
}

static int toggle_validator_req(void *ctx)
{
    (void)ctx;
    m.query = !m.query;
    board_pin(PIN_VALIDATOR_REQ, m.query);
    return 0;
}

/* No store for evidence: the agent keeps the bytes under the hash that the record names. */
static int evidence_put(void *ctx, const uint8_t hash[32], const uint8_t *bytes, size_t len)
{
    (void)ctx;
    (void)hash;
    (void)bytes;
    (void)len;
    return 0;
}

static void lock(void *ctx)
{
    (void)ctx;
    m.masked = arch_lock();
}

static void unlock(void *ctx)
{
    (void)ctx;
    arch_unlock(m.masked);
}

static void kick(void *ctx)
{
    (void)ctx;
    arch_alarm(0);
}

const qsafp_port_t monitor_port = {
    .now_ns = now_ns, .counter_at = counter_at, .wall_ms = wall_ms, .entropy = entropy, .nonce_mac = nonce_mac, .sign = sign, .verify_ed25519 = verify,
    .set_lease_valid = set_lease_valid, .set_failsafe = set_failsafe, .toggle_validator_req = toggle_validator_req, .log_read = log_read,
    .log_prog = log_prog, .log_erase = log_erase, .log_sync = log_sync, .evidence_put = evidence_put, .state_load = state_read,
    .state_save = state_write, .lock = lock, .unlock = unlock, .kick = kick,
};
