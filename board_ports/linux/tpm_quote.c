/* SPDX-License-Identifier: Apache-2.0 */
/* Quotes (CD-5, level 3): an attestation key of the endorsement hierarchy, so that what it signs has the TPM's true boot counts,
 * bound at enrolment to the endorsement key by ActivateCredential.  Bytes are those of the TPM specification, part 2. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tpm.h"

enum { ENDORSEMENT = 0x10b, EK_CERTIFICATE = 0x01c0000a, NV_CHUNK = 512, ENCRYPT_ANSWERS = 0x40, POLICY = 1, ATTEST_SELECTION = 101 };

/* The device key's template, but restricted: it signs nothing that the TPM did not make. */
static const uint8_t ATTESTING[] = {0, 24, 0, 0x23, 0, 0x0b, 0, 5, 4, 0x72, 0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10, 0, 0, 0, 0};
const tpm_kind_t TPM_ATTESTING = {ENDORSEMENT, ATTESTING, sizeof ATTESTING, "attest.tpm", "attestation key"};

/* The endorsement key of the maker's certificate: template L-2 of the TCG EK credential profile, used by PolicySecret(endorsement) alone. */
static const uint8_t EK[124] = {0,    122,  0,    0x23, 0,    0x0b, 0,    3,    0,    0xb2, 0,    32,   0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8,
                                0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b,
                                0x33, 0x14, 0x69, 0xaa, 0,    6,    0,    128,  0,    0x43, 0,    0x10, 0,    3,    0,    0x10, 0,    32,   [90] = 0, 32};

static void selection(uint8_t out[10], uint32_t pcrs)
{
    const uint8_t one[10] = {0, 0, 0, 1, 0, SHA256, 3, (uint8_t)pcrs, (uint8_t)(pcrs >> 8), (uint8_t)(pcrs >> 16)};
    memcpy(out, one, sizeof one);
}

/* ---- the guard's quotes ---- */

/* Keeps the device key's session; both keys need it. */
static int load_ak(struct tpm *t)
{
    if (!t->esys && tpm_load_key(t))
        return -1;
    return t->ak ? 0 : tpm_load(t, &TPM_ATTESTING, &t->ak_blobs, &t->ak);
}

static int quote_now(struct tpm *t)
{
    uint8_t bytes[34] = {0, 32}, pcrs[10], wire[2 + TPM_ATTEST_BYTES + 1];
    blob_t extra, scheme, chosen;
    void *said = 0, *signature = 0;
    size_t n = 0;
    memcpy(bytes + 2, t->digest, 32);
    selection(pcrs, t->host->o->quote_pcrs);
    GET(t->f.get_data, &extra, bytes);
    GET(t->f.get_scheme, &scheme, TPM_OWN_SCHEME);
    GET(t->f.get_selection, &chosen, pcrs);
    if (load_ak(t))
        return -1;
    rc_t rc = t->f.quote(t->esys, t->ak, t->session, NONE, NONE, &extra, &scheme, &chosen, &said, &signature);
    if (rc)
        return tpm_failed(t, "quoting", rc);
    rc = t->f.put_attest(said, wire, sizeof wire, &n);
    t->f.free(said);
    bool good = tpm_signature(t, signature) && !rc && n == 2 + TPM_ATTEST_BYTES;
    t->f.free(signature);
    if (!good)
        return tpm_broken(t, "it answered with no quote of ours");
    memcpy(t->attest, wire + 2, TPM_ATTEST_BYTES);
    return memcmp(t->attest + ATTEST_SELECTION, pcrs, sizeof pcrs) ? tpm_broken(t, "its SHA-256 bank has not all of quote_pcrs; run: tpm2_pcrallocate sha256:all") : 0;
}

/* A request that is no longer the pending one, since others were served, gets none: what is told of it would be of two. */
static int quote_pending(struct tpm *t, host_t *h, const uint8_t hash[32])
{
    bool idle = tpm_idle(t);
    if (idle)
        memcpy(t->digest, hash, sizeof t->digest);
    int err = idle ? tpm_ask(t, quote_now) : -1;
    tpm_tell(t, err, &t->unquoted, "no request can be quoted", "quotes again");
    if (err || memcmp(hash, h->q.pending.request_hash, 32) != 0)
        return QSAFP_E_KEY;
    qsafp_cbor_w w = qsafp_cbor_writer(t->quoted, sizeof t->quoted);
    qsafp_cbor_put(&w, QSAFP_CBOR_ARRAY, 2);
    qsafp_cbor_put_bstr(&w, t->attest, sizeof t->attest);
    qsafp_cbor_put_bstr(&w, t->sig, sizeof t->sig);
    memcpy(t->quoted_for, hash, sizeof t->quoted_for);
    t->quoted_len = (size_t)(w.p - t->quoted);
    return w.err;
}

/* The bytes of envelope key 7: [TPMS_ATTEST, r || s]; one for a request, however many envelopes it has. */
int tpm_quote(void *ctx, const uint8_t request_hash[32], qsafp_bytes *quote)
{
    host_t *h = ctx;
    struct tpm *t = h->tpm;
    uint8_t hash[32];
    if (!h->o->quote_pcrs)
        return 0;
    memcpy(hash, request_hash, sizeof hash);
    pthread_mutex_lock(&t->lock);
    int err = t->quoted_len && memcmp(t->quoted_for, hash, sizeof hash) == 0 ? 0 : quote_pending(t, h, hash);
    *quote = (qsafp_bytes){t->quoted, t->quoted_len};
    pthread_mutex_unlock(&t->lock);
    return err;
}

int tpm_open_ak(struct tpm *t)
{
    return tpm_read(t, &TPM_ATTESTING, &t->ak_blobs) ? -1 : load_ak(t);
}

/* ---- enrolment ---- */

static int make_ek(struct tpm *t, uint8_t pk[64])
{
    void *pub = 0;
    uint8_t wire[sizeof EK + 1];
    size_t n = 0;
    if (tpm_primary(t, ENDORSEMENT, EK, sizeof EK, &pub))
        return -1;
    bool good = t->f.put_public(pub, wire, sizeof wire, &n) == 0 && n == sizeof EK && memcmp(wire, EK, sizeof EK - 68) == 0;
    t->f.free(pub);
    memcpy(pk, wire + sizeof EK - 66, 32);
    memcpy(pk + 32, wire + sizeof EK - 32, 32);
    return good ? 0 : tpm_broken(t, "it made an endorsement key of another kind");
}

/* From the TPM's NV memory; none is no failure: many TPMs have one of an RSA key, or none. */
static int read_certificate(struct tpm *t, qsafp_attest_t *a)
{
    uint32_t nv = 0;
    void *found = 0;
    uint8_t wire[512];
    size_t n = 0;
    rc_t rc = t->f.nv_open(t->esys, EK_CERTIFICATE, NONE, NONE, NONE, &nv);
    if (rc && (rc & 0xbf) == 0x8b)
        return 0;
    if (!rc)
        rc = t->f.nv_public(t->esys, nv, NONE, NONE, NONE, &found, 0);
    if (!rc)
        rc = t->f.put_nv_public(found, wire, sizeof wire, &n);
    t->f.free(found);
    if (rc || n < 2)
        return tpm_failed(t, "looking for the certificate of the endorsement key", rc);
    size_t total = (size_t)wire[n - 2] << 8 | wire[n - 1];
    if (total > sizeof a->certificate)
        return tpm_broken(t, "the certificate of its endorsement key is longer than any we know");
    while (a->certificate_len < total) {
        size_t chunk = total - a->certificate_len < NV_CHUNK ? total - a->certificate_len : NV_CHUNK;
        uint8_t part[2 + NV_CHUNK];
        void *data = 0;
        n = 0;
        rc = t->f.nv_read(t->esys, nv, nv, PASSWORD, NONE, NONE, (uint16_t)chunk, (uint16_t)a->certificate_len, &data);
        if (!rc)
            rc = t->f.put_nv_buffer(data, part, sizeof part, &n);
        t->f.free(data);
        if (rc || n != chunk + 2)
            return tpm_failed(t, "reading the certificate of the endorsement key", rc);
        memcpy(a->certificate + a->certificate_len, part + 2, chunk);
        a->certificate_len += chunk;
    }
    return 0;
}

static int read_pcr(struct tpm *t, unsigned pcr, uint8_t out[32])
{
    uint8_t bytes[10], wire[4 + 2 + 32 + 1];
    const uint8_t head[6] = {0, 0, 0, 1, 0, 32};
    blob_t chosen;
    void *values = 0;
    size_t n = 0;
    selection(bytes, 1u << pcr);
    GET(t->f.get_selection, &chosen, bytes);
    rc_t rc = t->f.pcr_read(t->esys, NONE, NONE, NONE, &chosen, 0, 0, &values);
    if (!rc)
        rc = t->f.put_digests(values, wire, sizeof wire, &n);
    t->f.free(values);
    if (rc)
        return tpm_failed(t, "reading PCRs", rc);
    if (n != 38 || memcmp(wire, head, sizeof head) != 0)
        return tpm_broken(t, "its SHA-256 bank has not all of quote_pcrs; run: tpm2_pcrallocate sha256:all");
    memcpy(out, wire + 6, 32);
    return 0;
}

static int attest_now(struct tpm *t)
{
    qsafp_attest_t *a = t->arg;
    tpm_made_t made = {.n = 0};
    if (tpm_make(t, &TPM_ATTESTING, &made))
        return -1;
    memcpy(a->ak, made.pk, sizeof a->ak);
    memcpy(a->file, made.file, made.n);
    a->file_len = made.n;
    tpm_drop(t, &t->primary);
    if (make_ek(t, a->ek) || read_certificate(t, a))
        return -1;
    for (unsigned i = 0; i < 24; i++)
        if (a->pcrs >> i & 1 && read_pcr(t, i, a->pcr[i]))
            return -1;
    return 0;
}

int qsafp_tpm_attest(const char *place, qsafp_attest_t *a, char *why, size_t why_len)
{
    *a = (qsafp_attest_t){.pcrs = a->pcrs};
    return tpm_once(place, attest_now, a, sizeof *a, why, why_len);
}

/* The attestation key in the session that hides the answer on the bus, the endorsement key by its policy. */
static int activate_now(struct tpm *t)
{
    qsafp_activate_t *a = t->arg;
    uint8_t ek[64], wire[2 + 32 + 1];
    blob_t id, secret;
    void *found = 0;
    size_t at = 0, n = 0;
    if (!tpm_get(t->f.get_id, &id, a->challenge, a->challenge_len, &at) || !tpm_get(t->f.get_secret, &secret, a->challenge, a->challenge_len, &at) || at != a->challenge_len)
        return tpm_broken(t, "the challenge is damaged; have the enroller make it again");
    if (tpm_parse(t, &TPM_ATTESTING, &t->ak_blobs, a->file, a->file_len) || tpm_open(t) || tpm_load(t, &TPM_ATTESTING, &t->ak_blobs, &t->ak) || make_ek(t, ek))
        return -1;
    if (tpm_session(t, POLICY, &t->policy))
        return -1;
    rc_t rc = t->f.keep(t->esys, t->session, 1 | ENCRYPT_ANSWERS, 0xff);
    if (!rc)
        rc = t->f.policy_secret(t->esys, ENDORSEMENT, t->policy, PASSWORD, NONE, NONE, 0, 0, 0, 0, 0, 0);
    if (rc)
        return tpm_failed(t, "asking for the endorsement key", rc);
    rc = t->f.activate(t->esys, t->ak, t->primary, t->session, t->policy, NONE, &id, &secret, &found);
    if (rc)
        return rc >> 16 == 0 ? tpm_broken(t, "the challenge is of another TPM or key; have the enroller make it from this device's enrolment") : tpm_failed(t, "opening the challenge", rc);
    bool good = t->f.put_digest(found, wire, sizeof wire, &n) == 0 && n == 34;
    t->f.free(found);
    memcpy(a->secret, wire + 2, 32);
    qsafp_wipe(wire, sizeof wire);
    return good ? 0 : tpm_broken(t, "the challenge holds no secret of ours");
}

int qsafp_tpm_activate(const char *place, qsafp_activate_t *a, char *why, size_t why_len)
{
    return tpm_once(place, activate_now, a, sizeof *a, why, why_len);
}
