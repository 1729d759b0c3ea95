/* SPDX-License-Identifier: Apache-2.0 */
/* The Merkle tree against the recursive definition of RFC 9162 2.1.1, and compact ranges for every pair of sizes. */
#include "device.h"

static uint8_t leaves[1200][32];

static void reference(uint8_t out[32], uint32_t from, uint32_t n)
{
    uint8_t m[65] = {1};
    uint32_t k = 1;
    if (n == 1) {
        memcpy(out, leaves[from], 32);
        return;
    }
    while (k * 2 < n)
        k *= 2;
    reference(m + 1, from, k);
    reference(m + 33, from + k, n - k);
    qsafp_sha256(out, m, sizeof m);
}

static int leaf_of(void *ctx, uint32_t i, uint8_t out[32])
{
    if (ctx && --*(int *)ctx < 0)
        return QSAFP_E_STORE;
    memcpy(out, leaves[i], 32);
    return 0;
}

static void build(qsafp_tree_t *t, uint32_t n)
{
    memset(t, 0, sizeof *t);
    for (uint32_t i = 0; i < n; i++)
        CHECK(qsafp_tree_append(t, leaves[i]) == 0);
}

static void roots_are_those_of_the_rfc(void)
{
    qsafp_tree_t t = {0};
    uint8_t want[32], got[32];
    for (uint32_t n = 1; n <= 300; n++) {
        CHECK(qsafp_tree_append(&t, leaves[n - 1]) == 0 && (qsafp_tree_root(&t, got), true));
        reference(want, 0, n);
        CHECK(memcmp(want, got, 32) == 0);
    }
}

static void what_is_kept_since_a_size_is_the_range_from_there(void)
{
    for (uint32_t from = 0; from <= 70; from++) {
        qsafp_tree_t t = {0};
        build(&t, from);
        t.from = from;
        for (uint32_t to = from; to <= 140; to++) {
            qsafp_range_t want = {.from = from, .to = to}, got;
            qsafp_tree_t known, whole;
            CHECK(qsafp_tree_range(&want, leaf_of, 0) == 0);
            qsafp_tree_since(&got, &t);
            CHECK(got.from == from && got.to == to && got.count == want.count && memcmp(got.hash, want.hash, got.count * 32u) == 0);
            build(&known, from);
            build(&whole, to);
            CHECK(qsafp_tree_extend(&known, &got) == 0 && memcmp(&known, &whole, sizeof known) == 0);
            CHECK(qsafp_tree_append(&t, leaves[to]) == 0);
        }
    }
}

static void every_range_extends_and_no_other_does(void)
{
    uint8_t most = 0;
    for (uint32_t from = 0; from <= 70; from++)
        for (uint32_t to = from; to <= 70; to++) {
            qsafp_tree_t t, whole;
            qsafp_range_t r = {.from = from, .to = to};
            build(&t, from);
            build(&whole, to);
            CHECK(qsafp_tree_range(&r, leaf_of, 0) == 0 && qsafp_tree_extend(&t, &r) == 0 && memcmp(&t, &whole, sizeof t) == 0);
            CHECK(to == from || (qsafp_tree_extend(&t, &r) == QSAFP_E_RANGE && t.size == to)); /* a second time it does not follow */
            if (to > from) {
                qsafp_range_t bad = r;
                build(&t, from);
                bad.count--;
                CHECK(qsafp_tree_extend(&t, &bad) == QSAFP_E_TOO_FEW && t.size == from);
                bad.count = (uint8_t)(r.count + 1);
                CHECK(qsafp_tree_extend(&t, &bad) == QSAFP_E_TRAILING && t.size == from);
            }
        }
    for (uint32_t from = 0; from <= 1021; from++) {
        qsafp_range_t r = {.from = from, .to = 1021};
        CHECK(qsafp_tree_range(&r, leaf_of, 0) == 0);
        most = r.count > most ? r.count : most;
    }
    CHECK(most <= 17);
    printf("most hashes in a range of 1,021 records: %u\n", most);
}

static void a_leaf_that_cannot_be_read_fails_the_range(void)
{
    qsafp_range_t r = {.from = 3, .to = 40};
    for (int n = 0; n < 37; n++) {
        int left = n;
        CHECK(qsafp_tree_range(&r, leaf_of, &left) == QSAFP_E_STORE);
    }
    r = (qsafp_range_t){.from = 5, .to = 4};
    CHECK(qsafp_tree_range(&r, leaf_of, 0) == QSAFP_E_RANGE);
}

static void a_tree_ends_before_sequences_do(void)
{
    qsafp_tree_t t = {.size = QSAFP_SEQ_MAX}, was = t;
    CHECK(qsafp_tree_append(&t, leaves[0]) == QSAFP_E_RANGE && memcmp(&t, &was, sizeof t) == 0);
    t.size = QSAFP_SEQ_MAX - 1;
    const qsafp_range_t beyond = {.from = t.size, .to = QSAFP_SEQ_MAX + 1u, .count = 1};
    CHECK(qsafp_tree_extend(&t, &beyond) == QSAFP_E_RANGE && t.size == QSAFP_SEQ_MAX - 1);
    CHECK(qsafp_tree_append(&t, leaves[0]) == 0 && t.size == QSAFP_SEQ_MAX);
}

int main(void)
{
    a_tree_ends_before_sequences_do();
    for (unsigned i = 0; i < 1200; i++)
        qsafp_sha256(leaves[i], &i, sizeof i);
    roots_are_those_of_the_rfc();
    what_is_kept_since_a_size_is_the_range_from_there();
    every_range_extends_and_no_other_does();
    a_leaf_that_cannot_be_read_fails_the_range();
    return DONE("test_tree");
}
