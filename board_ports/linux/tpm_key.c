/* SPDX-License-Identifier: Apache-2.0 */
/* The device key in a TPM 2.0 (HW-11): ECDSA P-256, made there under the owner's storage primary, never outside it in the clear. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tpm.h"

enum { HEAD_BYTES = 22 };

/* TPM2B_PUBLIC up to x and y: ECC, SHA-256; fixedTPM fixedParent sensitiveDataOrigin userWithAuth noDA, no policy ... */
static const uint8_t SIGNING[] = {0, 24, 0, 0x23, 0, 0x0b, 0, 4, 4, 0x72, 0, 0, /* sign: no symmetric, ECDSA with SHA-256, P-256, no kdf */
                                  0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10, 0, 0, 0, 0};
static const uint8_t TICKET[] = {0x80, 0x24, 0x40, 0, 0, 7, 0, 0}; /* hashed outside: none */
static const tpm_kind_t DEVICE = {OWNER, SIGNING, sizeof SIGNING, "device.tpm", "device key"};
const uint8_t TPM_OWN_SCHEME[2] = {0, 0x10};

/* A number of at most 32 bytes behind its size; false if there is none. */
static bool number(const uint8_t **p, const uint8_t *end, uint8_t out[32])
{
    if (end - *p < 2)
        return false;
    size_t n = (size_t)(*p)[0] << 8 | (*p)[1];
    if (!n || n > 32 || (size_t)(end - *p) < n + 2)
        return false;
    memset(out, 0, 32);
    memcpy(out + 32 - n, *p + 2, n);
    *p += n + 2;
    return true;
}

/* x and y of a public area that is of this kind in all else. */
static bool point(const struct tpm *t, const tpm_kind_t *kind, const void *pub, uint8_t pk[64])
{
    uint8_t wire[256];
    size_t n = 0;
    if (t->f.put_public(pub, wire, sizeof wire, &n) || n < HEAD_BYTES || memcmp(wire + 2, kind->template + 2, HEAD_BYTES - 2) != 0)
        return false;
    const uint8_t *p = wire + HEAD_BYTES;
    return number(&p, wire + n, pk) && number(&p, wire + n, pk + 32) && p == wire + n;
}

static const uint8_t ORDER[32] = {0xff, 0xff, 0xff, 0xff, 0,    0,    0,    0,    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                  0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51};

/* The smaller of s and n - s (docs/formats.md): a relay that turns one into the other has no second request. */
static void lower(uint8_t s[32])
{
    uint8_t other[32];
    unsigned borrow = 0;
    for (int i = 31; i >= 0; i--) {
        unsigned d = 0x100u + ORDER[i] - s[i] - borrow;
        other[i] = (uint8_t)d;
        borrow = d < 0x100u;
    }
    if (memcmp(other, s, 32) < 0)
        memcpy(s, other, 32);
}

bool tpm_signature(struct tpm *t, const void *made)
{
    uint8_t wire[256];
    size_t n = 0;
    const uint8_t *p = wire + 4, kind[4] = {0, 0x18, 0, 0x0b};
    bool ok = t->f.put_signature(made, wire, sizeof wire, &n) == 0 && n >= 4 && memcmp(wire, kind, 4) == 0;
    ok = ok && number(&p, wire + n, t->sig) && number(&p, wire + n, t->sig + 32);
    if (ok)
        lower(t->sig + 32);
    return ok;
}

int tpm_load_key(struct tpm *t)
{
    return tpm_open(t) ? -1 : tpm_load(t, &DEVICE, &t->key_blobs, &t->key);
}

static int sign_now(struct tpm *t)
{
    uint8_t bytes[34] = {0, 32};
    blob_t hash, scheme, ticket;
    void *made = 0;
    memcpy(bytes + 2, t->digest, 32);
    GET(t->f.get_digest, &hash, bytes);
    GET(t->f.get_scheme, &scheme, TPM_OWN_SCHEME);
    GET(t->f.get_ticket, &ticket, TICKET);
    if (tpm_ready(t))
        return -1;
    rc_t rc = t->f.sign(t->esys, t->key, t->session, NONE, NONE, &hash, &scheme, &ticket, &made);
    if (rc)
        return tpm_failed(t, "signing", rc);
    bool ok = tpm_signature(t, made);
    t->f.free(made);
    return ok ? 0 : tpm_broken(t, "it answered with no ECDSA signature");
}

/* A fail-safe that came meanwhile makes the request one that nobody may answer (I3). */
int tpm_sign(host_t *h, uint8_t sig[64], const uint8_t *msg, size_t len)
{
    struct tpm *t = h->tpm;
    uint32_t generation = __atomic_load_n(&h->q.generation, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&t->lock);
    bool idle = tpm_idle(t);
    if (idle)
        qsafp_sha256(t->digest, msg, len);
    int err = idle ? tpm_ask(t, sign_now) : -1;
    if (!err)
        memcpy(sig, t->sig, 64);
    tpm_tell(t, err, &t->failing, "no request can be signed", "signs again");
    pthread_mutex_unlock(&t->lock);
    return err || generation != __atomic_load_n(&h->q.generation, __ATOMIC_SEQ_CST) ? QSAFP_E_KEY : 0;
}

int tpm_make(struct tpm *t, const tpm_kind_t *kind, tpm_made_t *m)
{
    blob_t sensitive, template, none = {0};
    void *priv = 0, *pub = 0;
    char step[40];
    snprintf(step, sizeof step, "making the %s", kind->what);
    GET(t->f.get_sensitive, &sensitive, TPM_EMPTY);
    (void)tpm_get(t->f.get_public, &template, kind->template, kind->template_len, &(size_t){0});
    if (tpm_open(t) || tpm_storage(t, kind->hierarchy))
        return -1;
    rc_t rc = t->f.create(t->esys, t->primary, PASSWORD, NONE, NONE, &sensitive, &template, &none, &none, &priv, &pub, 0, 0, 0);
    if (rc)
        return tpm_failed(t, step, rc);
    bool ok = point(t, kind, pub, m->pk) && t->f.put_public(pub, m->file, sizeof m->file, &m->n) == 0 && t->f.put_private(priv, m->file, sizeof m->file, &m->n) == 0;
    t->f.free(priv);
    t->f.free(pub);
    return ok ? 0 : tpm_broken(t, "it made a key of another kind");
}

static int create_key(struct tpm *t)
{
    return tpm_make(t, &DEVICE, t->arg);
}

int qsafp_tpm_create(const char *place, uint8_t pk[64], uint8_t *file, size_t *n, char *why, size_t why_len)
{
    tpm_made_t m = {.n = 0};
    if (tpm_once(place, create_key, &m, sizeof m, why, why_len))
        return -1;
    memcpy(pk, m.pk, sizeof m.pk);
    memcpy(file, m.file, m.n);
    *n = m.n;
    return 0;
}

bool tpm_blobs(const struct tpm *t, tpm_blobs_t *b, const uint8_t *file, size_t n)
{
    size_t at = 0;
    return tpm_get(t->f.get_public, &b->pub, file, n, &at) && tpm_get(t->f.get_private, &b->priv, file, n, &at) && at == n;
}

int tpm_parse(struct tpm *t, const tpm_kind_t *kind, tpm_blobs_t *b, const uint8_t *file, size_t n)
{
    uint8_t pk[64];
    char why[120];
    snprintf(why, sizeof why, "%s in state_dir is missing or damaged; restore it, or enrol again", kind->file);
    return tpm_blobs(t, b, file, n) && point(t, kind, &b->pub, pk) ? 0 : tpm_broken(t, why);
}

size_t tpm_file(const struct tpm *t, const char *name, uint8_t file[QSAFP_TPM_KEY_MAX])
{
    int fd = openat(t->host->store.dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, file, QSAFP_TPM_KEY_MAX);
    if (fd >= 0)
        close(fd);
    return n > 0 ? (size_t)n : 0;
}

int tpm_read(struct tpm *t, const tpm_kind_t *kind, tpm_blobs_t *b)
{
    uint8_t file[QSAFP_TPM_KEY_MAX];
    return tpm_parse(t, kind, b, file, tpm_file(t, kind->file, file));
}

int tpm_open_key(struct tpm *t)
{
    uint8_t pk[64];
    if (tpm_read(t, &DEVICE, &t->key_blobs))
        return -1;
    if (!point(t, &DEVICE, &t->key_blobs.pub, pk) || memcmp(pk, t->host->o->device_pk, sizeof pk) != 0)
        return tpm_broken(t, "device.tpm in state_dir is not the key in device.pub: replaced; restore both, or enrol again");
    return tpm_load_key(t);
}
