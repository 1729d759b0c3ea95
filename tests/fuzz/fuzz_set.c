/* SPDX-License-Identifier: Apache-2.0 */
/* Set documents: unsigned changes are refused, and even a body that the set keys did sign is taken only if it keeps every rule. */
#include "fuzz.h"
#include "../c/setdoc.h"

static uint8_t first[SETDOC_MAX], second[SETDOC_MAX];
static size_t first_len, second_len;
static qsafp_set_t in_force;

static void prepare(void)
{
    if (first_len)
        return;
    setdoc_t d = setdoc();
    first_len = setdoc_of(&d, 1, first);
    WANT(set_load(&in_force, 0, first, first_len) == 0);
    d.epoch = 2;
    second_len = setdoc_of(&d, 1, second);
}

static bool has_body(const uint8_t *p, size_t n, const uint8_t *known, size_t known_len)
{
    qsafp_bytes a, b;
    qsafp_cbor_r sigs;
    uint64_t count;
    return qsafp_sign_parse(&a, &sigs, &count, p, n) == 0 && qsafp_sign_parse(&b, &sigs, &count, known, known_len) == 0 && a.len == b.len &&
           !memcmp(a.p, b.p, a.len);
}

static void rules_hold(const qsafp_set_t *s)
{
    WANT(s->n >= 1 && s->n <= QSAFP_VALIDATORS_MAX && s->m <= s->n && 2 * s->m > s->n);
    WANT(s->set_k >= 1 && s->set_k <= s->set_r && s->set_r <= 4 && s->suite >= QSAFP_SUITE_ED25519 && s->suite <= QSAFP_SUITE_HYBRID);
    WANT(s->epoch && s->epoch <= INT64_MAX && s->max_duration_ms && s->max_duration_ms <= 31ull * 24 * 3600 * 1000);
    for (unsigned i = 0; i < s->n; i++) {
        WANT(!s->v[i].mldsa65 == (s->suite == QSAFP_SUITE_ED25519));
        for (unsigned j = 0; j < i; j++)
            WANT(s->suite == QSAFP_SUITE_MLDSA65 || memcmp(s->v[i].ed25519, s->v[j].ed25519, 32));
        for (unsigned j = 0; j < s->set_r; j++)
            WANT(s->suite == QSAFP_SUITE_MLDSA65 || memcmp(s->v[i].ed25519, s->set_keys[j], 32));
    }
}

/* A body that the set keys signed, whatever it says. */
static void signed_body(const uint8_t *p, size_t n)
{
    static uint8_t doc[SETDOC_MAX];
    qsafp_set_t s;
    size_t len = setdoc_sign(p, n, 1, doc);
    if (set_load(&s, 0, doc, len))
        return;
    rules_hold(&s);
    qsafp_cbor_r r = qsafp_cbor_reader(p, n);
    (void)qsafp_cbor_skip(&r);
    WANT(qsafp_cbor_done(&r) == 0);
    if (set_load(&s, &in_force, doc, len) == 0)
        WANT(s.epoch == 2 && !memcmp(s.set_id, in_force.set_id, 16) && set_strangers(&s, &in_force) <= set_bound(&in_force));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    prepare();
    if (size == 0 || size > 6000)
        return 0;
    const uint8_t *p = data + 1;
    size_t n = size - 1;
    qsafp_set_t s = in_force;
    if (data[0] == 'b') {
        signed_body(p, n);
    } else if (data[0] == 'o') {
        int err = set_load(&s, &in_force, p, n);
        WANT(err ? !memcmp(&s, &in_force, sizeof s) : has_body(p, n, second, second_len));
    } else {
        int err = set_load(&s, 0, p, n);
        WANT(err ? !memcmp(&s, &in_force, sizeof s) : has_body(p, n, first, first_len) || has_body(p, n, second, second_len));
    }
    return 0;
}

static void seeds(void)
{
    static uint8_t body[SETDOC_MAX];
    prepare();
    seed_as("n", first, first_len);
    seed_as("o", second, second_len);
    setdoc_t d = setdoc();
    seed_as("b", body, setdoc_body(&d, body));
    d.epoch = 2;
    d.swap_from = 1;
    seed_as("b", body, setdoc_body(&d, body));
    d = setdoc();
    d.n = 1, d.m = 1, d.suite = QSAFP_SUITE_HYBRID;
    seed_as("b", body, setdoc_body(&d, body));
    d.suite = QSAFP_SUITE_MLDSA65;
    seed_as("b", body, setdoc_body(&d, body));
}
