/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
void *calloc(size_t n, size_t size);
