# SPDX-License-Identifier: Apache-2.0
"""One request, all validators at once, until the guard has a lease (architecture, decisions 6 to 8).

Each validator is asked on its own: a refusal with a time is asked again then, a failure after a growing pause.  What answers
after the lease is complete finishes in the background, so that a slow validator is never cut off from the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from .. import sets
from .._tables import CommandStatus, Error, Refusal
from ..client import CommandRefused, GuardClient
from ..errors import FormatError, GuardUnavailable, QsafpError
from .owner import GuardOwner
from .peer import Peer, PeerError
from .quorum import Approval, Ballot, Refused, parse_answer, request_of, shortening

__all__ = ["BACKOFF_S", "Round", "Vote", "pause_s"]

BACKOFF_S = 0.2


def pause_s(failures: int, longest: float) -> float:
    """Return the pause after so many failures in a row, in seconds: doubling, with jitter, never above ``longest``."""
    grown: float = BACKOFF_S * 2 ** min(failures, 16)
    return min(longest, grown) * random.uniform(0.5, 1.0)


@dataclass
class Vote:
    """What one validator said in the current round, for people: state, ms since the request, text."""

    index: int
    state: str = "idle"
    ms: float = 0.0
    text: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        return asdict(self)


def _summary(votes: Iterable[Vote]) -> str:
    """Who said what, those who said the same together; approvals left out."""
    said: dict[str, list[str]] = {}
    for v in votes:
        if v.state != "approved":
            said.setdefault(f"{v.state}{', ' if v.text else ''}{v.text}", []).append(str(v.index))
    return "; ".join(f"validator{'s' * (len(who) > 1)} {', '.join(who)}: {what}" for what, who in said.items())


def _open(guard: GuardClient) -> tuple[int, bytes]:
    _, serial = guard.begin()
    try:
        return serial, guard.envelope()
    except CommandRefused as why:
        if why.status != CommandStatus.NO_REQUEST:
            raise
        _, serial = guard.begin()  # the request that begin repeated was at its end
        return serial, guard.envelope()


class Round:
    """One request on its way.  ``lease`` and ``latency_ms`` are set once the guard took it; ``error`` says why not."""

    def __init__(self, peers: Sequence[Peer], members: sets.ValidatorSet, owner: GuardOwner, *, longest: float) -> None:
        """``longest`` is the longest pause between two tries at one validator, in seconds."""
        self._peers, self._members, self._owner, self._longest = peers, members, owner, longest
        self.votes = [Vote(p.member.index) for p in peers]
        self.serial, self.lease, self.latency_ms, self.error = 0, b"", 0.0, ""
        self.document = b""  # of the next epoch, once the guard took it
        self._limits: list[Refused] = []
        self._over = asyncio.Event()
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> bool:
        """Ask everyone and return whether the guard took a lease; raises GuardUnavailable, CommandRefused, FormatError."""
        self._start = time.perf_counter()
        self.serial, self._envelope = await self._owner.call(_open)
        self._ballot = Ballot(self._members, request_of(self._envelope))
        self.tasks = {asyncio.create_task(self._ask(p, v)) for p, v in zip(self._peers, self.votes, strict=True)}
        over = asyncio.create_task(self._over.wait())
        waiting: set[asyncio.Task[object]] = {over, *self.tasks}
        while not over.done() and len(waiting) > 1:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            self._hopeless()
        over.cancel()
        self._end()
        found = None if self.lease or self.document else shortening(self._limits, self._members)
        if found is not None:
            await self._owner.put(found.token)
        return bool(self.lease)

    @property
    def trouble(self) -> str:
        """What keeps the lease away as things stand; empty while m validators approved or may yet do so at once."""
        hopeful = sum(v.state in ("asked", "behind", "approved") for v in self.votes)
        return "" if self.lease or hopeful >= self._members.m else self.error or _summary(self.votes)

    def _end(self) -> None:
        """Over: whoever waits for a next try need not make it."""
        self._over.set()
        self._wake.set()

    def stop(self) -> None:
        """Give up: the request is void or the program ends."""
        self._end()
        for task in self.tasks:
            task.cancel()

    def hurry(self) -> None:
        """Ask those that are waited for now."""
        self._wake.set()

    def _hopeless(self) -> None:
        """Over, when too few are left to be asked: the next request may do better."""
        trying = sum(not t.done() for t in self.tasks)
        if not self.lease and len(self._ballot.approvals) + trying < self._members.m:
            self.error = self.error or _summary(self.votes)
            self._over.set()

    def _note(self, vote: Vote, state: str, text: str = "") -> None:
        vote.state, vote.text, vote.ms = state, text, round((time.perf_counter() - self._start) * 1e3, 3)

    async def _ask(self, peer: Peer, vote: Vote) -> None:
        envelope, failures, behind = self._envelope, 0, False
        self._note(vote, "asked")
        while True:
            wait = 0.0
            try:
                answer = parse_answer(await peer.renew(envelope), peer.member, self._members)
                failures = 0
                if isinstance(answer, Approval):
                    await self._approved(vote, answer)
                    return
                if answer.code == Refusal.STATE_BEHIND and not behind and type(answer.data) is int:
                    behind = True
                    self._note(vote, "behind", f"shown the log from record {answer.data}")
                    envelope = await self._owner.envelope(answer.data)
                    continue
                if not await self._refused(vote, answer):
                    return
                wait = answer.after_ms / 1e3
            except PeerError as why:
                failures = self._failed(vote, "unreachable", why, failures)
            except FormatError as why:
                failures = self._failed(vote, "garbled", why, failures)
            except (CommandRefused, GuardUnavailable) as why:
                self._note(vote, vote.state if vote.state == "denied" else "guard", str(why))
                self.error = "" if self.lease else str(why)
                return
            if self._over.is_set() or not await self._again(wait or pause_s(failures, self._longest)):
                return

    def _failed(self, vote: Vote, state: str, why: QsafpError, failures: int) -> int:
        self._note(vote, state, str(why))
        return failures + 1

    async def _again(self, seconds: float) -> bool:
        """Wait before the next try; False once the round is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        if self._over.is_set():
            return False
        self._wake.clear()
        return True

    async def _refused(self, vote: Vote, refusal: Refused) -> bool:
        """Tell people, tell the guard of a denial, and return whether to ask again."""
        text = f"{refusal.name}: {refusal.text}"
        if refusal.deny:
            self._note(vote, "denied", text)
            await self._owner.put(refusal.token)
            return False
        if refusal.code == Refusal.LIMITS and isinstance(refusal.data, dict) and type(refusal.data.get(1)) is int:
            self._limits.append(refusal)
        if refusal.code == Refusal.EPOCH and isinstance(refusal.data, bytes) and not self.document:
            await self._next_epoch(refusal.data)
        self._note(vote, "waits for a person" if refusal.code == Refusal.PENDING_HUMAN else "later", text)
        return refusal.after_ms > 0

    async def _next_epoch(self, document: bytes) -> None:
        """Give the guard the set document that a validator has in force; raises FormatError, CommandRefused."""
        sets.load(document, old=self._members)
        await self._owner.call(lambda guard: guard.install_set(document))
        self.document = document
        self._end()

    async def _approved(self, vote: Vote, approval: Approval) -> None:
        late = bool(self.lease)
        self._note(vote, "approved", "after the lease was complete" if late else "")
        if not late:
            self._ballot.approvals[vote.index] = approval
            async with self._lock:
                await self._try_lease()

    async def _try_lease(self) -> None:
        """Give the guard a lease as soon as m approvals are here; leave forged ones out and try with others."""
        while not self._over.is_set() and (made := self._ballot.lease()) is not None:
            token, indexes = made
            try:
                await self._give(token)
            except CommandRefused as why:
                if why.error != Error.BAD_SIGNATURE or not (bad := self._ballot.drop_forged(indexes)):
                    self.error = str(why)
                    self._over.set()
                    return
                for vote in self.votes:
                    if vote.index in bad:
                        self._note(vote, "forged", "a signature that does not verify")
                continue
            self.latency_ms = (time.perf_counter() - self._start) * 1e3
            self._over.set()

    async def _give(self, token: bytes) -> None:
        """Give the guard a lease and see it through: cancelled or not, a lease that the guard took is ours.

        Raises CommandRefused, GuardUnavailable.
        """
        given = asyncio.create_task(self._owner.put(token))
        try:
            await asyncio.shield(given)
        finally:
            await asyncio.wait({given})
            if given.exception() is None:
                self.lease = token
