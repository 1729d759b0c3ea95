/* SPDX-License-Identifier: Apache-2.0 */
/* A TPM 2.0 through libtss2: the library, the connection, what its errors mean, and a thread of its own.
 *
 * libtss2 is opened at run time, and without its headers: its structs go through Tss2_MU from and to the bytes of the TPM
 * specification (part 2), so what stands here is those bytes.  A thread of its own talks to the TPM, so that one which
 * hangs keeps the client that asked for TPM_WAIT_S and no longer; others are served meanwhile, and the deadline thread never waits. */
#define _GNU_SOURCE
#include "tpm.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TPM_WAIT_S = 3, TPM_START_S = 10 };

int tpm_broken(struct tpm *t, const char *why)
{
    snprintf(t->why, sizeof t->why, "TPM %s: %s", t->place, why);
    return -1;
}

/* ---- libtss2 ---- */

static const struct { const char *so, *package; } LIBS[] = {
    {"libtss2-mu.so.0", "libtss2-mu0"}, {"libtss2-tctildr.so.0", "libtss2-tctildr0"}, {"libtss2-esys.so.0", "libtss2-esys-3.0.2-0"}}; /* each needs those before */
#define FN(lib, to, name) {lib, offsetof(tss_t, to), name}
static const struct { unsigned lib; size_t at; const char *name; } FNS[] = {
    FN(1, link, "Tss2_TctiLdr_Initialize"), FN(1, unlink, "Tss2_TctiLdr_Finalize"), FN(2, open, "Esys_Initialize"), FN(2, close, "Esys_Finalize"),
    FN(2, primary, "Esys_CreatePrimary"), FN(2, create, "Esys_Create"), FN(2, load, "Esys_Load"), FN(2, session, "Esys_StartAuthSession"),
    FN(2, keep, "Esys_TRSess_SetAttributes"), FN(2, sign, "Esys_Sign"), FN(2, quote, "Esys_Quote"), FN(2, policy_secret, "Esys_PolicySecret"),
    FN(2, activate, "Esys_ActivateCredential"), FN(2, pcr_read, "Esys_PCR_Read"), FN(2, set_auth, "Esys_TR_SetAuth"), FN(2, unseal, "Esys_Unseal"),
    FN(2, nv_open, "Esys_TR_FromTPMPublic"), FN(2, nv_public, "Esys_NV_ReadPublic"), FN(2, nv_define, "Esys_NV_DefineSpace"),
    FN(2, nv_undefine, "Esys_NV_UndefineSpace"), FN(2, nv_read, "Esys_NV_Read"), FN(2, nv_write, "Esys_NV_Write"), FN(2, nv_extend, "Esys_NV_Extend"),
    FN(2, nv_increment, "Esys_NV_Increment"), FN(2, flush, "Esys_FlushContext"), FN(2, free, "Esys_Free"),
    FN(0, put_sensitive, "Tss2_MU_TPM2B_SENSITIVE_DATA_Marshal"), FN(0, get_nv_public, "Tss2_MU_TPM2B_NV_PUBLIC_Unmarshal"),
    FN(0, get_nv_buffer, "Tss2_MU_TPM2B_MAX_NV_BUFFER_Unmarshal"),
    FN(0, get_public, "Tss2_MU_TPM2B_PUBLIC_Unmarshal"), FN(0, get_private, "Tss2_MU_TPM2B_PRIVATE_Unmarshal"),
    FN(0, get_sensitive, "Tss2_MU_TPM2B_SENSITIVE_CREATE_Unmarshal"), FN(0, get_scheme, "Tss2_MU_TPMT_SIG_SCHEME_Unmarshal"),
    FN(0, get_ticket, "Tss2_MU_TPMT_TK_HASHCHECK_Unmarshal"), FN(0, get_sym, "Tss2_MU_TPMT_SYM_DEF_Unmarshal"),
    FN(0, get_digest, "Tss2_MU_TPM2B_DIGEST_Unmarshal"), FN(0, get_data, "Tss2_MU_TPM2B_DATA_Unmarshal"),
    FN(0, get_selection, "Tss2_MU_TPML_PCR_SELECTION_Unmarshal"), FN(0, get_id, "Tss2_MU_TPM2B_ID_OBJECT_Unmarshal"),
    FN(0, get_secret, "Tss2_MU_TPM2B_ENCRYPTED_SECRET_Unmarshal"), FN(0, put_attest, "Tss2_MU_TPM2B_ATTEST_Marshal"),
    FN(0, put_digest, "Tss2_MU_TPM2B_DIGEST_Marshal"), FN(0, put_digests, "Tss2_MU_TPML_DIGEST_Marshal"),
    FN(0, put_nv_public, "Tss2_MU_TPM2B_NV_PUBLIC_Marshal"), FN(0, put_nv_buffer, "Tss2_MU_TPM2B_MAX_NV_BUFFER_Marshal"), FN(0, put_public, "Tss2_MU_TPM2B_PUBLIC_Marshal"),
    FN(0, put_private, "Tss2_MU_TPM2B_PRIVATE_Marshal"), FN(0, put_signature, "Tss2_MU_TPMT_SIGNATURE_Marshal")};

static int open_tss(struct tpm *t)
{
    void *so[3];
    char why[160];
    (void)setenv("TSS2_LOG", "all+none", 0); /* we say it, once */
    for (unsigned i = 0; i < 3; i++) {
        so[i] = dlopen(LIBS[i].so, RTLD_NOW | RTLD_LOCAL);
        snprintf(why, sizeof why, "%s is not here; run: apt-get install %s", LIBS[i].so, LIBS[i].package);
        if (!so[i])
            return tpm_broken(t, why);
    }
    for (size_t i = 0; i < sizeof FNS / sizeof *FNS; i++) {
        void *fn = dlsym(so[FNS[i].lib], FNS[i].name);
        snprintf(why, sizeof why, "no %s in %s: another version than ours; run: apt-get install %s", FNS[i].name, LIBS[FNS[i].lib].so, LIBS[FNS[i].lib].package);
        if (!fn)
            return tpm_broken(t, why);
        memcpy((uint8_t *)&t->f + FNS[i].at, &fn, sizeof fn);
    }
    return 0;
}

/* ---- what a return code means, and what to do ---- */

static int no_link(struct tpm *t)
{
    const char *dev = strncmp(t->place, "device:", 7) ? 0 : t->place + 7;
    if (!dev)
        return tpm_broken(t, "nothing answers there, or its package libtss2-tcti-* is missing; start or install it, or correct device_key in guard.toml");
    if (access(dev, F_OK))
        return tpm_broken(t, "no such device; enable the TPM in the firmware, or correct device_key in guard.toml");
    return access(dev, R_OK | W_OK) ? tpm_broken(t, "permission denied; put the guard's user into group tss") : tpm_broken(t, "busy or dead; use /dev/tpmrm0, which shares");
}

int tpm_failed(struct tpm *t, const char *step, rc_t rc)
{
    char why[120];
    rc_t code = rc & 0xffff, one = rc & 0xbf;
    bool tpm = (rc >> 16) == 0 || (rc >> 16) == 11; /* the TPM, or the kernel's resource manager */
    if ((rc >> 16) == 10)
        return no_link(t);
    if (tpm && code == 0x101)
        return tpm_broken(t, "in failure mode; switch the board off and on, and replace the TPM if it stays so");
    if (tpm && code == 0x921)
        return tpm_broken(t, "locked out after wrong passwords; wait for its recovery time, or run: tpm2_dictionarylockout -c");
    if (tpm && code == 0x902)
        return tpm_broken(t, "no room for another object; use /dev/tpmrm0, or run: tpm2_flushcontext -t");
    if (tpm && code == 0x100)
        return tpm_broken(t, "not started up; run: tpm2_startup -c");
    if (tpm && code == 0x14b)
        return tpm_broken(t, "no room left in its NV memory; free some: tpm2_getcap handles-nv-index shows what is there, tpm2_nvundefine removes");
    if (tpm && code == 0x920)
        return tpm_broken(t, "it takes no more NV writes for now, to spare its memory; they are tried again");
    if (tpm && (code & 0x80) && (one == 0x9f || one == 0xa5))
        return tpm_broken(t, "the device key was made by another TPM, or this one was cleared: replaced; put the first back, or enrol again");
    if (tpm && (code & 0x80) && (one == 0x8e || one == 0xa2))
        return tpm_broken(t, "its owner hierarchy has a password, which the guard does not know; remove it: tpm2_changeauth -c owner -p OLD");
    snprintf(why, sizeof why, "%s failed with code 0x%x; tpm2_rc_decode 0x%x explains it", step, (unsigned)rc, (unsigned)rc);
    return tpm_broken(t, why);
}

/* ---- the connection ---- */

/* TPM2B_PUBLIC up to x and y: ECC, SHA-256; fixedTPM fixedParent sensitiveDataOrigin userWithAuth noDA, no policy ... */
static const uint8_t STORAGE[] = {0, 26, 0, 0x23, 0, 0x0b, 0, 3, 4, 0x72, 0, 0, /* restricted decrypt: AES-128-CFB, no scheme, P-256, no kdf */
                                  0, 6, 0, 128, 0, 0x43, 0, 0x10, 0, 3, 0, 0x10, 0, 0, 0, 0};
const uint8_t TPM_EMPTY[6] = {0, 4, 0, 0, 0, 0};

bool tpm_get(unmarshal_t *fn, blob_t *to, const uint8_t *p, size_t n, size_t *at)
{
    memset(to, 0, sizeof *to);
    return fn(p, n, at, to) == 0;
}

void tpm_drop(struct tpm *t, uint32_t *what)
{
    if (t->esys && *what)
        (void)t->f.flush(t->esys, *what); /* a TPM without resource manager keeps it for a next caller */
    *what = 0;
}

void tpm_unlink(struct tpm *t)
{
    tpm_drop(t, &t->primary);
    tpm_drop(t, &t->key);
    tpm_drop(t, &t->ak);
    tpm_drop(t, &t->session);
    tpm_drop(t, &t->policy);
    memset(t->nv.index, 0, sizeof t->nv.index); /* no objects: nothing to flush */
    if (t->esys)
        t->f.close(&t->esys);
    if (t->link)
        t->f.unlink(&t->link);
}

int tpm_open(struct tpm *t)
{
    if (t->f.link(t->place, &t->link))
        return no_link(t);
    rc_t rc = t->f.open(&t->esys, t->link, 0);
    return rc ? tpm_failed(t, "opening", rc) : 0;
}

int tpm_primary(struct tpm *t, uint32_t hierarchy, const uint8_t *template, size_t n, void **pub)
{
    blob_t public, sensitive, none = {0};
    (void)tpm_get(t->f.get_public, &public, template, n, &(size_t){0});
    GET(t->f.get_sensitive, &sensitive, TPM_EMPTY);
    rc_t rc = t->f.primary(t->esys, hierarchy, PASSWORD, NONE, NONE, &sensitive, &public, &none, &none, &t->primary, pub, 0, 0, 0);
    return rc ? tpm_failed(t, "making a primary key", rc) : 0;
}

int tpm_storage(struct tpm *t, uint32_t hierarchy)
{
    return tpm_primary(t, hierarchy, STORAGE, sizeof STORAGE, 0);
}

/* Salted to the TPM's own key: what is on the bus between cannot answer in its place unseen. */
int tpm_session(struct tpm *t, uint8_t type, uint32_t *out)
{
    static const uint8_t SYM[] = {0, 6, 0, 128, 0, 0x43};
    blob_t sym;
    GET(t->f.get_sym, &sym, SYM);
    rc_t rc = t->f.session(t->esys, t->primary, NONE, NONE, NONE, NONE, 0, type, &sym, SHA256, out);
    if (!rc)
        rc = t->f.keep(t->esys, *out, 1, 0xff);
    return rc ? tpm_failed(t, "starting a session", rc) : 0;
}

int tpm_load(struct tpm *t, const tpm_kind_t *kind, const tpm_blobs_t *b, uint32_t *handle)
{
    char step[40];
    snprintf(step, sizeof step, "loading the %s", kind->what);
    if (tpm_storage(t, kind->hierarchy))
        return -1;
    rc_t rc = t->f.load(t->esys, t->primary, PASSWORD, NONE, NONE, &b->priv, &b->pub, handle);
    if (rc)
        return tpm_failed(t, step, rc);
    int err = t->session ? 0 : tpm_session(t, 0, &t->session);
    tpm_drop(t, &t->primary);
    return err;
}

/* ---- its thread ---- */

static void *tpm_thread(void *arg)
{
    struct tpm *t = arg;
    pthread_mutex_lock(&t->lock);
    while (t->turn != STOP) {
        if (t->turn != ASKED) {
            pthread_cond_wait(&t->more, &t->lock);
            continue;
        }
        pthread_mutex_unlock(&t->lock);
        int err = t->job(t);
        if (err)
            tpm_unlink(t); /* the next one begins anew */
        pthread_mutex_lock(&t->lock);
        t->err = err;
        if (t->posted) {
            t->posted = false;
            t->ended = true;
            t->ended_err = err;
            memcpy(t->ended_why, t->why, sizeof t->why);
        }
        t->turn = t->turn == STOP ? STOP : IDLE; /* whoever gave up on it takes no late answer */
        pthread_cond_broadcast(&t->done);
        if (t->wake_fd >= 0)
            (void)!write(t->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    }
    pthread_mutex_unlock(&t->lock);
    return 0;
}

/* One turn of waiting; where the service thread waits for a client's request, it goes on serving the others. */
static void wait_turn(struct tpm *t, uint64_t left_ns)
{
    struct timespec end;
    int ms = (int)(left_ns / 1000000u) + 1;
    if (t->host && t->host->asking) {
        pthread_mutex_unlock(&t->lock);
        bool go_on = serve_turn(t->host, ms);
        pthread_mutex_lock(&t->lock);
        t->given_up |= !go_on;
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += ms / 1000;
    end.tv_nsec += ms % 1000 * 1000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_nsec -= 1000000000;
        end.tv_sec++;
    }
    (void)pthread_cond_timedwait(&t->done, &t->lock, &end);
}

/* Waits for the job in hand, up to its limit; false if it is at it still. */
bool tpm_idle(struct tpm *t)
{
    t->given_up = false;
    while (t->turn == ASKED) {
        uint64_t took = boot_ns() - t->since_ns;
        if (t->given_up || took >= t->limit_ns)
            break;
        wait_turn(t, t->limit_ns - took);
    }
    if (t->turn != IDLE)
        (void)tpm_broken(t, "it does not answer; if it stays so, switch the board off and on, which resets it, or replace it");
    return t->turn == IDLE;
}

static bool begin(struct tpm *t, int (*job)(struct tpm *t), uint32_t limit_s)
{
    if (t->turn != IDLE)
        return false;
    t->job = job;
    t->turn = ASKED;
    t->since_ns = boot_ns();
    t->limit_ns = limit_s * 1000000000ull;
    pthread_cond_signal(&t->more);
    return true;
}

bool tpm_post(struct tpm *t, int (*job)(struct tpm *t), uint32_t limit_s)
{
    bool begun = begin(t, job, limit_s);
    t->posted |= begun;
    return begun;
}

int tpm_ask(struct tpm *t, int (*job)(struct tpm *t))
{
    return begin(t, job, t->wait_s) && tpm_idle(t) ? t->err : -1;
}

/* Opens libtss2 and starts the thread; 0 and the reason in `why` if it cannot. */
struct tpm *tpm_new(const char *place, char *why, size_t why_len)
{
    pthread_condattr_t steady;
    struct tpm *t = calloc(1, sizeof *t);
    if (!t)
        return 0;
    t->place = place;
    t->wake_fd = -1;
    t->wait_s = TPM_START_S;
    pthread_mutex_init(&t->lock, 0);
    pthread_cond_init(&t->more, 0);
    pthread_condattr_init(&steady);
    pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
    pthread_cond_init(&t->done, &steady);
    if (!open_tss(t) && pthread_create(&t->thread, 0, tpm_thread, t) == 0)
        return t;
    snprintf(why, why_len, "%s", *t->why ? t->why : "cannot start the TPM's thread");
    free(t);
    return 0;
}

/* One that hangs is in the TPM's driver and may not come back: it ends with the process, and what it works on stays its own. */
bool tpm_end(struct tpm *t)
{
    pthread_mutex_lock(&t->lock);
    bool hangs = !tpm_idle(t);
    t->turn = STOP;
    pthread_cond_signal(&t->more);
    pthread_mutex_unlock(&t->lock);
    if (hangs)
        return false;
    pthread_join(t->thread, 0);
    tpm_unlink(t);
    free(t);
    return true;
}

int tpm_once(const char *place, int (*job)(struct tpm *t), void *arg, size_t n, char *why, size_t why_len)
{
    size_t place_len = strlen(place) + 1;
    uint8_t *own = malloc(n + place_len);
    if (!own) {
        snprintf(why, why_len, "out of memory");
        return -1;
    }
    memcpy(own, arg, n);
    memcpy(own + n, place, place_len);
    struct tpm *t = tpm_new((const char *)own + n, why, why_len);
    bool over = !t;
    int err = -1;
    if (t) {
        t->arg = own;
        pthread_mutex_lock(&t->lock);
        err = tpm_ask(t, job);
        snprintf(why, why_len, "%s", t->why);
        pthread_mutex_unlock(&t->lock);
        over = tpm_end(t);
    }
    if (over)
        memcpy(arg, own, n);
    qsafp_wipe(own, n);
    if (over)
        free(own);
    return err;
}

void tpm_tell(const struct tpm *t, int err, bool *failing, const char *bad, const char *good)
{
    if (err && !*failing)
        fprintf(stderr, "guard: %s: %s\n", bad, t->why);
    if (!err && *failing)
        fprintf(stderr, "guard: TPM %s: %s\n", t->place, good);
    *failing = err != 0;
}

static int open_keys(struct tpm *t)
{
    int err = tpm_open_key(t) || (t->host->o->quote_pcrs && tpm_open_ak(t)) ? -1 : 0;
    t->open = tpm_load_key;
    return err;
}

int tpm_begin(host_t *h)
{
    h->tpm = tpm_new(h->o->tpm, h->why, h->why_len);
    if (!h->tpm)
        return -1;
    h->tpm->host = h;
    h->tpm->nv.base = h->o->tpm_nv;
    return 0;
}

int tpm_connect(host_t *h, int (*open)(struct tpm *t))
{
    struct tpm *t = h->tpm;
    t->open = open;
    pthread_mutex_lock(&t->lock);
    int err = tpm_ask(t, open);
    t->wait_s = TPM_WAIT_S;
    t->wake_fd = h->service_event;
    pthread_mutex_unlock(&t->lock);
    return err ? fail(h, "%s", t->why) : 0;
}

int tpm_start(host_t *h)
{
    if (h->o->sealed)
        return tpm_unseal(h);
    return tpm_begin(h) || tpm_connect(h, open_keys) ? -1 : 0;
}

void tpm_hush(host_t *h)
{
    if (!h->tpm)
        return;
    pthread_mutex_lock(&h->tpm->lock);
    h->tpm->wake_fd = -1;
    pthread_mutex_unlock(&h->tpm->lock);
}

void tpm_stop(host_t *h)
{
    tpm_hush(h);
    if (h->tpm)
        tpm_end(h->tpm);
    h->tpm = 0;
}
