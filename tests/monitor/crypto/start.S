/* SPDX-License-Identifier: Apache-2.0 */
    .section .text.start, "ax"
    .globl _start
_start:
    csrr t0, mhartid
1:  bnez t0, 1b
    la sp, stack_top
    call count_main
    .section .bss
    .balign 16
    .space 0x6000
stack_top:
