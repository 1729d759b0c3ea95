/* SPDX-License-Identifier: Apache-2.0 */
/* Prints how many bytes of stack one verification used: a painted stack, read after the call.  Run by test_mldsa65.py. */
#define _XOPEN_SOURCE 700 /* pthread_attr_setstack */
#include <pthread.h>
#include <string.h>

#include "mldsa65_vector.h"

enum { PAINT = 0xA5 };

static _Alignas(4096) uint8_t stack[1 << 18];
static mldsa65_vector_t v;
static long used;
static int result;

static long lowest_touched(void)
{
    size_t i = 0;
    while (i < sizeof stack && stack[i] == PAINT)
        i++;
    return (long)i;
}

static void *verify_here(void *arg)
{
    uint8_t *frame = __builtin_frame_address(0);
    memset(stack, PAINT, (size_t)(frame - stack) - 512); /* below this frame, and below memset's own */
    result = qsafp_mldsa65_verify(v.pk, &MLDSA65_MSG, v.sig);
    used = frame - stack - lowest_touched();
    return arg;
}

int main(void)
{
    pthread_t thread;
    pthread_attr_t attr;
    if (!mldsa65_vector_read(&v) || pthread_attr_init(&attr) || pthread_attr_setstack(&attr, stack, sizeof stack) ||
        pthread_create(&thread, &attr, verify_here, 0) || pthread_join(thread, 0) || result)
        return 1;
    printf("%ld\n", used);
    return 0;
}
