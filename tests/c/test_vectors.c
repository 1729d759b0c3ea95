/* SPDX-License-Identifier: Apache-2.0 */
/* The wire vectors (tests/vectors, written by tools/vectors.py): the core lives the story they tell and must make the same bytes;
 * whatever byte of them is flipped, it refuses.  Run from the root of the repository.  Ed25519 is a table of signatures that
 * tests/python/test_vectors.py proves good: a Sig_structure of other bytes is not in it. */
#include "device.h"

enum { SLOTS_HERE = 64, MOST = 71, UNTIL = 70 };

typedef struct { uint8_t *p; size_t n; } blob_t;
typedef struct { char name[32]; uint8_t ask[1100], told[1100], cobs_ask[1110], cobs_told[1110]; size_t nask, ntold, ncask, nctold; } exchange_t;

static blob_t known, logged;
static exchange_t exchanges[24];
static unsigned nexchanges, drawn, written;
static uint8_t made[MOST + 8][256], seal_key[32];

static blob_t load(const char *name)
{
    char path[128];
    blob_t b = {malloc(1 << 16), 0};
    snprintf(path, sizeof path, "tests/vectors/wire/%s", name);
    FILE *f = fopen(path, "rb");
    if (!f || !b.p) {
        printf("%s: cannot read\n", path);
        exit(1);
    }
    b.n = fread(b.p, 1, 1 << 16, f);
    fclose(f);
    return b;
}

static bool same(const char *name, const void *p, size_t n)
{
    blob_t b = load(name);
    bool ok = b.n == n && memcmp(b.p, p, n) == 0;
    if (!ok)
        printf("%s: %zu bytes, the core made %zu others\n", name, b.n, n);
    free(b.p);
    return ok;
}

static void sha_of_text(uint8_t out[32], const char *fmt, unsigned n)
{
    char text[64];
    qsafp_sha256(out, text, (size_t)snprintf(text, sizeof text, fmt, n));
}

/* ---- the port: the device of device.h with this story's entropy, keys and log writer ---- */

static const uint8_t *signature_of(const uint8_t *pk, const uint8_t *sig, const uint8_t *msg, size_t n)
{
    uint8_t h[32];
    qsafp_sha256(h, msg, n);
    for (size_t i = 0; i + 128 <= known.n; i += 128)
        if (!memcmp(known.p + i + 96, h, 32) && (!pk || !memcmp(known.p + i, pk, 32)) && (!sig || !memcmp(known.p + i + 32, sig, 64)))
            return known.p + i + 32;
    return 0;
}

static int v_verify(void *c, const uint8_t sig[64], const uint8_t pk[32], const uint8_t *m, size_t n)
{
    (void)c;
    return signature_of(pk, sig, m, n) ? 0 : QSAFP_E_BAD_SIGNATURE;
}
static int v_sign(void *c, uint8_t sig[64], const uint8_t *m, size_t n)
{
    const uint8_t *s = signature_of(0, 0, m, n);
    (void)c;
    if (!s)
        return QSAFP_E_ARGUMENT; /* other bytes than the vector's */
    memcpy(sig, s, 64);
    return 0;
}
static int v_entropy(void *c, uint8_t *b, size_t n)
{
    (void)c;
    assert(n == 32);
    sha_of_text(b, "entropy %u", drawn++);
    return 0;
}
static int v_mac(void *c, uint8_t out[32], const uint8_t *m, size_t n)
{
    uint8_t key[32];
    (void)c;
    sha_of_text(key, "qsafp test key nonce", 0);
    qsafp_hmac_sha256(out, key, 32, m, n);
    return 0;
}
/* The log writer seals what is due. */
static int v_prog(void *c, uint32_t off, const void *p, uint32_t n)
{
    uint8_t *rec = made[written];
    assert(n == 256 && written < MOST + 7);
    memcpy(rec, p, n);
    if (written++ % 16 == 15) {
        qsafp_seal(rec + 240, seal_key, rec + 208);
        qsafp_seal_evolve(seal_key);
    }
    return d_prog(c, off, rec, n);
}

static qsafp_port_t port;
static bench_t *b;
static qsafp_command_t *c;
static struct { bench_t b; qsafp_command_t c; unsigned written; uint8_t seal_key[32]; } *kept;

static void keep(void) { kept->b = *b; kept->c = *c; kept->written = written; memcpy(kept->seal_key, seal_key, 32); }
static void back(void) { *b = kept->b; *c = kept->c; written = kept->written; memcpy(seal_key, kept->seal_key, 32); }

static void at(unsigned s)
{
    b->d.now_ns = s * S;
    b->d.wall_ms = 1700000000000 + s * 1000ull;
}

static int load_set(qsafp_set_t *out, const qsafp_set_t *old, blob_t doc)
{
    static uint8_t scratch[QSAFP_SET_MAX + 64];
    const qsafp_set_io_t io = {&port, b ? &b->d : 0, scratch, sizeof scratch};
    return qsafp_set_load(out, old, (qsafp_bytes){doc.p, doc.n}, &io);
}

static void configure(const char *set)
{
    static blob_t doc;
    qsafp_cose_sig by;
    blob_t request = load("request_1.cbor"), claims = load("claims_1.cbor");
    qsafp_claims_t k;
    CHECK(qsafp_sign1_parse(&by, request.p, request.n) == 0 && qsafp_claims_decode(&k, claims.p, claims.n) == 0);
    wire(b);
    qsafp_t *q = &b->q;
    free(doc.p);
    doc = load(set);
    q->port = &port;
    q->log.slots = SLOTS_HERE;
    q->page->counter_hz = 3 * S;
    q->page->clock_id = 7;
    memcpy(q->cfg.ueid, k.ueid, 33);
    memcpy(q->cfg.model, k.model, 32);
    memcpy(q->cfg.kid, by.kid, 8);
    q->cfg.alg = by.alg, q->cfg.level = 1;
    memset(&q->set, 0, sizeof q->set);
    CHECK(load_set(&q->set, 0, doc) == 0);
    sha_of_text(q->input_hash, "input", 0);
    free(request.p);
    free(claims.p);
}

/* ---- frames ---- */

static size_t unhex(uint8_t *out, const char *text)
{
    size_t n = 0;
    for (unsigned v; sscanf(text + 2 * n, "%2x", &v) == 1 && text[2 * n] != ' '; n++)
        out[n] = (uint8_t)v;
    return n;
}

static void read_frames(void)
{
    static char line[16384], words[4][4096];
    FILE *f = fopen("tests/vectors/wire/frames.txt", "r");
    assert(f);
    while (fgets(line, sizeof line, f)) {
        exchange_t *e = &exchanges[nexchanges];
        if (line[0] == '#' || sscanf(line, "%31s %4095s %4095s %4095s %4095s", e->name, words[0], words[1], words[2], words[3]) != 5)
            continue;
        e->nask = unhex(e->ask, words[0]);
        e->ncask = unhex(e->cobs_ask, words[1]);
        e->ntold = unhex(e->told, words[2]);
        e->nctold = unhex(e->cobs_told, words[3]);
        nexchanges++;
    }
    fclose(f);
    CHECK(nexchanges == 18);
}

static void exchange(const char *name)
{
    for (unsigned i = 0; i < nexchanges; i++) {
        const exchange_t *e = &exchanges[i];
        if (strcmp(e->name, name) != 0)
            continue;
        qsafp_command(c, e->ask, e->nask);
        bool ok = c->out_len == e->ntold && memcmp(c->out, e->told, e->ntold) == 0;
        if (!ok)
            printf("frame %s: status %u, %zu bytes for %zu\n", name, c->out[2], c->out_len, e->ntold);
        CHECK(ok);
        return;
    }
    printf("no frame %s\n", name);
    CHECK(false);
}

static void cobs_is(const uint8_t *frame, size_t n, const uint8_t *cobs, size_t m)
{
    uint8_t out[1200], bad[1200];
    size_t len = 0;
    CHECK(qsafp_cobs_encode(out, frame, n) == m && memcmp(out, cobs, m) == 0);
    CHECK(qsafp_cobs_decode(out, &len, cobs, m) == 0 && len == n && memcmp(out, frame, n) == 0);
    unsigned slipped = 0;
    for (size_t i = 0; i < m; i++) {
        memcpy(bad, cobs, m);
        bad[i] ^= 0x10;
        slipped += qsafp_cobs_decode(out, &len, bad, m) == 0 && len == n && memcmp(out, frame, n) == 0;
    }
    CHECK(slipped == 0);
}

static void frames_survive_cobs_and_no_flipped_byte(void)
{
    uint8_t bad[1100];
    for (unsigned k = 0; k < nexchanges; k++) {
        const exchange_t *e = &exchanges[k];
        cobs_is(e->ask, e->nask, e->cobs_ask, e->ncask);
        cobs_is(e->told, e->ntold, e->cobs_told, e->nctold);
        if (!strcmp(e->name, "bad_crc") || !strcmp(e->name, "cut"))
            continue;
        unsigned obeyed = 0;
        for (size_t i = 0; i < e->nask; i++) {
            memcpy(bad, e->ask, e->nask);
            bad[i] ^= 1;
            qsafp_command(c, bad, e->nask);
            obeyed += c->out[2] != QSAFP_COMMAND_STATUS_BAD_CRC && c->out[2] != QSAFP_COMMAND_STATUS_BAD_LENGTH;
        }
        CHECK(obeyed == 0);
    }
}

/* ---- tokens ---- */

static int put(const char *name)
{
    blob_t t = load(name);
    int err = qsafp_put(&b->q, t.p, t.n);
    free(t.p);
    return err;
}

/* Every `step`th byte flipped: refused, nothing opened, nothing counted. */
static void no_flipped_byte_is_taken(const char *name, size_t step)
{
    blob_t t = load(name);
    unsigned taken = 0;
    keep();
    for (size_t i = 0; i < t.n; i += step) {
        uint32_t armed = b->page.armed;
        uint16_t denied = b->q.pending.denied | b->q.lease_denied;
        t.p[i] ^= (uint8_t)(1u << i % 8);
        taken += qsafp_put(&b->q, t.p, t.n) == 0 || b->page.armed != armed || (b->q.pending.denied | b->q.lease_denied) != denied;
        t.p[i] ^= (uint8_t)(1u << i % 8);
        back();
    }
    CHECK(taken == 0);
    free(t.p);
}

static void claims_are(unsigned n)
{
    char name[32];
    uint8_t out[512];
    size_t len = 0;
    qsafp_claims_t k;
    snprintf(name, sizeof name, "claims_%u.cbor", n);
    blob_t t = load(name);
    CHECK(qsafp_claims_decode(&k, t.p, t.n) == 0 && k.serial == n && qsafp_claims_encode(&k, out, sizeof out, &len) == 0 && len == t.n);
    CHECK(memcmp(out, t.p, len) == 0);
    unsigned alike = 0; /* one encoding for each value: what decodes after a flip is another value */
    for (size_t i = 0; i < t.n; i++) {
        t.p[i] ^= 4;
        bool good = qsafp_claims_decode(&k, t.p, t.n) == 0;
        alike += good && (qsafp_claims_encode(&k, out, sizeof out, &len) || len != t.n || memcmp(out, t.p, len) != 0);
        t.p[i] ^= 4;
    }
    CHECK(alike == 0);
    free(t.p);
}

static void request_is(unsigned n)
{
    static uint8_t out[QSAFP_RESPONSE_MAX + 4096];
    char name[32];
    size_t len = 0;
    const qsafp_pending_t *p = &b->q.pending;
    snprintf(name, sizeof name, "claims_%u.cbor", n);
    CHECK(same(name, p->payload, p->payload_len));
    snprintf(name, sizeof name, "request_%u.cbor", n);
    CHECK(same(name, p->request, p->request_len));
    CHECK(p->request_len <= 512);
    snprintf(name, sizeof name, "envelope_%u.cbor", n);
    CHECK(qsafp_envelope(&b->q, QSAFP_OLD_DEFAULT, out, sizeof out, &len) == 0);
    CHECK(same(name, out, len) && len <= 4096);
}

/* The refusals name the second request, by validator 5. */
static void refusals_are_counted(void)
{
    static const struct { const char *name; unsigned event, code; } rows[] = {
        {"policy", QSAFP_EVENT_LEASE_DENIED, 1}, {"revoked", QSAFP_EVENT_LEASE_DENIED, 2}, {"model", QSAFP_EVENT_LEASE_DENIED, 3},
        {"measurement", QSAFP_EVENT_LEASE_DENIED, 4}, {"equivocation", QSAFP_EVENT_LEASE_DENIED, 5},
        {"log_inconsistent", QSAFP_EVENT_LEASE_DENIED, 6}, {"reregister", QSAFP_EVENT_LEASE_DENIED, 7},
        {"stale", QSAFP_EVENT_VALIDATOR_RESPONSE, 32}, {"state_behind", QSAFP_EVENT_VALIDATOR_RESPONSE, 33},
        {"rate", QSAFP_EVENT_VALIDATOR_RESPONSE, 34}, {"pending_human", QSAFP_EVENT_VALIDATOR_RESPONSE, 35},
        {"limits", QSAFP_EVENT_VALIDATOR_RESPONSE, 37},
    };
    char name[48];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(name, sizeof name, "refusal_%s.cbor", rows[i].name);
        no_flipped_byte_is_taken(name, 1);
        CHECK(put(name) == 0 && made[written - 1][4] == rows[i].event && made[written - 1][36] == rows[i].code);
        CHECK(b->q.pending.denied == (rows[i].code < 32 ? 1u << 5 : 0));
        back();
    }
    keep(); /* a set document inside is for the agent: too long here, and no forgery */
    CHECK(put("refusal_epoch.cbor") == QSAFP_E_TOO_LARGE && written == kept->written && !b->q.pending.spent);
}

/* ---- the story ---- */

static void note_at(unsigned s, qsafp_record_t r)
{
    at(s);
    CHECK(qsafp_note(&b->q, &r) == 0);
}

static int host_workload(qsafp_command_t *cmd, const uint8_t *p, size_t n)
{
    CHECK(n == 8 && p[0] == 0 && p[1] == 1 && !memcmp(p + 2, "camera", 6));
    cmd->out[cmd->out_len++] = 0;
    return QSAFP_COMMAND_STATUS_OK;
}

static void born(const char *set)
{
    memset(b, 0, sizeof *b);
    memset(b->d.log, 0xFF, sizeof b->d.log);
    memset(c, 0, sizeof *c);
    c->q = &b->q;
    c->workload = host_workload;
    drawn = written = 0;
    sha_of_text(seal_key, "qsafp test key seal", 0);
    configure(set);
    at(100);
    b->d.wall_ms = 0;
    CHECK(qsafp_create(&b->q) == 0);
    configure(set);
    at(101);
    CHECK(qsafp_init(&b->q) == 0);
    at(102);
}

static void first_lease(void)
{
    exchange("version");
    exchange("renew_begin");
    exchange("renew_read");
    request_is(1);
    no_flipped_byte_is_taken("lease_ed25519.cbor", 1);
    exchange("renew_put");
    at(103);
    exchange("renew_finish");
    (void)qsafp_tick(&b->q);
    CHECK(b->d.valid && same("page_open.bin", &b->page, sizeof b->page));
    exchange("status");
    at(104);
    exchange("log_event");
    exchange("read_log");
    exchange("workload_register");
    exchange("set_unsupported");
    exchange("bad_crc");
    exchange("cut");
    note_at(105, (qsafp_record_t){.event = QSAFP_EVENT_INFERENCE_COMPLETED, .flags = 8});
}

static void a_vote_of_3_that_4_signed(uint8_t *token, size_t n)
{
    for (size_t i = 0; i + 8 <= n; i++)
        if (!memcmp(token + i, b->q.set.kid[2 * 4], 8))
            memcpy(token + i, b->q.set.kid[2 * 3], 8);
}

static void renewal(void)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_WORKLOAD_REPORT, .flags = 8, .data = {2}};
    blob_t t = load("lease_renewed.cbor");
    at(106);
    CHECK(qsafp_begin(&b->q) == 0);
    request_is(2);
    refusals_are_counted();
    at(107);
    CHECK(put("refusal_rate.cbor") == 0);
    at(108);
    a_vote_of_3_that_4_signed(t.p, t.n);
    CHECK(qsafp_put(&b->q, t.p, t.n) == QSAFP_E_BAD_SIGNATURE);
    at(109);
    CHECK(put("lease_renewed.cbor") == 0);
    sha_of_text(r.data + 9, "checkpoint", 0);
    note_at(110, r);
    note_at(111, (qsafp_record_t){.event = QSAFP_EVENT_CONTAINMENT, .data = {7}});
    note_at(111, (qsafp_record_t){.event = QSAFP_EVENT_EVIDENCE_PRUNED, .data = {0, 16}});
    note_at(111, (qsafp_record_t){.event = QSAFP_EVENT_CONFIG_CHANGE});
    note_at(111, (qsafp_record_t){.event = QSAFP_EVENT_LOG_ANCHORED, .data = {1}});
    free(t.p);
}

static void denial(void)
{
    static const char *const names[] = {"revocation_0.cbor", "revocation_1.cbor", "revocation_2.cbor"};
    for (unsigned i = 0; i < 3; i++) {
        at(112 + i);
        no_flipped_byte_is_taken(names[i], 1);
        CHECK((b->page.armed == QSAFP_ARMED) && put(names[i]) == 0);
    }
    CHECK(b->page.armed == 1 && !b->d.valid && b->d.failsafe);
    at(115);
    CHECK(qsafp_service(&b->q) == 0);
    (void)qsafp_tick(&b->q);
    CHECK(same("page_failsafe.bin", &b->page, sizeof b->page));
}

static void release_expiry_and_stop(void)
{
    at(116);
    CHECK(qsafp_begin(&b->q) == 0);
    request_is(3);
    no_flipped_byte_is_taken("lease_released.cbor", 1);
    at(117);
    CHECK(put("lease_released.cbor") == 0 && b->page.armed == QSAFP_ARMED);
    at(176);
    (void)qsafp_tick(&b->q);
    at(177);
    CHECK(qsafp_service(&b->q) == 0);
    for (unsigned i = 0; written < UNTIL; i++)
        note_at(200 + i, (qsafp_record_t){.event = QSAFP_EVENT_INFERENCE_COMPLETED, .flags = 8, .data = {(uint8_t)i}});
    at(300);
    exchange("failsafe_first");
    exchange("failsafe_again");
    CHECK(written == MOST && logged.n == MOST * 256);
    for (unsigned i = 0; i < written; i++)
        if (memcmp(made[i], logged.p + 256 * i, 256) != 0)
            printf("record %u: event %u, another one in log.bin\n", i, made[i][4]);
    CHECK(memcmp(made, logged.p, logged.n) == 0);
}

/* ---- suites, sets, log, page ---- */

static void leases_of_the_other_suites_open(void)
{
    static const char *const names[][2] = {{"set_ml-dsa-65.cbor", "lease_ml-dsa-65.cbor"}, {"set_hybrid.cbor", "lease_hybrid.cbor"}};
    for (unsigned i = 0; i < 2; i++) {
        born(names[i][0]);
        CHECK(qsafp_begin(&b->q) == 0 && same("claims_1.cbor", b->q.pending.payload, b->q.pending.payload_len));
        no_flipped_byte_is_taken(names[i][1], 97);
        if (i == 0) {
            no_flipped_byte_is_taken("refusal_ml-dsa-65.cbor", 61);
            CHECK(put("refusal_ml-dsa-65.cbor") == 0 && b->q.pending.denied == 1);
            back();
        }
        CHECK(put("lease_ed25519.cbor") != 0 && b->page.armed != QSAFP_ARMED); /* the token does not choose the suite */
        CHECK(put(names[i][1]) == 0 && b->page.armed == QSAFP_ARMED);
    }
}

static void set_documents_load(void)
{
    static qsafp_set_t first, next, none;
    blob_t one = load("set_ed25519.cbor"), two = load("set_epoch2.cbor");
    CHECK(load_set(&first, 0, one) == 0 && first.epoch == 1 && first.m == 4 && first.n == 6 && first.lab && first.set_r == 2);
    CHECK(load_set(&next, &first, two) == 0 && next.epoch == 2 && next.set_k == 2);
    CHECK(load_set(&none, &next, two) == QSAFP_E_WRONG_EPOCH && load_set(&none, &first, one) == QSAFP_E_WRONG_EPOCH);
    unsigned taken = 0;
    for (size_t i = 0; i < one.n; i++) {
        one.p[i] ^= 2;
        taken += load_set(&none, 0, one) == 0;
        one.p[i] ^= 2;
    }
    for (size_t i = 0; i < two.n; i++) {
        two.p[i] ^= 2;
        taken += load_set(&none, &first, two) == 0;
        two.p[i] ^= 2;
    }
    CHECK(taken == 0);
    free(one.p);
    free(two.p);
}

/* Signed by the first set key; each breaks one rule. */
static void set_documents_that_break_a_rule_are_refused(void)
{
    static qsafp_set_t none, untouched;
    char line[256], name[64];
    int want, rows = 0;
    FILE *f = fopen("tests/vectors/index.json", "r");
    assert(f);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "{\"file\": \"wire/%63[^\"]\", \"kind\": \"refused-set\", \"what\": \"%*[^\"]\", \"error\": %d", name, &want) != 2)
            continue;
        blob_t doc = load(name);
        int err = load_set(&none, 0, doc);
        CHECK(err == -want && memcmp(&none, &untouched, sizeof none) == 0);
        if (err != -want)
            printf("  %s: %d, not %d\n", name, err, -want);
        free(doc.p);
        rows++;
    }
    fclose(f);
    CHECK(rows == 14);
}

static void the_log_verifies_and_names_a_flipped_byte(void)
{
    uint8_t prev[32] = {0}, leaf[32], root[32], key[32], mark[16], rec[256];
    uint64_t bad = 0;
    unsigned slipped = 0, seals = 0;
    qsafp_tree_t t = {0};
    blob_t roots = load("roots.bin");
    CHECK(qsafp_audit_verify(logged.p, MOST, prev, &bad) == 0);
    sha_of_text(key, "qsafp test key seal", 0);
    memset(prev, 0, 32);
    for (unsigned i = 0; i < MOST; i++) {
        const uint8_t *r = logged.p + 256 * i;
        qsafp_record_t d;
        CHECK((qsafp_tree_root(&t, root), true) && !memcmp(root, roots.p + 32 * i, 32));
        CHECK(qsafp_record_decode(&d, r) == 0 && d.seq == i);
        memcpy(rec, &d, sizeof d);
        CHECK(memcmp(rec, r, 256) == 0);
        if (i % 16 == 15) {
            qsafp_seal(mark, key, r + 208);
            qsafp_seal_evolve(key);
            seals += memcmp(mark, r + 240, 16) == 0;
        }
        for (size_t k = 0; k < (i % 16 == 15 ? 240u : 256u); k++) { /* a seal is checked with its key, above */
            uint8_t from[32];
            memcpy(from, prev, 32);
            rec[k] ^= 0x20;
            slipped += qsafp_audit_verify(rec, 1, from, &bad) == 0;
            rec[k] ^= 0x20;
        }
        memcpy(prev, r + 208, 32);
        qsafp_tree_leaf(leaf, prev);
        CHECK(qsafp_tree_append(&t, leaf) == 0);
    }
    CHECK((qsafp_tree_root(&t, root), true) && !memcmp(root, roots.p + 32 * MOST, 32) && roots.n == 32 * (MOST + 1));
    CHECK(slipped == 0 && seals == MOST / 16);
    free(roots.p);
}

static void a_page_is_closed_by_any_flipped_bit_of_its_armed_word(void)
{
    qsafp_gate_page_t open, shut;
    blob_t a = load("page_open.bin"), f = load("page_failsafe.bin");
    assert(a.n == sizeof open && f.n == sizeof shut);
    memcpy(&open, a.p, sizeof open);
    memcpy(&shut, f.p, sizeof shut);
    CHECK(qsafp_gate_check_ns(&open, 103 * S) && qsafp_gate_check_ns(&open, 104 * S - 1));
    CHECK(!qsafp_gate_check_ns(&open, 104 * S) && !qsafp_gate_check_ns(&open, 101 * S) && !qsafp_gate_check_ns(&shut, 115 * S));
    for (unsigned bit = 0; bit < 32; bit++) {
        open.armed ^= 1u << bit;
        CHECK(!qsafp_gate_check_ns(&open, 103 * S));
        open.armed ^= 1u << bit;
    }
    free(a.p);
    free(f.p);
}

int main(void)
{
    b = calloc(1, sizeof *b);
    c = calloc(1, sizeof *c);
    kept = calloc(1, sizeof *kept);
    known = load("ed25519.bin");
    logged = load("log.bin");
    assert(b && c && kept);
    port = PORT;
    port.verify_ed25519 = v_verify;
    port.sign = v_sign;
    port.entropy = v_entropy;
    port.nonce_mac = v_mac;
    port.log_prog = v_prog;
    read_frames();
    set_documents_load();
    set_documents_that_break_a_rule_are_refused();
    for (unsigned n = 1; n <= 3; n++)
        claims_are(n);
    born("set_ed25519.cbor");
    first_lease();
    renewal();
    denial();
    release_expiry_and_stop();
    frames_survive_cobs_and_no_flipped_byte();
    leases_of_the_other_suites_open();
    the_log_verifies_and_names_a_flipped_byte();
    a_page_is_closed_by_any_flipped_bit_of_its_armed_word();
    free(b);
    free(c);
    free(kept);
    free(known.p);
    free(logged.p);
    return DONE("test_vectors");
}
