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
static const uint8_t SCHEME[] = {0, 0x10}; /* the key's own */

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

/* x and y of a public area that is a signing key of ours in all else. */
static bool point(const struct tpm *t, const blob_t *pub, uint8_t pk[64])
{
    uint8_t wire[256];
    size_t n = 0;
    if (t->f.put_public(pub, wire, sizeof wire, &n) || n < HEAD_BYTES || memcmp(wire + 2, SIGNING + 2, HEAD_BYTES - 2) != 0)
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

static int load_key(struct tpm *t)
{
    if (tpm_link(t))
        return -1;
    rc_t rc = t->f.load(t->esys, t->primary, PASSWORD, NONE, NONE, &t->priv, &t->pub, &t->key);
    return rc ? tpm_failed(t, "loading the device key", rc) : tpm_session(t);
}

static int sign_now(struct tpm *t)
{
    uint8_t bytes[34] = {0, 32}, wire[256];
    blob_t hash, scheme, ticket;
    void *made = 0;
    size_t n = 0;
    memcpy(bytes + 2, t->digest, 32);
    GET(t->f.get_digest, &hash, bytes);
    GET(t->f.get_scheme, &scheme, SCHEME);
    GET(t->f.get_ticket, &ticket, TICKET);
    if (!t->esys && load_key(t))
        return -1;
    rc_t rc = t->f.sign(t->esys, t->key, t->session, NONE, NONE, &hash, &scheme, &ticket, &made);
    if (rc)
        return tpm_failed(t, "signing", rc);
    rc = t->f.put_signature(made, wire, sizeof wire, &n);
    t->f.free(made);
    const uint8_t *p = wire + 4, kind[4] = {0, 0x18, 0, 0x0b};
    if (rc || n < 4 || memcmp(wire, kind, 4) != 0 || !number(&p, wire + n, t->sig) || !number(&p, wire + n, t->sig + 32))
        return tpm_broken(t, "it answered with no ECDSA signature");
    lower(t->sig + 32);
    return 0;
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
    if (err && !t->failing)
        fprintf(stderr, "guard: no request can be signed: %s\n", t->why);
    if (!err && t->failing)
        fprintf(stderr, "guard: TPM %s: signs again\n", t->place);
    t->failing = err != 0;
    pthread_mutex_unlock(&t->lock);
    return err || generation != __atomic_load_n(&h->q.generation, __ATOMIC_SEQ_CST) ? QSAFP_E_KEY : 0;
}

typedef struct { uint8_t pk[64], file[QSAFP_TPM_KEY_MAX]; size_t n; } made_t;

static int create_key(struct tpm *t)
{
    made_t *m = t->arg;
    blob_t sensitive, template, none = {0};
    void *priv = 0, *pub = 0;
    GET(t->f.get_sensitive, &sensitive, TPM_EMPTY);
    GET(t->f.get_public, &template, SIGNING);
    if (tpm_link(t))
        return -1;
    rc_t rc = t->f.create(t->esys, t->primary, PASSWORD, NONE, NONE, &sensitive, &template, &none, &none, &priv, &pub, 0, 0, 0);
    if (rc)
        return tpm_failed(t, "making the device key", rc);
    bool ok = point(t, pub, m->pk) && t->f.put_public(pub, m->file, sizeof m->file, &m->n) == 0 && t->f.put_private(priv, m->file, sizeof m->file, &m->n) == 0;
    t->f.free(priv);
    t->f.free(pub);
    return ok ? 0 : tpm_broken(t, "it made a key of another kind");
}

int qsafp_tpm_create(const char *place, uint8_t pk[64], uint8_t *file, size_t *n, char *why, size_t why_len)
{
    static made_t m; /* a TPM that hangs may write to it after this returned */
    m.n = 0;
    int err = tpm_once(place, create_key, &m, why, why_len);
    if (err)
        return -1;
    memcpy(pk, m.pk, sizeof m.pk);
    memcpy(file, m.file, m.n);
    *n = m.n;
    return 0;
}

int tpm_open_key(struct tpm *t)
{
    const host_t *h = t->host;
    uint8_t file[QSAFP_TPM_KEY_MAX], pk[64];
    size_t at = 0;
    int fd = openat(h->store.dir_fd, "device.tpm", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, file, sizeof file);
    if (fd >= 0)
        close(fd);
    if (n <= 0 || !tpm_get(t->f.get_public, &t->pub, file, (size_t)n, &at) || !tpm_get(t->f.get_private, &t->priv, file, (size_t)n, &at) || at != (size_t)n)
        return tpm_broken(t, "device.tpm in state_dir is missing or damaged; restore it, or enrol again");
    if (!point(t, &t->pub, pk) || memcmp(pk, h->o->device_pk, sizeof pk) != 0)
        return tpm_broken(t, "device.tpm in state_dir is not the key in device.pub: replaced; restore both, or enrol again");
    return load_key(t);
}
