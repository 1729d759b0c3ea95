# SPDX-License-Identifier: Apache-2.0
"""What a validator does, without a network: decide, sign, store, then answer (architecture, decisions 6 to 9)."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import cose, keys, sets
from .._core import cbor_dumps, cbor_loads
from .._tables import Refusal, RefusalClass
from ..errors import QsafpError
from .config import Config, Device, read_device
from .decide import Decision, FailSafe, Request, State, Terms, decide, parse, seen_lease
from .store import Rows, Store

__all__ = ["Identity", "NotKnown", "Service", "wall_ms"]

POLL_SECONDS = 25.0
APPLICANTS_MAX = 256


class NotKnown(QsafpError, PermissionError):
    """A device that is not registered, or a request that its key did not sign: nothing is signed in answer."""


@dataclass(frozen=True)
class Identity:
    """A validator's signing keys: one or, in suite hybrid, Ed25519 then ML-DSA-65."""

    signers: tuple[keys.Signer, ...]

    def approve(self, lease: bytes) -> bytes:
        """Return the answer that approves a lease payload: an array of COSE_Signature."""
        return cbor_dumps([cose.sign_payload(lease, k, cose.AAD_LEASE).as_list() for k in self.signers])

    def refuse(self, payload_hash: bytes, code: Refusal, text: str, data: Any) -> bytes:
        """Return a signed refusal that names a request by the hash of its payload."""
        kind = RefusalClass.DENY if code < Refusal.STALE else RefusalClass.RETRY
        body = cbor_dumps({1: payload_hash, 2: int(kind), 3: int(code), 4: text, 5: data})
        return cose.encode_sign1(body, self.signers[0], cose.AAD_REFUSAL)

    def revoke(self, members: sets.ValidatorSet, ueid: bytes, serial: int, text: str) -> bytes:
        """Return a signed revocation of every serial up to ``serial``."""
        body = cbor_dumps({1: ueid, 2: members.set_id, 3: members.epoch, 4: serial, 5: int(Refusal.REVOKED), 6: text})
        return cose.encode_sign1(body, self.signers[0], cose.AAD_REVOCATION)


def wall_ms() -> int:
    """Unix time, ms: only OC-2's outer limit, the rate limit and lists use it, no lease does."""
    return time.time_ns() // 1_000_000


def _ignore(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()  # retrieved: the next write reports it again


class Service:
    """One validator at work.  Everything runs in the event loop that entered ``store``."""

    def __init__(
        self, config: Config, members: sets.ValidatorSet, identity: Identity, store: Store, *, clock: Callable[[], int] = wall_ms
    ) -> None:
        """Put the parts together; ``clock`` gives Unix ms."""
        self.identity, self.store, self.clock = identity, store, clock
        self.counts: Counter[str] = Counter()
        self.waits: dict[bytes, tuple[FailSafe, int]] = {}
        self.admitted: dict[bytes, Device] = {}
        self.stopped: set[bytes] = set()
        self.applicants: dict[bytes, dict[str, Any]] = {}
        for ueid, document, accepted in store.read("SELECT ueid, document, accepted FROM applicant"):
            if accepted:
                self.admitted[ueid] = read_device(json.loads(document), "application")
            else:
                self.applicants[ueid] = json.loads(document)
        self._events: dict[bytes, asyncio.Event] = {}
        self.waiting_polls = 0
        self.reload(config, members)

    def reload(self, config: Config, members: sets.ValidatorSet) -> None:
        """Take up a policy, a device list and a set; states and connections stay."""
        self.config, self.members = config, members

    @property
    def devices(self) -> Mapping[bytes, Device]:
        """Devices of the configuration; those that a person admitted are in ``admitted``."""
        return self.config.devices

    def device(self, ueid: bytes) -> Device:
        """Return a registered device; raises NotKnown."""
        found = self.config.devices.get(ueid) or self.admitted.get(ueid)
        if found is None:
            raise NotKnown(f"device {ueid.hex()} is not registered here")
        return found

    async def renew(self, body: bytes) -> bytes:
        """Answer an envelope: signatures, or a signed refusal; durable before it is returned.

        Raises FormatError for what is no envelope, NotKnown for a stranger, StoreError if the disk fails.
        """
        r = parse(body)
        ueid: bytes = r.claims["ueid"]
        device = self.device(ueid)
        if r.cose.by.alg != device.alg or not r.cose.verify(device.key, cose.AAD_REQUEST):
            raise NotKnown(f"the request is not signed by device {ueid.hex()}")
        before = self.store.state(ueid)
        terms = Terms(self.members, self.config.policy, self.clock(), self.store.consented)
        d = decide(r, device, before, terms)
        if d.stored:
            self.counts["repeated"] += 1
            await self._settled(ueid)
            return d.state.answer
        self.counts["approved" if d.code is None else d.code.name.lower()] += 1
        return await self._answer(r, d, before)

    async def _answer(self, r: Request, d: Decision, before: State) -> bytes:
        """Sign, and store what must be stored first."""
        answer = self.identity.approve(r.lease) if d.code is None else self.identity.refuse(r.payload_hash, d.code, d.text, d.data)
        if d.keep:
            self.waits.pop(d.state.ueid, None)
            self.stopped.discard(d.state.ueid)
            await self.store.put(d.state._replace(answer=answer), self._note(d.state, d.code))
        elif d.deny:
            answer = await self._equivocation(r, d, answer)
        else:
            self._retry(d, before)
        return answer

    def _note(self, state: State, code: Refusal | None) -> Rows:
        return [("decision", (self.clock(), state.ueid, state.highest, int(code or 0), state.digest))]

    def _retry(self, d: Decision, before: State) -> None:
        """Retries are no stored answers; what was learnt of the device is written, and not waited for."""
        if d.waits is not None and d.waits != self.waits.get(d.state.ueid, (None,))[0]:
            self.waits[d.state.ueid] = (d.waits, self.clock())
        if d.state != before:
            self.store.put(d.state).add_done_callback(_ignore)

    async def _equivocation(self, r: Request, d: Decision, answer: bytes) -> bytes:
        """Two requests with one serial: both kept as evidence, the same answer every time."""
        ueid = d.state.ueid
        known = self.store.read("SELECT answer FROM equivocation WHERE ueid=? AND digest=?", (ueid, r.digest))
        if known:
            return bytes(known[0][0])
        rows: Rows = [("equivocation", (ueid, d.state.serial, r.digest, r.raw, answer)), *self._note(d.state, d.code)]
        await self.store.write(rows)
        return answer

    async def _settled(self, ueid: bytes) -> None:
        """Wait until the last write of a device is durable."""
        last = self.store.pending(ueid)
        if last is not None:
            await asyncio.shield(last)

    async def show_lease(self, token: bytes) -> None:
        """Learn of a lease that runs; raises FormatError unless m members of the set signed it, NotKnown for a stranger's."""
        claims = sets.verify_lease(token, self.members)
        ueid = self.device(claims["ueid"]).ueid
        state = self.store.state(ueid)
        later = seen_lease(state, claims)
        if later != state:
            await self.store.put(later)

    async def poll(self, ueid: bytes, serial: int, *, seconds: float = POLL_SECONDS) -> bytes | None:
        """Wait for a revocation that denies ``serial``; None when none came in ``seconds``.

        A refusal STATE_BEHIND says that this serial is not known here and the lease should be shown (docs/formats.md, Revocation).
        """
        self.device(ueid)
        state = self.store.state(ueid)
        if serial > state.highest:
            return self.identity.refuse(bytes(32), Refusal.STATE_BEHIND, "show the lease of this serial", state.highest)
        if not state.revoked:
            event = self._events.setdefault(ueid, asyncio.Event())
            self.waiting_polls += 1
            try:
                async with asyncio.timeout(seconds):
                    await event.wait()
            except TimeoutError:
                return None
            finally:
                self.waiting_polls -= 1
        return await self._revocation(ueid)

    def close(self) -> None:
        """End every waiting poll, so that a shutdown waits for nobody."""
        for event in self._events.values():
            event.set()

    async def _revocation(self, ueid: bytes) -> bytes | None:
        """Return the revocation in force, signed anew if a higher serial or epoch is known by now."""
        state = self.store.state(ueid)
        if not state.revoked:
            return None
        told = cbor_loads(cose.parse_sign1(state.revocation).payload)
        if told[4] >= state.highest and told[3] == self.members.epoch and told[2] == self.members.set_id:
            await self._settled(ueid)
            return state.revocation
        return await self.revoke(ueid, told[6])

    async def revoke(self, ueid: bytes, text: str) -> bytes:
        """Revoke a device: durable, then told to every waiting poll.  Returns the signed revocation; raises NotKnown."""
        self.device(ueid)
        state = self.store.state(ueid)
        token = self.identity.revoke(self.members, ueid, state.highest, text)
        state = state._replace(revoked=True, revocation=token)
        await self.store.put(state, self._note(state, Refusal.REVOKED))
        self.counts["revocations"] += 1
        event = self._events.pop(ueid, None)
        if event is not None:
            event.set()
        return token

    async def apply(self, document: dict[str, Any]) -> str:
        """Take an application for registration (OC-1): ``registered`` or ``pending``, which only a person ends; raises ConfigError."""
        device = read_device(document, "application")
        if device.ueid in self.devices or device.ueid in self.admitted:
            return "registered"
        if device.ueid not in self.applicants and len(self.applicants) >= APPLICANTS_MAX:
            raise NotKnown("too many applications wait here")
        if device.ueid not in self.applicants:
            self.applicants[device.ueid] = document
            await self.store.write([("applicant", (device.ueid, json.dumps(document), 0))])
        return "pending"

    async def _admit(self, ueid: bytes) -> None:
        applied = self.applicants.get(ueid)
        if applied is None:
            raise NotKnown(f"device {ueid.hex()} is not registered here and did not apply")
        document = applied | {"registered": self.clock() // 1000}  # its OC-2 period begins now, whatever it applied with
        await self.store.write([("applicant", (ueid, json.dumps(document), 1))])
        self.admitted[ueid] = read_device(document, "application")
        self.applicants.pop(ueid, None)

    async def allow(self, ueid: bytes) -> None:
        """Register a device that applied, or lift a revocation: acts apart from any release (docs/formats.md, Release).

        Raises NotKnown for a device that neither is registered nor applied.
        """
        if ueid not in self.devices and ueid not in self.admitted:
            await self._admit(ueid)
        state = self.store.state(ueid)
        await self.store.put(state._replace(revoked=False, revocation=b""))

    async def release(self, ueid: bytes, sequence: int, record_hash: bytes | None) -> FailSafe:
        """Consent to the release of one fail-safe record; without a hash it must be waiting.  Raises NotKnown."""
        device = self.device(ueid)
        waiting = self.waits.get(ueid, (None, 0))[0]
        if waiting is not None and waiting.sequence == sequence and record_hash in (None, waiting.hash):
            latched = waiting
        elif record_hash is not None:
            latched = FailSafe(ueid, device.log_id, sequence, record_hash)
        else:
            raise NotKnown(f"no fail-safe of sequence {sequence} of device {ueid.hex()} waits here")
        await self.store.consent(latched)
        if waiting == latched:
            self.waits.pop(ueid, None)
        return latched
