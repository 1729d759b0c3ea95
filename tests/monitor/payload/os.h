/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAYLOAD_OS_H
#define PAYLOAD_OS_H

#include "monitor_map.h"
#include "qsafp.h"
#include "arch.h" /* of the architecture */

/* The test puts the number of the attack here, and reads what came of it from the words after. */
#define ORDERS (PAYLOAD_BASE + 0x3FF000u)
typedef struct {
    uint32_t attack;   /* 0: none */
    uint32_t finished; /* the attack came to its end */
    uint64_t batches;  /* inferences admitted */
    uint64_t refused;  /* checks that said no */
    uint64_t leaked;   /* what an attack read that it should not have */
    uint64_t moved;    /* what it wrote and read back */
    uint64_t answers;  /* service calls that were answered */
    uint64_t odd;      /* answers that should not exist */
    uint64_t started;  /* times that each hart began, by bits of 32 */
    uint64_t early;    /* TOLD and what validate said before there was any lease */
    uint64_t under;    /* the same, under the first */
    uint64_t renews;   /* from outside, too: not 0, it attacks under the second lease, else under the first */
} orders_t;
#define TOLD (1ull << 32)
#define orders ((volatile orders_t *)(uintptr_t)ORDERS)

typedef struct { int64_t err; uint64_t value; } asked_t;
asked_t ask(uint64_t function, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
#define NOWHERE 0xC0000000u /* no memory, or on the way there: page tables that are in none */
enum { VALIDATE = 0, FRAME = 1, CHECKPOINT = 2, FRAME_MAX = 4 + QSAFP_FRAME_MAX + 4 };

extern volatile uint64_t traps[HARTS]; /* of each hart */
static inline uint64_t trapped(void) { return traps[hart_here()]; }
extern volatile uint8_t region[4096]; /* what is checkpointed */

#define gate_page ((volatile qsafp_gate_page_t *)GATE_PAGE) /* where the payload may read it */
bool gate_open(void);
/* One command; the length of the answer, or the negative error of the call. */
int64_t frame(uint8_t opcode, const void *payload, size_t n, uint8_t *answer);
void work(void);

/* 1 if nothing stopped the access. */
uint64_t reads(uint64_t at);
uint64_t writes(uint64_t at, uint32_t v);
void each(const uint64_t *at, unsigned n, uint32_t v);
#define EACH(list, v) each(list, sizeof list / sizeof *list, v)

/* reach.c */
void mask(void);
void timer(void);
void memory(void);
void gpio(void);
void flash(void);
void protection(void);
void dma(void);
void jump(void);

/* attacks.c: before any lease; then on hart 1, and beside it on hart 2 */
void ask_early(uint32_t which);
void attack(uint32_t which);
void help(uint32_t which);

#endif
