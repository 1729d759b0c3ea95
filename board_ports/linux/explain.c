/* SPDX-License-Identifier: Apache-2.0 */
/* Why the core did not start: which file, and which record of the log is damaged. */
#include <string.h>

#include "host.h"

static bool good(const store_t *s, uint64_t seq, qsafp_record_t *r)
{
    return qsafp_record_decode(r, s->image + seq % s->slots * SLOT) == 0 && r->seq == seq;
}

static bool newest(const store_t *s, uint64_t *seq)
{
    qsafp_record_t r;
    bool any = false;
    for (uint32_t i = 0; i < s->slots; i++)
        if (qsafp_record_decode(&r, s->image + (size_t)i * SLOT) == 0 && r.seq % s->slots == i && (!any || r.seq > *seq)) {
            *seq = r.seq;
            any = true;
        }
    return any;
}

/* The newest record that is damaged, or that follows a changed one; false if the run up to the newest holds. */
static bool damaged(const store_t *s, uint64_t *seq)
{
    uint8_t hash[32];
    qsafp_record_t r, before;
    if (!newest(s, seq))
        return false;
    for (uint64_t end = *seq + 1, n = *seq; n && end - n < s->slots; n--) {
        if (!good(s, n - 1, &before)) {
            *seq = n - 1;
            return n % QSAFP_SECTOR_SLOTS != 0; /* older sectors are pruned whole */
        }
        qsafp_record_hash(hash, before.hash, s->image + n % s->slots * SLOT);
        if (!good(s, n, &r) || !qsafp_equal(hash, r.hash, sizeof hash)) {
            *seq = n;
            return true;
        }
    }
    return false;
}

int explain(host_t *h, int err)
{
    const char *dir = h->o->state_dir, *log = h->store.ring.name;
    uint64_t seq = 0;
    switch (err) {
    case QSAFP_E_CORRUPT:
        if (damaged(&h->store, &seq))
            return fail(h, "%s: record %llu is damaged, or the one before it was changed; keep it as evidence and enrol again", log,
                        (unsigned long long)seq);
        return fail(h, "%s: not the log that state.bin goes with: cut, exchanged or blank; keep both as evidence and enrol again", log);
    case QSAFP_E_WRONG_DEVICE:
        return fail(h, "%s: the log of another device", log);
    case QSAFP_E_STORE:
        return fail(h, "%s: state.bin is missing or damaged, or the disk is full or fails", dir);
    case QSAFP_E_WRONG_EPOCH:
        return fail(h, "the set document is epoch %llu; this device has known epoch %llu: configure that, or a later one",
                    (unsigned long long)h->q.set.epoch, (unsigned long long)h->q.st.epoch);
    case QSAFP_E_ARGUMENT:
        return fail(h, "guard.toml: the core refuses these settings");
    default:
        return fail(h, "%s: the core does not start (status %d)", dir, err);
    }
}
