/* SPDX-License-Identifier: Apache-2.0 */
/* What a renewal takes beside its signatures: the core over a device in memory, the test's own validators. */
#include "renewal.h"

#include "../../c/device.h"

static bench_t bench;
static uint64_t outside;

/* Signatures are counted apart, by the real ones: what stands for them here is taken out. */
static int sign(void *ctx, uint8_t sig[64], const uint8_t *msg, size_t len)
{
    uint64_t t = instructions();
    int err = d_sign(ctx, sig, msg, len);
    outside += instructions() - t;
    return err;
}

static int verify(void *ctx, const uint8_t sig[64], const uint8_t pk[32], const uint8_t *msg, size_t len)
{
    uint64_t t = instructions();
    int err = d_verify(ctx, sig, pk, msg, len);
    outside += instructions() - t;
    return err;
}

static void start(qsafp_port_t *port)
{
    *port = PORT;
    port->sign = sign;
    port->verify_ed25519 = verify;
    memset(bench.d.log, 0xFF, sizeof bench.d.log);
    bench.d.now_ns = 100 * S;
    wire(&bench);
    bench.q.port = port;
    CHECK(!qsafp_create(&bench.q));
    wire(&bench);
    bench.q.port = port;
    CHECK(!qsafp_init(&bench.q) && !obtain(&bench));
}

renewal_t count_renewal(void)
{
    static const int who[M] = {0, 1, 2, 3};
    static uint8_t token[QSAFP_RESPONSE_MAX], envelope[QSAFP_RESPONSE_MAX + 4096];
    static qsafp_port_t port;
    renewal_t r = {0};
    size_t len;
    start(&port);
    uint32_t before = bench.q.log.next;
    outside = 0;
    uint64_t t = instructions();
    CHECK(!qsafp_begin(&bench.q) && !qsafp_envelope(&bench.q, QSAFP_OLD_DEFAULT, envelope, sizeof envelope, &len));
    r.request = instructions() - t - outside;
    len = lease_of(&bench.q, who, M, 0, token);
    outside = 0;
    t = instructions();
    CHECK(!qsafp_put(&bench.q, token, len));
    r.verify = instructions() - t - outside;
    r.records = bench.q.log.next - before;
    (void)qsafp_tick(&bench.q);
    CHECK(open_now(&bench));
    r.whole = tests_passed && !tests_failed;
    return r;
}
