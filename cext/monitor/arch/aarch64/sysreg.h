/* SPDX-License-Identifier: Apache-2.0 */
/* System registers of AArch64 (Arm ARM DDI 0487, D17). */
#ifndef QSAFP_SYSREG_H
#define QSAFP_SYSREG_H

#include <stdint.h>

#define SYS_READ(name) __extension__({ uint64_t v_; __asm__ volatile("mrs %0, " #name : "=r"(v_) : : "memory"); v_; })
#define SYS_WRITE(name, v) __asm__ volatile("msr " #name ", %0" : : "r"((uint64_t)(v)) : "memory")
#define ISB() __asm__ volatile("isb" : : : "memory")

#define ALWAYS_ONE (1u << 6)      /* in descriptors of EL3 */
#define SMC_OURS 0xC3000000u

#define SPSR_MASKED 0x3C0u /* D, A, I, F */
#define SPSR_F 0x40u
#define SPSR_MODE 0xFu
#define SPSR_A32 0x10u
#define SPSR_EL1H 5u

#endif
