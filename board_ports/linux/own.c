/* SPDX-License-Identifier: Apache-2.0 */
/* An audit log without a guard, for tests and for programs that embed the core: who writes it polices himself. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

/* What the ring cannot tell once its first record is gone. */
typedef struct { uint8_t log_id[32]; uint32_t boot; qsafp_tree_t tree; } own_state_t;
struct qsafp_own_log { host_t h; qsafp_audit_t log; qsafp_guard_options_t o; uint32_t saved; char why[256], dir[]; };

/* A record may be pruned once the saved tree knows it; the ring holds 1,008 at least. */
enum { UNSAVED_MAX = 768, EVIDENCE_BYTES = 1 << 20 };

static int save(qsafp_own_log_t *l)
{
    own_state_t st = {.boot = l->log.boot};
    int err = qsafp_audit_tree(&l->log);
    if (!err)
        err = log_sync(&l->h);
    memcpy(st.log_id, l->log.log_id, sizeof st.log_id);
    st.tree = l->log.tree;
    if (!err)
        err = file_state_save(&l->h, &st, sizeof st);
    if (!err)
        l->saved = (uint32_t)st.tree.size;
    return err;
}

static int begin(qsafp_own_log_t *l, bool create)
{
    own_state_t st = {.boot = 0};
    uint32_t bad = 0;
    int err = create ? qsafp_audit_create(&l->log) : file_state_load(&l->h, &st, sizeof st);
    if (!err && !create) {
        l->log.tree = st.tree;
        memcpy(l->log.log_id, st.log_id, sizeof st.log_id);
        err = qsafp_audit_recover(&l->log, &bad);
    }
    l->log.boot = st.boot + 1;
    if (!err)
        err = save(l);
    return err ? fail(&l->h, "%s: the log does not open (core status %d, slot %u)", l->dir, err, bad) : 0;
}

qsafp_own_log_t *qsafp_own_log_open(const char *dir, bool create, char *why, size_t why_len)
{
    size_t n = strlen(dir) + 1;
    qsafp_own_log_t *l = calloc(1, sizeof *l + n);
    if (!l) {
        snprintf(why, why_len, "out of memory");
        return 0;
    }
    memcpy(l->dir, dir, n);
    l->o = (qsafp_guard_options_t){.state_dir = l->dir, .evidence_max = EVIDENCE_BYTES};
    l->h.o = &l->o;
    l->h.why = l->why;
    l->h.why_len = sizeof l->why;
    l->log = (qsafp_audit_t){.port = &LINUX_PORT, .ctx = &l->h, .slots = QSAFP_LOG_SLOTS};
    if (store_open(&l->h, create) || store_start(&l->h) || begin(l, create)) {
        snprintf(why, why_len, "%s", l->why);
        qsafp_own_log_close(l);
        return 0;
    }
    return l;
}

int qsafp_own_log_append(qsafp_own_log_t *l, uint16_t event, uint32_t reason, const uint8_t data[96])
{
    qsafp_record_t r = {.event = event, .reason = reason, .flags = 8}; /* reported by a workload */
    if (data)
        memcpy(r.data, data, sizeof r.data);
    int err = l->log.next - l->saved >= UNSAVED_MAX ? save(l) : 0;
    return err ? err : qsafp_audit_append(&l->log, &r);
}

/* Room for the record, and for what pruning puts before it. */
bool qsafp_own_log_ready(qsafp_own_log_t *l)
{
    store_t *s = &l->h.store;
    pthread_mutex_lock(&s->lock);
    bool room = s->queued - s->durable + 4 < s->depth;
    pthread_mutex_unlock(&s->lock);
    return room && l->log.next - l->saved < UNSAVED_MAX;
}

int qsafp_own_log_sync(qsafp_own_log_t *l) { return save(l); }

uint64_t qsafp_own_log_size(const qsafp_own_log_t *l, uint8_t head[32])
{
    memcpy(head, l->log.head, 32);
    return l->log.next;
}

void qsafp_own_log_close(qsafp_own_log_t *l)
{
    store_close(&l->h);
    free(l);
}
