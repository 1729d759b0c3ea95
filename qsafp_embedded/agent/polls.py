# SPDX-License-Identifier: Apache-2.0
"""One long poll per validator, so that a stop travels faster than a lease ends (architecture, decision 8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import sets
from .._tables import Refusal
from ..client import CommandRefused
from ..errors import FormatError, GuardUnavailable
from .owner import GuardOwner
from .peer import Peer, PeerError
from .quorum import Revocation, parse_sign1_answer
from .round import pause_s

__all__ = ["Known", "Polls"]

AGAIN_S = 1.0


@dataclass
class Known:
    """What polls name: the device, its running serial, and the newest lease for validators that do not know it."""

    ueid: bytes = b""
    serial: int = 0
    lease: bytes = b""


class Polls:
    """Keeps the polls; ``alive`` counts those a revocation could come through."""

    def __init__(
        self, peers: Sequence[Peer], members: sets.ValidatorSet, owner: GuardOwner, *, longest: float, say: Callable[[str], None]
    ) -> None:
        """``longest`` is the longest pause after failures in seconds; ``say`` prints a line for people."""
        self._peers, self._members, self._owner, self._longest, self._say = peers, members, owner, longest, say
        self._alive = {p.member.index: asyncio.Event() for p in peers}
        self.known = Known()

    @property
    def alive(self) -> int:
        """How many polls are on their way."""
        return sum(e.is_set() for e in self._alive.values())

    def reaches(self, index: int) -> bool:
        """Whether the poll of this validator is on its way."""
        return self._alive[index].is_set()

    @property
    def isolated(self) -> bool:
        """Fewer than n-m+1 polls are alive: no stop by the quorum could arrive."""
        return self.alive < self._members.n - self._members.m + 1

    async def run(self) -> None:
        """Poll all validators until cancelled."""
        async with asyncio.TaskGroup() as group:
            for peer in self._peers:
                group.create_task(self._keep(peer))

    async def _keep(self, peer: Peer) -> None:
        alive, failures, told, hasty = self._alive[peer.member.index], 0, b"", False
        clock = asyncio.get_running_loop().time
        while True:
            pause, before, began = 0.0, hasty, clock()
            try:
                got = await peer.poll(self.known.ueid, self.known.serial, alive)
                failures = 0
                if got is not None:
                    pause = await self._heard(peer, got, told)
                    told = got
            except (PeerError, FormatError) as why:
                alive.clear()
                failures += 1
                pause = pause_s(failures, self._longest)
                if failures == 1:
                    self._say(f"poll of validator {peer.member.index}: {why}")
            except GuardUnavailable:
                pause = AGAIN_S
            hasty = clock() - began < AGAIN_S
            await asyncio.sleep(max(pause, AGAIN_S) if before and hasty else pause)

    async def _heard(self, peer: Peer, body: bytes, told: bytes) -> float:
        """Give a revocation to the guard at once; show the lease to a validator that is behind.  Returns the pause in seconds."""
        answer = parse_sign1_answer(body, peer.member, self._members)
        if isinstance(answer, Revocation):
            if body == told:
                return AGAIN_S
            try:
                await self._owner.put(answer.token)
                self._say(f"validator {peer.member.index} revokes up to serial {answer.serial}: {answer.text}")
            except CommandRefused as why:
                self._say(f"revocation of validator {peer.member.index} did not count: {why}")
        elif answer.code == Refusal.STATE_BEHIND and self.known.lease:
            await peer.show_lease(self.known.lease)
            return AGAIN_S if body == told else 0.0
        return AGAIN_S
