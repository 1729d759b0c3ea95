# SPDX-License-Identifier: Apache-2.0
"""Validators and agents that lie: forged, doubled, repeated and contradictory votes."""

from __future__ import annotations

import secrets

from .. import cose, keys
from .._core import cbor_dumps, cbor_loads, sha256
from .._tables import Error, Event, Phase, Reason, Refusal, RefusalClass
from ..client import CommandRefused, GuardClient
from ..validator import admin_client
from .registry import Figures, scenario
from .stage import Stage, check
from .wire import answer_of, ask, counts, envelope_of, last_lease, signed_request

__all__ = [
    "duplicate_signer",
    "equivocation",
    "forged_quorum",
    "lease_of",
    "lost_response",
    "one_bad_validator",
    "payload_of",
    "refused",
    "replayed_approval",
]


def _swap(s: Stage, indexes: range, *act: str) -> None:
    """Put adversaries in the place of running validators."""
    for i in indexes:
        s.stop(f"validator-{i}")
    s.validators(indexes, *act)


def _anomalies(s: Stage) -> list[int]:
    """Indexes of validators whose signatures did not verify, by the log."""
    return [r["data"][0] for r in s.records() if r["event"] == Event.ANOMALY]


@scenario(fast=True)
def forged_quorum(s: Stage) -> Figures:
    """Three good validators and three whose signatures are forged: no lease, and INVALID_SIGNATURES latches."""
    s.start()
    s.workload()
    s.wait("an open gate", lambda: s.stamp().opens > 0)
    _swap(s, range(3, 6), "forge")
    forgery = Reason.INVALID_SIGNATURES  # on a slow host the lease may have run out before: the stronger reason takes its place
    status = s.until("INVALID_SIGNATURES to latch", lambda now: now.phase == Phase.FAILSAFE and now.reason == forgery)
    serial, opens = status.serial, s.stamp().opens
    forged = _anomalies(s)
    check(set(forged) <= {3, 4, 5} and len(set(forged)) == 3, f"anomalies name validators {sorted(set(forged))}")
    s.release(*range(6))  # even people who release it get no lease out of three good signatures
    s.wait("another try that fails", lambda: len(_anomalies(s)) > len(forged))
    check(s.status().serial == serial and s.stamp().opens == opens, "the gate opened on forged signatures")
    return {"good": 3, "forged": len(set(forged)), "anomaly_records": len(_anomalies(s)), "serial": serial}


@scenario(fast=True, duration_ms=3000)
def one_bad_validator(s: Stage) -> Figures:
    """Five good validators and one whose signature is forged: renewals go on, and the log names the forger."""
    s.validators(range(5))
    s.validators([5], "forge")
    s.guard()
    s.agent()
    s.opened()
    s.workload()
    s.wait("an open gate", lambda: s.stamp().opens > 0)
    s.wait("a forged vote on record", lambda: _anomalies(s))
    last = s.renewed(3)
    check(set(_anomalies(s)) == {5}, f"anomalies name validators {_anomalies(s)}")
    check(s.stamp().closes == 0, "the gate closed")
    return {"leases": last.serial, "forged_votes": len(_anomalies(s)), "false_closes": s.stamp().closes}


def payload_of(guard: GuardClient) -> tuple[bytes, bytes]:
    """A pending request as an agent gets it: lease payload, and the hash that refusals name."""
    guard.begin()
    request = cose.parse_sign1(cbor_loads(guard.envelope())[1]).payload
    return cbor_loads(request)[1], sha256(request)


def lease_of(s: Stage, payload: bytes, indexes: tuple[int, ...]) -> bytes:
    return cose.encode_sign(payload, [cose.sign_payload(payload, s.signer(i), cose.AAD_LEASE) for i in indexes])


def refused(guard: GuardClient, token: bytes) -> Error | None:
    """What the guard says to a token; None if it took it."""
    try:
        guard.put(token)
    except CommandRefused as why:
        return why.error
    return None


@scenario(fast=True)
def duplicate_signer(s: Stage) -> Figures:
    """One validator's vote offered twice, by a lying agent and by validators that borrow a colleague's key: it counts once."""
    s.guard()
    gate = s.gate()
    with s.client() as guard:
        payload, _ = payload_of(guard)
        said = [refused(guard, lease_of(s, payload, who)) for who in ((0, 0, 1, 2), (0, 1, 1, 2), (0, 1, 2, 2), (0, 1, 2), (3, 2, 1, 0))]
        check(said[:3] == [Error.DUPLICATE_SIGNER] * 3, f"doubled votes: {said}")
        check(said[3] == Error.TOO_FEW and said[4] == Error.DUPLICATE_SIGNER, f"three votes, and four out of order: {said}")
        check(not gate, "the gate is open")
        check(refused(guard, lease_of(s, payload, (0, 1, 2, 3))) is None and bool(gate), "four votes did not open the gate")
    s.validators(range(3))
    s.validators(range(3, 6), "echo", str(s.root / "validator-0/signing.key"))
    s.agent()
    status = s.phase(Phase.FAILSAFE)
    check(status.serial == 1, f"lease {status.serial} came from three keys")
    s.wait("the agent to name borrowed keys", lambda: "which is no key of validator" in s.words("agent"))
    return {"tokens_refused": 5, "validators_with_borrowed_key": 3}


@scenario(fast=True)
def replayed_approval(s: Stage) -> Figures:
    """Old approvals and old leases are offered again: none opens the gate or prolongs the lease."""
    s.start()
    kept = s.root / "agent/evidence/last-lease.cbor"
    s.wait("the first lease to be kept", kept.exists)
    old = kept.read_bytes()
    with s.client() as guard:
        s.renewed()
        s.stop("agent")
        serial = s.status().serial
        end = guard.status()
        idle = refused(guard, old)
        payload, _ = payload_of(guard)
        pending = refused(guard, old)
        check((idle, pending) == (Error.NO_REQUEST, Error.MISMATCH), f"the old lease: {idle}, {pending}")
        signatures = cose.parse_sign(old).by
        check(refused(guard, cose.encode_sign(payload, signatures)) == Error.BAD_SIGNATURE, "old signatures under a new request passed")
        now = guard.status()
        check(now.serial == serial, "the serial moved")
        check(now.now_ns + now.remaining_ns <= end.now_ns + end.remaining_ns, "the lease grew longer")
    for i in range(6):
        s.stop(f"validator-{i}")
    s.validators(range(3))
    s.validators(range(3, 6), "replay")
    latched = s.phase(Phase.FAILSAFE)
    s.release(*range(6))
    s.agent()
    first = s.opened()  # the replaying ones are honest once
    second = s.phase(Phase.FAILSAFE)
    check(second.serial == first.serial, "a repeated approval made a lease")
    check(second.reason == Reason.INVALID_SIGNATURES, f"latched {second.reason_name}")
    return {"old_tokens_refused": 3, "latched": latched.reason_name, "replaying_validators": 3}


@scenario(fast=True, duration_ms=3000)
def lost_response(s: Stage) -> Figures:
    """All validators decide, store and lose their answer: asked again they repeat the stored one, and it makes the lease."""
    s.validators(None, "lose")
    s.guard()
    s.agent()
    s.opened()
    s.workload()
    s.wait("an open gate", lambda: s.stamp().opens > 0)
    last = s.renewed(2)
    check(s.stamp().closes == 0, "the gate closed")
    check(not [r for r in s.records() if r["event"] in (Event.LEASE_DENIED, Event.ANOMALY)], "a lost answer looked like an attack")
    said = [counts(s, i) for i in range(6)]
    repeated, approved = sum(c.get("repeated", 0) for c in said), sum(c["approved"] for c in said)
    check(repeated >= 4 * last.serial, f"{repeated} stored answers for {last.serial} leases")
    return {"leases": last.serial, "false_closes": s.stamp().closes, "approved": approved, "answers_repeated": repeated}


def _refusal(s: Stage, index: int, request: bytes) -> bytes:
    body = cbor_dumps({1: request, 2: int(RefusalClass.DENY), 3: int(Refusal.POLICY), 4: "no", 5: None})
    return cose.encode_sign1(body, s.signer(index), cose.AAD_REFUSAL)


@scenario(fast=True, duration_ms=6000)
def equivocation(s: Stage) -> Figures:
    """A device that signs two requests with one serial is denied; a validator that says yes and no has said no."""
    s.start()
    s.renewed()
    s.stop("agent")
    claims, stranger = last_lease(s), keys.Ed25519Key.from_seed(secrets.token_bytes(32))
    denials = []
    for i in range(6):  # another request with the serial that this validator answered last
        last = next(d["serial"] for d in admin_client.devices(s.admin(i)) if d["ueid"] == s.ueid.hex())
        denials.append(answer_of(s, i, signed_request(s, {**claims, "serial": last})))
    check(denials == [Refusal.EQUIVOCATION] * 6, f"the validators answered {denials}")
    check(ask(s, 0, "/v1/renew", envelope_of(signed_request(s, claims, key=stranger)))[0] == 403, "a stranger's key was heard")
    kept = [d for i in range(6) for d in admin_client.decisions(s.admin(i)) if d["decision"] == "EQUIVOCATION"]
    check(len(kept) == 6, f"{len(kept)} equivocations are on record")
    with s.client() as guard:
        payload, digest = payload_of(guard)
        for i in (0, 1):
            check(refused(guard, _refusal(s, i, digest)) is None, "a denial was refused")
        said = refused(guard, lease_of(s, payload, (0, 2, 3, 4)))
        check(said == Error.BAD_SIGNATURE, f"a vote of both kinds counted as yes: {said}")
        check(refused(guard, lease_of(s, payload, (2, 3, 4, 5))) is None, "four votes of the honest were refused")
        payload, digest = payload_of(guard)
        check(refused(guard, lease_of(s, payload, (0, 1, 2, 3))) is None, "a lease was refused")
        for i in (0, 1, 2):  # they approved this very lease
            refused(guard, _refusal(s, i, digest))
    status = s.phase(Phase.FAILSAFE)
    check(status.reason == Reason.VALIDATOR_DENIED, f"latched {status.reason_name}")
    return {"device_denials": len(denials), "validators_of_both_kinds": 3, "latched": status.reason_name}
