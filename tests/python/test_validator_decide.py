# SPDX-License-Identifier: Apache-2.0
"""The decision on a request: what is approved, and that each single thing wrong is refused under its own code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from validator_kit import MODEL, Device, Quorum, failsafe_record, named, quorum

from qsafp_embedded import keys
from qsafp_embedded._core import cbor_dumps, cbor_loads
from qsafp_embedded._tables import Reason, Refusal
from qsafp_embedded.errors import FormatError
from qsafp_embedded.validator.config import NEED_PEOPLE, RELEASABLE, Policy
from qsafp_embedded.validator.config import Device as Registered
from qsafp_embedded.validator.decide import Decision, FailSafe, State, Terms, decide, parse, seen_lease

NOW = 2_000_000_000


class Bench:
    """One validator's memory of one device, moved by hand."""

    def __init__(self, *, epoch: int = 1, **policy: Any) -> None:
        self.q: Quorum = quorum(epoch=epoch)
        self.device = Device(self.q.members)
        self.known: Registered = self.device.registered()
        self.state = State(self.device.ueid)
        self.policy = Policy(**policy)
        self.consents: set[FailSafe] = set()
        self.now = NOW

    def terms(self) -> Terms:
        return Terms(self.q.members, self.policy, self.now, lambda f: f._replace(reason=0) in self.consents)

    def put(self, envelope: bytes, *, keep: bool = True) -> Decision:
        """Decide, and remember as the service does."""
        d = decide(parse(envelope), self.known, self.state, self.terms())
        if keep and not d.stored:
            self.state = d.state._replace(answer=b"answer") if d.keep else d.state
        return d

    def ask(self, **changed: Any) -> Decision:
        """The device's next request, with the range this validator needs."""
        return self.put(self.device.ask(old=self.state.size or 0, **changed))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_first_request_and_ten_renewals_are_approved(bench: Bench) -> None:
    for serial in range(1, 12):
        d = bench.ask()
        assert (d.code, d.keep, d.state.serial, d.state.approved) == (None, True, serial, True)
        assert d.state.size == len(bench.device.leaves)


def test_the_same_bytes_get_the_stored_answer(bench: Bench) -> None:
    envelope = bench.device.ask()
    bench.put(envelope)
    again = bench.put(envelope)
    assert (again.stored, again.state.answer, again.keep) == (True, b"answer", False)


def test_a_range_for_another_size_does_not_make_it_another_request(bench: Bench) -> None:
    bench.ask()
    request = bench.device.request(bench.device.propose())
    bench.put(bench.device.envelope(request, old=3))
    assert bench.put(bench.device.envelope(request, old=0)).stored


def test_other_bytes_with_a_serial_are_equivocation(bench: Bench) -> None:
    bench.ask()
    bench.device.serial = 0
    d = bench.ask()
    assert (d.code, d.deny, d.keep, d.state.approved) == (Refusal.EQUIVOCATION, True, False, True)


def test_a_lower_serial_is_stale_and_told_the_last(bench: Bench) -> None:
    for _ in range(3):
        bench.ask()
    bench.device.serial = 1
    d = bench.ask()
    assert (d.code, d.data, d.deny) == (Refusal.STALE, 3, False)


def test_a_lease_that_was_shown_makes_older_requests_stale(bench: Bench) -> None:
    bench.ask()
    bench.state = seen_lease(bench.state, {"serial": 9})
    assert bench.ask().data == 9
    bench.device.serial = 8
    assert bench.ask().code is None


WRONG: list[tuple[dict[str, Any], Refusal]] = [
    ({"set_id": bytes(16)}, Refusal.POLICY),
    ({"lab": True}, Refusal.POLICY),
    ({"epoch": 2}, Refusal.EPOCH),
    ({"log_id": bytes(32)}, Refusal.REREGISTER),
    ({"policy_ms": [0, 0, 1, 1]}, Refusal.REREGISTER),
    ({"model": bytes(32)}, Refusal.MODEL),
    ({"duration_ms": 24 * 3600 * 1000 + 1}, Refusal.LIMITS),
    ({"log_root": bytes(32)}, Refusal.LOG_INCONSISTENT),
]


@pytest.mark.parametrize(("changed", "code"), WRONG, ids=[c.name for _, c in WRONG])
def test_one_wrong_claim_is_refused_under_its_own_code(bench: Bench, changed: dict[str, Any], code: Refusal) -> None:
    bench.known = bench.device.registered(models=frozenset({MODEL}))
    assert bench.ask().code is None
    d = bench.ask(**changed)
    assert d.code is code
    assert d.keep == d.deny == (code < Refusal.STALE)
    assert d.state.size == 3


def test_denials_are_stored_answers_and_retries_are_not(bench: Bench) -> None:
    envelope = bench.device.ask(log_id=bytes(32))
    bench.put(envelope)
    assert bench.put(envelope).stored
    limited = bench.device.ask(duration_ms=31 * 24 * 3600 * 1000)
    assert bench.put(limited).data == {1: 24 * 3600 * 1000}
    assert not bench.put(limited).stored


def test_an_older_epoch_is_sent_the_set_document() -> None:
    bench = Bench(epoch=5)
    d = bench.ask(epoch=4)
    assert (d.code, d.data) == (Refusal.EPOCH, bench.q.document)
    assert bench.ask(epoch=6).data is None


def test_the_set_limits_the_duration_too() -> None:
    bench = Bench()
    bench.q = quorum(max_duration_ms=5_000)
    bench.device.members = bench.q.members
    assert bench.ask(duration_ms=5_000).code is None
    d = bench.ask(duration_ms=5_001)
    assert (d.code, d.data) == (Refusal.LIMITS, {1: 5_000})


def test_the_outer_limit_is_the_registered_time_plus_both_periods(bench: Bench) -> None:
    periods = [0, 0, 5_000, 2_000]
    bench.now = 1_000 * 1000 + 7_000
    assert bench.ask(policy_ms=periods).code is None
    bench.now += 1
    assert bench.ask(policy_ms=periods).code is Refusal.REREGISTER


def test_a_device_without_an_outer_limit_is_granted_leases_unless_the_policy_sets_one() -> None:
    limits = Refusal.LIMITS
    for most, asked, code in ((0, [0, 0], None), (9_000, [0, 0], limits), (9_000, [9_000, 1], limits), (9_000, [8_000, 1_000], None)):
        bench = Bench(max_period_ms=most)
        bench.now = 1_000 * 1000
        d = bench.ask(policy_ms=[0, 0, *asked])
        assert d.code is code
        assert code is None or d.data == {1: 24 * 3600 * 1000, 2: 9_000}


def test_evidence_that_cannot_be_checked_is_refused(bench: Bench) -> None:
    d = bench.device
    for kind in (1, 2, -1):
        assert bench.put(d.envelope(d.request(d.propose(), evidence=kind, measurement=bytes(32)))).code is Refusal.MEASUREMENT


def test_a_device_with_registered_images_is_leased_by_one_of_them_alone(bench: Bench) -> None:
    d, image = bench.device, b"\7" * 32
    bench.known = replace(bench.known, images=frozenset({image}))

    def ask(kind: int, measurement: bytes, level: int) -> Refusal | None:
        return bench.put(d.envelope(d.request(d.propose(level=level), evidence=kind, measurement=measurement))).code

    assert ask(1, image, 4) is None
    for unverified in (3, 5):
        assert ask(1, image, unverified) is Refusal.MEASUREMENT
    for other in (b"\7" * 31, b"\7" * 31 + b"\6", b""):
        assert ask(1, other, 4) is Refusal.MEASUREMENT
    assert ask(0, b"", 1) is Refusal.MEASUREMENT
    assert ask(2, image, 1) is Refusal.MEASUREMENT


def test_requests_too_close_together_are_told_how_long_to_wait() -> None:
    bench = Bench(min_interval_ms=1_000)
    bench.ask()
    bench.now += 400
    d = bench.ask()
    assert (d.code, d.data) == (Refusal.RATE, 600)
    bench.now += 600
    assert bench.ask().code is None


def test_a_clock_that_went_back_delays_nobody_for_long() -> None:
    bench = Bench(min_interval_ms=1_000)
    bench.ask()
    bench.now -= 10**9
    assert bench.ask().code is None


def test_a_revoked_device_is_denied_until_allowed(bench: Bench) -> None:
    envelope = bench.device.ask()
    bench.put(envelope)
    bench.state = bench.state._replace(revoked=True)
    assert bench.put(envelope, keep=False).code is Refusal.REVOKED  # an approval is not repeated
    assert bench.ask().code is Refusal.REVOKED
    bench.state = bench.state._replace(revoked=False)
    assert bench.ask().code is None


# ---- the log ----


def test_a_validator_that_is_behind_says_where_it_stands(bench: Bench) -> None:
    bench.ask()
    request = bench.device.request(bench.device.propose())
    d = bench.put(bench.device.envelope(request, old=5))
    assert (d.code, d.data, d.keep) == (Refusal.STATE_BEHIND, 3, False)
    assert bench.put(bench.device.envelope(request, old=3)).code is None


def test_a_log_that_was_rewritten_or_cut_is_inconsistent(bench: Bench) -> None:
    bench.ask()
    bench.ask()
    rewritten = Device(bench.q.members, bench.device.key, bench.device.ueid, bench.device.log_id)
    rewritten.grow(6)
    rewritten.serial = 2
    assert bench.put(rewritten.ask(old=6), keep=False).code is Refusal.LOG_INCONSISTENT
    cut = Device(bench.q.members, bench.device.key, bench.device.ueid, bench.device.log_id, bench.device.leaves[:2], 2)
    assert bench.put(cut.ask(old=0), keep=False).code is Refusal.LOG_INCONSISTENT


def test_every_hash_of_a_range_counts(bench: Bench) -> None:
    bench.ask()
    envelope = cbor_loads(bench.device.ask(old=3))
    for i in range(len(envelope[4])):
        before, after = envelope[4][:i], envelope[4][i + 1 :]
        for hashes in ([*before, bytes(32), *after], [*before, *after]):
            assert bench.put(cbor_dumps({**envelope, 4: hashes}), keep=False).code is Refusal.LOG_INCONSISTENT
    assert bench.put(cbor_dumps({**envelope, 4: [*envelope[4], bytes(32)]}), keep=False).code is Refusal.LOG_INCONSISTENT
    assert bench.put(cbor_dumps(envelope)).code is None


def fresh(bench: Bench, *, serial: int = 7) -> tuple[bytes, bytes]:
    """A device that has had a lease of this serial, and its next request; the validator has no state."""
    bench.device.serial = serial - 1
    lease = bench.q.lease(bench.device.propose())
    return lease, bench.device.request(bench.device.propose())


def test_without_state_a_later_serial_needs_the_previous_lease(bench: Bench) -> None:
    lease, request = fresh(bench)
    assert bench.put(bench.device.envelope(request)).code is Refusal.STATE_BEHIND
    d = bench.put(bench.device.envelope(request, old=3, lease=lease, peaks=True))
    assert (d.code, d.state.size) == (None, 6)


def test_a_lease_leads_a_validator_that_missed_rounds(bench: Bench) -> None:
    bench.ask()
    lease, request = fresh(bench)
    d = bench.put(bench.device.envelope(request, old=6, lease=lease, peaks=True))
    assert (d.code, d.state.size) == (None, 9)


def test_a_lease_that_proves_nothing_leads_nobody(bench: Bench) -> None:
    lease, request = fresh(bench)
    other = Device(bench.q.members, serial=5)
    strangers = quorum().lease(bench.device.propose())
    cases = {
        "another device": (bench.q.lease(other.propose()), 3, True),
        "too few votes": (bench.q.lease(cbor_payload(bench), [0]), 3, True),
        "another set": (strangers, 3, True),
        "no peaks": (lease, 3, False),
        "peaks of another size": (lease, 2, True),
        "no lease": (b"", 3, True),
    }
    bench.device.claims["log_size"] = 6
    for what, (token, old, peaks) in cases.items():
        d = bench.put(bench.device.envelope(request, old=old, lease=token, peaks=peaks), keep=False)
        assert (d.code, d.data) == (Refusal.STATE_BEHIND, 0), what


def cbor_payload(bench: Bench) -> bytes:
    """A lease payload over the first three records."""
    scratch = Device(bench.q.members, bench.device.key, bench.device.ueid, bench.device.log_id, [], 6)
    scratch.leaves = bench.device.leaves[:0]
    return scratch.propose()


def test_a_serial_one_that_was_not_granted_still_starts_the_log(bench: Bench) -> None:
    assert bench.ask(duration_ms=31 * 24 * 3600 * 1000).code is Refusal.LIMITS
    assert bench.ask().code is None


def test_a_policy_may_follow_a_log_from_any_serial() -> None:
    for start, code in (("first", Refusal.STATE_BEHIND), ("any", None)):
        bench = Bench(start=start)
        bench.device.serial = 4
        assert bench.ask().code is code


# ---- fail-safe ----


@pytest.mark.parametrize("reason", RELEASABLE)
def test_expiry_and_its_like_are_released_by_policy(bench: Bench, reason: str) -> None:
    record = failsafe_record(2, Reason[reason])
    d = bench.device
    assert bench.put(d.envelope(d.request(d.propose(**named(record))), record=record)).code is None


@pytest.mark.parametrize("reason", [*NEED_PEOPLE, "NONE"])
def test_everything_else_waits_for_a_person(bench: Bench, reason: str) -> None:
    record = failsafe_record(2, Reason[reason])
    d = bench.device
    envelope = d.envelope(d.request(d.propose(**named(record))), record=record)
    first = bench.put(envelope)
    assert (first.code, first.data) == (Refusal.PENDING_HUMAN, 2_000)
    assert first.waits == FailSafe(d.ueid, d.log_id, 2, record[208:240], Reason[reason])
    bench.consents.add(FailSafe(d.ueid, d.log_id, 2, record[208:240]))
    assert bench.put(envelope).code is None


def test_a_consent_is_for_one_record_only(bench: Bench) -> None:
    d = bench.device
    record = failsafe_record(2, Reason.MANUAL)
    good = FailSafe(d.ueid, d.log_id, 2, record[208:240])
    for wrong in ({"ueid": bytes(33)}, {"log_id": bytes(32)}, {"sequence": 3}, {"hash": bytes(32)}):
        bench.consents.add(good._replace(**wrong))
    assert bench.put(d.envelope(d.request(d.propose(**named(record))), record=record)).code is Refusal.PENDING_HUMAN


def test_a_reason_the_table_does_not_know_is_never_automatic() -> None:
    assert not Policy().automatic(77)
    assert not Policy(release={"LEASE_EXPIRED": "human"}).automatic(Reason.LEASE_EXPIRED)


def test_an_envelope_must_carry_the_record_that_the_claims_name(bench: Bench) -> None:
    record, d = failsafe_record(2, Reason.LEASE_EXPIRED), bench.device
    request = d.request(d.propose(**named(record)))
    bent = bytearray(record)
    bent[4] = 1
    for wrong in (None, b"", record[:255], bytes(256), failsafe_record(2, Reason.LEASE_EXPIRED), bytes(bent)):
        with pytest.raises(FormatError, match="fail-safe record"):
            parse(d.envelope(request, record=wrong))


@pytest.mark.parametrize("big", ["serial", "failsafe_seq"])
def test_numbers_beyond_the_store_are_no_request(bench: Bench, big: str) -> None:
    record = failsafe_record(2**63 if big == "failsafe_seq" else 2, Reason.MANUAL)
    envelope = bench.device.ask()
    for number, good in ((2**63 - 1, True), (2**63, False), (2**64 - 1, False)):
        changed = {**named(record), "serial": number} if big == "serial" else named(record)
        if big == "serial" and good:
            parse(bench.device.envelope(bench.device.request(bench.device.propose(**changed)), record=record))
            continue
        with pytest.raises(FormatError, match="2\\^63"):
            parse(bench.device.envelope(bench.device.request(bench.device.propose(**changed)), record=record))
    assert bench.put(envelope).code is None


def test_a_relay_cannot_turn_a_reason_for_people_into_an_automatic_one(bench: Bench) -> None:
    record, d = failsafe_record(2, Reason.MANUAL), bench.device
    request = d.request(d.propose(**named(record)))
    for at in range(240):
        bent = bytearray(record)
        bent[at] = Reason.LEASE_EXPIRED if at == 36 else bent[at] ^ 1
        with pytest.raises(FormatError, match="fail-safe record"):
            parse(d.envelope(request, record=bytes(bent)))
    assert bench.put(d.envelope(request, record=record)).code is Refusal.PENDING_HUMAN


# ---- form ----


def test_an_envelope_of_another_shape_is_refused(bench: Bench) -> None:
    good = cbor_loads(bench.device.ask())
    parse(cbor_dumps(good))
    wrong: list[dict[int, Any]] = [{k: v for k, v in good.items() if k != gone} for gone in good]
    wrong += [{**good, 8: 0}, {**good, 1: None}, {**good, 2: -1}, {**good, 2: 2**32}, {**good, 2: True}, {**good, 3: [b""]}, {**good, 3: 1}]
    wrong += [{**good, 4: None}, {**good, 4: [bytes(32)] * 65}, {**good, 5: 0}, {**good, 6: "x"}]
    wrong += [{**good, 7: "quote"}, {**good, 7: bytes(513)}]
    for e in wrong:
        with pytest.raises(FormatError):
            parse(cbor_dumps(e))
    for raw in (b"", b"\xa0", cbor_dumps(good) + b"\x00", bytes(24 * 1024 + 1), cbor_dumps([good])):
        with pytest.raises(FormatError):
            parse(raw)


def test_every_bit_of_a_request_is_signed(bench: Bench) -> None:
    device = bench.device
    request = device.request(device.propose())
    for at in range(len(request)):
        bad = bytearray(request)
        bad[at] ^= 1 << at % 8
        try:
            r = parse(device.envelope(bytes(bad)))
        except FormatError:
            continue
        assert not r.cose.verify(device.key.public, b"qsafp/1/request"), at


def test_a_request_by_another_key_is_not_the_devices(bench: Bench) -> None:
    device = bench.device
    other = replace(device, key=keys.Ed25519Key.from_seed(bytes(32)))
    r = parse(device.envelope(other.request(device.propose())))
    assert not r.cose.verify(device.key.public, b"qsafp/1/request")
