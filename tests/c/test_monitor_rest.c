/* SPDX-License-Identifier: Apache-2.0 */
/* The loop rests only while there is nothing to tell: a tick that ends a lease just before the rest is told of now, not a period later, and
 * the rollback with it (HW-12, HW-T8). */
#include "monitor_host.h"

static void lease_ends(void) { qsafp_trip(&m.q, QSAFP_REASON_LEASE_EXPIRED); }

/* Whether it rests, if that happens at the last moment. */
static bool rests_after(void (*happens)(void))
{
    unsigned was = rests;
    last_moment = happens;
    rest();
    last_moment = NULL;
    return rests != was;
}

int main(void)
{
    start();
    assert(rests_after(NULL));
    assert(!rests_after(lease_ends));
    assert(!qsafp_service(&m.q) && kept.latch == QSAFP_REASON_LEASE_EXPIRED);
    assert(rests_after(NULL));
    line.left = 1;
    assert(!rests_after(NULL));
    printf("test_monitor_rest: 4 passed, 0 failed\n");
    return 0;
}
