/* SPDX-License-Identifier: Apache-2.0 */
/* Consistent overhead byte stuffing, for command frames on a byte stream (UART, pty). */
#include "qsafp.h"

size_t qsafp_cobs_encode(uint8_t *out, const uint8_t *in, size_t n)
{
    size_t code = 0, w = 1;
    uint8_t run = 1;
    for (size_t i = 0; i < n; i++) {
        if (in[i]) {
            out[w++] = in[i];
            run++;
        }
        if (!in[i] || run == 0xFF) {
            out[code] = run;
            code = w++;
            run = 1;
        }
    }
    out[code] = run;
    return w;
}

int qsafp_cobs_decode(uint8_t *out, size_t *out_len, const uint8_t *in, size_t n)
{
    size_t w = 0, i = 0;
    while (i < n) {
        uint8_t run = in[i++];
        if (!run || i + run - 1 > n)
            return QSAFP_E_MALFORMED;
        for (uint8_t k = 1; k < run; k++) {
            if (!in[i])
                return QSAFP_E_MALFORMED;
            out[w++] = in[i++];
        }
        if (run < 0xFF && i < n)
            out[w++] = 0;
    }
    *out_len = w;
    return n ? 0 : QSAFP_E_MALFORMED;
}
