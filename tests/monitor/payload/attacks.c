/* SPDX-License-Identifier: Apache-2.0 */
#include "os.h"

void attack(uint32_t which)
{
    (void)which;
}

void help(uint32_t which)
{
    (void)which;
}
