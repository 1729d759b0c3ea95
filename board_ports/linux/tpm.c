/* SPDX-License-Identifier: Apache-2.0 */
/* The device key in a TPM 2.0 (HW-11): ECDSA P-256, made there under the owner's storage primary, never outside it in the clear.
 *
 * libtss2 is opened at run time, and without its headers: its structs go through Tss2_MU from and to the bytes of the TPM
 * specification (part 2), so what stands here is those bytes.  A thread of its own talks to the TPM, so that one which
 * hangs keeps the service thread for TPM_WAIT_S and no longer; the deadline thread never waits for it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

enum { TPM_WAIT_S = 3, BLOB_MAX = 2048, HEAD_BYTES = 22, OWNER = 0x101, PASSWORD = 0xff, NONE = 0xfff, SHA256 = 0x000b };

typedef uint32_t rc_t;
typedef struct { _Alignas(8) uint8_t b[BLOB_MAX]; } blob_t; /* room for any struct of libtss2 that we hand over: the largest has 1,552 bytes */
typedef rc_t unmarshal_t(const uint8_t *p, size_t n, size_t *at, void *to);
typedef rc_t marshal_t(const void *from, uint8_t *p, size_t n, size_t *at);
typedef rc_t create_t(void *, uint32_t, uint32_t, uint32_t, uint32_t, const void *, const void *, const void *, const void *, void **, void **, void **, void **,
                      void **);

typedef struct {
    rc_t (*link)(const char *conf, void **tcti);
    void (*unlink)(void **tcti);
    rc_t (*open)(void **esys, void *tcti, void *abi);
    void (*close)(void **esys);
    rc_t (*primary)(void *, uint32_t, uint32_t, uint32_t, uint32_t, const void *, const void *, const void *, const void *, uint32_t *, void **, void **, void **,
                    void **);
    create_t *create;
    rc_t (*load)(void *, uint32_t, uint32_t, uint32_t, uint32_t, const void *, const void *, uint32_t *);
    rc_t (*session)(void *, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, const void *, uint8_t, const void *, uint16_t, uint32_t *);
    rc_t (*keep)(void *, uint32_t, uint8_t, uint8_t);
    rc_t (*sign)(void *, uint32_t, uint32_t, uint32_t, uint32_t, const void *, const void *, const void *, void **);
    rc_t (*flush)(void *, uint32_t);
    void (*free)(void *);
    unmarshal_t *get_public, *get_private, *get_sensitive, *get_scheme, *get_ticket, *get_sym, *get_digest;
    marshal_t *put_public, *put_private, *put_signature;
} tss_t;

struct tpm {
    tss_t f;
    const char *place;               /* a TCTI configuration */
    void *link, *esys;               /* 0 while there is no connection */
    uint32_t primary, key, session;  /* 0: not there */
    blob_t pub, priv;
    uint8_t pk[64];
    uint8_t digest[32], sig[64];
    enum { IDLE, ASKED, STUCK, STOP } turn;
    bool running, failing;
    int err;
    char why[256];
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more, done;
};

static int broken(struct tpm *t, const char *why)
{
    snprintf(t->why, sizeof t->why, "TPM %s: %s", t->place, why);
    return -1;
}

/* ---- libtss2 ---- */

static const struct { const char *so, *package; } LIBS[] = {
    {"libtss2-tctildr.so.0", "libtss2-tctildr0"}, {"libtss2-esys.so.0", "libtss2-esys-3.0.2-0"}, {"libtss2-mu.so.0", "libtss2-mu0"}};
#define FN(lib, to, name) {lib, offsetof(tss_t, to), name}
static const struct { unsigned lib; size_t at; const char *name; } FNS[] = {
    FN(0, link, "Tss2_TctiLdr_Initialize"), FN(0, unlink, "Tss2_TctiLdr_Finalize"), FN(1, open, "Esys_Initialize"), FN(1, close, "Esys_Finalize"),
    FN(1, primary, "Esys_CreatePrimary"), FN(1, create, "Esys_Create"), FN(1, load, "Esys_Load"), FN(1, session, "Esys_StartAuthSession"),
    FN(1, keep, "Esys_TRSess_SetAttributes"), FN(1, sign, "Esys_Sign"), FN(1, flush, "Esys_FlushContext"), FN(1, free, "Esys_Free"),
    FN(2, get_public, "Tss2_MU_TPM2B_PUBLIC_Unmarshal"), FN(2, get_private, "Tss2_MU_TPM2B_PRIVATE_Unmarshal"),
    FN(2, get_sensitive, "Tss2_MU_TPM2B_SENSITIVE_CREATE_Unmarshal"), FN(2, get_scheme, "Tss2_MU_TPMT_SIG_SCHEME_Unmarshal"),
    FN(2, get_ticket, "Tss2_MU_TPMT_TK_HASHCHECK_Unmarshal"), FN(2, get_sym, "Tss2_MU_TPMT_SYM_DEF_Unmarshal"),
    FN(2, get_digest, "Tss2_MU_TPM2B_DIGEST_Unmarshal"), FN(2, put_public, "Tss2_MU_TPM2B_PUBLIC_Marshal"),
    FN(2, put_private, "Tss2_MU_TPM2B_PRIVATE_Marshal"), FN(2, put_signature, "Tss2_MU_TPMT_SIGNATURE_Marshal")};

static int open_tss(struct tpm *t)
{
    void *so[3];
    char why[160];
    (void)setenv("TSS2_LOG", "all+none", 0); /* we say it, once */
    for (unsigned i = 0; i < 3; i++) {
        so[i] = dlopen(LIBS[i].so, RTLD_NOW | RTLD_LOCAL);
        snprintf(why, sizeof why, "%s is not here; run: apt-get install %s", LIBS[i].so, LIBS[i].package);
        if (!so[i])
            return broken(t, why);
    }
    for (size_t i = 0; i < sizeof FNS / sizeof *FNS; i++) {
        void *fn = dlsym(so[FNS[i].lib], FNS[i].name);
        snprintf(why, sizeof why, "no %s in %s: another version than ours; run: apt-get install %s", FNS[i].name, LIBS[FNS[i].lib].so, LIBS[FNS[i].lib].package);
        if (!fn)
            return broken(t, why);
        memcpy((uint8_t *)&t->f + FNS[i].at, &fn, sizeof fn);
    }
    return 0;
}

/* ---- what a return code means, and what to do ---- */

static int no_link(struct tpm *t)
{
    const char *dev = strncmp(t->place, "device:", 7) ? 0 : t->place + 7;
    if (!dev)
        return broken(t, "nothing answers there, or its package libtss2-tcti-* is missing; start or install it, or correct device_key in guard.toml");
    if (access(dev, F_OK))
        return broken(t, "no such device; enable the TPM in the firmware, or correct device_key in guard.toml");
    return access(dev, R_OK | W_OK) ? broken(t, "permission denied; put the guard's user into group tss") : broken(t, "busy or dead; use /dev/tpmrm0, which shares");
}

static int failed(struct tpm *t, const char *step, rc_t rc)
{
    char why[120];
    rc_t code = rc & 0xffff, one = rc & 0xbf;
    bool tpm = (rc >> 16) == 0 || (rc >> 16) == 11; /* the TPM, or the kernel's resource manager */
    if ((rc >> 16) == 10)
        return no_link(t);
    if (tpm && code == 0x101)
        return broken(t, "in failure mode; switch the board off and on, and replace the TPM if it stays so");
    if (tpm && code == 0x921)
        return broken(t, "locked out after wrong passwords; wait for its recovery time, or run: tpm2_dictionarylockout -c");
    if (tpm && code == 0x902)
        return broken(t, "no room for another object; use /dev/tpmrm0, or run: tpm2_flushcontext -t");
    if (tpm && code == 0x100)
        return broken(t, "not started up; run: tpm2_startup -c");
    if (tpm && (code & 0x80) && (one == 0x9f || one == 0xa5))
        return broken(t, "the device key was made by another TPM, or this one was cleared: replaced; put the first back, or enrol again");
    if (tpm && (code & 0x80) && (one == 0x8e || one == 0xa2))
        return broken(t, "its owner hierarchy has a password, which the guard does not know; remove it: tpm2_changeauth -c owner -p OLD");
    snprintf(why, sizeof why, "%s failed with code 0x%x; tpm2_rc_decode 0x%x explains it", step, (unsigned)rc, (unsigned)rc);
    return broken(t, why);
}

/* ---- bytes of part 2 ---- */

/* TPM2B_PUBLIC up to x and y: ECC, SHA-256; fixedTPM fixedParent sensitiveDataOrigin userWithAuth noDA, no policy ... */
static const uint8_t STORAGE[] = {0, 26, 0, 0x23, 0, 0x0b, 0, 3, 4, 0x72, 0, 0, /* restricted decrypt: AES-128-CFB, no scheme, P-256, no kdf */
                                  0, 6, 0, 128, 0, 0x43, 0, 0x10, 0, 3, 0, 0x10, 0, 0, 0, 0};
static const uint8_t SIGNING[] = {0, 24, 0, 0x23, 0, 0x0b, 0, 4, 4, 0x72, 0, 0, /* sign: no symmetric, ECDSA with SHA-256, P-256, no kdf */
                                  0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10, 0, 0, 0, 0};
static const uint8_t SENSITIVE[] = {0, 4, 0, 0, 0, 0}; /* no password, no data */
static const uint8_t TICKET[] = {0x80, 0x24, 0x40, 0, 0, 7, 0, 0}; /* hashed outside: none */
static const uint8_t SCHEME[] = {0, 0x10}; /* the key's own */
static const uint8_t SYM[] = {0, 6, 0, 128, 0, 0x43};

static bool get(unmarshal_t *fn, blob_t *to, const uint8_t *p, size_t n, size_t *at)
{
    memset(to, 0, sizeof *to);
    return fn(p, n, at, to) == 0;
}

#define GET(fn, to, bytes) ((void)get(fn, to, bytes, sizeof(bytes), &(size_t){0}))

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

/* ---- the TPM ---- */

static void drop(struct tpm *t, uint32_t *what)
{
    if (t->esys && *what)
        (void)t->f.flush(t->esys, *what); /* a TPM without resource manager keeps it for a next caller */
    *what = 0;
}

static void unlink_tpm(struct tpm *t)
{
    drop(t, &t->primary);
    drop(t, &t->key);
    drop(t, &t->session);
    if (t->esys)
        t->f.close(&t->esys);
    if (t->link)
        t->f.unlink(&t->link);
}

static int link_tpm(struct tpm *t)
{
    blob_t storage, sensitive, none = {0};
    GET(t->f.get_public, &storage, STORAGE);
    GET(t->f.get_sensitive, &sensitive, SENSITIVE);
    if (t->f.link(t->place, &t->link))
        return no_link(t);
    rc_t rc = t->f.open(&t->esys, t->link, 0);
    if (rc)
        return failed(t, "opening", rc);
    rc = t->f.primary(t->esys, OWNER, PASSWORD, NONE, NONE, &sensitive, &storage, &none, &none, &t->primary, 0, 0, 0, 0);
    return rc ? failed(t, "making the storage primary", rc) : 0;
}

/* The key loaded, and a session salted to the TPM's own key: what is on the bus between cannot sign in its place unseen. */
static int load_key(struct tpm *t)
{
    blob_t sym;
    GET(t->f.get_sym, &sym, SYM);
    if (link_tpm(t))
        return -1;
    rc_t rc = t->f.load(t->esys, t->primary, PASSWORD, NONE, NONE, &t->priv, &t->pub, &t->key);
    if (rc)
        return failed(t, "loading the device key", rc);
    rc = t->f.session(t->esys, t->primary, NONE, NONE, NONE, NONE, 0, 0, &sym, SHA256, &t->session);
    if (!rc)
        rc = t->f.keep(t->esys, t->session, 1, 0xff);
    drop(t, &t->primary);
    return rc ? failed(t, "starting a session", rc) : 0;
}

static int sign_now(struct tpm *t, const uint8_t digest[32], uint8_t sig[64])
{
    uint8_t bytes[34] = {0, 32}, wire[256];
    blob_t hash, scheme, ticket;
    void *made = 0;
    size_t n = 0;
    memcpy(bytes + 2, digest, 32);
    GET(t->f.get_digest, &hash, bytes);
    GET(t->f.get_scheme, &scheme, SCHEME);
    GET(t->f.get_ticket, &ticket, TICKET);
    if (!t->esys && load_key(t))
        return -1;
    rc_t rc = t->f.sign(t->esys, t->key, t->session, NONE, NONE, &hash, &scheme, &ticket, &made);
    if (rc)
        return failed(t, "signing", rc);
    rc = t->f.put_signature(made, wire, sizeof wire, &n);
    t->f.free(made);
    const uint8_t *p = wire + 4, kind[4] = {0, 0x18, 0, 0x0b};
    if (rc || n < 4 || memcmp(wire, kind, 4) != 0 || !number(&p, wire + n, sig) || !number(&p, wire + n, sig + 32))
        return broken(t, "it answered with no ECDSA signature");
    lower(sig + 32);
    return 0;
}

static void *tpm_thread(void *arg)
{
    struct tpm *t = arg;
    pthread_mutex_lock(&t->lock);
    while (t->turn != STOP) {
        if (t->turn != ASKED) {
            pthread_cond_wait(&t->more, &t->lock);
            continue;
        }
        uint8_t digest[32], sig[64];
        memcpy(digest, t->digest, sizeof digest);
        pthread_mutex_unlock(&t->lock);
        int err = sign_now(t, digest, sig);
        if (err)
            unlink_tpm(t); /* the next one begins anew */
        pthread_mutex_lock(&t->lock);
        memcpy(t->sig, sig, sizeof sig);
        t->err = err;
        t->turn = t->turn == STOP ? STOP : IDLE; /* whoever gave up on it takes no late signature */
        pthread_cond_signal(&t->done);
    }
    pthread_mutex_unlock(&t->lock);
    return 0;
}

/* ---- what the guard calls ---- */

static int ask(struct tpm *t)
{
    struct timespec end;
    if (t->turn != IDLE)
        return -1; /* still at the one before */
    t->turn = ASKED;
    pthread_cond_signal(&t->more);
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += TPM_WAIT_S;
    while (t->turn == ASKED)
        if (pthread_cond_timedwait(&t->done, &t->lock, &end) && t->turn == ASKED) {
            t->turn = STUCK;
            return -1;
        }
    return t->err;
}

int tpm_sign(host_t *h, uint8_t sig[64], const uint8_t *msg, size_t len)
{
    struct tpm *t = h->tpm;
    pthread_mutex_lock(&t->lock);
    if (t->turn == IDLE)
        qsafp_sha256(t->digest, msg, len);
    int err = ask(t);
    memcpy(sig, t->sig, 64);
    if (err && !t->failing)
        fprintf(stderr, "guard: no request can be signed: %s%s%s\n", t->turn == STUCK ? "TPM " : t->why, t->turn == STUCK ? t->place : "",
                t->turn == STUCK ? ": it does not answer" : "");
    if (!err && t->failing)
        fprintf(stderr, "guard: TPM %s: signs again\n", t->place);
    t->failing = err != 0;
    pthread_mutex_unlock(&t->lock);
    return err ? QSAFP_E_KEY : 0;
}

static struct tpm *tpm_new(const char *place, char *why, size_t why_len)
{
    struct tpm *t = calloc(1, sizeof *t);
    if (!t)
        return 0;
    t->place = place;
    if (open_tss(t)) {
        snprintf(why, why_len, "%s", t->why);
        free(t);
        return 0;
    }
    return t;
}

static int create_key(struct tpm *t, uint8_t pk[64], uint8_t *file, size_t cap, size_t *n)
{
    blob_t sensitive, template, none = {0};
    void *priv = 0, *pub = 0;
    GET(t->f.get_sensitive, &sensitive, SENSITIVE);
    GET(t->f.get_public, &template, SIGNING);
    if (link_tpm(t))
        return -1;
    rc_t rc = t->f.create(t->esys, t->primary, PASSWORD, NONE, NONE, &sensitive, &template, &none, &none, &priv, &pub, 0, 0, 0);
    if (rc)
        return failed(t, "making the device key", rc);
    bool ok = point(t, pub, pk) && t->f.put_public(pub, file, cap, n) == 0 && t->f.put_private(priv, file, cap, n) == 0;
    t->f.free(priv);
    t->f.free(pub);
    return ok ? 0 : broken(t, "it made a key of another kind");
}

int qsafp_tpm_create(const char *place, uint8_t pk[64], uint8_t *file, size_t *n, char *why, size_t why_len)
{
    struct tpm *t = tpm_new(place, why, why_len);
    if (!t)
        return -1;
    size_t cap = *n;
    *n = 0;
    int err = create_key(t, pk, file, cap, n);
    if (err)
        snprintf(why, why_len, "%s", t->why);
    unlink_tpm(t);
    free(t);
    return err;
}

static int read_key(struct tpm *t, const host_t *h)
{
    uint8_t file[QSAFP_TPM_KEY_MAX], pk[64];
    size_t at = 0;
    int fd = openat(h->store.dir_fd, "device.tpm", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, file, sizeof file);
    if (fd >= 0)
        close(fd);
    if (n <= 0 || !get(t->f.get_public, &t->pub, file, (size_t)n, &at) || !get(t->f.get_private, &t->priv, file, (size_t)n, &at) || at != (size_t)n)
        return broken(t, "device.tpm in state_dir is missing or damaged; restore it, or enrol again");
    if (!point(t, &t->pub, pk) || memcmp(pk, h->o->device_pk, sizeof pk) != 0)
        return broken(t, "device.tpm in state_dir is not the key in device.pub: replaced; restore both, or enrol again");
    return load_key(t);
}

int tpm_start(host_t *h)
{
    pthread_condattr_t steady;
    struct tpm *t = tpm_new(h->o->tpm, h->why, h->why_len);
    if (!t)
        return -1;
    h->tpm = t;
    pthread_mutex_init(&t->lock, 0);
    pthread_cond_init(&t->more, 0);
    pthread_condattr_init(&steady);
    pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
    pthread_cond_init(&t->done, &steady);
    if (read_key(t, h))
        return fail(h, "%s", t->why); /* tpm_stop lets go of the rest */
    t->running = pthread_create(&t->thread, 0, tpm_thread, t) == 0;
    return t->running ? 0 : fail(h, "cannot start the TPM's thread");
}

void tpm_stop(host_t *h)
{
    struct tpm *t = h->tpm;
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    bool stuck = t->turn == STUCK; /* it is in the TPM's driver and may not come back: it ends with the process */
    t->turn = STOP;
    pthread_cond_signal(&t->more);
    pthread_mutex_unlock(&t->lock);
    if (stuck)
        return;
    if (t->running)
        pthread_join(t->thread, 0);
    unlink_tpm(t);
    free(t);
    h->tpm = 0;
}
