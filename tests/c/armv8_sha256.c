/* SPDX-License-Identifier: Apache-2.0 */
/* The ARMv8 SHA-256 against the portable one, called directly.  Built and run by test_sha256_armv8.py. */
#include "device.h"
#include "../../cext/src/sha256.h"

int main(void)
{
    static uint8_t data[64 * 41 + 3];
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 24);
    for (size_t blocks = 0; blocks <= 40; blocks++)
        for (size_t offset = 0; offset < 4; offset++) {
            uint32_t a[8] = {1, 2, 3, 4, 5, 6, 7, 8}, b[8] = {1, 2, 3, 4, 5, 6, 7, 8};
            qsafp_sha256_blocks_armv8(a, data + offset, blocks);
            qsafp_sha256_blocks_portable(b, data + offset, blocks);
            CHECK(memcmp(a, b, sizeof a) == 0);
        }
    return DONE("armv8_sha256");
}
