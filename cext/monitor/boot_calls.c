/* SPDX-License-Identifier: Apache-2.0 */
/* The core's hash and verify functions in the monitor: calls through the boot stage's table instead of a second copy of them. */
#include "boot_table.h"
#include "map.h"
#include "monitor.h"
#include "qsafp_ed25519.h"
#include "qsafp_ed25519_edge.h"
#include "qsafp_sha512.h"

#define BOOT ((const qsafp_boot_table_t *)BOOT_TABLE)

void boot_measure(qsafp_t *q)
{
    if (BOOT->magic != QSAFP_BOOT_MAGIC || BOOT->version != QSAFP_BOOT_VERSION || BOOT->board != BOARD_ID)
        monitor_halt("another boot stage");
    q->cfg.level = 4; /* below the operating system: validators grant it to the images they know */
    q->evidence = QSAFP_EVIDENCE_IMAGE;
    memcpy(q->measurement, BOOT->monitor.sha256, sizeof q->measurement);
}

int boot_keep(void) { return BOOT->counter_raise(); }

void qsafp_sha256_init(qsafp_sha256_t *s) { BOOT->sha256_init(s); }
void qsafp_sha256_update(qsafp_sha256_t *s, const void *p, size_t n) { BOOT->sha256_update(s, p, n); }
void qsafp_sha256_final(qsafp_sha256_t *s, uint8_t out[32]) { BOOT->sha256_final(s, out); }
void qsafp_sha256(uint8_t out[32], const void *p, size_t n) { BOOT->sha256(out, p, n); }
void qsafp_sha256_240(uint8_t out[32], const uint8_t head[32], const uint8_t tail[208]) { BOOT->sha256_240(out, head, tail); }
void qsafp_sha512(uint8_t out[64], const void *p, size_t n) { BOOT->sha512(out, p, n); }
int qsafp_equal(const uint8_t *a, const uint8_t *b, size_t n) { return BOOT->equal(a, b, n); }
void qsafp_wipe(void *p, size_t n) { BOOT->wipe(p, n); }
void qsafp_ed25519_public(uint8_t pk[32], const uint8_t seed[32]) { BOOT->ed25519_public(pk, seed); }
int qsafp_ed25519_edge_ok(const uint8_t sig[64], const uint8_t pk[32]) { return BOOT->ed25519_edge_ok(sig, pk); }

void qsafp_hmac_sha256(uint8_t out[32], const uint8_t *key, size_t klen, const void *msg, size_t n)
{
    BOOT->hmac_sha256(out, key, klen, msg, n);
}

int qsafp_mldsa65_verify(const uint8_t pk[1952], const qsafp_mldsa65_msg_t *msg, const uint8_t sig[3309])
{
    return BOOT->mldsa65_verify(pk, msg, sig);
}

int qsafp_ed25519_verify(const uint8_t sig[64], const uint8_t pk[32], const uint8_t *msg, size_t len)
{
    return BOOT->ed25519_verify(sig, pk, msg, len);
}

void qsafp_ed25519_sign(uint8_t sig[64], const uint8_t secret[64], const uint8_t *msg, size_t len)
{
    BOOT->ed25519_sign(sig, secret, msg, len);
}
