/* SPDX-License-Identifier: Apache-2.0 */
/* All of libc that the core asks for. */
#include <stdint.h>
#include <string.h>

typedef uint32_t __attribute__((may_alias)) word_t;

static int words(const void *a, const void *b, size_t len)
{
    return !(((uintptr_t)a | (uintptr_t)b | len) % sizeof(word_t));
}

void *memcpy(void *restrict to, const void *restrict from, size_t len)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    if (words(to, from, len))
        for (size_t i = 0; i < len; i += sizeof(word_t))
            *(word_t *)(t + i) = *(const word_t *)(f + i);
    else
        for (size_t i = 0; i < len; i++)
            t[i] = f[i];
    return to;
}

void *memmove(void *to, const void *from, size_t len)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    if (t <= f || t >= f + len)
        return memcpy(to, from, len);
    if (words(to, from, len))
        for (size_t i = len; i; i -= sizeof(word_t))
            *(word_t *)(t + i - sizeof(word_t)) = *(const word_t *)(f + i - sizeof(word_t));
    else
        while (len--)
            t[len] = f[len];
    return to;
}

void *memset(void *to, int byte, size_t len)
{
    uint8_t *t = to;
    while (len--)
        *t++ = (uint8_t)byte;
    return to;
}

int memcmp(const void *a, const void *b, size_t len)
{
    const uint8_t *x = a, *y = b;
    for (; len; len--, x++, y++)
        if (*x != *y)
            return *x < *y ? -1 : 1;
    return 0;
}
