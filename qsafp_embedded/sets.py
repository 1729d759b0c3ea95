# SPDX-License-Identifier: Apache-2.0
"""The validator set document: who may sign leases, how many of them, under which limits (docs/formats.md, Set document)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import cose, keys
from ._core import cbor_dumps, cbor_loads, claims_decode
from .errors import ConfigError, FormatError

__all__ = ["SUITES", "Validator", "ValidatorSet", "encode", "load", "read", "verify_lease"]

SUITES = {"ed25519": 1, "ml-dsa-65": 2, "hybrid": 3}
MAX_BYTES = 64 * 1024
MAX_LEASE_BYTES = 16 * 1024
MAX_VALIDATORS = 16
MAX_DURATION_MS = 31 * 24 * 3600 * 1000


@dataclass(frozen=True)
class Validator:
    """One member: index, up to four endpoints (https URLs), pins (SHA-256 of its TLS key's SPKI), raw public keys."""

    index: int
    endpoints: tuple[str, ...]
    pins: tuple[bytes, ...]
    ed25519: bytes | None
    mldsa65: bytes | None = None


@dataclass(frozen=True)
class ValidatorSet:
    """A verified or yet unsigned set: id of 16 bytes, epoch, threshold m, members in index order, suite, limits in ms."""

    set_id: bytes
    epoch: int
    m: int
    validators: tuple[Validator, ...]
    suite: str = "ed25519"
    lab: bool = False
    set_k: int = 1
    set_keys: tuple[bytes, ...] = ()
    max_duration_ms: int = 24 * 3600 * 1000
    document: bytes = field(default=b"", compare=False, repr=False)

    @property
    def n(self) -> int:
        """How many members there are."""
        return len(self.validators)

    def member(self, alg: int, kid: bytes) -> Validator | None:
        """Return the member whose key for this algorithm has this id, if the suite uses that algorithm."""
        for v in self.validators:
            public = self.public(v, alg)
            if public is not None and keys.kid(public) == kid:
                return v
        return None

    def public(self, validator: Validator, alg: int) -> bytes | None:
        """Return a member's raw public key for an algorithm of this suite, None for any other algorithm."""
        if alg == keys.ED25519 and self.suite != "ml-dsa-65":
            return validator.ed25519
        return validator.mldsa65 if alg == keys.ML_DSA_65 and self.suite != "ed25519" else None


def _want(ok: bool, what: str) -> None:
    if not ok:
        raise FormatError(f"set document: {what}")


def _uint(value: object, low: int, high: int, what: str) -> int:
    _want(type(value) is int and low <= value <= high, f"{what} is not in {low}..{high}")
    assert isinstance(value, int)
    return value


def _bytes(value: object, size: int, what: str) -> bytes:
    _want(isinstance(value, bytes) and len(value) == size, f"{what} is not {size} bytes")
    assert isinstance(value, bytes)
    return value


def _list(value: object, low: int, high: int, what: str) -> list[Any]:
    _want(isinstance(value, list) and low <= len(value) <= high, f"{what} is not a list of {low}..{high}")
    assert isinstance(value, list)
    return value


def _check(s: ValidatorSet) -> None:
    """What must hold of any set, made here or read: 2m > n, indexes in order, keys by suite, no key twice."""
    _want(len(s.set_id) == 16 and s.epoch >= 1, "set id of another length, or epoch 0")
    _want(1 <= s.n <= MAX_VALIDATORS and s.m <= s.n < 2 * s.m, f"{s.m} of {s.n} is no majority of 1..{MAX_VALIDATORS}")
    _want([v.index for v in s.validators] == list(range(s.n)), "indexes do not run from 0 in order")
    _want(s.suite in SUITES, f"unknown suite {s.suite!r}")
    for v in s.validators:
        _want((v.ed25519 is not None) == (s.suite != "ml-dsa-65"), f"validator {v.index}: Ed25519 key against the suite")
        _want((v.mldsa65 is not None) == (s.suite != "ed25519"), f"validator {v.index}: ML-DSA-65 key against the suite")
        _want(len(v.endpoints) <= 4 and len(v.pins) <= 4, f"validator {v.index}: more than 4 endpoints or pins")
    used = [k for v in s.validators for k in (v.ed25519, v.mldsa65) if k is not None] + list(s.set_keys)
    _want(len({keys.kid(k) for k in used}) == len(used), "a key stands twice")
    _want(1 <= s.set_k <= len(s.set_keys) <= 4, f"{s.set_k} of {len(s.set_keys)} set keys")
    _want(1 <= s.max_duration_ms <= MAX_DURATION_MS, f"max duration is not in 1..{MAX_DURATION_MS} ms")


def _payload(s: ValidatorSet) -> bytes:
    members = [[v.index, list(v.endpoints), list(v.pins), v.ed25519, v.mldsa65] for v in s.validators]
    return cbor_dumps(
        {
            1: s.set_id,
            2: s.epoch,
            3: s.m,
            4: members,
            5: SUITES[s.suite],
            6: s.lab,
            7: [s.set_k, list(s.set_keys)],
            8: {1: s.max_duration_ms},
        }
    )


def encode(s: ValidatorSet, signers: Sequence[keys.Signer]) -> bytes:
    """Return the set document, signed by the given set keys; raises FormatError if the set breaks its own rules."""
    _check(s)
    payload = _payload(s)
    return cose.encode_sign(payload, [cose.sign_payload(payload, k, cose.AAD_SET) for k in signers])


def _validator(item: object) -> Validator:
    index, endpoints, pins, ed, ml = _list(item, 5, 5, "validator")
    _want(all(isinstance(e, str) for e in _list(endpoints, 0, 4, "endpoints")), "an endpoint is not text")
    return Validator(
        _uint(index, 0, MAX_VALIDATORS - 1, "index"),
        tuple(endpoints),
        tuple(_bytes(p, 32, "pin") for p in _list(pins, 0, 4, "pins")),
        None if ed is None else _bytes(ed, 32, "Ed25519 key"),
        None if ml is None else _bytes(ml, 1952, "ML-DSA-65 key"),
    )


def _decode(payload: bytes, document: bytes) -> ValidatorSet:
    body = cbor_loads(payload)
    _want(isinstance(body, dict) and list(body) == [1, 2, 3, 4, 5, 6, 7, 8], "keys are not 1 to 8")
    set_k, set_keys = _list(body[7], 2, 2, "set keys")
    suites = {number: name for name, number in SUITES.items()}
    _want(type(body[5]) is int and body[5] in suites and isinstance(body[6], bool), "unknown suite or LAB mark")
    _want(isinstance(body[8], dict) and list(body[8]) == [1], "unknown limits")
    s = ValidatorSet(
        set_id=_bytes(body[1], 16, "set id"),
        epoch=_uint(body[2], 1, 2**63 - 1, "epoch"),
        m=_uint(body[3], 1, MAX_VALIDATORS, "m"),
        validators=tuple(_validator(v) for v in _list(body[4], 1, MAX_VALIDATORS, "validators")),
        suite=suites[body[5]],
        lab=body[6],
        set_k=_uint(set_k, 1, 4, "k of the set keys"),
        set_keys=tuple(_bytes(k, 32, "set key") for k in _list(set_keys, 1, 4, "set keys")),
        max_duration_ms=_uint(body[8][1], 1, MAX_DURATION_MS, "max duration"),
        document=document,
    )
    _check(s)
    return s


def _signed(signed: cose.Sign, set_keys: Iterable[bytes]) -> int:
    """How many different set keys signed; a bad signature by one of them is an error."""
    by_kid = {keys.kid(k): k for k in set_keys}
    good: set[bytes] = set()
    for s in signed.by:
        public = by_kid.get(s.kid) if s.alg == keys.ED25519 else None
        if public is None:
            continue
        _want(cose.verify_payload(signed.payload, s, public, cose.AAD_SET), f"bad signature by {s.kid.hex()}")
        good.add(s.kid)
    return len(good)


def _kids(members: Iterable[Validator]) -> set[bytes]:
    return {keys.kid(k) for v in members for k in (v.ed25519, v.mldsa65) if k is not None}


def _strangers(s: ValidatorSet, to: ValidatorSet) -> int:
    """How many members of one set have no key in the other; a key is known by its id."""
    known = _kids(to.validators)
    return sum(known.isdisjoint(_kids((v,))) for v in s.validators)


def _follows(s: ValidatorSet, old: ValidatorSet) -> None:
    """One epoch replaces at most max(1, 2m-n-1) members (architecture, decision 6)."""
    most = max(1, 2 * old.m - old.n - 1)
    replaced = max(_strangers(s, old), _strangers(old, s))
    _want(replaced <= most, f"{replaced} members replaced where one epoch may replace {most}")


def load(document: bytes, *, old: ValidatorSet | None = None) -> ValidatorSet:
    """Read and verify a set document.

    ``old`` is the set now in force: the new one must be signed by k of its set keys too, keep its id, be epoch + 1 and keep all
    members but max(1, 2m-n-1).  Raises FormatError naming the first rule that does not hold.
    """
    _want(len(document) <= MAX_BYTES, f"longer than {MAX_BYTES} bytes")
    signed = cose.parse_sign(document)
    s = _decode(signed.payload, document)
    _want(_signed(signed, s.set_keys) >= s.set_k, f"fewer than {s.set_k} signatures by its set keys")
    if old is not None:
        _want(_signed(signed, old.set_keys) >= old.set_k, f"fewer than {old.set_k} signatures by the set keys in force")
        _want(s.set_id == old.set_id and s.epoch == old.epoch + 1, f"not epoch {old.epoch + 1} of the set in force")
        _follows(s, old)
    return s


def read(path: Path) -> ValidatorSet:
    """Load the set document of a file; raises ConfigError that names it."""
    try:
        return load(path.read_bytes())
    except OSError as why:
        raise ConfigError(f"{path}: cannot read the set document: {why.strerror}") from why
    except FormatError as why:
        raise ConfigError(f"{path}: {why}") from why


def verify_lease(token: bytes, s: ValidatorSet) -> dict[str, Any]:
    """Return the claims of a lease that exactly m members signed in index order; raises FormatError.

    In suite hybrid each member's Ed25519 signature is followed by its ML-DSA-65 signature, and both count as one vote
    (docs/formats.md, Lease).
    """
    if len(token) > MAX_LEASE_BYTES:
        raise FormatError(f"a lease longer than {MAX_LEASE_BYTES} bytes")
    lease = cose.parse_sign(token)
    algs = {"ed25519": (keys.ED25519,), "ml-dsa-65": (keys.ML_DSA_65,), "hybrid": (keys.ED25519, keys.ML_DSA_65)}[s.suite]
    if len(lease.by) != s.m * len(algs):
        raise FormatError(f"a lease of {len(lease.by)} signatures where {s.m * len(algs)} belong")
    last = -1
    for at in range(0, len(lease.by), len(algs)):
        last = _vote(lease, s, list(zip(algs, lease.by[at : at + len(algs)], strict=True)), last)
    claims = claims_decode(lease.payload)
    if claims["set_id"] != s.set_id or claims["epoch"] != s.epoch:
        raise FormatError("a lease of another set or epoch")
    return claims


def _vote(lease: cose.Sign, s: ValidatorSet, halves: list[tuple[int, cose.CoseSignature]], last: int) -> int:
    """Check one member's signatures and return its index, which must be above ``last``."""
    indexes = set()
    for alg, by in halves:
        member = s.member(by.alg, by.kid)
        public = s.public(member, alg) if member else None
        if member is None or public is None or by.alg != alg or member.index <= last:
            raise FormatError("a lease signed by a stranger, twice, or out of order")
        if not cose.verify_payload(lease.payload, by, public, cose.AAD_LEASE):
            raise FormatError(f"a bad signature of validator {member.index}")
        indexes.add(member.index)
    if len(indexes) != 1:
        raise FormatError("a vote of two halves by two members")
    return indexes.pop()
