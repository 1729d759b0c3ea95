# SPDX-License-Identifier: Apache-2.0
"""What validators answered to one request, and the lease that m approvals make; pure (docs/formats.md, Lease)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .. import cose, keys, sets
from .._core import cbor_loads
from .._tables import Refusal, RefusalClass
from ..errors import FormatError
from .peer import plain

__all__ = ["Approval", "Ballot", "Refused", "Revocation", "parse_answer", "parse_sign1_answer", "request_of", "shortening"]

ALGS = {"ed25519": (keys.ED25519,), "ml-dsa-65": (keys.ML_DSA_65,), "hybrid": (keys.ED25519, keys.ML_DSA_65)}


class Approval(NamedTuple):
    """A validator's signatures over the lease payload, Ed25519 before ML-DSA-65; not verified, the guard does that."""

    signatures: tuple[cose.CoseSignature, ...]


class Refused(NamedTuple):
    """A signed no: code of the refusal table, its text and data, the token itself for the guard."""

    deny: bool
    code: int
    text: str
    data: Any
    token: bytes

    @property
    def name(self) -> str:
        """Name of the code."""
        try:
            return Refusal(self.code).name
        except ValueError:
            return f"refusal {self.code}"

    @property
    def after_ms(self) -> int:
        """When to ask again, ms, for RATE and PENDING_HUMAN; else 0."""
        later = self.code in (Refusal.RATE, Refusal.PENDING_HUMAN)
        return max(1, min(self.data, 3_600_000)) if later and type(self.data) is int else 0


class Revocation(NamedTuple):
    """A signed revocation: it denies every serial up to ``serial``."""

    serial: int
    text: str
    token: bytes


def shortening(limits: list[Refused], s: sets.ValidatorSet) -> Refused | None:
    """Return the LIMITS refusal to obey, None while m members may still grant the whole: n - m must not starve the rest.

    Of more than n - m limits the one that m members grant, with room for as many liars as the set tolerates, 2m-n-1.
    """
    spare = s.n - s.m
    if len(limits) <= spare:
        return None
    falling = sorted(limits, key=lambda r: -int(r.data[1]))
    return falling[min(len(limits) - spare - 1 + max(0, s.m - spare - 1), len(limits) - 1)]


def _want(ok: bool, what: str) -> None:
    if not ok:
        raise FormatError(what)


def request_of(envelope: bytes) -> bytes:
    """Return the lease payload that an envelope asks signatures over; raises FormatError."""
    outer = cbor_loads(envelope)
    _want(isinstance(outer, dict) and isinstance(outer.get(1), bytes), "envelope of another shape")
    inner = cbor_loads(cose.parse_sign1(outer[1], cose.REQUESTS).payload)
    _want(isinstance(inner, dict) and isinstance(inner.get(1), bytes), "request of another shape")
    return bytes(inner[1])


def parse_sign1_answer(body: bytes, member: sets.Validator, s: sets.ValidatorSet) -> Refused | Revocation:
    """Read a refusal or revocation that names this member's key; raises FormatError."""
    signed = cose.parse_sign1(body)
    _signer(signed.by, member, s)
    p = cbor_loads(signed.payload)
    if isinstance(p, dict) and list(p) == [1, 2, 3, 4, 5, 6]:
        _want(type(p[4]) is int and isinstance(p[6], str), "revocation of another shape")
        return Revocation(p[4], plain(p[6]), body)
    _want(isinstance(p, dict) and list(p) == [1, 2, 3, 4, 5], "refusal of another shape")
    _want(type(p[2]) is int and type(p[3]) is int and isinstance(p[4], str), "refusal of another shape")
    _want(p[2] in (RefusalClass.DENY, RefusalClass.RETRY), "refusal of another class")
    return Refused(p[2] == RefusalClass.DENY, p[3], plain(p[4]), p[5], body)


def _signer(by: cose.CoseSignature, member: sets.Validator, s: sets.ValidatorSet) -> None:
    public = s.public(member, by.alg)
    _want(public is not None and keys.kid(public) == by.kid, f"signed by {by.kid.hex()}, which is no key of validator {member.index}")


def parse_answer(body: bytes, member: sets.Validator, s: sets.ValidatorSet) -> Approval | Refused:
    """Read the answer to a renewal: the signatures of this member, or its refusal; raises FormatError."""
    if body[:1] == b"\xd2":  # tag 18
        refusal = parse_sign1_answer(body, member, s)
        if isinstance(refusal, Revocation):
            raise FormatError("a revocation where an answer belongs")
        return refusal
    listed = cbor_loads(body)
    algs = ALGS[s.suite]
    _want(isinstance(listed, list) and len(listed) == len(algs), f"an answer that is not {len(algs)} signatures")
    _want(all(isinstance(item, list) and len(item) == 3 for item in listed), "a signature of another shape")
    signatures = tuple(cose.decode_signature(*item) for item in listed)
    _want(tuple(x.alg for x in signatures) == algs, "signatures of other algorithms than the suite's")
    for x in signatures:
        _signer(x, member, s)
    return Approval(signatures)


@dataclass
class Ballot:
    """The approvals of one request.  Forged ones are found only after the guard refused a lease: verifying is its work."""

    members: sets.ValidatorSet
    payload: bytes
    approvals: dict[int, Approval] = field(default_factory=dict)

    def lease(self) -> tuple[bytes, list[int]] | None:
        """Return a lease of exactly m approvals in index order, and whose they are; None while there are fewer."""
        if len(self.approvals) < self.members.m:
            return None
        chosen = sorted(list(self.approvals)[: self.members.m])
        return cose.encode_sign(self.payload, [x for i in chosen for x in self.approvals[i].signatures]), chosen

    def drop_forged(self, indexes: list[int]) -> list[int]:
        """Verify the approvals of these members, drop the bad ones, and return whose they were."""
        bad = [i for i in indexes if not self._good(i)]
        for i in bad:
            del self.approvals[i]
        return bad

    def _good(self, index: int) -> bool:
        member = self.members.validators[index]
        for x in self.approvals[index].signatures:
            public = self.members.public(member, x.alg)
            if public is None or not cose.verify_payload(self.payload, x, public, cose.AAD_LEASE):
                return False
        return True
