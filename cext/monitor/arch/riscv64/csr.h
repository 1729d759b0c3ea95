/* SPDX-License-Identifier: Apache-2.0 */
/* Control registers of RISC-V (privileged architecture 1.10 and later). */
#ifndef QSAFP_CSR_H
#define QSAFP_CSR_H

#include <stdint.h>

#define CSR_READ(name) __extension__({ uint64_t v_; __asm__ volatile("csrr %0, " #name : "=r"(v_) : : "memory"); v_; })
#define CSR_WRITE(name, v) __asm__ volatile("csrw " #name ", %0" : : "r"((uint64_t)(v)) : "memory")
#define CSR_SET(name, v) __asm__ volatile("csrs " #name ", %0" : : "r"((uint64_t)(v)) : "memory")
#define CSR_CLEAR(name, v) __asm__ volatile("csrc " #name ", %0" : : "r"((uint64_t)(v)) : "memory")

#define STATUS_SIE 0x2u
#define STATUS_MIE 0x8u
#define STATUS_SPIE 0x20u
#define STATUS_MPIE 0x80u
#define STATUS_SPP 0x100u
#define STATUS_MPP 0x1800u
#define STATUS_MPP_S 0x800u
#define STATUS_MPRV 0x20000u

#define INTERRUPT 0x8000000000000000u
#define IRQ_SOFTWARE 3
#define IRQ_TIMER 7
#define IRQ_EXTERNAL 11

#endif
