/* SPDX-License-Identifier: Apache-2.0 */
/* What the audit log's ring lies on (HW-8): a file, SPI NOR flash, or an I2C EEPROM.  One owner at a time: the log writer, and
 * whoever opens it before.  Offsets and lengths are bytes, of whole slots. */
#ifndef QSAFP_RING_H
#define QSAFP_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guard.h"

enum { SLOT = QSAFP_RECORD_BYTES, PAGE_SLOTS = QSAFP_SECTOR_SLOTS, PAGE = SLOT * PAGE_SLOTS };

struct host;
typedef struct ring ring_t;

/* All that return bool: false and, where there is more to say than errno does, the reason in `why`. */
typedef struct {
    /* Claims it and finds its size; with `create` it holds erased bytes after, or this fails.  0, or negative after fail(). */
    int (*open)(struct host *h, bool create);
    bool (*read)(ring_t *r, uint32_t off, uint8_t *buf, uint32_t len);
    bool (*erase)(ring_t *r, uint32_t sector); /* 0xFF all over it; may be cut anywhere */
    bool (*prog)(ring_t *r, uint32_t off, const uint8_t *buf, uint32_t len); /* onto erased bytes; may be cut at any byte */
    bool (*sync)(ring_t *r);  /* what was erased and programmed is durable */
    bool overwrites;          /* prog may go onto other bytes too */
    bool groups;              /* a sync covers many sectors; if not, a commit is a page of records, and erases before them only */
} ring_ops_t;

struct ring {
    const ring_ops_t *is;
    int fd;
    uint32_t bytes;           /* what it has: the ring takes sectors from its start */
    uint32_t page, chunk;     /* most bytes of one program, and of one read */
    uint32_t address;         /* I2C */
    uint8_t erase_op;         /* SPI */
    uint64_t cycles;          /* sectors erased since it was opened */
    char name[200], why[200];
};

extern const ring_ops_t RING_FILE, RING_SPI, RING_I2C; /* files.c, spi_nor.c, i2c_eeprom.c */

#define RING_NO(r, ...) ((void)snprintf((r)->why, sizeof (r)->why, __VA_ARGS__), false)

/* ring.c: for parts on a bus */
int ring_claim(struct host *h);                                            /* opens log.device */
int ring_blank(struct host *h);                                            /* refuses what is not, erased before if asked */
bool ring_wait(ring_t *r, bool (*done)(ring_t *r), uint32_t limit_ms);     /* false if it was not done in time */
bool ring_same(ring_t *r, uint32_t off, const uint8_t *buf, uint32_t len); /* reads back */

#endif
