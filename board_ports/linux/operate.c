/* SPDX-License-Identifier: Apache-2.0 */
/* What the Linux guard answers beside the core: set documents (opcode 0x05), the agent's polls, limits, equivocation.
 *
 *   0x05 sub 1 read (offset u32) -> total u32 + chunk: the document in force
 *   0x05 sub 2 put (offset u32, total u32, bytes); 3 finish -> core status: the next epoch
 *   0x02 sub 4 polls alive u8: fewer than n-m+1 and the state is isolated (decision 8) */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

enum { HEAD = 4, ANSWER_HEAD = 5, CHUNK = 1000, SUB_READ = 1, SUB_PUT = 2, SUB_FINISH = 3, SUB_POLLS = 4, RENEW_FINISH = 3 };

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* ---- the set document ---- */

/* Verified as the successor of `old`, or, if that is 0, as the first. */
int set_verify(host_t *h, qsafp_set_t *out, const qsafp_set_t *old, qsafp_bytes doc)
{
    size_t cap = doc.len + 64;
    uint8_t *scratch = malloc(cap);
    const qsafp_set_io_t io = {.port = &LINUX_PORT, .ctx = h, .scratch = scratch, .cap = cap};
    int err = scratch ? qsafp_set_load(out, old, doc, &io) : QSAFP_E_FULL;
    free(scratch);
    return err;
}

static int set_keep(const host_t *h, qsafp_bytes doc)
{
    int fd = openat(h->store.dir_fd, "set.part", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, doc.p, doc.len) == (ssize_t)doc.len && fdatasync(fd) == 0;
    if (fd >= 0)
        close(fd);
    ok = ok && renameat(h->store.dir_fd, "set.part", h->store.dir_fd, "set.cbor") == 0 && fsync(h->store.dir_fd) == 0;
    return ok ? 0 : QSAFP_E_STORE;
}

/* Set documents are evidence; the epoch is durable with the next state, before a request of it leaves. */
int set_note(host_t *h)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_CONFIG_CHANGE, .flags = 4};
    qsafp_sha256(r.evidence, h->set_doc, h->set_len);
    memcpy(r.data, &h->q.set.epoch, 8);
    memcpy(r.data + 8, h->q.set.set_id, 16);
    int err = evidence_put(h, r.evidence, h->set_doc, h->set_len);
    h->q.st.epoch = h->q.set.epoch;
    return err ? err : qsafp_note(&h->q, &r);
}

static int set_install(host_t *h, uint8_t *bytes, size_t len)
{
    qsafp_set_t fresh;
    qsafp_bytes doc = {bytes, len};
    int err = set_verify(h, &fresh, &h->q.set, doc);
    if (!err)
        err = set_keep(h, doc);
    if (err)
        return err;
    free(h->set_doc);
    h->set_doc = bytes;
    h->set_len = len;
    pthread_mutex_lock(&h->lock);
    h->q.set = fresh;
    h->q.pending.active = false; /* it named the epoch before */
    pthread_mutex_unlock(&h->lock);
    h->q.cfg.duration_ms = h->o->duration_ms; /* limits were of that epoch, too */
    memcpy(h->q.cfg.policy_ms, h->o->policy_ms, sizeof h->q.cfg.policy_ms);
    return set_note(h);
}

static qsafp_command_status_t set_put(host_t *h, const uint8_t *p, size_t n)
{
    if (n < 9)
        return QSAFP_COMMAND_STATUS_BAD_LENGTH;
    uint32_t off = get32(p), total = get32(p + 4);
    size_t chunk = n - 8;
    if (off == 0) {
        free(h->incoming);
        h->incoming = total && total <= QSAFP_SET_MAX ? malloc(total) : 0;
        h->incoming_have = 0;
        h->incoming_total = total;
    }
    if (!h->incoming || total != h->incoming_total || off != h->incoming_have || chunk > total - off)
        return QSAFP_COMMAND_STATUS_BAD_ARGUMENT;
    memcpy(h->incoming + off, p + 8, chunk);
    h->incoming_have = off + (uint32_t)chunk;
    return QSAFP_COMMAND_STATUS_OK;
}

static qsafp_command_status_t set_finish(host_t *h, uint8_t *code)
{
    uint8_t *bytes = h->incoming;
    if (!bytes || h->incoming_have != h->incoming_total)
        return QSAFP_COMMAND_STATUS_INCOMPLETE;
    h->incoming = 0;
    int err = set_install(h, bytes, h->incoming_total);
    if (bytes != h->set_doc)
        free(bytes);
    *code = (uint8_t)-err;
    return err ? QSAFP_COMMAND_STATUS_REFUSED : QSAFP_COMMAND_STATUS_OK;
}

static bool set_command(host_t *h, client_t *c, const uint8_t *f, size_t n)
{
    const uint8_t *p = f + HEAD + 1;
    uint8_t code = 0;
    switch (n ? f[HEAD] : 0) {
    case SUB_PUT:
        return answer(c, f[0], set_put(h, p, n - 1), 0, 0);
    case SUB_FINISH: {
        qsafp_command_status_t s = n == 1 ? set_finish(h, &code) : QSAFP_COMMAND_STATUS_BAD_LENGTH;
        return answer(c, f[0], s, &code, s == QSAFP_COMMAND_STATUS_OK || s == QSAFP_COMMAND_STATUS_REFUSED);
    }
    case SUB_READ: {
        uint8_t out[4 + CHUNK];
        if (n != 5 || get32(p) > h->set_len)
            return answer(c, f[0], QSAFP_COMMAND_STATUS_BAD_ARGUMENT, 0, 0);
        size_t left = h->set_len - get32(p), chunk = left < CHUNK ? left : CHUNK;
        uint32_t total = (uint32_t)h->set_len;
        memcpy(out, &total, 4);
        memcpy(out + 4, h->set_doc + get32(p), chunk);
        return answer(c, f[0], QSAFP_COMMAND_STATUS_OK, out, 4 + chunk);
    }
    default:
        return answer(c, f[0], n ? QSAFP_COMMAND_STATUS_BAD_ARGUMENT : QSAFP_COMMAND_STATUS_BAD_LENGTH, 0, 0);
    }
}

/* ---- polls ---- */

void polls_alive(host_t *h, unsigned alive)
{
    h->polls = alive;
    h->q.isolated = alive < (unsigned)(h->q.set.n - h->q.set.m + 1);
}

static bool polls_command(host_t *h, client_t *c, const uint8_t *f, size_t n)
{
    if (n != 2)
        return answer(c, f[0], QSAFP_COMMAND_STATUS_BAD_LENGTH, 0, 0);
    h->poller = c;
    polls_alive(h, f[HEAD + 1]);
    return answer(c, f[0], QSAFP_COMMAND_STATUS_OK, 0, 0);
}

bool host_command(host_t *h, client_t *c, const uint8_t *f, size_t len, bool *ok)
{
    bool whole = len >= HEAD + 2 && (size_t)(f[2] | f[3] << 8) + HEAD + 2 == len && (f[len - 2] | f[len - 1] << 8) == qsafp_crc16(f, len - 2);
    size_t n = len - HEAD - 2;
    if (!c->ctl || !whole)
        return false; /* the core says what is wrong with it */
    if (f[1] == QSAFP_OPCODE_SET)
        *ok = set_command(h, c, f, n);
    else if (f[1] == QSAFP_OPCODE_RENEW && n && f[HEAD] == SUB_POLLS)
        *ok = polls_command(h, c, f, n);
    else
        return false;
    return true;
}

/* ---- what follows from an answer that was put ---- */

/* LIMITS, signed and counted by the core: ask for less, with a new serial (docs/formats.md). data {1: duration, 2: period} ms */
static void obey_limits(host_t *h, const uint8_t *token, size_t len)
{
    qsafp_cose_sig s;
    if (qsafp_sign1_parse(&s, token, len))
        return;
    qsafp_cbor_r r = qsafp_cbor_reader(s.payload.p, s.payload.len);
    qsafp_config_t *cfg = &h->q.cfg;
    if (qsafp_cbor_head(&r, QSAFP_CBOR_MAP) != 5)
        return;
    (void)qsafp_cbor_int(&r);
    (void)qsafp_cbor_skip(&r);
    (void)qsafp_cbor_int(&r);
    (void)qsafp_cbor_skip(&r);
    (void)qsafp_cbor_int(&r);
    if (qsafp_cbor_head(&r, QSAFP_CBOR_UINT) != QSAFP_REFUSAL_LIMITS)
        return;
    (void)qsafp_cbor_int(&r);
    (void)qsafp_cbor_tstr(&r);
    (void)qsafp_cbor_int(&r);
    uint64_t most[3] = {0, cfg->duration_ms, cfg->policy_ms[2] + cfg->policy_ms[3]};
    for (uint64_t n = qsafp_cbor_head(&r, QSAFP_CBOR_MAP); n && !r.err; n--) {
        int64_t key = qsafp_cbor_int(&r);
        uint64_t v = qsafp_cbor_head(&r, QSAFP_CBOR_UINT);
        if ((key == 1 || key == 2) && v && (v < most[key] || !most[key]))
            most[key] = v;
    }
    if (r.err)
        return;
    cfg->duration_ms = most[1];
    cfg->policy_ms[0] = h->o->policy_ms[0] * most[1] / h->o->duration_ms; /* the same part of the lease */
    if (most[2] != cfg->policy_ms[2] + cfg->policy_ms[3]) {
        cfg->policy_ms[2] = cfg->policy_ms[2] && cfg->policy_ms[2] < most[2] ? cfg->policy_ms[2] : most[2];
        cfg->policy_ms[3] = most[2] - cfg->policy_ms[2];
    }
    pthread_mutex_lock(&h->lock);
    h->q.pending.active = false;
    pthread_mutex_unlock(&h->lock);
}

/* A lease that was refused although a member of it denied this very request: its yes and no are kept together (decision 6). */
static void keep_equivocation(host_t *h, const uint8_t *token, size_t len)
{
    qsafp_bytes payload;
    qsafp_cbor_r sigs;
    uint64_t count = 0;
    const qsafp_pending_t *p = &h->q.pending;
    if (!p->active || !p->denied || qsafp_sign_parse(&payload, &sigs, &count, token, len))
        return;
    uint16_t both = 0;
    for (; count; count--) {
        qsafp_cose_sig s;
        if (qsafp_sign_next(&s, &sigs))
            return;
        int i = qsafp_set_signer(&h->q.set, &s);
        if (i >= 0)
            both |= (uint16_t)(p->denied & ~p->spent & 1u << i); /* spent: the yes is a forged one, so it is not theirs */
    }
    both &= (uint16_t)~(h->told_serial == p->claims.serial ? h->told : 0); /* once for each request and member */
    if (!both)
        return;
    h->told = (uint16_t)(both | (h->told_serial == p->claims.serial ? h->told : 0));
    h->told_serial = p->claims.serial;
    qsafp_record_t r = {.event = QSAFP_EVENT_ANOMALY, .reason = QSAFP_REASON_VALIDATOR_DENIED, .flags = 4};
    memcpy(r.data, &both, sizeof both);
    qsafp_sha256(r.evidence, token, len);
    if (evidence_put(h, r.evidence, token, len) == 0)
        (void)!qsafp_note(&h->q, &r);
}

/* LEASE_RENEW was pressed (HW-13): the status says what it says when a renewal is due. */
void show_renew(const host_t *h, client_t *c, const uint8_t *f)
{
    uint8_t *out = c->cmd.out;
    size_t len = c->cmd.out_len;
    if (len < ANSWER_HEAD + sizeof(qsafp_info_t) || f[1] != QSAFP_OPCODE_STATUS || !pins_renew_wanted(h))
        return;
    out[ANSWER_HEAD + offsetof(qsafp_info_t, flags)] |= QSAFP_INFO_RENEW;
    uint16_t crc = qsafp_crc16(out, len - sizeof crc);
    memcpy(out + len - sizeof crc, &crc, sizeof crc);
}

/* Behind the core's status: where the device key is, and how the log stands with the TPM (docs/formats.md). */
void show_bound(const host_t *h, client_t *c, const uint8_t *f)
{
    bind_view_t v;
    if (f[1] != QSAFP_OPCODE_STATUS || c->cmd.out[2] != QSAFP_COMMAND_STATUS_OK)
        return;
    bind_view(h, &v);
    uint8_t *out = c->cmd.out;
    size_t end = c->cmd.out_len - sizeof(uint16_t);
    memcpy(out + end, &v, sizeof v);
    end += sizeof v;
    const uint16_t len = (uint16_t)(end - ANSWER_HEAD);
    memcpy(out + 3, &len, sizeof len);
    uint16_t crc = qsafp_crc16(out, end);
    memcpy(out + end, &crc, sizeof crc);
    c->cmd.out_len = end + sizeof crc;
}

/* `n`: bytes of the token that stood ready in cmd.put before this frame. */
void after_put(host_t *h, const client_t *c, const uint8_t *f, size_t len, size_t n)
{
    const qsafp_command_t *cmd = &c->cmd;
    if (!n || len != HEAD + 1 + 2 || f[1] != QSAFP_OPCODE_RENEW || f[HEAD] != RENEW_FINISH || cmd->out_len != 8)
        return;
    if (cmd->out[2] == QSAFP_COMMAND_STATUS_OK && cmd->put[0] == 0xD2)
        obey_limits(h, cmd->put, n);
    if (cmd->out[2] == QSAFP_COMMAND_STATUS_REFUSED && cmd->out[5] == (uint8_t)-QSAFP_E_BAD_SIGNATURE && cmd->put[0] == 0xD8)
        keep_equivocation(h, cmd->put, n);
}
