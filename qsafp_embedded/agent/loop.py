# SPDX-License-Identifier: Apache-2.0
"""The agent at work: watch the guard, renew at half of the lease, keep the polls, answer the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import deque
from collections.abc import Callable, Coroutine

from .. import keys, sets
from .._tables import CommandStatus, Phase
from .._tables import Status as LeaseStatus
from ..client import CommandRefused, GuardClient, Status
from ..errors import ConfigError, FormatError, GuardUnavailable
from ..journal import say
from ..notify import notify, watchdog_s
from ..tls import client_context
from . import metrics
from .config import Config
from .control import Control
from .owner import GuardOwner
from .peer import Peer
from .polls import Polls
from .round import Round, Vote, pause_s

__all__ = ["Agent", "serve"]

WATCH_S = 0.25
LATENCIES = 100
LAST_LEASE = "last-lease.cbor"


async def _within(seconds: float | None, work: Coroutine[None, None, bool]) -> bool:
    async with asyncio.timeout(seconds):
        return await work


class Agent:
    """One agent for one guard; everything runs in one event loop, guard calls in the owner's thread."""

    def __init__(self, config: Config, members: sets.ValidatorSet, owner: GuardOwner) -> None:
        """Make connections' objects inside a running loop; nothing is sent yet.  Raises ConfigError."""
        self._config, self._owner = config, owner
        self._connect(members)
        self._status: Status | None = None
        self._round: Round | None = None
        self._task: asyncio.Task[bool] | None = None
        self._generation, self._failures, self._not_before, self._early = 0, 0, 0.0, 0.0
        self._kick = asyncio.Event()
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._stragglers: set[asyncio.Task[None]] = set()
        self._phase, self._error, self._renewals, self._told = -1, "", 0, -1

    def _connect(self, members: sets.ValidatorSet) -> None:
        """Connections to the members of a set, none of them open yet."""
        context = client_context(keys.load_ed25519(self._config.relay_key), self._config.relay_cert)
        self._members = members
        self._peers = [Peer(v, context, timeout_s=self._config.timeout_s) for v in members.validators]
        self._polls = Polls(self._peers, members, self._owner, longest=self._config.backoff_max_s, say=self._say)
        self._polls.known.lease = self._kept_lease()
        self._polling: asyncio.Task[None] | None = None
        self._votes = [Vote(v.index) for v in members.validators]

    def _say(self, text: str, **fields: object) -> None:
        """Say a line; the journal also gets what it is about."""
        s = self._status
        known = {"lease": self._config.lease_name, "lab": int(self._members.lab), "epoch": self._members.epoch}
        if s is not None:
            known |= {"phase": s.phase_name.lower(), "reason": s.reason_name, "serial": s.serial, "ueid": s.ueid.hex()}
        say("agent", text, known | fields)

    async def run(self) -> None:
        """Work until cancelled; raises ConfigError if another agent is at work."""
        try:
            async with Control(self._config.control_socket, self._commands()):
                notify("READY=1")
                await self._watch(watchdog_s())
        finally:
            notify("STOPPING=1")
            await self._close()

    def _commands(self) -> dict[str, Callable[[], dict[str, object]]]:
        return {"status": self.status, "renew": self._renew_now, "metrics": lambda: {"text": metrics.text(self.status())}}

    async def _watch(self, beat: float) -> None:
        while True:
            await self._look()
            if self._config.poll and self._polling is None and self._status is not None:
                self._polling = asyncio.create_task(self._polls.run())
            if self._polling is not None and self._polling.done():
                self._polling.result()
            if beat:
                notify("WATCHDOG=1")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause(beat)):  # wait_for may swallow a cancellation
                    await self._kick.wait()
            self._kick.clear()

    async def _close(self) -> None:
        ends = [t for t in (self._polling, self._task, *self._stragglers) if t is not None]
        for task in ends:
            task.cancel()
        if self._round is not None:
            self._round.stop()
            ends += self._round.tasks
        await asyncio.gather(*ends, return_exceptions=True)
        if self._round is not None and self._round.lease:
            self._keep_lease(self._round.lease)  # the guard may have taken it since the last look
        await asyncio.gather(*(p.close() for p in self._peers))

    async def _look(self) -> None:
        """Read the guard's status, end a round that is void, start one that is due."""
        now = asyncio.get_running_loop().time()
        if self._task is not None and self._task.done():
            self._finished(self._task)
            if self._round is not None and self._round.document:
                await self._adopt(sets.load(self._round.document, old=self._members))
        try:
            status = await self._owner.status()
            if self._status is None:
                await self._same_set()
            if self._polls.alive != self._told:
                self._told = self._polls.alive
                with contextlib.suppress(CommandRefused):  # a guard that does not show it
                    await self._owner.call(lambda guard: guard.polls(self._told))
        except (GuardUnavailable, CommandRefused) as why:
            self._lost(str(why))
            return
        self._seen(status)
        if self._task is not None:
            self._trouble(self._round.trouble if self._round else "")
            if status.generation != self._generation and self._round is not None:
                self._round.stop()
                self._task.cancel()
        elif self._due(status) and now >= self._not_before:
            self._start(status)

    async def _same_set(self) -> None:
        """The guard that just answered says which epoch is in force; one that is behind by one is given ours."""
        try:
            theirs = sets.load(await self._owner.call(GuardClient.set_document))
            if theirs.set_id == self._members.set_id and theirs.epoch > self._members.epoch:
                await self._adopt(theirs)
            elif theirs.epoch < self._members.epoch:
                await self._owner.call(lambda guard: guard.install_set(self._members.document))
        except CommandRefused as why:
            if why.status != CommandStatus.BAD_OPCODE:  # a guard without the opcode has the set it was built with
                raise

    async def _adopt(self, members: sets.ValidatorSet) -> None:
        """The next epoch: other members, other pins.  What still runs for the old ones ends."""
        await self._close()
        self._task = self._round = None
        self._connect(members)
        self._say(f"set epoch {members.epoch} is in force: {members.m} of {members.n}")

    def _lost(self, why: str) -> None:
        if self._status is not None or why != self._error:
            self._say(why)
        self._error, self._status, self._phase = why, None, -1

    def _seen(self, status: Status) -> None:
        first = self._status is None
        if first:
            self._error = ""  # it was about the guard
            self._told = -1
        self._status = status
        self._polls.known.ueid, self._polls.known.serial = status.ueid, status.serial
        if status.phase != self._phase and not (first and status.phase == Phase.NONE):
            reason = f", {status.reason_name}" if status.phase in (Phase.GRACE, Phase.FAILSAFE) else ""
            self._say(f"phase {status.phase_name.lower()}{reason}, serial {status.serial}")
        self._phase = status.phase

    def _due(self, s: Status) -> bool:
        if s.status != LeaseStatus.VALID or s.renew_wanted:
            return True
        over = 1.0 - s.remaining_ns / max(1, s.duration_ms * 1_000_000)
        return over >= self._config.renew_fraction * (1.0 - self._early)

    def _pause(self, beat: float) -> float:
        """Seconds until something may be due."""
        pauses = [WATCH_S] + ([beat] if beat else [])
        s = self._status
        if s is not None and self._task is None and s.status == LeaseStatus.VALID:
            left = s.remaining_ns / 1e9 - s.duration_ms / 1e3 * (1.0 - self._config.renew_fraction * (1.0 - self._early))
            pauses.append(max(0.001, left))
        return min(pauses)

    def _start(self, status: Status) -> None:
        self._generation = status.generation
        self._round = Round(self._peers, self._members, self._owner, longest=self._config.backoff_max_s)
        self._votes = self._round.votes
        life = max(0.2, status.duration_ms / 2e3) if status.duration_ms else None
        self._task = asyncio.create_task(_within(life, self._round.run()))
        self._task.add_done_callback(lambda _: self._kick.set())

    def _finished(self, task: asyncio.Task[bool]) -> None:
        round_, self._task = self._round, None
        assert round_ is not None
        try:
            good = task.result()
        except (asyncio.CancelledError, TimeoutError):
            round_.stop()
            return
        except (GuardUnavailable, CommandRefused, FormatError) as why:
            round_.stop()
            good, round_.error = False, str(why)
        if good:
            self._leased(round_)
            return
        self._trouble(round_.error)
        self._not_before = asyncio.get_running_loop().time() + pause_s(self._failures, self._config.backoff_max_s)
        self._failures += 1

    def _trouble(self, why: str) -> None:
        """Remember what keeps the lease away, and say it once until a lease comes."""
        if why and not self._error:
            running = self._status is not None and self._status.status == LeaseStatus.VALID
            self._say(f"{'not renewed' if running else 'no lease'} yet: {why}")
        self._error = why or self._error

    def _leased(self, round_: Round) -> None:
        self._error, self._failures, self._not_before = "", 0, 0.0
        self._early = random.uniform(0.0, 0.05)  # so that many devices do not renew in step
        if not self._renewals:
            name = self._config.lease_name
            lab = ", LAB" if self._members.lab else ""
            self._say(f"lease {name} served by guard {self._owner.pid}, serial {round_.serial}, {round_.latency_ms:.1f} ms{lab}")
        self._renewals += 1
        self._latencies.append(round(round_.latency_ms, 3))
        self._stragglers = {t for t in (*self._stragglers, *round_.tasks) if not t.done()}
        self._polls.known.lease = round_.lease
        self._keep_lease(round_.lease)

    def _keep_lease(self, token: bytes) -> None:
        """Keep the newest lease for validators that are behind; losing it costs nothing but a round trip."""
        path = self._config.evidence_dir / LAST_LEASE
        new = path.with_suffix(".new")
        try:
            new.write_bytes(token)
            new.replace(path)
        except OSError as why:
            self._say(f"{path}: cannot keep the lease: {why.strerror}")

    def _kept_lease(self) -> bytes:
        try:
            self._config.evidence_dir.mkdir(parents=True, exist_ok=True)
            return (self._config.evidence_dir / LAST_LEASE).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as why:
            raise ConfigError(f"{self._config.evidence_dir}: cannot use it: {why.strerror}") from why

    def _renew_now(self) -> dict[str, object]:
        """Control command: forget the pauses, because an operator knows that something changed."""
        self._failures, self._not_before = 0, 0.0
        if self._round is not None:
            self._round.hurry()
        self._kick.set()
        return {"ok": True}

    def status(self) -> dict[str, object]:
        """Control command: all an operator sees, times in ms."""
        s = self._status
        guard: dict[str, object] = {"phase": None, "serial": 0, "guard": None}
        if s is not None:
            guard = {
                "phase": s.phase_name.lower(),
                "status": s.status_name,
                "reason": s.reason_name,
                "serial": s.serial,
                "remaining_ms": s.remaining_ns // 1_000_000,
                "lab": s.lab,
                "guard": self._owner.pid,
            }
        return guard | {
            "agent": os.getpid(),
            "m": self._members.m,
            "n": self._members.n,
            "round": [v.as_dict() | {"poll": self._polls.reaches(v.index)} for v in self._votes],
            "renewing": self._task is not None,
            "polls": self._polls.alive,
            "isolated": self._config.poll and self._polls.isolated,
            "error": self._error,
            "renewals": self._renewals,
            "latencies_ms": list(self._latencies),
        }


async def serve(config: Config, owner: GuardOwner) -> None:
    """Run an agent until SIGTERM or SIGINT; raises ConfigError if it cannot start."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    agent = Agent(config, sets.read(config.set), owner)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)  # however often it comes, the end is clean
    ends = [asyncio.create_task(agent.run()), asyncio.create_task(stop.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in ends:
        task.cancel()
    for result in await asyncio.gather(*ends, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    say("agent", "stopped, and the guard with it" if owner.stops_guard else "stopped; the lease runs to its end")
