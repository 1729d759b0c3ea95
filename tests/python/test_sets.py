# SPDX-License-Identifier: Apache-2.0
"""The set document, and leases held against it."""

from __future__ import annotations

import dataclasses
import secrets
from typing import Any

import pytest
from validator_kit import Device, Quorum, quorum

from qsafp_embedded import cose, keys, sets
from qsafp_embedded._core import cbor_dumps, cbor_loads
from qsafp_embedded.errors import FormatError

SUITES = ["ed25519", "ml-dsa-65", "hybrid"]


@pytest.mark.parametrize("suite", SUITES)
def test_a_set_comes_back_from_its_document(suite: str) -> None:
    q = quorum(m=4, n=6, suite=suite, lab=True, max_duration_ms=60_000)
    s = q.members
    assert (s.m, s.n, s.suite, s.lab, s.max_duration_ms, s.epoch) == (4, 6, suite, True, 60_000, 1)
    assert s.document == q.document
    assert len(s.validators[5].pins[0]) == 32
    assert s.validators[5].endpoints == ("https://127.0.0.1:9005",)


def test_the_next_epoch_is_signed_by_the_keys_of_the_old_set() -> None:
    q = quorum()
    other = keys.Ed25519Key.from_seed(secrets.token_bytes(32))
    new = dataclasses.replace(q.members, epoch=2, set_keys=(other.public,))
    assert sets.load(sets.encode(new, [other, q.set_key]), old=q.members).epoch == 2
    with pytest.raises(FormatError, match="in force"):
        sets.load(sets.encode(new, [other]), old=q.members)


def test_one_epoch_replaces_as_many_members_as_may_lie() -> None:
    q, other = quorum(m=4, n=6), quorum(m=4, n=6)
    for count, good in ((1, True), (2, False)):
        members = (*q.members.validators[: 6 - count], *other.members.validators[6 - count :])
        document = sets.encode(dataclasses.replace(q.members, epoch=2, validators=members), [q.set_key])
        if good:
            assert sets.load(document, old=q.members).epoch == 2
        else:
            with pytest.raises(FormatError, match="2 members replaced where one epoch may replace 1"):
                sets.load(document, old=q.members)
    fewer = dataclasses.replace(q.members, epoch=2, m=3, validators=q.members.validators[:4])
    with pytest.raises(FormatError, match="2 members replaced"):
        sets.load(sets.encode(fewer, [q.set_key]), old=q.members)


def test_a_member_has_at_most_four_pins() -> None:
    q = quorum()
    v = q.members.validators
    for count in (4, 5):
        s = dataclasses.replace(q.members, validators=(dataclasses.replace(v[0], pins=(bytes(32),) * count), *v[1:]))
        if count == 4:
            assert len(sets.load(sets.encode(s, [q.set_key])).validators[0].pins) == 4
        else:
            with pytest.raises(FormatError, match="more than 4"):
                sets.encode(s, [q.set_key])


@pytest.mark.parametrize("change", [{"epoch": 3}, {"epoch": 1}, {"epoch": 2, "set_id": bytes(16)}])
def test_only_the_next_epoch_of_the_same_set_follows(change: dict[str, Any]) -> None:
    q = quorum()
    document = sets.encode(dataclasses.replace(q.members, **change), [q.set_key])
    with pytest.raises(FormatError, match="not epoch 2"):
        sets.load(document, old=q.members)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"m": 1}, "majority"),
        ({"m": 4}, "majority"),
        ({"epoch": 0}, "epoch 0"),
        ({"set_id": bytes(15)}, "set id"),
        ({"suite": "rsa"}, "suite"),
        ({"suite": "hybrid"}, "suite"),
        ({"set_keys": ()}, "set keys"),
        ({"set_k": 2}, "set keys"),
        ({"max_duration_ms": 0}, "max duration"),
        ({"max_duration_ms": 2**63}, "max duration"),
    ],
)
def test_a_set_that_breaks_a_rule_is_not_made(change: dict[str, Any], why: str) -> None:
    q = quorum()
    with pytest.raises(FormatError, match=why):
        sets.encode(dataclasses.replace(q.members, **change), [q.set_key])


def test_no_key_stands_twice_and_indexes_run_in_order() -> None:
    q = quorum()
    v = q.members.validators
    twice = (v[0], dataclasses.replace(v[1], ed25519=v[0].ed25519), v[2])
    for members in (twice, (v[1], v[0], v[2]), (v[0], v[2])):
        with pytest.raises(FormatError):
            sets.encode(dataclasses.replace(q.members, validators=members), [q.set_key])


def test_a_document_nobody_entitled_signed_is_refused() -> None:
    q = quorum()
    stranger = keys.Ed25519Key.from_seed(secrets.token_bytes(32))
    with pytest.raises(FormatError, match="fewer than 1"):
        sets.load(sets.encode(q.members, [stranger]))


def test_every_bit_of_a_document_counts() -> None:
    q = quorum()
    for at in range(len(q.document)):
        bad = bytearray(q.document)
        bad[at] ^= 1 << at % 8
        with pytest.raises(FormatError):
            sets.load(bytes(bad))


def test_a_document_with_more_or_other_keys_is_refused() -> None:
    q = quorum()
    body = cbor_loads(cose.parse_sign(q.document).payload)
    for changed in ({**body, 9: 0}, {**body, 5: 4}, {**body, 6: 1}, {**body, 8: {1: 5, 2: 6}}, {k: v for k, v in body.items() if k != 8}):
        payload = cbor_dumps(changed)
        token = cose.encode_sign(payload, [cose.sign_payload(payload, q.set_key, cose.AAD_SET)])
        with pytest.raises(FormatError):
            sets.load(token)


def test_a_document_longer_than_64_kib_is_refused() -> None:
    with pytest.raises(FormatError, match="longer"):
        sets.load(bytes(64 * 1024 + 1))


@pytest.fixture
def q() -> Quorum:
    return quorum(m=3, n=4)


@pytest.mark.parametrize("suite", SUITES)
def test_a_lease_of_m_members_verifies(suite: str) -> None:
    q = quorum(m=3, n=4, suite=suite)
    payload = Device(q.members).propose()
    for indexes in ([0, 1, 2], [0, 2, 3], [1, 2, 3]):
        assert sets.verify_lease(q.lease(payload, indexes), q.members)["serial"] == 1


def test_a_lease_that_no_guard_takes_in_is_refused() -> None:
    for m in (4, 5):
        q = quorum(m=m, n=5, suite="ml-dsa-65")
        lease = q.lease(Device(q.members).propose(), list(range(m)))
        if m == 4:
            assert sets.verify_lease(lease, q.members)["serial"] == 1
        else:
            with pytest.raises(FormatError, match="longer than 16384"):
                sets.verify_lease(lease, q.members)


@pytest.mark.parametrize("indexes", [[0, 1], [0, 1, 2, 3], [0, 1, 1], [2, 1, 0], []])
def test_a_lease_of_fewer_more_or_doubled_votes_is_refused(q: Quorum, indexes: list[int]) -> None:
    with pytest.raises(FormatError):
        sets.verify_lease(q.lease(Device(q.members).propose(), indexes), q.members)


def test_a_lease_signed_by_a_stranger_is_refused(q: Quorum) -> None:
    other = quorum(m=3, n=4)
    with pytest.raises(FormatError):
        sets.verify_lease(other.lease(Device(q.members).propose()), q.members)


def test_a_lease_of_another_epoch_or_set_is_refused(q: Quorum) -> None:
    for change in ({"epoch": 2}, {"set_id": bytes(16)}):
        with pytest.raises(FormatError, match="another set or epoch"):
            sets.verify_lease(q.lease(Device(q.members).propose(**change)), q.members)


def test_half_a_hybrid_vote_is_none() -> None:
    q = quorum(m=2, n=3, suite="hybrid")
    payload = Device(q.members).propose()
    votes = [cose.sign_payload(payload, k, cose.AAD_LEASE) for k in (q.ed[0], q.ml[0], q.ed[1], q.ml[2])]
    for chosen in (votes, [votes[0], votes[2]], [votes[1], votes[0], votes[2], votes[3]]):
        with pytest.raises(FormatError):
            sets.verify_lease(cose.encode_sign(payload, chosen), q.members)
