# SPDX-License-Identifier: Apache-2.0
"""What validators may answer, taken apart: good answers whole, everything else one FormatError and nothing worse."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
from validator_kit import Device, Quorum, quorum

from qsafp_embedded import cose, keys
from qsafp_embedded._core import cbor_dumps
from qsafp_embedded._tables import Refusal, RefusalClass
from qsafp_embedded.agent.quorum import Approval, Ballot, Refused, Revocation, parse_answer, parse_sign1_answer
from qsafp_embedded.errors import FormatError


def refusal(q: Quorum, code: Refusal, data: Any = None, *, text: str = "why") -> bytes:
    kind = RefusalClass.DENY if code < Refusal.STALE else RefusalClass.RETRY
    body = cbor_dumps({1: bytes(32), 2: int(kind), 3: int(code), 4: text, 5: data})
    return cose.encode_sign1(body, q.signers(1)[0], cose.AAD_REFUSAL)


def approval(q: Quorum, payload: bytes, index: int = 1) -> bytes:
    return cbor_dumps([cose.sign_payload(payload, k, cose.AAD_LEASE).as_list() for k in q.signers(index)])


@pytest.mark.parametrize("suite", ["ed25519", "ml-dsa-65", "hybrid"])
def test_an_approval_is_read_for_its_own_validator_only(suite: str) -> None:
    q = quorum(suite=suite)
    body = approval(q, b"lease")
    got = parse_answer(body, q.members.validators[1], q.members)
    assert isinstance(got, Approval)
    assert len(got.signatures) == (2 if suite == "hybrid" else 1)
    with pytest.raises(FormatError, match="no key of validator 0"):
        parse_answer(body, q.members.validators[0], q.members)


@pytest.mark.parametrize(
    ("code", "data", "deny", "after"),
    [
        (Refusal.POLICY, None, True, 0),
        (Refusal.RATE, 500, False, 500),
        (Refusal.RATE, -5, False, 1),
        (Refusal.RATE, 2**62, False, 3_600_000),
        (Refusal.RATE, "soon", False, 0),
        (Refusal.PENDING_HUMAN, 2000, False, 2000),
        (Refusal.STALE, 7, False, 0),
    ],
)
def test_a_refusal_says_whether_and_when_to_ask_again(code: Refusal, data: Any, deny: bool, after: int) -> None:
    q = quorum()
    got = parse_answer(refusal(q, code, data), q.members.validators[1], q.members)
    assert isinstance(got, Refused)
    assert (got.deny, got.after_ms, got.name) == (deny, after, code.name)


def test_what_a_validator_says_cannot_write_to_the_terminal_or_log() -> None:
    q = quorum()
    got = parse_answer(refusal(q, Refusal.POLICY, text="no\x1b[2J\nagent: all is well" + "x" * 900), q.members.validators[1], q.members)
    assert isinstance(got, Refused)
    assert got.text.startswith("no\ufffd[2J\ufffdagent:")
    assert len(got.text) == 200


def test_a_revocation_is_no_answer_to_a_request() -> None:
    q = quorum()
    body = cose.encode_sign1(cbor_dumps({1: bytes(33), 2: bytes(16), 3: 1, 4: 9, 5: 2, 6: "stop"}), q.signers(1)[0], cose.AAD_REVOCATION)
    got = parse_sign1_answer(body, q.members.validators[1], q.members)
    assert isinstance(got, Revocation)
    assert (got.serial, got.text) == (9, "stop")
    with pytest.raises(FormatError, match="revocation where an answer belongs"):
        parse_answer(body, q.members.validators[1], q.members)


def junk(rng: random.Random, depth: int = 0) -> Any:
    """Any CBOR value, shaped like ours more often than chance would have it."""
    kinds = ["int", "bytes", "text", "none", "bool"] + (["list", "map", "sign", "head"] if depth < 4 else [])
    kind = rng.choice(kinds)
    if kind == "list":
        return [junk(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == "map":
        return {k: junk(rng, depth + 1) for k in range(1, rng.randrange(1, 8))}
    if kind == "sign":
        return [cbor_dumps(junk(rng, depth + 1)), {}, rng.randbytes(64)]
    if kind == "head":
        return {1: rng.choice([keys.ED25519, keys.ML_DSA_65, junk(rng, 4)]), 4: rng.choice([rng.randbytes(8), junk(rng, 4)])}
    plain = {"int": rng.randrange(-(2**63), 2**64), "bytes": rng.randbytes(rng.randrange(40)), "text": "x" * rng.randrange(9)}
    return plain.get(kind, None if kind == "none" else rng.random() < 0.5)


def test_whatever_a_validator_signs_is_an_answer_or_a_format_error() -> None:
    q = quorum()
    me, rng, read = q.members.validators[1], random.Random(3), 0
    for _ in range(4000):
        value = junk(rng)
        with contextlib.suppress(FormatError):
            parse_answer(cbor_dumps(value), me, q.members)
        signed = cose.encode_sign1(cbor_dumps(value), q.signers(1)[0], cose.AAD_REFUSAL)
        for parse in (parse_answer, parse_sign1_answer):
            with contextlib.suppress(FormatError):
                got = parse(signed, me, q.members)
                assert isinstance(got, Refused | Revocation)
                read += isinstance(got, Refused) and got.after_ms >= 0 and bool(got.name)
    body = bytearray(refusal(q, Refusal.RATE, 500))
    for at in range(len(body)):
        for bit in range(8):
            body[at] ^= 1 << bit
            with contextlib.suppress(FormatError):
                parse_answer(bytes(body), me, q.members)
            body[at] ^= 1 << bit


def test_a_lease_takes_the_first_m_in_index_order_and_drops_what_does_not_verify() -> None:
    q = quorum(m=2, n=3)
    payload = Device(q.members).propose()
    ballot = Ballot(q.members, payload)
    for index in (2, 0):
        got = parse_answer(approval(q, payload if index else b"another", index), q.members.validators[index], q.members)
        assert isinstance(got, Approval)
        ballot.approvals[index] = got
    made = ballot.lease()
    assert made is not None
    assert made[1] == [0, 2]
    assert ballot.drop_forged(made[1]) == [0]
    assert ballot.lease() is None
