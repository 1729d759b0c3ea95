/* SPDX-License-Identifier: Apache-2.0 */
/* System registers of ARMv7-A with the security extensions and large addresses (Arm ARM DDI 0406, B4), for C and assembly. */
#ifndef QSAFP_SYSREG_H
#define QSAFP_SYSREG_H

#define MODE_MON 0x16
#define MODE_SVC 0x13
#define MODE_SYS 0x1F
#define PSR_F 0x40
#define PSR_MASKED 0x1C0 /* A, I, F */

/* SCR: fetches secure code only, FIQ come to Monitor mode and F masks none in the payload (FW 0); then the same beside non-secure registers. */
#define SCR_SECURE 0x204
#define SCR_PAYLOAD 0x205

#ifndef __ASSEMBLER__
#include <stdint.h>

#define CP_READ(name) __extension__({ uint32_t v_; __asm__ volatile("mrc p15, " name : "=r"(v_) : : "memory"); v_; })
#define CP_WRITE(name, v) __asm__ volatile("mcr p15, " name : : "r"((uint32_t)(v)) : "memory")
#define CP_READ64(name) __extension__({ uint64_t v_; __asm__ volatile("mrrc p15, " name : "=r"(v_) : : "memory"); v_; })
#define CP_WRITE64(name, v) __asm__ volatile("mcrr p15, " name : : "r"((uint64_t)(v)) : "memory")
#define ISB() __asm__ volatile("isb" : : : "memory")
#define DSB() __asm__ volatile("dsb" : : : "memory")

#define MPIDR "0, %0, c0, c0, 5"
#define SCTLR "0, %0, c1, c0, 0"
#define SCR "0, %0, c1, c1, 0"
#define NSACR "0, %0, c1, c1, 2"
#define TTBCR "0, %0, c2, c0, 2"
#define VBAR "0, %0, c12, c0, 0"
#define MVBAR "0, %0, c12, c0, 1"
#define CNTFRQ "0, %0, c14, c0, 0"
#define CNTP_CTL "0, %0, c14, c2, 1"
#define ICIALLU "0, %0, c7, c5, 0"
#define BPIALL "0, %0, c7, c5, 6"
#define TLBIALL "0, %0, c8, c7, 0"
#define CNTPCT_64 "0, %Q0, %R0, c14"
#define CNTP_CVAL_64 "2, %Q0, %R0, c14"

#define SCTLR_OFF 0x00C50078u /* what has to be one is; no MMU, no caches, exceptions in ARM state */
#define ALWAYS_ONE 0u         /* in descriptors of AArch64 alone */
#define SMC_OURS 0x83000000u
#endif

#endif
