/* SPDX-License-Identifier: Apache-2.0 */
/* Links a flag in place of the ARMv8 SHA-256, to see that the loader chose it.  Built and run by test_sha256_armv8.py. */
#include <sys/auxv.h>

#include "device.h"
#include "../../cext/src/sha256.h"

static int chosen;

void qsafp_sha256_blocks_armv8(uint32_t h[8], const uint8_t *p, size_t nblocks)
{
    chosen = 1;
    qsafp_sha256_blocks_portable(h, p, nblocks);
}

int main(void)
{
    uint8_t out[32];
    qsafp_sha256(out, "abc", 3);
    CHECK(out[0] == 0xba && out[31] == 0xad);
    CHECK(chosen == (int)(getauxval(AT_HWCAP) >> 6 & 1));
    printf("chosen %d\n", chosen);
    return DONE("armv8_sha256_select");
}
