/* SPDX-License-Identifier: Apache-2.0 */
/* The weaker option: an Ed25519 seed that only this TPM opens, and that lies in the guard's memory from its start on (HW-11). */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "tpm.h"

enum { CONTINUE = 1, ENCRYPT_PARAMETER = 0x20, ENCRYPT_ANSWER = 0x40, BAD_AUTH = 0xa2, AUTH_FAIL = 0x8e };

/* TPM2B_PUBLIC: keyed hash, SHA-256; fixedTPM fixedParent userWithAuth noDA, no policy, no scheme: data. */
static const uint8_t DATA[] = {0, 14, 0, 8, 0, SHA256, 0, 0, 4, 0x52, 0, 0, 0, 0x10, 0, 0};

static const tpm_kind_t SEALED = {OWNER, DATA, sizeof DATA, "device.sealed", "sealed seed"};

typedef struct { uint8_t seed[32], auth[32], file[QSAFP_TPM_KEY_MAX]; size_t n; } sealing_t;

/* Ties the blob to this device's nonce.key: neither opens without the other. */
static void auth_of(uint8_t auth[32], const uint8_t nonce_key[32])
{
    static const char label[] = "qsafp-sealed-seed";
    qsafp_hmac_sha256(auth, nonce_key, 32, (const uint8_t *)label, sizeof label - 1);
}

static int seal_now(struct tpm *t)
{
    sealing_t *s = t->arg;
    uint8_t bytes[70] = {0, 68, 0, 32, [37] = 32};
    blob_t sensitive, public, none = {0};
    void *priv = 0, *pub = 0;
    memcpy(bytes + 4, s->auth, 32);
    memcpy(bytes + 38, s->seed, 32);
    GET(t->f.get_sensitive, &sensitive, bytes);
    GET(t->f.get_public, &public, DATA);
    qsafp_wipe(bytes, sizeof bytes);
    if (tpm_open(t) || tpm_storage(t, OWNER) || tpm_session(t, 0, &t->session))
        return -1;
    rc_t rc = t->f.keep(t->esys, t->session, CONTINUE | ENCRYPT_PARAMETER, 0xff);
    if (!rc)
        rc = t->f.create(t->esys, t->primary, t->session, NONE, NONE, &sensitive, &public, &none, &none, &priv, &pub, 0, 0, 0);
    qsafp_wipe(&sensitive, sizeof sensitive);
    if (rc)
        return tpm_failed(t, "sealing the seed", rc);
    bool ok = t->f.put_public(pub, s->file, sizeof s->file, &s->n) == 0 && t->f.put_private(priv, s->file, sizeof s->file, &s->n) == 0;
    t->f.free(priv);
    t->f.free(pub);
    return ok ? 0 : tpm_broken(t, "it sealed to something else");
}

int qsafp_tpm_seal(const char *place, const uint8_t seed[32], const uint8_t nonce_key[32], uint8_t *file, size_t *n, char *why, size_t why_len)
{
    sealing_t s = {.n = 0};
    memcpy(s.seed, seed, sizeof s.seed);
    auth_of(s.auth, nonce_key);
    int err = tpm_once(place, seal_now, &s, sizeof s, why, why_len);
    qsafp_wipe(s.seed, sizeof s.seed + sizeof s.auth);
    if (err)
        return -1;
    memcpy(file, s.file, s.n);
    *n = s.n;
    return 0;
}

/* ---- at the start ---- */

static int take_seed(struct tpm *t, void *data)
{
    uint8_t wire[64];
    size_t n = 0;
    rc_t rc = t->f.put_sensitive(data, wire, sizeof wire, &n);
    bool ok = rc == 0 && n == 34;
    if (ok)
        memcpy(t->secret, wire + 2, 32);
    qsafp_wipe(data, 34);
    qsafp_wipe(wire, sizeof wire);
    t->f.free(data);
    return ok ? 0 : tpm_broken(t, "device.sealed holds no seed; restore it, or enrol again");
}

static int unseal(struct tpm *t)
{
    uint8_t bytes[34] = {0, 32};
    blob_t auth;
    void *data = 0;
    memcpy(bytes + 2, t->digest, 32);
    GET(t->f.get_digest, &auth, bytes); /* TPM2B_AUTH is a digest */
    qsafp_wipe(bytes, sizeof bytes);
    rc_t rc = t->f.set_auth(t->esys, t->key, &auth);
    qsafp_wipe(&auth, sizeof auth);
    if (!rc)
        rc = t->f.keep(t->esys, t->session, CONTINUE | ENCRYPT_ANSWER, 0xff); /* no seed in the clear on the bus */
    if (!rc)
        rc = t->f.unseal(t->esys, t->key, t->session, NONE, NONE, &data);
    if (rc && ((rc & 0xbf) == BAD_AUTH || (rc & 0xbf) == AUTH_FAIL))
        return tpm_broken(t, "nonce.key in state_dir is not the one that device.sealed goes with: replaced; restore both, or enrol again");
    return rc ? tpm_failed(t, "unsealing the seed", rc) : take_seed(t, data);
}

static int open_sealed(struct tpm *t)
{
    uint8_t file[QSAFP_TPM_KEY_MAX];
    if (!tpm_blobs(t, &t->key_blobs, file, tpm_file(t, SEALED.file, file)))
        return tpm_broken(t, "device.sealed in state_dir is missing or damaged; restore it, or enrol again");
    int err = tpm_open(t) || tpm_load(t, &SEALED, &t->key_blobs, &t->key) || unseal(t) ? -1 : 0;
    tpm_drop(t, &t->key);
    if (!err && t->f.keep(t->esys, t->session, CONTINUE, 0xff))
        err = tpm_broken(t, "the session is lost");
    t->open = tpm_plain;
    return err;
}

/* The seed must be that of the public key which validators know. */
static bool fits(host_t *h)
{
    uint8_t sig[64];
    static const uint8_t text[] = "qsafp";
    const uint8_t *pk = h->o->secret_key + 32;
    memcpy(h->secret, h->tpm->secret, 32);
    memcpy(h->secret + 32, pk, 32);
    qsafp_wipe(h->tpm->secret, sizeof h->tpm->secret);
    return h->sodium.sign(sig, 0, text, sizeof text, h->secret) == 0 && h->sodium.verify(sig, text, sizeof text, pk) == 0;
}

int tpm_unseal(host_t *h)
{
    (void)mlock(h, sizeof *h); /* where permitted, as mlockall later */
    if (tpm_begin(h))
        return -1;
    auth_of(h->tpm->digest, h->o->nonce_key);
    if (tpm_connect(h, open_sealed))
        return -1;
    if (!fits(h))
        return fail(h, "TPM %s: device.sealed in state_dir is not the key in device.pub: replaced; restore both, or enrol again", h->o->tpm);
    if (!h->o->tpm_nv)
        tpm_stop(h); /* nothing more to ask it for */
    return 0;
}
