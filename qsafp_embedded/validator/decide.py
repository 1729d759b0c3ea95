# SPDX-License-Identifier: Apache-2.0
"""The decision on one request: values in, a decision out; no clock, no disk, no network (docs/formats.md, Lease).

The order of the rules is the order of the code in ``decide``; the first that does not hold decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import cose, quote, sets
from .._core import Tree, cbor_loads, claims_decode, sha256
from .._tables import Event, Evidence, Refusal
from ..errors import FormatError
from .config import Device, Policy

__all__ = ["Decision", "FailSafe", "Request", "State", "Terms", "decide", "parse", "seen_lease"]

ENVELOPE_MAX = 24 * 1024
MONITOR = 4  # the level of a guard below the operating system
SERIAL_END = 2**63  # what the store keeps; a device never gets there
SHOWN_BYTES = 32 + 256  # the hash before a record, and the record


class Request(NamedTuple):
    """An envelope taken apart, its claims decoded; only ``cose`` says whether the device really signed it."""

    cose: cose.Sign1
    raw: bytes
    digest: bytes
    payload_hash: bytes
    lease: bytes
    claims: dict[str, Any]
    evidence: tuple[int, bytes]
    old: int
    peaks: list[bytes] | None
    hashes: list[bytes]
    previous: bytes | None
    record: bytes | None
    quote: bytes | None


class State(NamedTuple):
    """What is kept of a device: the last answered serial with request digest and answer; the log head last approved.

    ``highest`` is the highest serial known from any signed request or lease, ``size`` is None while no log was followed,
    ``decided_ms`` is Unix ms of the last answer, ``revocation`` the signed revocation in force, else empty.  ``counts`` are the boot
    counts of the last quote that verified, ``measured`` the version of the PCR state that it showed, 0 if none ever did.
    """

    ueid: bytes
    highest: int = 0
    serial: int = 0
    digest: bytes = b""
    answer: bytes = b""
    approved: bool = False
    size: int | None = None
    peaks: tuple[bytes, ...] = ()
    decided_ms: int = 0
    revoked: bool = False
    revocation: bytes = b""
    counts: bytes = b""
    measured: int = 0


class FailSafe(NamedTuple):
    """What a person releases: the latched record of one log, by sequence and hash."""

    ueid: bytes
    log_id: bytes
    sequence: int
    hash: bytes
    reason: int = 0


@dataclass(frozen=True)
class Terms:
    """What a decision depends on beside the request: set, policy, Unix ms, and who consented to which release."""

    members: sets.ValidatorSet
    policy: Policy
    now_ms: int
    consented: Callable[[FailSafe], bool]


class Decision(NamedTuple):
    """``code`` None approves; ``stored`` repeats the stored answer; ``waits`` is a release that a person must decide.

    ``keep`` says that ``state`` carries the answer: approvals and denials, but never retries and no second bytes of a serial.
    """

    state: State
    code: Refusal | None = None
    text: str = ""
    data: Any = None
    stored: bool = False
    keep: bool = False
    waits: FailSafe | None = None

    @property
    def deny(self) -> bool:
        """Denials have codes below 32 (docs/formats.md)."""
        return self.code is not None and self.code < Refusal.STALE


def _want(ok: bool, what: str) -> None:
    if not ok:
        raise FormatError(what)


def _hashes(value: object, what: str) -> list[bytes]:
    if isinstance(value, list) and len(value) <= 64 and all(isinstance(h, bytes) and len(h) == 32 for h in value):
        return value
    raise FormatError(f"{what} of another shape")


def _optional(value: object, what: str) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    raise FormatError(f"{what} is neither bytes nor null")


def parse(body: bytes) -> Request:
    """Take an envelope apart (docs/formats.md, Envelope); raises FormatError.

    The fail-safe record must hash to what the claims name, so that a relay cannot bend the device's words: its reason decides
    whether people must consent.
    """
    _want(len(body) <= ENVELOPE_MAX, f"envelope longer than {ENVELOPE_MAX} bytes")
    e = cbor_loads(body)
    _want(isinstance(e, dict) and list(e) == [1, 2, 3, 4, 5, 6, 7] and isinstance(e[1], bytes), "envelope of another shape")
    _want(type(e[2]) is int and 0 <= e[2] < 2**32, "envelope: old size out of range")
    signed = cose.parse_sign1(e[1], cose.REQUESTS)
    p = cbor_loads(signed.payload)
    _want(isinstance(p, dict) and list(p) == [1, 2, 3, 4] and isinstance(p[1], bytes), "request of another shape")
    _want(isinstance(p[2], bytes) and len(p[2]) == 32 and isinstance(p[3], list), "request: input hash or state of another shape")
    _want(
        isinstance(p[4], list) and len(p[4]) == 2 and type(p[4][0]) is int and isinstance(p[4][1], bytes),
        "request: evidence of another shape",
    )
    claims, shown, quoted = claims_decode(p[1]), _optional(e[6], "fail-safe record"), _optional(e[7], "quote")
    _want(quoted is None or len(quoted) <= quote.QUOTE_MAX, f"a quote longer than {quote.QUOTE_MAX} bytes")
    _want(max(claims["serial"], claims["failsafe_seq"]) < SERIAL_END, "a serial or sequence of 2^63 or more")
    return Request(
        cose=signed,
        raw=e[1],
        digest=sha256(e[1]),
        payload_hash=sha256(signed.payload),
        lease=p[1],
        claims=claims,
        evidence=(p[4][0], p[4][1]),
        old=e[2],
        peaks=None if e[3] is None else _hashes(e[3], "peaks"),
        hashes=_hashes(e[4], "range"),
        previous=_optional(e[5], "previous lease"),
        record=_named(shown, claims) if claims["has_failsafe"] else None,
        quote=quoted,
    )


def _named(shown: bytes | None, c: dict[str, Any]) -> bytes:
    """Return the fail-safe record that the claims name, out of what an envelope shows: the hash before it, and the record."""
    if shown is None or len(shown) != SHOWN_BYTES:
        raise FormatError("the fail-safe record is missing")
    rec = shown[32:]
    same = sha256(shown[: 32 + 208]) == rec[208:240] == c["failsafe_hash"] and int.from_bytes(rec[8:16], "little") == c["failsafe_seq"]
    good = rec[:4] == b"QAR1" and int.from_bytes(rec[4:6], "little") == Event.FAILSAFE_TRIGGERED
    _want(same and good, "the fail-safe record is not the one the claims name")
    return rec


def seen_lease(state: State, claims: dict[str, Any]) -> State:
    """Return the state once a lease of this device was shown and verified: only ``highest`` rises."""
    return state._replace(highest=max(state.highest, claims["serial"]))


def decide(r: Request, device: Device, state: State, terms: Terms) -> Decision:
    """Decide on an authentic request of a registered device; pure (decisions 6, 7, 9 and 10)."""
    serial = r.claims["serial"]
    if serial < state.highest:
        return Decision(state, Refusal.STALE, f"serial {serial} is older than {state.highest}", state.highest)
    if serial == 1 and state.size is None:
        state = state._replace(size=0)
    state = state._replace(highest=serial)
    if serial == state.serial:
        again = _again(r, state)
        if again is not None:
            return again
    d = _rules(r, device, state, terms)
    if d is None:
        d, state = _level(r, device, state, terms.policy)
    d = d or _failsafe(r, state, terms) or _log(r, state, terms)
    if d.code is not None and not d.deny:
        return d
    answered = d.state._replace(serial=serial, digest=r.digest, approved=d.code is None, decided_ms=terms.now_ms)
    return d._replace(state=answered, keep=True)


def _again(r: Request, state: State) -> Decision | None:
    """The same serial again: the stored answer, or equivocation.  An approval is not repeated to a device revoked since."""
    if r.digest != state.digest:
        return Decision(state, Refusal.EQUIVOCATION, f"serial {state.serial} was used for another request")
    if state.revoked and state.approved:
        return None
    return Decision(state, stored=True)


def _rules(r: Request, device: Device, state: State, terms: Terms) -> Decision | None:
    """Everything but fail-safe and log."""
    c, s, policy = r.claims, terms.members, terms.policy
    longest = min(policy.max_duration_ms, s.max_duration_ms)
    rest = state.decided_ms + policy.min_interval_ms - terms.now_ms
    period = c["policy_ms"][2] + c["policy_ms"][3]  # OC-2: initial period and maximum extension; 0 asks for no limit
    if state.revoked:
        return Decision(state, Refusal.REVOKED, "the device is revoked until an operator allows it")
    if c["set_id"] != s.set_id:
        return Decision(state, Refusal.POLICY, "the request names another validator set")
    if c["epoch"] != s.epoch:
        return Decision(state, Refusal.EPOCH, f"epoch {s.epoch} is in force here", s.document if c["epoch"] < s.epoch else None)
    if c["lab"] != s.lab:
        return Decision(state, Refusal.POLICY, "the LAB mark is not the set's")
    if c["log_id"] != device.log_id:
        return Decision(state, Refusal.REREGISTER, "the log is not the registered one")
    if period and terms.now_ms > device.registered * 1000 + period:
        return Decision(state, Refusal.REREGISTER, "the initial period and its extension are over")
    if device.models is not None and c["model"] not in device.models:
        return Decision(state, Refusal.MODEL, "the model is not allowed on this device")
    if text := _unmeasured(r.evidence, device.images):
        return Decision(state, Refusal.MEASUREMENT, text)
    if c["duration_ms"] > longest:
        return Decision(state, Refusal.LIMITS, f"at most {longest} ms", {1: longest})
    if policy.max_period_ms and not 0 < period <= policy.max_period_ms:
        most = policy.max_period_ms
        return Decision(state, Refusal.LIMITS, f"at most {most} ms from registration", {1: longest, 2: most})
    if 0 < rest <= policy.min_interval_ms:
        return Decision(state, Refusal.RATE, "too soon after the last request", rest)
    return None


def _unmeasured(evidence: tuple[int, bytes], images: frozenset[bytes] | None) -> str:
    """Why the measurement is not what was registered, or nothing (HW-2)."""
    kind, measurement = evidence
    if kind not in tuple(Evidence):
        return f"evidence of kind {kind} cannot be checked here"
    if kind == Evidence.NONE:
        return "" if images is None else "the measurement is missing: this device is registered with its monitor's images"
    if images is None:
        return "a monitor's image was measured; none is registered"
    return "" if measurement in images else f"the monitor's image {measurement.hex()[:16]}… is not registered"


def _level(r: Request, device: Device, state: State, policy: Policy) -> tuple[Decision | None, State]:
    """No lease states a level that was not verified here: 3 by a quote, 4 by a monitor's image, 2 on the guard's word (CD-5)."""
    level, known = r.claims["level"], device.attestation
    granted = level <= quote.CLAIMED_MAX or (level == MONITOR and device.images is not None)

    def refused(text: str) -> tuple[Decision, State]:
        return Decision(state, Refusal.MEASUREMENT, text), state

    if level < policy.min_level:
        return refused(f"the lease would state level {level}; {policy.min_level} is required here")
    if known is None:
        return (None, state) if granted else refused(f"level {level} is claimed; no attestation key is registered")
    if level != quote.ATTESTED:
        return refused(f"level {level} is claimed; this device is registered to attest, which is level {quote.ATTESTED}")
    if r.quote is None:
        return refused("the quote is missing: this device is registered to attest")
    try:
        version, counts = quote.check(r.quote, known.ak, r.payload_hash, known.allowed, state.counts)
    except FormatError as why:
        return refused(str(why))
    return None, state._replace(counts=counts, measured=version)


def _failsafe(r: Request, state: State, terms: Terms) -> Decision | None:
    """A latched fail-safe is released by policy, or by a person's consent to this very record."""
    if not r.claims["has_failsafe"] or r.record is None:
        return None
    reason = int.from_bytes(r.record[36:40], "little")
    latched = FailSafe(state.ueid, r.claims["log_id"], r.claims["failsafe_seq"], r.claims["failsafe_hash"], reason)
    if terms.policy.automatic(reason) or terms.consented(latched):
        return None
    return Decision(state, Refusal.PENDING_HUMAN, "a person must release this fail-safe", terms.policy.human_retry_ms, waits=latched)


def _log(r: Request, state: State, terms: Terms) -> Decision:
    """The log must extend what was approved last, or the previous lease's head if that is ahead of it (decision 9)."""
    c = r.claims
    size = 0 if state.size is None and terms.policy.start == "any" else state.size
    if size is not None and c["log_size"] < size:
        return Decision(state, Refusal.LOG_INCONSISTENT, f"the log shrank from {size} to {c['log_size']} records")
    if r.old == size:
        peaks = state.peaks
    elif _lease_head(r, size or 0, terms):
        peaks = tuple(r.peaks or ())
    else:
        return Decision(state, Refusal.STATE_BEHIND, f"show the log from record {size or 0}", size or 0)
    tree = _tree(r.old, peaks)
    try:
        tree.extend(r.old, c["log_size"], r.hashes)
        good = tree.root() == c["log_root"]
    except FormatError:
        good = False
    if not good:
        return Decision(state, Refusal.LOG_INCONSISTENT, f"the log does not extend its first {r.old} records")
    return Decision(state._replace(size=tree.size, peaks=tuple(tree.peaks)))


def _tree(size: int, peaks: tuple[bytes, ...]) -> Tree:
    return Tree(size, list(peaks))


def _lease_head(r: Request, size: int, terms: Terms) -> bool:
    """Whether the envelope shows a lease, signed by m of this set, whose log head the given peaks make and that is ahead of ours."""
    if r.previous is None or r.peaks is None or r.old <= size:
        return False
    try:
        lease = sets.verify_lease(r.previous, terms.members)
        root = _tree(r.old, tuple(r.peaks)).root()
    except FormatError:
        return False
    same = lease["ueid"] == r.claims["ueid"] and lease["log_id"] == r.claims["log_id"] and lease["serial"] < r.claims["serial"]
    return bool(same and lease["log_size"] == r.old and lease["log_root"] == root)
