/* SPDX-License-Identifier: Apache-2.0 */
/* Counts instructions of each primitive and of a renewal; QEMU's -icount shift=0 makes minstret exact.  Inputs are loaded at INPUTS. */
#include <string.h>

#include "map.h"
#include "qsafp_ed25519.h"
#include "qsafp_hash.h"
#include "qsafp_mldsa65.h"
#include "renewal.h"

typedef struct { uint8_t seed[32], pk[32], sig[64], msg[192], mldsa_pk[1952], mldsa_sig[3309]; } inputs_t;
#define IN ((const inputs_t *)0x80800000u)

void count_main(void);
static uint8_t secret[64], out[64];

static void put(char c)
{
    *(volatile uint32_t *)(uintptr_t)UART0_BASE = (uint8_t)c;
}

static void say(const char *name, uint64_t n, int err)
{
    char digits[20];
    unsigned k = 0;
    while (*name)
        put(*name++);
    put(' ');
    do
        digits[k++] = (char)('0' + n % 10);
    while (n /= 10);
    while (k)
        put(digits[--k]);
    put(err ? '!' : '\n');
}

uint64_t instructions(void)
{
    uint64_t v;
    __asm__ volatile("csrr %0, minstret" : "=r"(v) : : "memory");
    return v;
}

void count_main(void)
{
    static const uint8_t message[] = "message", context[] = "context"; /* of the signature in tests/vectors */
    const qsafp_mldsa65_msg_t m = {.msg = message, .msg_len = sizeof message - 1, .ctx = context, .ctx_len = sizeof context - 1};
    uint64_t t = instructions();
    int err = qsafp_ed25519_verify(IN->sig, IN->pk, IN->msg, sizeof IN->msg);
    say("ed25519_verify", instructions() - t, err);
    memcpy(secret, IN->seed, 32);
    t = instructions();
    qsafp_ed25519_public(secret + 32, secret);
    say("ed25519_public", instructions() - t, memcmp(secret + 32, IN->pk, 32));
    t = instructions();
    qsafp_ed25519_sign(out, secret, IN->msg, sizeof IN->msg);
    say("ed25519_sign", instructions() - t, memcmp(out, IN->sig, 64));
    t = instructions();
    err = qsafp_mldsa65_verify(IN->mldsa_pk, &m, IN->mldsa_sig);
    say("mldsa65_verify", instructions() - t, err);
    t = instructions();
    qsafp_sha256(out, IN, 256);
    say("sha256_256", instructions() - t, 0);
    renewal_t r = count_renewal();
    say("request_without_signature", r.request, !r.whole);
    say("lease_without_signatures", r.verify, !r.whole);
    say("records_of_a_renewal", r.records, !r.whole);
    put('.');
    for (;;)
        __asm__ volatile("wfi");
}
