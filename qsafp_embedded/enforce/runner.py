# SPDX-License-Identifier: Apache-2.0
"""``qsafp run``: a workload that asks nothing, held from outside (tier 1; HW-12).

The runner stays outside the hold.  It obeys the guard's orders, and it looks at the gate page itself every 100 ms, so that a
guard that was killed or stopped holds the workload as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .._core import crc16, now_ns
from .._tables import CommandStatus, Opcode
from ..errors import ConfigError, GuardUnavailable, QsafpError, StoreError
from ..gate import Gate
from .hold import Hold, make_hold
from .rollback import Checkpoint
from .strays import Strays

__all__ = ["Plan", "Runner"]

LOOK_S = 0.1
ANSWER_S = 2.0
RETRY_S = 1.0
HOOK_S = 30.0
END_S = 2.0
NAME_MAX = 32
REGISTER, DRAINED, CHECKPOINT, WAIT, REPORT = range(5)
ORDER_DRAIN, ORDER_FREEZE, ORDER_THAW, ORDER_KILL, ORDER_ROLLBACK = range(1, 6)
STEP_ROLLBACK = 4
EX_TEMPFAIL = 75
HELD_BY = {"cgroup": "a cgroup", "signals": "signals, one process at a time: no rights over cgroups here"}


@dataclass(frozen=True)
class Plan:
    """What to run and what to do when it is stopped; ``checkpoint`` lists paths that a rollback restores.

    ``events``: tell in JSON, one object a line on standard error (docs/operations.md, Events of a run), instead of in words.
    """

    command: Sequence[str]
    name: str = ""
    checkpoint: Sequence[Path] = ()
    on_stop: Sequence[str] = ()
    restart: bool = True
    store: Path = field(default_factory=lambda: Path.home() / ".local/state/qsafp")
    events: bool = False


class _Busy(GuardUnavailable):
    """Too many records of this user in this second."""


class _Orders:
    """The workload's connection to the guard: registrations, reports, and the orders that come back."""

    def __init__(self, gate: Gate, look: Callable[[], object]) -> None:
        self.socket, page = gate._connect()
        os.close(page)
        self._tag, self._look = 0, look
        self.socket.settimeout(ANSWER_S)

    def _send(self, payload: bytes, fds: Sequence[int] = ()) -> None:
        self._tag = self._tag % 255 + 1
        frame = struct.pack("<BBH", self._tag, Opcode.WORKLOAD, len(payload)) + payload
        socket.send_fds(self.socket, [frame + struct.pack("<H", crc16(frame))], list(fds))

    def _answer(self) -> bytes:
        answer = self.socket.recv(2048)
        status = answer[2] if len(answer) >= 7 else None
        if status == CommandStatus.OK:
            return answer[5:-2]
        raise _Busy if status == CommandStatus.RATE_LIMITED else GuardUnavailable(f"the guard refused the workload (status {status})")

    def ask(self, payload: bytes, fds: Sequence[int] = ()) -> bytes:
        """Say something and return the answer; no order may be awaited meanwhile.

        Others of our user may use up the guard's patience for a second; a page that closes meanwhile is seen.
        """
        end = time.monotonic() + ANSWER_S
        while True:
            try:
                self._send(payload, fds)
                while not select.select([self.socket], [], [], LOOK_S)[0]:
                    self._look()
                    if time.monotonic() > end:
                        raise GuardUnavailable(f"no answer in {ANSWER_S:g} s")
                return self._answer()
            except _Busy:
                self._look()
                if time.monotonic() > end:
                    raise
                time.sleep(LOOK_S)

    def wait(self) -> None:
        """Ask for the next order; it arrives when there is one."""
        self._send(bytes([WAIT]))

    def next(self) -> int:
        """Read the order that arrived; raises GuardUnavailable at end of file."""
        return self._answer()[0]


class Runner:
    """Runs one command under one gate until it ends, is stopped for good, or we are told to end."""

    def __init__(self, gate: Gate, plan: Plan) -> None:
        """Make the hold; raises ConfigError for a name that is none."""
        self.gate, self.plan = gate, plan
        self.name = (plan.name or Path(plan.command[0]).name)[:NAME_MAX]
        if not self.name or "/" in self.name or len(self.name.encode()) > NAME_MAX or self.name.startswith("."):
            raise ConfigError(f"{self.name!r} is no name for a workload: up to {NAME_MAX} bytes, no slash, no dot in front")
        self.hold: Hold = make_hold(self.name)
        self.checkpoint = Checkpoint(plan.checkpoint, plan.store / f"{gate.lease}-{self.name}")
        self.child: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.orders: _Orders | None = None
        self.frozen = self.killed = self.rolled_back = self._alone = False
        self.ending = 0
        self._taken, self._not_before = bytes(32), 0.0
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def _tell(self, event: str, text: str = "", **more: object) -> None:
        """Say what happened: to programs each event, to people those with words.  A stream that fails keeps nothing from being done."""
        line = f"qsafp run: {text}" if text else ""
        if self.plan.events:
            line = json.dumps({"event": event, "name": self.name, "boot_ns": now_ns(), **more})
        with contextlib.suppress(OSError):
            if line:  # past the stream's buffer, whose last flush would change the exit code
                os.write(2, f"{line}\n".encode(errors="backslashreplace"))

    def _tell_closed(self, event: str, what: str = "") -> None:
        why = self.gate._refusal()
        self._tell(event, f"{what}: {why}" if what else "", reason=why.reason, why=str(why))

    # ---- starting ----

    def _prepare(self) -> None:
        if self.plan.checkpoint:
            if self.checkpoint.recover():
                self._tell("recovered", "ended a rollback that was cut")
            self._taken = self.checkpoint.take()

    def _start(self) -> None:
        if self.killed and not self.rolled_back:  # the guard died between the two orders
            self._rollback()
            if self.ending:
                return
        event = "started" if self.child is None else "restarted"
        self.hold.freeze(False)  # a cgroup stays frozen after a kill, and the child would stop before its exec
        self.frozen = self.killed = self.rolled_back = False
        try:
            self.child = subprocess.Popen(self.plan.command, preexec_fn=self.hold.enter, start_new_session=True)
        except (OSError, subprocess.SubprocessError) as why:
            raise StoreError(f"{self.plan.command[0]}: {getattr(why, 'strerror', None) or why}") from why
        self.hold.started(self.child.pid)
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.pidfd = os.pidfd_open(self.child.pid)
        words = f"started {self.name} (pid {self.child.pid}, held by {HELD_BY[self.hold.kind]})"
        self._tell(event, words, pid=self.child.pid, held_by=self.hold.kind)
        self._register()

    def _register(self) -> None:
        """Tell the guard what it may freeze and kill; without one the page decides alone, and it is closed."""
        try:
            self.orders = self.orders or _Orders(self.gate, self._hold_if_closed)
            self.orders.ask(bytes([REGISTER, 1]) + self.name.encode(), [self.pidfd, *self.hold.fds()])
            if self.plan.checkpoint:
                self.orders.ask(bytes([CHECKPOINT]) + bytes(8) + self._taken)
            self.orders.wait()
            self._alone = False
        except (OSError, QsafpError) as why:
            self._lost(f"holding {self.name} without the guard's orders: {why}")

    def _lost(self, why: str) -> None:
        if self.orders is not None:
            self.orders.socket.close()
        self.orders, self._not_before = None, time.monotonic() + RETRY_S
        if not self._alone:
            self._tell("alone", why, why=why)
        self._alone = True

    def _wait_for_lease(self) -> bool:
        if not self.gate:
            self._tell_closed("waiting", "waiting")
        while not self.ending:
            if self.gate.wait(LOOK_S):
                return True
        return False

    # ---- stopping ----

    def _freeze(self) -> None:
        if not self.frozen:
            self.hold.freeze(True)
            self.strays.signal(signal.SIGSTOP)
            self.frozen = True
            if not self.killed:
                self._tell_closed("stopped", f"held {self.name}")

    def _thaw(self) -> None:
        if self.frozen:
            self.hold.freeze(False)
            self.strays.signal(signal.SIGCONT)
            self.frozen = False
            self._tell("thawed", f"resumed {self.name}")

    def _rollback(self) -> None:
        begun, failed, paths = time.monotonic_ns(), False, len(self.plan.checkpoint)
        try:
            self._end_child()
            self.checkpoint.restore()
        except StoreError as why:
            failed = True
            self._tell("error", str(why), why=str(why))
        self.rolled_back = True
        spent = time.monotonic_ns() - begun
        done = f"rolled back {paths} paths in {spent / 1e6:.1f} ms" if paths else ""
        words = "rollback failed: nothing is restarted" if failed and paths else done
        self._tell("rolled_back", words, paths=paths, ns=spent, ok=not failed)
        self._hook()
        if failed or not self.plan.restart:
            self.ending = EX_TEMPFAIL
        if self.orders is not None:
            self.orders.ask(struct.pack("<BBQB", REPORT, STEP_ROLLBACK, spent, failed))

    def _end_child(self) -> None:
        """All of it: a signal of the guard's reaches one process group, and a program may have made more."""
        self.hold.kill()
        self.strays.signal(signal.SIGKILL)
        if self.child is not None:
            self.child.wait()
        self.strays.bury(END_S)
        self.hold.await_end()

    def _hook(self) -> None:
        if not self.plan.on_stop:
            return
        try:
            ended = subprocess.run(self.plan.on_stop, check=False, timeout=HOOK_S)
            self._tell("on_stop", f"on_stop ended with {ended.returncode}", status=ended.returncode)
        except (OSError, subprocess.TimeoutExpired) as why:
            self._tell("on_stop", f"on_stop: {why}", why=str(why))
        self.strays.spare()  # what the hook left is no part of the workload, which is dead

    def _obey(self) -> None:
        assert self.orders is not None
        try:
            order = self.orders.next()
            if order == ORDER_DRAIN:  # a program that asks nothing has no batch that we could wait for
                self.orders.ask(bytes([DRAINED]))
            elif order == ORDER_FREEZE:
                self._freeze()
            elif order == ORDER_KILL:
                self._was_killed()
            elif order == ORDER_ROLLBACK:
                self._rollback()
            elif order == ORDER_THAW and self.killed:
                if not self.ending:
                    self._start()
                return  # registered anew, and waiting
            elif order == ORDER_THAW:
                self._thaw()
            self.orders.wait()
        except (OSError, GuardUnavailable) as why:
            if isinstance(why, StoreError):
                raise
            self._lost(f"the guard is gone: {why}")

    def _was_killed(self) -> None:
        """The guard froze and killed; we may hear of it before its orders, and tell the same."""
        if not self.killed and not self.frozen:
            self._tell_closed("stopped", f"held {self.name}")
        if not self.killed:
            self._tell_closed("killed")
        self.killed, self.frozen = True, False

    def _hold_if_closed(self) -> bool:
        if self.gate:
            return False
        if not self.killed and self.child is not None and self.child.poll() is None:
            self._freeze()
            self.strays.signal(signal.SIGSTOP)  # who left only now, or was woken
        return True

    def _look(self) -> None:
        """Our own look at the page: a dead, stopped or slow guard holds the workload too."""
        closed, due = self._hold_if_closed(), self.orders is None and time.monotonic() >= self._not_before
        if due and not self.killed:
            self._register()  # while closed, too: a fail-safe kills and rolls back what it was not told of in time
        if closed:
            return
        if due and self.killed:
            self._start()
        if not self.killed:
            self._thaw()
        self._hold_if_closed()  # it may have closed between the look and the thaw

    # ---- the loop ----

    def _on_signal(self, number: int, _frame: object) -> None:
        self.ending = 128 + number
        os.write(self._pipe[1], b"x")

    def run(self) -> int:
        """Run until the end; returns the exit status: the command's own, 75 if it was stopped for good, 128 + signal.

        Raises: StoreError if the command cannot be started, or its checkpoint not be taken.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        self.strays = Strays(self.hold.holds)
        try:
            if self._wait_for_lease():
                self._prepare()
                self._start()
                self._loop()
            self._ask_to_end()
        except QsafpError as why:
            self._tell("error", why=str(why))  # its words are the caller's to say
            raise
        finally:
            self.strays.signal(signal.SIGKILL)
            self.hold.close()
            if self.orders is not None:
                self.orders.socket.close()
        status = self.ending or self._status()
        self._tell("exit", status=status)
        return status

    def _status(self) -> int:
        code = self.child.wait() if self.child is not None else 0
        return code if code >= 0 else 128 - code

    def _ask_to_end(self) -> None:
        """Pass our signal on; what does not end by itself is killed with the hold."""
        if self.ending <= 128 or self.child is None or self.frozen or self.killed:
            return
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(self.child.pid, self.ending - 128)
            self.child.wait(END_S)

    def _ended(self) -> bool:
        """True once the command ended by itself; a kill while the gate is closed was the guard's doing."""
        assert self.child is not None
        code = self.child.poll()
        if code is None or self.killed:
            return False
        if code != -signal.SIGKILL or (self.gate and not self.frozen):
            return True
        self._was_killed()
        return False

    def _loop(self) -> None:
        while not self.ending and not self._ended():
            watch = [self._pipe[0]] + ([self.orders.socket.fileno()] if self.orders else []) + ([] if self.killed else [self.pidfd])
            ready, _, _ = select.select(watch, [], [], LOOK_S)
            if self.orders is not None and self.orders.socket.fileno() in ready:
                self._obey()
            self._look()
            self.strays.reap(self.child.pid if self.child is not None else 0)
