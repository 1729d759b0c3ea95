/* SPDX-License-Identifier: Apache-2.0 */
/* Which SHA-256 runs: decided once by the loader on x86-64 and 64-bit ARM under Linux (an ifunc: no writable global of ours,
 * no test per call), by the compiler's target elsewhere. */
#include <stdbool.h>

#include "qsafp_hash.h"
#include "sha256.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <immintrin.h>

__attribute__((target("sha,sse4.1,ssse3"))) static void blocks_ni(uint32_t h[8], const uint8_t *p, size_t nblocks)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll);
    __m128i lo = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)h), 0xB1);        /* c d a b */
    __m128i hi = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)(h + 4)), 0x1B);  /* e f g h */
    __m128i abef = _mm_alignr_epi8(lo, hi, 8), cdgh = _mm_blend_epi16(hi, lo, 0xF0);
    for (; nblocks; nblocks--, p += 64) {
        __m128i w[4], abef0 = abef, cdgh0 = cdgh;
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i)), swap);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i wk = _mm_add_epi32(w[i & 3], _mm_loadu_si128((const __m128i *)(const void *)(qsafp_sha256_k + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, wk);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(wk, 0x0E));
            if (i < 12) { /* w[i + 4] from w[i], w[i + 1], w[i + 2], w[i + 3] */
                __m128i t = _mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]);
                t = _mm_add_epi32(t, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
                w[i & 3] = _mm_sha256msg2_epu32(t, w[(i + 3) & 3]);
            }
        }
        abef = _mm_add_epi32(abef, abef0);
        cdgh = _mm_add_epi32(cdgh, cdgh0);
    }
    lo = _mm_shuffle_epi32(abef, 0x1B); /* f e b a -> a b e f */
    hi = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)(void *)h, _mm_blend_epi16(lo, hi, 0xF0));
    _mm_storeu_si128((__m128i *)(void *)(h + 4), _mm_alignr_epi8(hi, lo, 8));
}

typedef void blocks_fn(uint32_t h[8], const uint8_t *p, size_t nblocks);

__attribute__((used, no_sanitize("address", "undefined"))) static blocks_fn *resolve(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    bool ni = __get_cpuid(1, &a, &b, &c, &d) && c >> 19 & 1 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1;
    return ni ? blocks_ni : qsafp_sha256_blocks_portable;
}

void qsafp_sha256_blocks(uint32_t h[8], const uint8_t *p, size_t nblocks) __attribute__((ifunc("resolve")));
#elif defined(QSAFP_SHA256_ARMV8)
typedef void blocks_fn(uint32_t h[8], const uint8_t *p, size_t nblocks);

/* PORTABILITY: on this architecture the C library hands AT_HWCAP to the resolver; 1 << 6 is HWCAP_SHA2. */
__attribute__((used, no_sanitize("address", "undefined"))) static blocks_fn *resolve(uint64_t hwcap)
{
    return hwcap >> 6 & 1 ? qsafp_sha256_blocks_armv8 : qsafp_sha256_blocks_portable;
}

void qsafp_sha256_blocks(uint32_t h[8], const uint8_t *p, size_t nblocks) __attribute__((ifunc("resolve")));
#else
void qsafp_sha256_blocks(uint32_t h[8], const uint8_t *p, size_t nblocks)
{
    qsafp_sha256_blocks_portable(h, p, nblocks);
}
#endif
