/* SPDX-License-Identifier: Apache-2.0 */
/* Requests and envelopes byte for byte: what is asked, what it covers, what a validator is given to check it. */
#include "device.h"

static uint8_t env[32768], token[QSAFP_RESPONSE_MAX];

static bench_t *asked(void)
{
    bench_t *b = fresh();
    CHECK(qsafp_begin(&b->q) == 0);
    return b;
}

/* The request's parts, each read where it must stand. */
typedef struct { uint64_t status, phase, serial, boot, workloads; qsafp_bytes payload; uint8_t input_hash[32]; uint64_t evidence; qsafp_bytes measurement; } body_t;

static body_t body_of(const bench_t *b)
{
    qsafp_cose_sig s;
    body_t got = {0};
    uint8_t hash[32], tbs[2048], want[64];
    size_t len = 0;
    CHECK(qsafp_sign1_parse(&s, b->q.pending.request, b->q.pending.request_len) == 0 && s.alg == QSAFP_ALG_ED25519 && s.kid[0] == 9 && s.sig.len == 64);
    qsafp_sha256(hash, s.payload.p, s.payload.len);
    CHECK(memcmp(hash, b->q.pending.request_hash, 32) == 0);
    qsafp_tbs_t t = {.aad = "qsafp/1/request", .sign1 = true, .protected_ = s.protected_, .payload = s.payload};
    CHECK(qsafp_tbs(&t, tbs, sizeof tbs, &len) == 0);
    toy_sign(want, (const uint8_t *)"device key device key device key", tbs, len);
    CHECK(memcmp(want, s.sig.p, 64) == 0);
    qsafp_cbor_r r = qsafp_cbor_reader(s.payload.p, s.payload.len);
    CHECK(qsafp_cbor_head(&r, QSAFP_CBOR_MAP) == 4 && qsafp_cbor_int(&r) == 1);
    got.payload = qsafp_cbor_bstr(&r);
    CHECK(qsafp_cbor_int(&r) == 2);
    qsafp_cbor_fixed(&r, got.input_hash, 32);
    CHECK(qsafp_cbor_int(&r) == 3 && qsafp_cbor_head(&r, QSAFP_CBOR_ARRAY) == 5);
    got.status = qsafp_cbor_head(&r, QSAFP_CBOR_UINT);
    got.phase = qsafp_cbor_head(&r, QSAFP_CBOR_UINT);
    got.serial = qsafp_cbor_head(&r, QSAFP_CBOR_UINT);
    got.boot = qsafp_cbor_head(&r, QSAFP_CBOR_UINT);
    got.workloads = qsafp_cbor_head(&r, QSAFP_CBOR_UINT);
    CHECK(qsafp_cbor_int(&r) == 4 && qsafp_cbor_head(&r, QSAFP_CBOR_ARRAY) == 2);
    got.evidence = qsafp_cbor_head(&r, QSAFP_CBOR_UINT);
    got.measurement = qsafp_cbor_bstr(&r);
    CHECK(qsafp_cbor_done(&r) == 0);
    return got;
}

static void a_request_says_what_the_device_is(void)
{
    bench_t *b = asked();
    body_t got = body_of(b);
    CHECK(got.status == QSAFP_STATUS_UNINITIALIZED && got.phase == 0 && got.serial == 0 && got.boot == 1 && got.workloads == 0);
    CHECK(got.evidence == QSAFP_EVIDENCE_NONE && got.measurement.len == 0);
    memset(b->q.input_hash, 0xAB, 32);
    CHECK(obtain(b) == 0);
    b->q.st.boot = 0x11223344, b->q.workloads = 0x55667788, b->q.lease.serial = 0x1122334455667788;
    b->d.now_ns += 55 * S;
    b->q.evidence = QSAFP_EVIDENCE_IMAGE;
    memset(b->q.measurement, 0xCD, 32);
    b->q.view.denied = 0xFFFF; /* it stands after the phase and is no part of it */
    CHECK(qsafp_begin(&b->q) == 0);
    got = body_of(b);
    CHECK(got.status == QSAFP_STATUS_VALID && got.phase == QSAFP_PHASE_WARNING && got.serial == 0x1122334455667788 && got.boot == 0x11223344 && got.workloads == 0x55667788);
    CHECK(got.input_hash[0] == 0xAB && got.input_hash[31] == 0xAB);
    CHECK(got.evidence == QSAFP_EVIDENCE_IMAGE && got.measurement.len == 32 && got.measurement.p[0] == 0xCD && got.measurement.p[31] == 0xCD);
    b->q.evidence = QSAFP_EVIDENCE_NONE;
    qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
    CHECK(qsafp_begin(&b->q) == 0);
    got = body_of(b);
    CHECK(got.status == QSAFP_STATUS_DENIED && got.phase == QSAFP_PHASE_FAILSAFE);
    free(b);
}

static void the_header_names_the_algorithm_of_the_device_key(void)
{
    static const uint8_t want[] = {0xA2, 0x01, 0x28, 0x04, 0x48, 9}; /* {1: -9, 4: kid} */
    bench_t *b = fresh();
    b->q.cfg.alg = QSAFP_ALG_ESP256;
    CHECK(qsafp_begin(&b->q) == 0);
    qsafp_cbor_r r = qsafp_cbor_reader(b->q.pending.request, b->q.pending.request_len);
    CHECK(qsafp_cbor_head(&r, QSAFP_CBOR_TAG) == 18 && qsafp_cbor_head(&r, QSAFP_CBOR_ARRAY) == 4);
    qsafp_bytes header = qsafp_cbor_bstr(&r);
    CHECK(header.len == 13 && memcmp(header.p, want, sizeof want) == 0);
    qsafp_cose_sig s;
    CHECK(qsafp_sign1_parse(&s, b->q.pending.request, b->q.pending.request_len) == QSAFP_E_UNKNOWN_ALGORITHM); /* nothing that a guard reads */
    CHECK(obtain(b) == 0);
    free(b);
}

static void a_request_claims_what_was_configured(void)
{
    bench_t *b = fresh();
    b->q.cfg.level = 3, b->q.set.epoch = 300;
    memcpy(b->q.cfg.policy_ms, (uint64_t[4]){10000, 5000, 77, 88}, 32);
    CHECK(qsafp_begin(&b->q) == 0);
    qsafp_claims_t c;
    CHECK(qsafp_claims_decode(&c, b->q.pending.payload, b->q.pending.payload_len) == 0);
    body_t got = body_of(b);
    CHECK(got.payload.len == b->q.pending.payload_len && memcmp(got.payload.p, b->q.pending.payload, got.payload.len) == 0);
    CHECK(c.iat == 1700000000 && c.duration_ms == 60000 && c.serial == 1 && c.level == 3 && c.lab && c.epoch == 300 && !c.has_failsafe);
    CHECK(memcmp(c.policy_ms, b->q.cfg.policy_ms, sizeof c.policy_ms) == 0 && memcmp(c.ueid, b->q.cfg.ueid, 33) == 0 && memcmp(c.model, b->q.cfg.model, 32) == 0);
    CHECK(memcmp(c.set_id, b->q.set.set_id, 16) == 0 && memcmp(c.log_id, b->q.log.log_id, 32) == 0 && c.log_size == b->q.log.next);
    uint8_t root[32];
    CHECK((qsafp_tree_root(&b->q.log.tree, root), true) && memcmp(root, c.log_root, 32) == 0);
    uint8_t msg[44], mac[32]; /* nonce and id: HMAC over boot counter, serial, entropy */
    const uint32_t boot = 1;
    const uint64_t serial = 1;
    memcpy(msg, &boot, 4), memcpy(msg + 4, &serial, 8);
    b->d.seed = (uint8_t)(b->d.seed - 32);
    CHECK(d_entropy(&b->d, msg + 12, 32) == 0);
    qsafp_hmac_sha256(mac, (const uint8_t *)"nonce key", 9, msg, sizeof msg);
    CHECK(memcmp(c.nonce, mac, 16) == 0 && memcmp(c.lease_id, mac + 16, 16) == 0);
    free(b);
}

static void the_set_caps_the_duration(void)
{
    static const struct { uint64_t max, want; } row[] = {{59999, 59999}, {60000, 60000}, {60001, 60000}, {1, 1}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        bench_t *b = fresh();
        b->q.set.max_duration_ms = row[i].max;
        CHECK(qsafp_begin(&b->q) == 0 && b->q.pending.claims.duration_ms == row[i].want);
        free(b);
    }
}

static void a_request_is_pending_for_half_its_duration(void)
{
    size_t len = 0;
    bench_t *b = asked();
    b->d.now_ns += 30 * S - 1;
    CHECK(qsafp_envelope(&b->q, 0, env, sizeof env, &len) == 0 && qsafp_begin(&b->q) == 0 && b->q.pending.claims.serial == 1);
    b->d.now_ns += 1;
    CHECK(qsafp_envelope(&b->q, 0, env, sizeof env, &len) == QSAFP_E_NO_REQUEST);
    CHECK(qsafp_begin(&b->q) == 0 && b->q.pending.claims.serial == 2);
    free(b);
}

/* What a validator does: from the peaks it has, or is given, the range must lead to the claimed root. */
static void envelope_is(bench_t *b, uint64_t old, const qsafp_tree_t *known, bool with_peaks)
{
    size_t len = 0;
    qsafp_tree_t t = {0};
    qsafp_range_t range = {0};
    uint8_t root[32];
    const qsafp_pending_t *p = &b->q.pending;
    CHECK(qsafp_envelope(&b->q, old, env, sizeof env, &len) == 0);
    if (old == QSAFP_OLD_DEFAULT)
        old = b->q.st.lease_tree.size;
    qsafp_cbor_r r = qsafp_cbor_reader(env, len);
    CHECK(qsafp_cbor_head(&r, QSAFP_CBOR_MAP) == 7 && qsafp_cbor_int(&r) == 1);
    qsafp_bytes request = qsafp_cbor_bstr(&r);
    CHECK(request.len == p->request_len && memcmp(request.p, p->request, request.len) == 0);
    CHECK(qsafp_cbor_int(&r) == 2 && qsafp_cbor_head(&r, QSAFP_CBOR_UINT) == old && qsafp_cbor_int(&r) == 3);
    if (with_peaks) {
        uint64_t n = qsafp_cbor_head(&r, QSAFP_CBOR_ARRAY);
        CHECK(n == (uint64_t)__builtin_popcountll(old));
        t.size = (uint32_t)old;
        for (uint64_t i = 0; i < n; i++)
            qsafp_cbor_fixed(&r, t.peak[i], 32);
        CHECK(memcmp(t.peak, known->peak, 32 * n) == 0);
    } else {
        CHECK(qsafp_cbor_null(&r));
        t = *known;
    }
    CHECK(qsafp_cbor_int(&r) == 4);
    range.from = (uint32_t)old, range.to = (uint32_t)p->claims.log_size;
    range.count = (uint8_t)qsafp_cbor_head(&r, QSAFP_CBOR_ARRAY);
    for (unsigned i = 0; i < range.count; i++)
        qsafp_cbor_fixed(&r, range.hash[i], 32);
    CHECK(qsafp_tree_extend(&t, &range) == 0 && (qsafp_tree_root(&t, root), true) && memcmp(root, p->claims.log_root, 32) == 0);
    CHECK(qsafp_cbor_int(&r) == 5);
    if (b->q.lease_token_len) {
        qsafp_bytes lease = qsafp_cbor_bstr(&r);
        CHECK(lease.len == b->q.lease_token_len && memcmp(lease.p, b->q.lease_token, lease.len) == 0);
    } else {
        CHECK(qsafp_cbor_null(&r));
    }
    CHECK(qsafp_cbor_int(&r) == 6);
    if (p->claims.has_failsafe) {
        qsafp_bytes record = qsafp_cbor_bstr(&r);
        uint8_t hash[32]; /* the hash before it, then the record: they give the hash that is claimed */
        CHECK(record.len == 32 + 256);
        qsafp_record_hash(hash, record.p, record.p + 32);
        CHECK(memcmp(hash, p->claims.failsafe_hash, 32) == 0 && memcmp(record.p + 32 + 208, hash, 32) == 0);
    } else {
        CHECK(qsafp_cbor_null(&r));
    }
    CHECK(qsafp_cbor_int(&r) == 7 && qsafp_cbor_null(&r) && qsafp_cbor_done(&r) == 0);
    size_t fits = 0, n = 0; /* all its room, or an error */
    for (size_t cap = 0; cap < len; cap += cap + 40 < len ? 7 : 1)
        fits += qsafp_envelope(&b->q, old, env, cap, &n) == 0;
    CHECK(fits == 0 && qsafp_envelope(&b->q, old, env, len, &n) == 0 && n == len);
}

static void envelopes_lead_from_any_size_to_the_claimed_root(void)
{
    static const qsafp_tree_t none;
    bench_t *b = asked();
    envelope_is(b, 0, &none, false);
    envelope_is(b, QSAFP_OLD_DEFAULT, &none, false);
    CHECK(obtain(b) == 0);
    qsafp_tree_t at_lease = {0};
    memcpy(&at_lease, &b->q.st.lease_tree, sizeof b->q.st.lease_tree);
    for (uint32_t i = 0; i < 12; i++) {
        qsafp_record_t r = {.event = QSAFP_EVENT_WORKLOAD_REPORT};
        CHECK(qsafp_note(&b->q, &r) == 0);
    }
    qsafp_trip(&b->q, QSAFP_REASON_MANUAL);
    CHECK(qsafp_begin(&b->q) == 0 && b->q.pending.claims.has_failsafe);
    envelope_is(b, QSAFP_OLD_DEFAULT, &at_lease, true);
    envelope_is(b, 0, &none, false);
    qsafp_tree_t t = {0};
    for (uint32_t n = 1; n <= b->q.pending.claims.log_size; n++) {
        uint8_t rec[256], leaf[32];
        CHECK(qsafp_audit_read(&b->q.log, n - 1, rec) == 0);
        qsafp_tree_leaf(leaf, rec + 208);
        CHECK(qsafp_tree_append(&t, leaf) == 0);
        envelope_is(b, n, &t, n == at_lease.size);
    }
    size_t len = 0;
    CHECK(qsafp_envelope(&b->q, b->q.pending.claims.log_size + 1, env, sizeof env, &len) == QSAFP_E_RANGE);
    CHECK(qsafp_envelope(&b->q, ((uint64_t)1 << 32) + 1, env, sizeof env, &len) == QSAFP_E_RANGE); /* 1, were it cut to 32 bits */
    b->d.fail_at = b->d.calls + 1;
    CHECK(qsafp_envelope(&b->q, 0, env, sizeof env, &len) == QSAFP_E_STORE);
    free(b);
}

static int quoting(void *c, const uint8_t request_hash[32], qsafp_bytes *quote)
{
    static uint8_t said[40];
    if (gate_call(c))
        return QSAFP_E_KEY;
    memcpy(said, "quote of", 8);
    memcpy(said + 8, request_hash, 32);
    *quote = (qsafp_bytes){said, sizeof said};
    return 0;
}

/* The last member, after a fail-safe record that is there or not. */
static bool quote_is(const uint8_t *last, const uint8_t request_hash[32])
{
    qsafp_cbor_r r = qsafp_cbor_reader(last, 43);
    CHECK(qsafp_cbor_int(&r) == 7);
    qsafp_bytes found = qsafp_cbor_bstr(&r);
    return qsafp_cbor_done(&r) == 0 && found.len == 40 && memcmp(found.p, "quote of", 8) == 0 && memcmp(found.p + 8, request_hash, 32) == 0;
}

static void an_envelope_carries_the_ports_quote_of_this_request_or_does_not_leave(void)
{
    size_t len = 0;
    bench_t *b = asked();
    qsafp_port_t port = PORT;
    port.quote = quoting;
    b->q.port = &port;
    CHECK(qsafp_envelope(&b->q, 0, env, sizeof env, &len) == 0 && quote_is(env + len - 43, b->q.pending.request_hash));
    b->d.fail_at = b->d.calls + 1;
    CHECK(qsafp_envelope(&b->q, 0, env, sizeof env, &len) == QSAFP_E_KEY);
    CHECK(qsafp_envelope(&b->q, 0, env, sizeof env, &len) == 0 && quote_is(env + len - 43, b->q.pending.request_hash));
    b->d.now_ns += 30 * S;
    int calls = b->d.calls;
    CHECK(qsafp_envelope(&b->q, 0, env, sizeof env, &len) == QSAFP_E_NO_REQUEST && b->d.calls == calls); /* nothing is quoted for nobody */
    free(b);
}

static void an_old_size_is_said_whole(void)
{
    bench_t *b = asked();
    const uint32_t old = 0x01020304;
    size_t len = 0;
    b->q.pending.tree = (qsafp_tree_t){.size = old, .from = old};
    CHECK(qsafp_envelope(&b->q, old, env, sizeof env, &len) == 0);
    qsafp_cbor_r r = qsafp_cbor_reader(env, len);
    CHECK(qsafp_cbor_head(&r, QSAFP_CBOR_MAP) == 7 && qsafp_cbor_int(&r) == 1 && qsafp_cbor_bstr(&r).len == b->q.pending.request_len);
    CHECK(qsafp_cbor_int(&r) == 2 && qsafp_cbor_head(&r, QSAFP_CBOR_UINT) == old);
    free(b);
}

/* Every call of a begin failed in turn: no request leaves, or a whole one does; a serial is never used for two requests. */
static void I6_I8_every_failed_call_of_a_begin_leaves_no_request(void)
{
    int total = 0;
    for (int n = 0; n <= total; n++) {
        bench_t *b = fresh();
        b->d.calls = 0;
        b->d.fail_at = n;
        int err = qsafp_begin(&b->q);
        if (n == 0)
            total = b->d.calls;
        CHECK((err == 0) == b->q.pending.active && (n == 0 || n == total ? err == 0 : err != 0)); /* the last is the pin */
        CHECK(err == 0 || qsafp_envelope(&b->q, 0, env, sizeof env, &(size_t){0}) == QSAFP_E_NO_REQUEST);
        const qsafp_state_t *st = (const qsafp_state_t *)(const void *)b->d.state;
        CHECK(err || (st->serial == 1 && b->d.syncs > 0 && st->tree.size == b->q.log.next));
        if (n == 0)
            CHECK(total == 10 && b->d.req == 1); /* the count is part of the test */
        free(b);
    }
}

static void note_many(bench_t *b, unsigned n)
{
    size_t failed = 0;
    while (n--) {
        qsafp_record_t r = {.event = QSAFP_EVENT_WORKLOAD_REPORT};
        failed += qsafp_note(&b->q, &r) != 0;
    }
    CHECK(failed == 0);
}

/* A long way without a lease: the records since the last one are pruned, and the device still proves what it did. */
static void a_device_renews_after_more_records_than_the_ring_holds(void)
{
    bench_t *b = fresh();
    CHECK(obtain(b) == 0);
    for (unsigned n = 700; n < 3600; n += 1000) {
        qsafp_tree_t at_lease = {0};
        memcpy(&at_lease, &b->q.st.lease_tree, sizeof b->q.st.lease_tree);
        note_many(b, n);
        if (n > 2000) { /* and over a restart */
            wire(b);
            CHECK(qsafp_init(&b->q) == 0);
        }
        b->d.now_ns += 3600 * S;
        CHECK(qsafp_begin(&b->q) == 0);
        envelope_is(b, at_lease.size, &at_lease, true);
        CHECK(obtain(b) == 0 && open_now(b));
    }
    free(b);
}

static void a_device_that_never_had_a_lease_gets_one_after_the_ring_went_round(void)
{
    static const qsafp_tree_t none;
    bench_t *b = fresh();
    note_many(b, 2500);
    CHECK(qsafp_begin(&b->q) == 0);
    envelope_is(b, 0, &none, false);
    CHECK(obtain(b) == 0 && open_now(b));
    free(b);
}

/* The tree grows again from the lease on: a lease whose next record is gone is too late. */
static void a_request_that_the_ring_has_left_behind_is_over(void)
{
    bench_t *b = fresh();
    CHECK(qsafp_begin(&b->q) == 0);
    size_t len = lease_of(&b->q, (const int[]){0, 1, 2, 3}, 4, 0, token);
    note_many(b, 1100);
    CHECK(qsafp_put(&b->q, token, len) == QSAFP_E_NO_REQUEST && !open_now(b));
    b->d.now_ns += 60 * S;
    CHECK(obtain(b) == 0 && open_now(b));
    free(b);
    b = fresh(); /* up to the last moment it is not */
    note_many(b, 15 - b->q.log.next % 16);
    CHECK(qsafp_begin(&b->q) == 0 && b->q.pending.tree.size % 16 == 0);
    len = lease_of(&b->q, (const int[]){0, 1, 2, 3}, 4, 0, token);
    while (b->q.log.first < b->q.pending.tree.size)
        note_many(b, 1);
    CHECK(b->q.log.first == b->q.pending.tree.size && qsafp_put(&b->q, token, len) == 0);
    (void)qsafp_tick(&b->q);
    CHECK(open_now(b));
    qsafp_tree_t at_lease = {0}; /* the tree had gone on since the request: what is kept counts from the lease */
    memcpy(&at_lease, &b->q.st.lease_tree, sizeof b->q.st.lease_tree);
    CHECK(qsafp_begin(&b->q) == 0);
    envelope_is(b, at_lease.size, &at_lease, true);
    free(b);
}

int main(void)
{
    a_device_renews_after_more_records_than_the_ring_holds();
    a_device_that_never_had_a_lease_gets_one_after_the_ring_went_round();
    a_request_that_the_ring_has_left_behind_is_over();
    a_request_says_what_the_device_is();
    the_header_names_the_algorithm_of_the_device_key();
    a_request_claims_what_was_configured();
    the_set_caps_the_duration();
    a_request_is_pending_for_half_its_duration();
    envelopes_lead_from_any_size_to_the_claimed_root();
    an_envelope_carries_the_ports_quote_of_this_request_or_does_not_leave();
    an_old_size_is_said_whole();
    I6_I8_every_failed_call_of_a_begin_leaves_no_request();
    return DONE("test_request");
}
