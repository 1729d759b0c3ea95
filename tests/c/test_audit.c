/* SPDX-License-Identifier: Apache-2.0 */
/* The audit log, sunny and faulty: chain, ring, pruning, recovery, torn writes at each byte, every bit flipped. */
#include "device.h"

static const uint8_t ZERO[32];

static void log_of(qsafp_audit_t *a, device_t *d)
{
    memset(a, 0, sizeof *a);
    a->port = &PORT;
    a->ctx = d;
    a->slots = QSAFP_LOG_SLOTS;
    a->reserve = true;
}

static device_t *blank_device(uint8_t fill)
{
    device_t *d = calloc(1, sizeof *d);
    assert(d);
    memset(d->log, fill, sizeof d->log);
    return d;
}

static int append(qsafp_audit_t *a, uint32_t reason)
{
    qsafp_record_t r = {.event = QSAFP_EVENT_WORKLOAD_REPORT, .reason = reason};
    return qsafp_audit_append(a, &r);
}

static int recover(qsafp_audit_t *a, const qsafp_audit_t *was, device_t *d)
{
    uint32_t bad;
    log_of(a, d);
    a->tree = was->tree;
    memcpy(a->log_id, was->log_id, 32);
    return qsafp_audit_recover(a, &bad);
}

static void the_chain_verifies_and_survives_a_restart_at_every_length(void)
{
    device_t *d = blank_device(0xFF);
    qsafp_audit_t a, b;
    uint8_t root_a[32], root_b[32];
    log_of(&a, d);
    CHECK(qsafp_audit_create(&a) == 0);
    for (uint32_t i = 0; i < 2300; i++) {
        CHECK(append(&a, i) == 0);
        CHECK(a.next - a.first <= QSAFP_LOG_SLOTS);
        if (i >= 1100)
            CHECK(a.next - a.first >= 1008);
        if (i % 37 && i > 40)
            continue;
        CHECK(recover(&b, &a, d) == 0 && b.next == a.next && b.first == a.first && !memcmp(a.head, b.head, 32) && b.erased_upto >= a.next);
        CHECK(qsafp_audit_tree(&a) == 0 && qsafp_audit_tree(&b) == 0);
        CHECK((qsafp_tree_root(&a.tree, root_a), true) && (qsafp_tree_root(&b.tree, root_b), true) && !memcmp(root_a, root_b, 32));
        a = b; /* go on as the restarted log */
    }
    free(d);
}

static void exported_records_verify_and_every_flipped_bit_is_named(void)
{
    enum { COUNT = 20 };
    device_t *d = blank_device(0xFF);
    qsafp_audit_t a;
    uint8_t recs[COUNT * 256], prev[32];
    uint64_t bad = 99;
    log_of(&a, d);
    d->wall_ms = 5;
    CHECK(qsafp_audit_create(&a) == 0);
    for (uint32_t i = 1; i < COUNT; i++)
        CHECK(append(&a, i) == 0);
    for (uint32_t i = 0; i < COUNT; i++)
        CHECK(qsafp_audit_read(&a, i, recs + 256 * i) == 0);
    memcpy(prev, ZERO, 32);
    CHECK(qsafp_audit_verify(recs, COUNT, prev, &bad) == 0 && !memcmp(prev, a.head, 32));
    size_t missed = 0;
    for (size_t i = 0; i < sizeof recs * 8; i++) {
        bool seal = i / 8 % 256 >= 240 && i / 8 / 256 % 16 == 15; /* a seal is checked with its key, not by the chain */
        recs[i / 8] ^= (uint8_t)(1u << i % 8);
        memcpy(prev, ZERO, 32);
        if (!seal && (qsafp_audit_verify(recs, COUNT, prev, &bad) == 0 || bad != i / 8 / 256))
            missed++;
        recs[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    CHECK(missed == 0);
    memmove(recs + 256, recs + 512, (COUNT - 2) * 256); /* removed */
    memcpy(prev, ZERO, 32);
    CHECK(qsafp_audit_verify(recs, COUNT - 1, prev, &bad) == QSAFP_E_CORRUPT && bad == 1);
    free(d);
}

static void blank_flash_does_not_verify(void)
{
    static const uint8_t fills[2] = {0x00, 0xFF};
    for (int i = 0; i < 2; i++) {
        device_t *d = blank_device(fills[i]);
        qsafp_audit_t a = {0}, b;
        uint8_t prev[32] = {0};
        uint64_t bad;
        CHECK(recover(&b, &a, d) == QSAFP_E_CORRUPT);
        CHECK(qsafp_audit_verify(d->log, 1, prev, &bad) == QSAFP_E_CORRUPT);
        log_of(&b, d);
        CHECK(qsafp_audit_create(&b) == (fills[i] ? 0 : QSAFP_E_BUSY));
        free(d);
    }
}

static void I6_a_write_torn_at_any_byte_loses_only_itself(void)
{
    static const uint32_t at[] = {1, 15, 16, 17, 1023, 1024, 1039, 1040, 1100};
    for (size_t k = 0; k < sizeof at / sizeof *at; k++) {
        device_t *d = blank_device(0xFF), *cut = calloc(1, sizeof *cut);
        qsafp_audit_t a, before, b, again;
        assert(cut);
        log_of(&a, d);
        CHECK(qsafp_audit_create(&a) == 0);
        while (a.next < at[k])
            CHECK(append(&a, 7) == 0);
        CHECK(qsafp_audit_tree(&a) == 0); /* the host saves the tree before its leaves are erased */
        before = a;
        *cut = *d;
        CHECK(append(&a, 8) == 0);
        uint32_t slot = (uint32_t)((a.next - 1) % a.slots) * 256;
        for (uint32_t n = 0; n < 256; n++) {
            memcpy(cut->log, d->log, sizeof cut->log);
            memset(cut->log + slot + n, 0xFF, 256 - n);
            int err = recover(&b, &before, cut);
            bool whole = b.next == a.next; /* only seal bytes may be missing from a whole record */
            CHECK(err == 0 && (whole ? n >= 240 : b.next == a.next - 1));
            CHECK(append(&b, 9) == 0 && recover(&again, &b, cut) == 0 && again.next == b.next);
        }
        free(d);
        free(cut);
    }
}

static void a_bad_record_before_a_good_one_is_corruption_and_is_named(void)
{
    device_t *d = blank_device(0xFF);
    qsafp_audit_t a, b;
    uint32_t bad = 0;
    log_of(&a, d);
    CHECK(qsafp_audit_create(&a) == 0);
    while (a.next < 100)
        CHECK(append(&a, 1) == 0);
    for (uint32_t slot = 1; slot < 99; slot += 7) {
        for (uint32_t byte = 0; byte < 240; byte += 13) {
            d->log[slot * 256 + byte] ^= 0x40;
            log_of(&b, d);
            memcpy(b.log_id, a.log_id, 32);
            CHECK(qsafp_audit_recover(&b, &bad) == QSAFP_E_CORRUPT && (bad == slot || bad < slot));
            d->log[slot * 256 + byte] ^= 0x40;
        }
    }
    log_of(&b, d);
    b.log_id[0] = 1;
    CHECK(qsafp_audit_recover(&b, &bad) == QSAFP_E_WRONG_DEVICE);
    log_of(&b, d);
    b.tree.size = 101; /* a head that was promised is gone */
    CHECK(qsafp_audit_recover(&b, &bad) == QSAFP_E_CORRUPT);
    free(d);
}

static void a_failed_write_is_final_until_recovered(void)
{
    device_t *d = blank_device(0xFF);
    qsafp_audit_t a, b;
    log_of(&a, d);
    CHECK(qsafp_audit_create(&a) == 0);
    d->fail_at = d->calls + 1;
    CHECK(append(&a, 1) == QSAFP_E_STORE && append(&a, 2) == QSAFP_E_STORE && a.next == 1);
    CHECK(recover(&b, &a, d) == 0 && append(&b, 3) == 0);
    free(d);
}

static void the_fail_safe_record_has_room_when_an_erase_fails(void)
{
    device_t *d = blank_device(0xFF);
    qsafp_audit_t a;
    qsafp_record_t r = {.event = QSAFP_EVENT_FAILSAFE_TRIGGERED};
    log_of(&a, d);
    CHECK(qsafp_audit_create(&a) == 0);
    while (a.next < 1024)
        CHECK(append(&a, 1) == 0);
    CHECK(qsafp_audit_tree(&a) == 0);
    d->fail_at = d->calls + 2; /* read of the last pruned, then the erase */
    CHECK(append(&a, 1) == QSAFP_E_STORE && !a.failed);
    d->fail_at = d->calls + 2;
    a.reserve = false;
    CHECK(qsafp_audit_append(&a, &r) == 0 && r.seq == 1024);
    while (a.next < a.erased_upto) {
        d->fail_at = d->calls + 2;
        CHECK(qsafp_audit_append(&a, &r) == 0);
        if (r.seq + 1 != a.next)
            break;
    }
    qsafp_audit_t full = a;
    d->fail_at = d->calls + 2; /* over records that were not erased nothing is written, not even this */
    CHECK(qsafp_audit_append(&a, &r) == QSAFP_E_STORE && a.next == 1040 && !a.failed && memcmp(a.head, full.head, 32) == 0);
    d->fail_at = d->calls + 3; /* nor after a write that failed, that of the pruning */
    CHECK(qsafp_audit_append(&a, &r) == QSAFP_E_STORE && a.failed && d->calls == d->fail_at);
    free(d);
}

static void a_log_ends_before_its_sequence_wraps(void)
{
    device_t *d = blank_device(0xFF);
    qsafp_audit_t a;
    qsafp_record_t r = {.event = QSAFP_EVENT_BOOT};
    uint8_t rec[256];
    log_of(&a, d);
    CHECK(qsafp_audit_create(&a) == 0);
    a.first = a.next = a.tree.size = QSAFP_SEQ_MAX - 1;
    a.erased_upto = a.next + QSAFP_LOG_SLOTS;
    CHECK(append(&a, 1) == 0 && append(&a, 2) == QSAFP_E_FULL && a.next == QSAFP_SEQ_MAX);
    CHECK(qsafp_audit_read(&a, QSAFP_SEQ_MAX - 1, rec) == 0 && qsafp_record_decode(&r, rec) == 0 && qsafp_audit_tree(&a) == 0);
    CHECK(qsafp_tree_append(&a.tree, rec) == QSAFP_E_RANGE && a.tree.size == QSAFP_SEQ_MAX);
    for (unsigned bit = 0; bit < 33; bit++) {
        r.seq = (uint64_t)QSAFP_SEQ_MAX << bit;
        r.flags = r.seq % 16 == 15 ? 2 : 0; /* its sequence alone is wrong */
        memcpy(rec, &r, sizeof rec);
        CHECK(qsafp_record_decode(&r, rec) == QSAFP_E_MALFORMED);
    }
    free(d);
}

static void seals_are_those_of_their_epoch(void)
{
    uint8_t k0[32] = {1}, k1[32] = {1}, h[32] = {2}, s0[16], s1[16];
    qsafp_seal_evolve(k1);
    qsafp_seal(s0, k0, h);
    qsafp_seal(s1, k1, h);
    CHECK(memcmp(s0, s1, 16) != 0 && memcmp(k0, k1, 32) != 0);
}

int main(void)
{
    the_chain_verifies_and_survives_a_restart_at_every_length();
    exported_records_verify_and_every_flipped_bit_is_named();
    blank_flash_does_not_verify();
    I6_a_write_torn_at_any_byte_loses_only_itself();
    a_bad_record_before_a_good_one_is_corruption_and_is_named();
    a_failed_write_is_final_until_recovered();
    the_fail_safe_record_has_room_when_an_erase_fails();
    a_log_ends_before_its_sequence_wraps();
    seals_are_those_of_their_epoch();
    return DONE("test_audit");
}
