/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 by the ARMv8 cryptographic instructions; sha256_select.c calls it only where the processor has them. */
#include "sha256.h"

#ifdef QSAFP_SHA256_ARMV8
#include <arm_neon.h>

__attribute__((target("+crypto"))) void qsafp_sha256_blocks_armv8(uint32_t h[8], const uint8_t *p, size_t nblocks)
{
    uint32x4_t abcd = vld1q_u32(h), efgh = vld1q_u32(h + 4);
    for (; nblocks; nblocks--, p += 64) {
        uint32x4_t w[4], abcd0 = abcd, efgh0 = efgh;
        for (unsigned i = 0; i < 4; i++)
            w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(p + 16 * i)));
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++) {
            uint32x4_t wk = vaddq_u32(w[i & 3], vld1q_u32(qsafp_sha256_k + 4 * i)), before = abcd;
            abcd = vsha256hq_u32(abcd, efgh, wk);
            efgh = vsha256h2q_u32(efgh, before, wk);
            if (i < 12) /* words 4 i + 16 to 4 i + 19 of the schedule */
                w[i & 3] = vsha256su1q_u32(vsha256su0q_u32(w[i & 3], w[(i + 1) & 3]), w[(i + 2) & 3], w[(i + 3) & 3]);
        }
        abcd = vaddq_u32(abcd, abcd0);
        efgh = vaddq_u32(efgh, efgh0);
    }
    vst1q_u32(h, abcd);
    vst1q_u32(h + 4, efgh);
}
#endif
