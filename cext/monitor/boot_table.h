/* SPDX-License-Identifier: Apache-2.0 */
/* What the boot stage hands to the monitor: what it verified, and its own verify and hash functions, so that the monitor links no
 * second copy of them.  docs/design.md, Boot, tells the order of things.
 *
 * The table lies at the board's BOOT_TABLE (board_ports/<board>/map.h), inside the boot stage's region, which is read-only for every
 * privilege level from before the monitor's first instruction until reset.
 *
 * RV64 hand-over: every hart enters the monitor image at its entry in M-mode, interrupts off, with a0 = hart id, a1 = address of the table,
 * pmpcfg0 byte 0 / pmpaddr0 = the boot stage and the monitor image, locked, read and execute; PMP entries from 1 are free and off.
 * No stack, no gp, no tp, no mtvec.  Hart 0 comes first; the others come when it has written their msip, which they clear again.
 * AArch64 hand-over: every core enters at EL3, DAIF masked, with x0 = core, memory management and caches on, the 2 MB with boot stage, table,
 * image and page tables read-only.  No stack; VBAR_EL3 is the boot stage's.  Core 0 comes first; the others wait for software interrupt 8.
 * ARMv7 hand-over: the same in System mode of the secure side, A, I, F masked, with r0 = core, in ARM state; VBAR is the boot stage's.
 * The monitor image is text and read-only data alone: its .bss, stacks and data lie in MONITOR_RAM, which is not zeroed. */
#ifndef QSAFP_BOOT_TABLE_H
#define QSAFP_BOOT_TABLE_H

#include "qsafp_hash.h"
#include "qsafp_mldsa65.h"

enum {
    QSAFP_BOOT_MAGIC = 0x31544251, /* "QBT1" */
    QSAFP_BOOT_VERSION = 1,        /* of the table: the monitor halts on another one */
};

/* One image that was verified after it had been copied to where it runs. */
typedef struct {
    uint64_t load;  /* first byte in memory */
    uint64_t entry; /* first instruction */
    uint32_t size;  /* bytes */
    uint32_t security_version;
    uint32_t slot; /* 0 or 1 */
    uint32_t counter; /* security version below which none of this kind boots, as read at this reset */
    uint8_t sha256[32]; /* of the bytes in memory; the monitor's is the measurement in lease requests */
} qsafp_boot_image_t;

typedef struct {
    uint32_t magic;
    uint16_t version;
    uint16_t bytes; /* of the whole table */
    uint32_t board; /* qsafp_board_t */
    uint32_t zero;
    qsafp_boot_image_t monitor, payload;

    /* As in qsafp_hash.h, qsafp_mldsa65.h and qsafp_ed25519_edge.h. */
    void (*sha256_init)(qsafp_sha256_t *s);
    void (*sha256_update)(qsafp_sha256_t *s, const void *p, size_t n);
    void (*sha256_final)(qsafp_sha256_t *s, uint8_t out[32]);
    void (*sha256)(uint8_t out[32], const void *p, size_t n);
    void (*sha256_240)(uint8_t out[32], const uint8_t head[32], const uint8_t tail[208]);
    void (*hmac_sha256)(uint8_t out[32], const uint8_t *key, size_t klen, const void *msg, size_t n);
    void (*sha512)(uint8_t out[64], const void *p, size_t n);
    int (*equal)(const uint8_t *a, const uint8_t *b, size_t n);
    void (*wipe)(void *p, size_t n);
    int (*mldsa65_verify)(const uint8_t pk[1952], const qsafp_mldsa65_msg_t *m, const uint8_t sig[3309]);
    int (*ed25519_edge_ok)(const uint8_t sig[64], const uint8_t pk[32]);
    /* As in qsafp_ed25519.h. */
    int (*ed25519_verify)(const uint8_t sig[64], const uint8_t pk[32], const uint8_t *msg, size_t len);
    void (*ed25519_public)(uint8_t pk[32], const uint8_t seed[32]);
    void (*ed25519_sign)(uint8_t sig[64], const uint8_t secret[64], const uint8_t *msg, size_t len);
    /* Raises both counters to the security versions of what runs: to be called once a lease was obtained.  0 if they read back as
     * that or more, QSAFP_E_STORE if not. */
    int (*counter_raise)(void);
} qsafp_boot_table_t;

#endif
