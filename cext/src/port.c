/* SPDX-License-Identifier: Apache-2.0 */
/* What many do with a word or the port. */
#include "core.h"

#if defined(__GCC_HAVE_SYNC_COMPARE_AND_SWAP_4)
bool cas32(uint32_t *p, uint32_t expect, uint32_t v)
{
    return __atomic_compare_exchange_n(p, &expect, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
#endif

#if defined(__GCC_HAVE_SYNC_COMPARE_AND_SWAP_8) || __SIZEOF_POINTER__ == 8
void store64(uint64_t *p, uint64_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}
#endif

void port_lock(const qsafp_t *q)
{
    if (q->port->lock)
        q->port->lock(q->ctx);
}

void port_unlock(const qsafp_t *q)
{
    if (q->port->unlock)
        q->port->unlock(q->ctx);
}

void port_kick(const qsafp_t *q)
{
    if (q->port->kick)
        q->port->kick(q->ctx);
}

uint64_t port_now(const qsafp_t *q)
{
    return q->port->now_ns(q->ctx);
}

void set_pending(qsafp_t *q, bool active)
{
    port_lock(q);
    q->pending.active = active;
    port_unlock(q);
}

int keep_evidence(qsafp_t *q, const uint8_t *token, size_t len, uint8_t hash[32])
{
    qsafp_sha256(hash, token, len);
    return q->port->evidence_put(q->ctx, hash, token, len);
}

int sync_and_save(qsafp_t *q)
{
    int err = q->port->log_sync(q->ctx);
    return err ? err : state_save(q);
}
