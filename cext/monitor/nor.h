/* SPDX-License-Identifier: Apache-2.0 */
/* NOR flash, SPI behind board_spi or parallel: log and state of the monitor (HW-8).  Offsets are bytes from the start of the part. */
#ifndef QSAFP_NOR_H
#define QSAFP_NOR_H

#include <stdbool.h>
#include <stdint.h>

#include "qsafp.h"

enum { NOR_SECTOR = 4096, NOR_PAGE = 256 };

/* 0, or QSAFP_E_STORE when it takes too long, says that it failed, or reads back as something else. */
int nor_read(uint32_t at, void *buf, uint32_t len);
int nor_page(uint32_t at, const void *buf, uint32_t len); /* within erased bytes of one page; what lies there then is not looked at */
int nor_erase(uint32_t at);                               /* one sector */

/* cfi_bus.c: one access of the parts' 32 lines; off counts as above, in whole words */
uint32_t cfi_get(uint32_t off);
void cfi_put(uint32_t off, uint32_t v);

/* seal.c */
int seal_start(void);              /* finds the key; one that was never kept stays what the caller put there */
void seal_put(qsafp_record_t *r);
int seal_done(void);               /* the sealed record is durable: its key goes */

/* store.c */
int nor_prog(uint32_t at, const void *buf, uint32_t len); /* within erased bytes; read back */
int store_start(void);             /* finishes what a cut left; before the core reads */
/* the port's */
int log_read(void *ctx, uint32_t off, void *buf, uint32_t len);
int log_prog(void *ctx, uint32_t off, const void *buf, uint32_t len);
int log_erase(void *ctx, uint32_t sector);
int log_sync(void *ctx);
int state_read(void *ctx, void *buf, uint32_t len);
int state_write(void *ctx, const void *buf, uint32_t len);

#endif
