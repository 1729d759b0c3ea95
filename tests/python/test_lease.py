# SPDX-License-Identifier: Apache-2.0
"""A lease as a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsafp_embedded import sets
from qsafp_embedded.errors import FormatError
from qsafp_embedded.lease import Lease, Policy


def read(vectors: Path, name: str) -> bytes:
    return (vectors / "wire" / name).read_bytes()


def test_a_lease_says_what_its_claims_say(vectors: Path) -> None:
    lease = Lease.decode(read(vectors, "lease_released.cbor"))
    assert (lease.serial, lease.epoch, lease.duration_ms, lease.lab, lease.level) == (3, 1, 60_000, True, 1)
    assert lease.policy == Policy(10_000, 5_000, 0, 0)
    assert lease.failsafe is not None
    assert lease.failsafe[0] == 18
    assert Lease.decode(read(vectors, "lease_ed25519.cbor")).failsafe is None


@pytest.mark.parametrize("suite", list(sets.SUITES))
def test_a_lease_is_verified_against_its_set(vectors: Path, suite: str) -> None:
    lease, members = Lease.decode(read(vectors, f"lease_{suite}.cbor")), sets.load(read(vectors, f"set_{suite}.cbor"))
    lease.verify(members)
    assert lease.signers(members) == (0, 1, 2, 3)
    assert len(lease.kids) == (8 if suite == "hybrid" else 4)


def test_a_lease_of_another_suite_or_epoch_is_refused(vectors: Path) -> None:
    lease = Lease.decode(read(vectors, "lease_ed25519.cbor"))
    for name in ("set_hybrid.cbor", "set_epoch2.cbor"):
        with pytest.raises(FormatError):
            lease.verify(sets.load(read(vectors, name)))


def test_a_token_that_is_no_lease_is_refused(vectors: Path) -> None:
    for name in ("request_1.cbor", "claims_1.cbor", "refusal_rate.cbor", "set_ed25519.cbor"):
        with pytest.raises(FormatError):
            Lease.decode(read(vectors, name))
