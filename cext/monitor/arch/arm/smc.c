/* SPDX-License-Identifier: Apache-2.0 */
/* Service calls by SMCCC: its version, and ours among the OEM's fast ones (docs/design.md, Monitor). */
#include "cpu.h"
#include "sysreg.h"

enum { VERSION_1_1 = 0x10001, SMC_UNKNOWN = -1 };
#define SMC_VERSION 0x80000000u

result_t smc(core_t *c, uint32_t number, const uintptr_t arg[4])
{
    switch (number) {
    case SMC_VERSION:
        return (result_t){VERSION_1_1, arg[0]};
    case SMC_OURS:
        return (result_t){CALL_OK, call_validate()};
    case SMC_OURS + 1:
        return call_frame(c, arg);
    case SMC_OURS + 2:
        return call_checkpoint(c, arg[0], arg[1]);
    default:
        return (result_t){SMC_UNKNOWN, arg[0]};
    }
}
