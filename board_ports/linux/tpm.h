/* SPDX-License-Identifier: Apache-2.0 */
/* Private to tpm*.c: one connection to a TPM 2.0 and the thread that talks to it. */
#ifndef QSAFP_TPM_H
#define QSAFP_TPM_H

#include <stddef.h>

#include "host.h"

enum { BLOB_MAX = 2304, OWNER = 0x101, PASSWORD = 0xff, NONE = 0xfff, SHA256 = 0x000b };

typedef uint32_t rc_t;
typedef struct { _Alignas(8) uint8_t b[BLOB_MAX]; } blob_t; /* room for any struct of libtss2 that we hand over: the largest has 2,050 bytes */
typedef rc_t unmarshal_t(const uint8_t *p, size_t n, size_t *at, void *to);
typedef rc_t marshal_t(const void *from, uint8_t *p, size_t n, size_t *at);
typedef rc_t create_t(void *, uint32_t, uint32_t, uint32_t, uint32_t, const void *, const void *, const void *, const void *, void **, void **, void **, void **,
                      void **);

typedef rc_t quote_t(void *, uint32_t, uint32_t, uint32_t, uint32_t, const void *, const void *, const void *, void **, void **);
typedef rc_t policy_secret_t(void *, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, const void *, const void *, const void *, int32_t, void **, void **);

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
    quote_t *quote;
    policy_secret_t *policy_secret;
    rc_t (*activate)(void *, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, const void *, const void *, void **);
    rc_t (*pcr_read)(void *, uint32_t, uint32_t, uint32_t, const void *, uint32_t *, void **, void **);
    rc_t (*flush)(void *, uint32_t);
    rc_t (*set_auth)(void *, uint32_t, const void *);
    rc_t (*unseal)(void *, uint32_t, uint32_t, uint32_t, uint32_t, void **);
    rc_t (*nv_open)(void *, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t *);
    rc_t (*nv_public)(void *, uint32_t, uint32_t, uint32_t, uint32_t, void **, void **);
    rc_t (*nv_define)(void *, uint32_t, uint32_t, uint32_t, uint32_t, const void *, const void *, uint32_t *);
    rc_t (*nv_undefine)(void *, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t);
    rc_t (*nv_read)(void *, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint16_t, uint16_t, void **);
    rc_t (*nv_write)(void *, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, const void *, uint16_t);
    rc_t (*nv_extend)(void *, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, const void *);
    rc_t (*nv_increment)(void *, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t);
    void (*free)(void *);
    unmarshal_t *get_public, *get_private, *get_sensitive, *get_scheme, *get_ticket, *get_sym, *get_digest, *get_data, *get_selection, *get_id, *get_secret,
        *get_nv_public, *get_nv_buffer;
    marshal_t *put_public, *put_private, *put_signature, *put_sensitive, *put_attest, *put_digest, *put_digests, *put_nv_public, *put_nv_buffer;
} tss_t;

/* A signing key by its template (TPM2B_PUBLIC up to x and y), and the file in state_dir that has its blobs. */
typedef struct { uint32_t hierarchy; const uint8_t *template; size_t template_len; const char *file, *what; } tpm_kind_t;
typedef struct { blob_t pub, priv; } tpm_blobs_t;
typedef struct { uint8_t pk[64], file[QSAFP_TPM_KEY_MAX]; size_t n; } tpm_made_t;
enum { TPM_ATTEST_BYTES = 145 };

/* What NV memory keeps of a lease (docs/design.md): three indices, from h->o->tpm_nv on. */
enum { NV_COUNTER, NV_ANCHOR, NV_FLOOR, NV_INDICES };
typedef struct {
    uint32_t magic, latch, generation, unused; /* "QNV1" */
    uint64_t epoch;
    uint8_t set_id[16], log_id[32], lease[32]; /* lease: hash of its name */
} floor_t;
typedef struct {
    uint32_t base, index[NV_INDICES];          /* index: 0 while not open */
    bool absent[NV_INDICES], foreign;          /* foreign: somebody else wrote there */
    uint64_t counter, target;                  /* as read; as it shall become */
    uint8_t anchor[32], before[32], head[32];  /* as read; as it must be before `head` goes in */
    floor_t floor, next_floor;
} nv_t;

struct tpm {
    tss_t f;
    const char *place;               /* a TCTI configuration */
    void *link, *esys;               /* 0 while there is no connection */
    uint32_t primary, key, ak, session, policy; /* 0: not there */
    tpm_blobs_t key_blobs, ak_blobs;
    nv_t nv;                         /* of the job in hand, as digest and sig */
    int (*open)(struct tpm *t);      /* makes the connection that jobs need */
    uint8_t secret[32];              /* what was unsealed, until it is taken */
    uint8_t digest[32], sig[64], attest[TPM_ATTEST_BYTES]; /* of the job in hand: nobody else touches them before its turn is over */
    uint8_t quoted[TPM_ATTEST_BYTES + 64 + 8], quoted_for[32]; size_t quoted_len; /* the last quote, and its request */
    int (*job)(struct tpm *t);
    void *arg;                       /* of tpm_once */
    enum { IDLE, ASKED, STOP } turn;
    uint64_t since_ns, limit_ns;     /* of the job in hand */
    uint32_t wait_s;
    host_t *host;                    /* or 0: no guard, a tool */
    int wake_fd;                     /* an eventfd that hears of the end of each job, or -1 */
    bool failing, unquoted, given_up;
    bool posted, ended;              /* the job in hand is nobody's who waits; the last such one ended so: */
    int err, ended_err;
    char why[256], ended_why[256];
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more, done;
};

extern const uint8_t TPM_EMPTY[6]; /* TPM2B_SENSITIVE_CREATE: no password, no data */

/* Every function that returns int: 0, or negative and the reason with its remedy in t->why. */
struct tpm *tpm_new(const char *place, char *why, size_t why_len); /* libtss2 opened, the thread runs; no connection yet */
bool tpm_end(struct tpm *t); /* whether its thread is over */
/* One job on a thread of its own, and the end of the connection.  The job works on a copy of the n bytes at `arg`, which come back. */
int tpm_once(const char *place, int (*job)(struct tpm *t), void *arg, size_t n, char *why, size_t why_len);
int tpm_broken(struct tpm *t, const char *why);
int tpm_failed(struct tpm *t, const char *step, rc_t rc);          /* what a return code means, and what to do */
bool tpm_get(unmarshal_t *fn, blob_t *to, const uint8_t *p, size_t n, size_t *at);
int tpm_begin(host_t *h);      /* h->tpm, and its thread */
int tpm_connect(host_t *h, int (*open)(struct tpm *t)); /* its connection; t->open makes it anew after a failure */
int tpm_open(struct tpm *t);   /* a connection */
int tpm_primary(struct tpm *t, uint32_t hierarchy, const uint8_t *template, size_t n, void **pub);
int tpm_storage(struct tpm *t, uint32_t hierarchy); /* its storage primary */
int tpm_session(struct tpm *t, uint8_t type, uint32_t *out); /* salted to the primary */
int tpm_load(struct tpm *t, const tpm_kind_t *kind, const tpm_blobs_t *b, uint32_t *handle); /* and a session, if there is none */
void tpm_unlink(struct tpm *t);
void tpm_drop(struct tpm *t, uint32_t *what);
/* The rest with the lock held.  tpm_idle: waits for the job in hand; false if it hangs.  tpm_post: begins one, false if another is in
 * hand.  tpm_ask: begins one that fits and waits for its end: 0, its result, or negative if it hangs. */
bool tpm_idle(struct tpm *t);
bool tpm_post(struct tpm *t, int (*job)(struct tpm *t), uint32_t limit_s);
int tpm_ask(struct tpm *t, int (*job)(struct tpm *t));

#define GET(fn, to, bytes) ((void)tpm_get(fn, to, bytes, sizeof(bytes), &(size_t){0}))

/* Once when it fails, once when it is well again; the lock is held. */
void tpm_tell(const struct tpm *t, int err, bool *failing, const char *bad, const char *good);

/* tpm_key.c */
extern const uint8_t TPM_OWN_SCHEME[2]; /* TPMT_SIG_SCHEME: the key's own */
size_t tpm_file(const struct tpm *t, const char *name, uint8_t file[QSAFP_TPM_KEY_MAX]); /* of state_dir; 0 bytes if there is none */
bool tpm_blobs(const struct tpm *t, tpm_blobs_t *b, const uint8_t *file, size_t n);
int tpm_open_key(struct tpm *t); /* of t->host: device.tpm, loaded */
int tpm_load_key(struct tpm *t);
int tpm_make(struct tpm *t, const tpm_kind_t *kind, tpm_made_t *m);
int tpm_parse(struct tpm *t, const tpm_kind_t *kind, tpm_blobs_t *b, const uint8_t *file, size_t n);
int tpm_read(struct tpm *t, const tpm_kind_t *kind, tpm_blobs_t *b); /* from state_dir */
bool tpm_signature(struct tpm *t, const void *made); /* to t->sig */
/* tpm_quote.c */
extern const tpm_kind_t TPM_ATTESTING;
int tpm_open_ak(struct tpm *t); /* attest.tpm, loaded, where quote_pcrs asks for it */

/* tpm_seal.c */
int tpm_unseal(host_t *h); /* h->secret */

/* tpm_nv.c: jobs, and what they need */
int tpm_plain(struct tpm *t);      /* a connection with a session, no key */
int tpm_ready(struct tpm *t);      /* t->open, unless it is open */
int nv_look(struct tpm *t);        /* reads all three */
int nv_commit(struct tpm *t);      /* counter from target - 1 to target (nothing for 0), then next_floor */
int nv_anchor(struct tpm *t);      /* extends the anchor, which is `before`, by `head` */
int nv_make(struct tpm *t);        /* enrolment: what is not there is made, the anchor anew */
void nv_extended(uint8_t out[32], const uint8_t was[32], const uint8_t head[32]);

#endif
