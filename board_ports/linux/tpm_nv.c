/* SPDX-License-Identifier: Apache-2.0 */
/* NV memory of a TPM 2.0: a counter, an index that only extends, and one of plain bytes (docs/design.md).  All under the owner's
 * authorization, which is empty, in a session salted to the TPM; each job reads before and after it writes, so that one whose
 * answer was lost may be done again. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "tpm.h"

enum { ATTRIBUTES = 0x02020002, TYPE = 4, WRITTEN = 0x20000000, PUBLIC_BYTES = 16 }; /* ownerwrite, ownerread, no_da */

static const struct { uint8_t type, bytes; const char *name; } KINDS[NV_INDICES] = {
    [NV_COUNTER] = {1, 8, "counter"}, [NV_ANCHOR] = {4, 32, "log anchor"}, [NV_FLOOR] = {0, sizeof(floor_t), "small store"}};

static void put32be(uint8_t *p, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* TPM2B_NV_PUBLIC, SHA-256, no policy. */
static void public_bytes(const struct tpm *t, int which, uint8_t out[PUBLIC_BYTES])
{
    static const uint8_t head[PUBLIC_BYTES] = {0, PUBLIC_BYTES - 2, [7] = SHA256};
    memcpy(out, head, PUBLIC_BYTES);
    put32be(out + 2, t->nv.base + (uint32_t)which);
    put32be(out + 8, ATTRIBUTES | (uint32_t)KINDS[which].type << TYPE);
    out[15] = KINDS[which].bytes;
}

static int trouble(struct tpm *t, int which, const char *text)
{
    char why[200];
    snprintf(why, sizeof why, "NV index 0x%x (%s) %s", (unsigned)(t->nv.base + (uint32_t)which), KINDS[which].name, text);
    return tpm_broken(t, why);
}

static int nv_failed(struct tpm *t, int which, const char *step, rc_t rc)
{
    char what[64];
    bool gone = (rc & 0xbf) == 0x8b;
    snprintf(what, sizeof what, "%s NV index 0x%x", step, (unsigned)(t->nv.base + (uint32_t)which));
    return gone ? trouble(t, which, "is not there: the TPM was cleared or replaced, or somebody removed it; put the first TPM back, or enrol again") : tpm_failed(t, what, rc);
}

int tpm_plain(struct tpm *t)
{
    int err = tpm_open(t) || tpm_storage(t, OWNER) || tpm_session(t, 0, &t->session) ? -1 : 0;
    tpm_drop(t, &t->primary);
    return err;
}

int tpm_ready(struct tpm *t) { return t->esys ? 0 : t->open(t); }

/* ---- one index ---- */

static bool as_ours(const struct tpm *t, int which, const void *found)
{
    uint8_t want[PUBLIC_BYTES], wire[256];
    size_t n = 0;
    public_bytes(t, which, want);
    if (t->f.put_nv_public(found, wire, sizeof wire, &n) || n != PUBLIC_BYTES)
        return false;
    wire[8] &= (uint8_t)~(WRITTEN >> 24);
    return memcmp(wire, want, PUBLIC_BYTES) == 0;
}

/* With `absent` it may be missing. */
static int open_index(struct tpm *t, int which, bool may_miss)
{
    void *found = 0, *name = 0;
    nv_t *v = &t->nv;
    v->absent[which] = false;
    if (v->index[which])
        return 0;
    rc_t rc = t->f.nv_open(t->esys, v->base + (uint32_t)which, NONE, NONE, NONE, &v->index[which]);
    if (rc && may_miss && (rc & 0xbf) == 0x8b) {
        v->absent[which] = true;
        return 0;
    }
    if (!rc)
        rc = t->f.nv_public(t->esys, v->index[which], NONE, NONE, NONE, &found, &name);
    if (rc)
        return nv_failed(t, which, "looking for", rc);
    bool ours = as_ours(t, which, found);
    t->f.free(found);
    t->f.free(name);
    return ours ? 0 : trouble(t, which, "is somebody else's; choose another tpm_nv in guard.toml, or remove it: tpm2_nvundefine");
}

/* Zeros while nothing was written yet. */
static int read_index(struct tpm *t, int which, uint8_t *out)
{
    enum { UNINITIALIZED = 0x14a };
    void *data = 0;
    uint8_t wire[2 + sizeof(floor_t)];
    size_t n = 0, bytes = KINDS[which].bytes;
    memset(out, 0, bytes);
    rc_t rc = t->f.nv_read(t->esys, OWNER, t->nv.index[which], t->session, NONE, NONE, (uint16_t)bytes, 0, &data);
    if ((rc & 0xffff) == UNINITIALIZED)
        return 0;
    if (rc)
        return nv_failed(t, which, "reading", rc);
    rc = t->f.put_nv_buffer(data, wire, sizeof wire, &n);
    t->f.free(data);
    if (rc || n != bytes + 2)
        return trouble(t, which, "answers with another length");
    memcpy(out, wire + 2, bytes);
    return 0;
}

static int read_counter(struct tpm *t, uint64_t *out)
{
    uint8_t be[8];
    if (read_index(t, NV_COUNTER, be))
        return -1;
    *out = 0;
    for (unsigned i = 0; i < sizeof be; i++)
        *out = *out << 8 | be[i];
    return 0;
}

static void buffer(const struct tpm *t, blob_t *to, const void *bytes, size_t n)
{
    uint8_t wire[2 + sizeof(floor_t)] = {0, (uint8_t)n};
    memcpy(wire + 2, bytes, n);
    (void)tpm_get(t->f.get_nv_buffer, to, wire, n + 2, &(size_t){0});
}

static int extend(struct tpm *t, const uint8_t head[32])
{
    blob_t data;
    buffer(t, &data, head, 32);
    rc_t rc = t->f.nv_extend(t->esys, OWNER, t->nv.index[NV_ANCHOR], t->session, NONE, NONE, &data);
    return rc ? nv_failed(t, NV_ANCHOR, "extending", rc) : 0;
}

static int increment(struct tpm *t)
{
    rc_t rc = t->f.nv_increment(t->esys, OWNER, t->nv.index[NV_COUNTER], t->session, NONE, NONE);
    return rc ? nv_failed(t, NV_COUNTER, "incrementing", rc) : 0;
}

static int write_floor(struct tpm *t)
{
    blob_t data;
    nv_t *v = &t->nv;
    if (memcmp(&v->floor, &v->next_floor, sizeof v->floor) == 0)
        return 0;
    buffer(t, &data, &v->next_floor, sizeof v->next_floor);
    rc_t rc = t->f.nv_write(t->esys, OWNER, v->index[NV_FLOOR], t->session, NONE, NONE, &data, 0);
    if (rc)
        return nv_failed(t, NV_FLOOR, "writing", rc);
    v->floor = v->next_floor;
    return 0;
}

static int foreign(struct tpm *t, int which)
{
    t->nv.foreign = true;
    return trouble(t, which, "was written by somebody else; find out who uses the TPM, keep state_dir as evidence, and enrol again");
}

/* ---- jobs ---- */

static int open_all(struct tpm *t)
{
    if (tpm_ready(t))
        return -1;
    t->nv.foreign = false;
    for (int i = 0; i < NV_INDICES; i++)
        if (open_index(t, i, false))
            return -1;
    return 0;
}

int nv_look(struct tpm *t)
{
    nv_t *v = &t->nv;
    return open_all(t) || read_counter(t, &v->counter) || read_index(t, NV_ANCHOR, v->anchor) || read_index(t, NV_FLOOR, (uint8_t *)&v->floor) ? -1 : 0;
}

int nv_commit(struct tpm *t)
{
    nv_t *v = &t->nv;
    if (nv_look(t))
        return -1;
    if (v->target && v->counter + 1 == v->target && (increment(t) || read_counter(t, &v->counter)))
        return -1;
    if (v->target && v->counter != v->target)
        return foreign(t, NV_COUNTER);
    return write_floor(t);
}

void nv_extended(uint8_t out[32], const uint8_t was[32], const uint8_t head[32])
{
    uint8_t both[64];
    memcpy(both, was, 32);
    memcpy(both + 32, head, 32);
    qsafp_sha256(out, both, sizeof both);
}

int nv_anchor(struct tpm *t)
{
    nv_t *v = &t->nv;
    uint8_t after[32];
    nv_extended(after, v->before, v->head);
    if (open_all(t) || read_index(t, NV_ANCHOR, v->anchor))
        return -1;
    if (memcmp(v->anchor, v->before, 32) == 0 && (extend(t, v->head) || read_index(t, NV_ANCHOR, v->anchor)))
        return -1;
    return memcmp(v->anchor, after, 32) ? foreign(t, NV_ANCHOR) : 0;
}

static int define(struct tpm *t, int which)
{
    uint8_t wire[PUBLIC_BYTES];
    blob_t public, none = {0};
    public_bytes(t, which, wire);
    GET(t->f.get_nv_public, &public, wire);
    rc_t rc = t->f.nv_define(t->esys, OWNER, t->session, NONE, NONE, &none, &public, &t->nv.index[which]);
    return rc ? nv_failed(t, which, "making", rc) : 0;
}

/* A counter that is there goes on, so that no older state passes; the anchor begins anew with its log. */
int nv_make(struct tpm *t)
{
    nv_t *v = &t->nv;
    if (tpm_ready(t))
        return -1;
    for (int i = 0; i < NV_INDICES; i++)
        if (open_index(t, i, true))
            return -1;
    if (!v->absent[NV_FLOOR] && (read_index(t, NV_FLOOR, (uint8_t *)&v->floor)))
        return -1;
    if (v->floor.magic && memcmp(v->floor.lease, v->next_floor.lease, 32) != 0)
        return trouble(t, NV_FLOOR, "belongs to a lease of another name; choose another tpm_nv in guard.toml");
    if (!v->absent[NV_ANCHOR]) {
        rc_t rc = t->f.nv_undefine(t->esys, OWNER, v->index[NV_ANCHOR], t->session, NONE, NONE);
        if (rc)
            return nv_failed(t, NV_ANCHOR, "removing", rc);
        v->absent[NV_ANCHOR] = true;
    }
    for (int i = 0; i < NV_INDICES; i++)
        if (v->absent[i] && define(t, i))
            return -1;
    if (read_counter(t, &v->counter))
        return -1;
    return v->counter ? 0 : increment(t) || read_counter(t, &v->counter) ? -1 : 0;
}

/* ---- for whoever verifies a log ---- */

typedef struct { uint32_t base; uint8_t value[32]; } looking_t;

static int look_at_anchor(struct tpm *t)
{
    looking_t *l = t->arg;
    t->nv.base = l->base;
    return tpm_plain(t) || open_index(t, NV_ANCHOR, false) || read_index(t, NV_ANCHOR, l->value) ? -1 : 0;
}

int qsafp_tpm_anchor(const char *place, uint32_t base, uint8_t value[32], char *why, size_t why_len)
{
    looking_t l = {.base = base};
    int err = tpm_once(place, look_at_anchor, &l, sizeof l, why, why_len);
    memcpy(value, l.value, sizeof l.value);
    return err;
}
