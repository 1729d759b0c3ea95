/* SPDX-License-Identifier: Apache-2.0 */
/* What a board gives its boot stage. */
#ifndef QSAFP_BOOT_H
#define QSAFP_BOOT_H

#include "boot_table.h"
#include "image.h"

/* One kind of image: where it must run, and the two slots that may hold one, as flash that is mapped. */
typedef struct {
    const char *name;
    qsafp_image_place_t place; /* without counter and root, which are read at each reset */
    const uint8_t *slots[2];
} boot_kind_t;

extern const boot_kind_t boot_monitor, boot_payload;
extern const uint8_t boot_root[32]; /* made by the build: SHA-256 of the manufacturer root key */
extern qsafp_boot_table_t boot_table;

/* UART on; LEASE_VALID and FAILSAFE low and driven. */
void boot_board_start(void);
void boot_board_put(char c);
void boot_board_failsafe(void);
/* Lowest security version of a qsafp_image_kind_t. */
uint32_t boot_board_counter(uint32_t kind);
/* Raises it; what it could not raise shows when it is read again. */
void boot_board_raise(uint32_t kind, uint32_t to);

/* Fills boot_table, or does not return. */
void boot_main(void);
_Noreturn void boot_trap(void);
/* Waits for ever, interrupts off. */
_Noreturn void boot_stop(void);

#endif
