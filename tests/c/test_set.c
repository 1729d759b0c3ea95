/* SPDX-License-Identifier: Apache-2.0 */
/* The set document, sunny and faulty: signatures of old and new set keys, epochs, duplicates, suites, how many members one epoch may replace. */
#include "setdoc.h"

enum { FIRST_SET_KID = 2 * QSAFP_VALIDATORS_MAX };

static uint8_t doc[SETDOC_MAX];

static int load(const setdoc_t *d, unsigned by, const qsafp_set_t *old, qsafp_set_t *s)
{
    return set_load(s, old, doc, setdoc_of(d, by, doc));
}

static qsafp_set_t first_set(void)
{
    setdoc_t d = setdoc();
    qsafp_set_t s;
    memset(&s, 0, sizeof s);
    CHECK(load(&d, 1, 0, &s) == 0);
    return s;
}

static void a_sound_document_loads_field_by_field(void)
{
    qsafp_set_t s = first_set();
    uint8_t id[16] = {5}, pk[32], h[32];
    CHECK(s.epoch == 1 && s.m == 4 && s.n == 6 && s.suite == QSAFP_SUITE_ED25519 && s.lab && s.max_duration_ms == 3600000);
    CHECK(memcmp(s.set_id, id, 16) == 0 && s.set_k == 1 && s.set_r == 2);
    for (unsigned i = 0; i < 6; i++) {
        member_key(i, pk);
        qsafp_sha256(h, pk, 32);
        CHECK(memcmp(s.v[i].ed25519, pk, 32) == 0 && memcmp(s.kid[2 * i], h, 8) == 0 && !s.v[i].mldsa65);
    }
    for (unsigned i = 0; i < 2; i++) {
        set_key(i, pk);
        qsafp_sha256(h, pk, 32);
        CHECK(memcmp(s.set_keys[i], pk, 32) == 0 && memcmp(s.kid[FIRST_SET_KID + i], h, 8) == 0);
    }
    static const uint8_t none[8];
    for (unsigned k = FIRST_SET_KID + 2; k < QSAFP_KIDS; k++)
        CHECK(memcmp(s.kid[k], none, 8) == 0);
}

static void every_suite_loads_with_its_keys_and_refuses_the_others(void)
{
    static const struct { uint64_t suite; bool no_ed, no_ml; int want; } row[] = {
        {QSAFP_SUITE_MLDSA65, false, false, 0}, {QSAFP_SUITE_HYBRID, false, false, 0}, {QSAFP_SUITE_HYBRID, true, false, QSAFP_E_MALFORMED},
        {QSAFP_SUITE_HYBRID, false, true, QSAFP_E_MALFORMED}, {QSAFP_SUITE_HYBRID, true, true, QSAFP_E_MALFORMED},
        {QSAFP_SUITE_MLDSA65, false, true, QSAFP_E_MALFORMED}, {QSAFP_SUITE_ED25519, true, false, QSAFP_E_MALFORMED},
        {0, false, false, QSAFP_E_MALFORMED}, {4, false, false, QSAFP_E_MALFORMED}, {255, false, false, QSAFP_E_MALFORMED}, {256, false, false, QSAFP_E_MALFORMED},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        setdoc_t d = setdoc();
        qsafp_set_t s;
        uint8_t h[32];
        d.suite = row[i].suite;
        d.drop_ed = row[i].no_ed;
        d.drop_ml = row[i].no_ml;
        d.n = d.m = 2;
        CHECK(load(&d, 1, 0, &s) == row[i].want);
        if (row[i].want)
            continue;
        CHECK(s.v[1].mldsa65 && s.v[1].mldsa65 > doc && s.v[1].mldsa65 < doc + sizeof doc && s.v[1].mldsa65[0] == 0x12);
        qsafp_sha256(h, s.v[1].mldsa65, MLDSA65_PK_BYTES);
        CHECK(memcmp(s.kid[3], h, 8) == 0);
    }
}

static const uint64_t MONTH_MS = 31ull * 24 * 3600 * 1000;

static void bodies_that_break_a_rule_are_refused_though_signed(void)
{
    const setdoc_t ok = setdoc();
    struct { setdoc_t d; int want; } row[54];
    size_t rows = 0;
#define ROW(want_, ...) do { setdoc_t d = ok; __VA_ARGS__; row[rows].d = d; row[rows++].want = (want_); } while (0)
    ROW(0, d.k = 1);
    ROW(0, d.m = 6);
    ROW(0, d.n = 16, d.m = 9);
    ROW(0, d.n = 1, d.m = 1);
    ROW(QSAFP_E_MALFORMED, d.m = 3); /* no majority */
    ROW(QSAFP_E_MALFORMED, d.m = 7);
    ROW(QSAFP_E_MALFORMED, d.m = 260); /* 4, were it cut to a byte */
    ROW(QSAFP_E_MALFORMED, d.n = 0, d.m = 1);
    ROW(QSAFP_E_MALFORMED, d.n = 17, d.m = 9);
    ROW(QSAFP_E_MALFORMED, d.k = 0);
    ROW(QSAFP_E_MALFORMED, d.k = 3);
    ROW(QSAFP_E_MALFORMED, d.k = 257);
    ROW(QSAFP_E_MALFORMED, d.r = 5);
    ROW(QSAFP_E_DUPLICATE_SIGNER, d.twin = 5);
    ROW(QSAFP_E_DUPLICATE_SIGNER, d.set_twin = 1);
    ROW(0, d.endpoints = 0, d.pins = 0);
    ROW(0, d.endpoints = 4, d.pins = 4);
    ROW(0, d.k = 4, d.r = 4, d.k = 1);
    ROW(QSAFP_E_MALFORMED, d.epoch = 0);
    ROW(0, d.epoch = INT64_MAX);
    ROW(QSAFP_E_MALFORMED, d.epoch = INT64_MAX + 1ull);
    ROW(QSAFP_E_MALFORMED, d.epoch = UINT64_MAX);
    ROW(QSAFP_E_MALFORMED, d.max_duration_ms = 0);
    ROW(0, d.max_duration_ms = 1);
    ROW(0, d.max_duration_ms = MONTH_MS);
    ROW(QSAFP_E_MALFORMED, d.max_duration_ms = MONTH_MS + 1);
    ROW(QSAFP_E_MALFORMED, d.max_duration_ms = 1ull << 32); /* 0, were it cut to 32 bits */
    ROW(QSAFP_E_MALFORMED, d.max_duration_ms = UINT64_MAX);
    ROW(QSAFP_E_DUPLICATE_SIGNER, d.set_member = 0); /* a validator that says who the validators are */
    ROW(QSAFP_E_DUPLICATE_SIGNER, d.set_member = 1);
    ROW(QSAFP_E_DUPLICATE_SIGNER, d.set_member = 3, d.r = 4, d.n = 16, d.m = 9);
    ROW(QSAFP_E_DUPLICATE_SIGNER, d.set_member = 1, d.suite = QSAFP_SUITE_HYBRID, d.n = d.m = 2);
    ROW(0, d.set_member = 1, d.suite = QSAFP_SUITE_MLDSA65, d.n = d.m = 2); /* there it is no validator's */
    ROW(QSAFP_E_MALFORMED, d.endpoints = 5);
    ROW(QSAFP_E_MALFORMED, d.pins = 5);
    ROW(QSAFP_E_MALFORMED, d.pin_bytes = 31);
    ROW(QSAFP_E_MALFORMED, d.pin_bytes = 33);
    ROW(QSAFP_E_MALFORMED, d.index_of = 0);
    ROW(QSAFP_E_MALFORMED, d.index_of = 2);
    ROW(QSAFP_E_DUPLICATE_SIGNER, d.r = 4, d.set_twin = 3);
    ROW(QSAFP_E_DUPLICATE_SIGNER, d.twin = 1);
    ROW(QSAFP_E_DUPLICATE_SIGNER, d.n = 16, d.m = 9, d.twin = 15);
    for (uint64_t suite = QSAFP_SUITE_ED25519; suite <= QSAFP_SUITE_HYBRID; suite++) {
        bool ed = suite != QSAFP_SUITE_MLDSA65, ml = suite != QSAFP_SUITE_ED25519;
        ROW(ed ? QSAFP_E_MALFORMED : 0, d.n = d.m = 2, d.suite = suite, d.ed_bytes = 31);
        ROW(ed ? QSAFP_E_MALFORMED : 0, d.n = d.m = 2, d.suite = suite, d.ed_bytes = 33);
        ROW(ml ? QSAFP_E_MALFORMED : 0, d.n = d.m = 2, d.suite = suite, d.ml_bytes--);
        ROW(ml ? QSAFP_E_MALFORMED : 0, d.n = d.m = 2, d.suite = suite, d.ml_bytes++);
    }
    CHECK(rows == 54);
    for (size_t i = 0; i < rows; i++) {
        qsafp_set_t s;
        int err = load(&row[i].d, 1, 0, &s);
        CHECK(err == row[i].want);
        if (err != row[i].want)
            printf("  row %zu: %d, not %d\n", i, err, row[i].want);
    }
    setdoc_t d = ok;
    qsafp_set_t s;
    d.extra_key = true;
    CHECK(load(&d, 1, 0, &s) == QSAFP_E_MALFORMED);
    d = ok, d.suite = QSAFP_SUITE_MLDSA65, d.n = d.m = 2, d.twin = 1;
    CHECK(load(&d, 1, 0, &s) == QSAFP_E_DUPLICATE_SIGNER);
}

static void every_flipped_bit_and_every_cut_is_refused(void)
{
    setdoc_t d = setdoc();
    qsafp_set_t s, was;
    size_t len = setdoc_of(&d, 1, doc), taken = 0;
    memset(&s, 0x5C, sizeof s);
    was = s;
    for (size_t i = 0; i < len * 8; i++) {
        doc[i / 8] ^= (uint8_t)(1u << i % 8);
        taken += set_load(&s, 0, doc, len) == 0;
        doc[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    for (size_t n = 0; n < len; n++)
        taken += set_load(&s, 0, doc, n) == 0;
    doc[len] = 0;
    CHECK(set_load(&s, 0, doc, len + 1) == QSAFP_E_TRAILING);
    CHECK(taken == 0 && memcmp(&s, &was, sizeof s) == 0); /* refused: the set in force stays byte for byte */
    static uint8_t large[QSAFP_SET_MAX + 1];
    CHECK(set_load(&s, 0, large, QSAFP_SET_MAX + 1) == QSAFP_E_TOO_LARGE && set_load(&s, 0, large, QSAFP_SET_MAX) == QSAFP_E_MALFORMED);
    CHECK(set_load(&s, 0, doc, len) == 0);
}

static void a_scratch_too_small_for_the_signed_bytes_is_an_error(void)
{
    setdoc_t d = setdoc();
    qsafp_set_t s;
    uint8_t scratch[64];
    const qsafp_set_io_t io = {.port = &PORT, .scratch = scratch, .cap = sizeof scratch};
    size_t len = setdoc_of(&d, 1, doc);
    CHECK(qsafp_set_load(&s, 0, (qsafp_bytes){doc, len}, &io) == QSAFP_E_TOO_LARGE);
}

/* k of r: bits of the keys that sign; a third key is in no document. */
static void too_few_set_keys_are_refused(void)
{
    static const struct { uint64_t k; unsigned by; int want; } row[] = {
        {1, 1, 0}, {1, 2, 0}, {1, 3, 0}, {1, 0, QSAFP_E_TOO_FEW}, {1, 4, QSAFP_E_TOO_FEW}, {1, 5, 0},
        {2, 1, QSAFP_E_TOO_FEW}, {2, 2, QSAFP_E_TOO_FEW}, {2, 3, 0}, {2, 6, QSAFP_E_TOO_FEW}, {2, 7, 0},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        setdoc_t d = setdoc();
        qsafp_set_t s;
        d.k = row[i].k;
        CHECK(load(&d, row[i].by, 0, &s) == row[i].want);
    }
}

static void one_set_key_twice_is_one_signature(void)
{
    setdoc_t d = setdoc();
    qsafp_set_t s;
    d.k = 2;
    size_t len = setdoc_of(&d, 1, doc), sig = len - setdoc_of(&d, 0, doc);
    CHECK(setdoc_of(&d, 1, doc) == len && doc[len - sig - 1] == 0x81);
    doc[len - sig - 1] = 0x82; /* an array of two: the same signature again */
    memcpy(doc + len, doc + len - sig, sig);
    CHECK(set_load(&s, 0, doc, len + sig) == QSAFP_E_TOO_FEW);
    d.k = 1;
    len = setdoc_of(&d, 1, doc);
    doc[len - sig - 1] = 0x82;
    memcpy(doc + len, doc + len - sig, sig);
    CHECK(set_load(&s, 0, doc, len + sig) == 0);
}

static void old_key(qsafp_set_t *s, unsigned at, unsigned key)
{
    uint8_t h[32];
    set_key(key, s->set_keys[at]);
    qsafp_sha256(h, s->set_keys[at], 32);
    memcpy(s->kid[FIRST_SET_KID + at], h, 8);
}

static void a_bad_signature_by_a_set_key_is_not_passed_over(void)
{
    static const struct { unsigned by; int want; } row[] = {{1, QSAFP_E_BAD_SIGNATURE}, {3, QSAFP_E_BAD_SIGNATURE}, {5, 0}}; /* the last: a stranger's */
    qsafp_set_t s, old = first_set();
    setdoc_t d = setdoc();
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        size_t len = setdoc_of(&d, row[i].by, doc);
        CHECK(set_load(&s, 0, doc, len) == 0);
        doc[len - 64] ^= 1; /* the last signature */
        CHECK(set_load(&s, 0, doc, len) == row[i].want);
    }
    for (unsigned which = 0; which < 2; which++) { /* the second key is one of the new set alone, or of the old one alone */
        if (which == 0)
            old_key(&old, 1, 7);
        else
            old_key(&old, 1, 1), d.r = 1;
        d.epoch = 2;
        size_t len = setdoc_of(&d, 3, doc);
        CHECK(set_load(&s, &old, doc, len) == 0);
        doc[len - 64] ^= 1;
        CHECK(set_load(&s, &old, doc, len) == QSAFP_E_BAD_SIGNATURE);
    }
}

static void a_signature_of_an_unknown_algorithm_is_refused_though_enough_signed(void)
{
    setdoc_t d = setdoc();
    qsafp_set_t s;
    size_t len = setdoc_of(&d, 5, doc), last = len;
    static const uint8_t head[] = {0xA2, 0x01, 0x32, 0x04, 0x48};
    while (memcmp(doc + --last, head, sizeof head) != 0) {}
    CHECK(set_load(&s, 0, doc, len) == 0);
    doc[last + 2] = 0x28; /* -9, ESP256 */
    CHECK(set_load(&s, 0, doc, len) == QSAFP_E_UNKNOWN_ALGORITHM);
}

static void a_successor_needs_the_next_epoch_the_same_set_and_the_old_keys(void)
{
    qsafp_set_t old = first_set(), s;
    setdoc_t d = setdoc();
    d.epoch = 2;
    CHECK(load(&d, 1, &old, &s) == 0 && s.epoch == 2);
    CHECK(load(&d, 0, &old, &s) == QSAFP_E_TOO_FEW);
    static const uint64_t wrong[] = {1, 3, 258, INT64_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        d.epoch = wrong[i];
        CHECK(load(&d, 1, &old, &s) == QSAFP_E_WRONG_EPOCH);
    }
    d.epoch = 0;
    old.epoch = UINT64_MAX; /* 0 follows nothing, not even that */
    CHECK(load(&d, 1, &old, &s) == QSAFP_E_MALFORMED);
    old.epoch = 1;
    d.epoch = 2;
    d.set_id = 6;
    CHECK(load(&d, 1, &old, &s) == QSAFP_E_WRONG_EPOCH);
    d = setdoc();
    d.epoch = 2;
    old_key(&old, 0, 7); /* the old document's keys are others: the new one's own signature is not enough */
    old_key(&old, 1, 8);
    CHECK(load(&d, 3, &old, &s) == QSAFP_E_TOO_FEW);
    old_key(&old, 1, 2); /* rotation: one key of the old, one of the new */
    CHECK(load(&d, 1 | 4, &old, &s) == 0 && load(&d, 4, &old, &s) == QSAFP_E_TOO_FEW && load(&d, 1, &old, &s) == QSAFP_E_TOO_FEW);
    old.set_k = 2;
    CHECK(load(&d, 1 | 4, &old, &s) == QSAFP_E_TOO_FEW);
}

/* max(1, 2m - n - 1) members, in either direction. */
static void one_epoch_replaces_only_as_many_members_as_the_quorums_overlap(void)
{
    static const struct { uint64_t m, n, m2, n2; unsigned swapped; int want; } row[] = {
        {4, 6, 4, 6, 0, 0}, {4, 6, 4, 6, 1, 0}, {4, 6, 4, 6, 2, QSAFP_E_RANGE}, {5, 6, 5, 6, 3, 0}, {5, 6, 5, 6, 4, QSAFP_E_RANGE},
        {2, 3, 2, 3, 1, 0}, {2, 3, 2, 3, 2, QSAFP_E_RANGE}, {3, 3, 3, 3, 2, 0}, {3, 3, 3, 3, 3, QSAFP_E_RANGE},
        {4, 6, 4, 7, 0, 0}, {4, 6, 5, 8, 0, QSAFP_E_RANGE}, {4, 6, 3, 5, 0, 0}, {4, 6, 3, 4, 0, QSAFP_E_RANGE}, {4, 6, 4, 7, 1, QSAFP_E_RANGE},
        {1, 1, 1, 1, 1, 0}, {9, 16, 9, 16, 2, QSAFP_E_RANGE},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        qsafp_set_t old, s;
        setdoc_t d = setdoc();
        d.m = row[i].m, d.n = row[i].n;
        CHECK(load(&d, 1, 0, &old) == 0);
        d.m = row[i].m2, d.n = row[i].n2, d.epoch = 2, d.swap_count = row[i].swapped;
        int err = load(&d, 1, &old, &s);
        CHECK(err == row[i].want);
        if (err != row[i].want)
            printf("  row %zu: %d, not %d\n", i, err, row[i].want);
    }
    qsafp_set_t old, s; /* a set key of the old set makes nobody its member */
    setdoc_t d = setdoc();
    d.m = 7, d.n = 12;
    CHECK(load(&d, 1, 0, &old) == 0);
    d.m = 8, d.n = 14, d.epoch = 2;
    CHECK(load(&d, 1, 0, &s) == 0);
    memcpy(old.kid[QSAFP_KIDS - 1], s.kid[2 * 13], 8);
    CHECK(load(&d, 1, &old, &s) == QSAFP_E_RANGE);
}

static void a_suite_may_change_while_each_member_keeps_one_key(void)
{
    static const uint64_t path[] = {QSAFP_SUITE_ED25519, QSAFP_SUITE_HYBRID, QSAFP_SUITE_MLDSA65};
    static uint8_t docs[3][SETDOC_MAX];
    qsafp_set_t s[3];
    setdoc_t d = setdoc();
    d.m = 2, d.n = 3;
    for (unsigned i = 0; i < 3; i++) {
        d.suite = path[i];
        d.epoch = i + 1;
        CHECK(set_load(&s[i], i ? &s[i - 1] : 0, docs[i], setdoc_of(&d, 1, docs[i])) == 0);
    }
    d.epoch = 2; /* not in one step: no key is left to know a member by */
    CHECK(set_load(&s[2], &s[0], docs[2], setdoc_of(&d, 1, docs[2])) == QSAFP_E_RANGE);
}

int main(void)
{
    a_sound_document_loads_field_by_field();
    every_suite_loads_with_its_keys_and_refuses_the_others();
    bodies_that_break_a_rule_are_refused_though_signed();
    every_flipped_bit_and_every_cut_is_refused();
    a_scratch_too_small_for_the_signed_bytes_is_an_error();
    too_few_set_keys_are_refused();
    one_set_key_twice_is_one_signature();
    a_bad_signature_by_a_set_key_is_not_passed_over();
    a_signature_of_an_unknown_algorithm_is_refused_though_enough_signed();
    a_successor_needs_the_next_epoch_the_same_set_and_the_old_keys();
    one_epoch_replaces_only_as_many_members_as_the_quorums_overlap();
    a_suite_may_change_while_each_member_keeps_one_key();
    return DONE("test_set");
}
