# SPDX-License-Identifier: Apache-2.0
"""``qsafp run``: a workload that asks nothing, held from outside (tier 1; HW-12).

The runner stays outside the hold.  It obeys the guard's orders, and it looks at the gate page itself every 100 ms, so that a
guard that was killed or stopped holds the workload as well.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .._core import crc16
from .._tables import Opcode
from ..errors import GuardUnavailable, LeaseRefused, StoreError
from ..gate import Gate
from .hold import Hold, make_hold
from .rollback import Checkpoint

__all__ = ["Plan", "Runner"]

LOOK_S = 0.1
REGISTER, DRAINED, CHECKPOINT, WAIT, REPORT = range(5)
ORDER_DRAIN, ORDER_FREEZE, ORDER_THAW, ORDER_KILL, ORDER_ROLLBACK = range(1, 6)
STEP_ROLLBACK = 4
EX_TEMPFAIL = 75


@dataclass(frozen=True)
class Plan:
    """What to run and what to do when it is stopped; ``checkpoint`` lists paths that a rollback restores."""

    command: Sequence[str]
    name: str = ""
    checkpoint: Sequence[Path] = ()
    on_stop: Sequence[str] = ()
    restart: bool = True
    store: Path = field(default_factory=lambda: Path.home() / ".local/state/qsafp")


def _say(text: str) -> None:
    print(f"qsafp run: {text}", file=sys.stderr, flush=True)


class _Orders:
    """The workload's registration with the guard, and the orders that come back."""

    def __init__(self, gate: Gate, name: str, fds: list[int]) -> None:
        self.socket, page = gate._connect()
        os.close(page)
        self._tag = 0
        self.socket.settimeout(2.0)
        try:
            self._send(bytes([REGISTER, 1]) + name.encode()[:32], fds)
            self.id = self._answer()[0]
        except (OSError, IndexError) as why:
            self.socket.close()
            raise GuardUnavailable(f"the guard did not take the workload: {why}") from why
        self.wait()

    def _send(self, payload: bytes, fds: Sequence[int] = ()) -> None:
        self._tag = self._tag % 255 + 1
        frame = struct.pack("<BBH", self._tag, Opcode.WORKLOAD, len(payload)) + payload
        socket.send_fds(self.socket, [frame + struct.pack("<H", crc16(frame))], list(fds))

    def _answer(self) -> bytes:
        answer = self.socket.recv(2048)
        if len(answer) < 7 or answer[2]:
            raise GuardUnavailable(f"the guard refused the workload (status {answer[2] if len(answer) > 2 else 'end of file'})")
        return answer[5:-2]

    def wait(self) -> None:
        """Ask for the next order; it arrives when there is one."""
        self._send(bytes([WAIT]))

    def next(self) -> int:
        """Read the order that arrived; raises GuardUnavailable at end of file."""
        return self._answer()[0]

    def tell(self, payload: bytes) -> None:
        """Say something and read the acknowledgement; no order may be awaited meanwhile."""
        self._send(payload)
        self._answer()


class Runner:
    """Runs one command under one gate until it ends, is stopped for good, or we are told to end."""

    def __init__(self, gate: Gate, plan: Plan) -> None:
        self.gate, self.plan = gate, plan
        self.name = (plan.name or Path(plan.command[0]).name)[:32]
        self.hold: Hold = make_hold(self.name)
        self.checkpoint = Checkpoint(plan.checkpoint, plan.store / f"{gate.lease}-{self.name}")
        self.child: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.orders: _Orders | None = None
        self.frozen = self.killed = False
        self.ending = 0
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # ---- starting ----

    def _start(self) -> None:
        if self.plan.checkpoint and not self.checkpoint.hashes:
            self.checkpoint.take()
        self.hold.freeze(False)  # a cgroup stays frozen after a kill, and the child would stop before its exec
        self.frozen = self.killed = False
        try:
            self.child = subprocess.Popen(self.plan.command, preexec_fn=self.hold.enter, start_new_session=True)
        except OSError as why:
            raise StoreError(f"{self.plan.command[0]}: {why.strerror}") from why
        self.hold.started(self.child.pid)
        if self.pidfd >= 0:
            os.close(self.pidfd)
        self.pidfd = os.pidfd_open(self.child.pid)
        self._register()
        _say(f"started {self.name} (pid {self.child.pid}, held by {self.hold.kind})")

    def _register(self) -> None:
        if self.orders is not None:
            self.orders.socket.close()
        self.orders = None
        with contextlib.suppress(OSError, LeaseRefused):  # no guard: the page decides, and it is closed
            self.orders = _Orders(self.gate, self.name, [self.pidfd, *self.hold.fds()])

    def _wait_for_lease(self) -> bool:
        if not self.gate:
            _say(f"waiting: {self.gate._refusal()}")
        while not self.ending:
            if self.gate.wait(0.5):
                return True
        return False

    # ---- stopping ----

    def _freeze(self) -> None:
        if not self.frozen:
            self.hold.freeze(True)
            self.frozen = True
            _say(f"held {self.name}: {self.gate._refusal()}")

    def _thaw(self) -> None:
        if self.frozen:
            self.hold.freeze(False)
            self.frozen = False
            _say(f"resumed {self.name}")

    def _rollback(self) -> None:
        begun, result = time.monotonic_ns(), 0
        if self.child is not None:
            self.child.wait()
        try:
            self.checkpoint.restore()
        except StoreError as why:
            result = 1
            _say(str(why))
        spent = time.monotonic_ns() - begun
        if self.plan.checkpoint:
            done = f"rolled back {len(self.plan.checkpoint)} paths in {spent / 1e6:.1f} ms"
            _say("rollback failed: nothing is restarted" if result else done)
        if self.plan.on_stop:
            ended = subprocess.run(self.plan.on_stop, check=False)
            _say(f"on_stop ended with {ended.returncode}")
        if self.orders is not None:
            self.orders.tell(struct.pack("<BBQB", REPORT, STEP_ROLLBACK, spent, result))
        if result or not self.plan.restart:
            self.ending = EX_TEMPFAIL

    def _obey(self) -> None:
        assert self.orders is not None
        try:
            order = self.orders.next()
            if order == ORDER_DRAIN:  # a program that asks nothing has no batch that we could wait for
                self.orders.tell(bytes([DRAINED]))
            elif order == ORDER_FREEZE:
                self.frozen = True
                _say(f"held {self.name}: {self.gate._refusal()}")
            elif order == ORDER_KILL:
                self.killed, self.frozen = True, False
            elif order == ORDER_ROLLBACK:
                self._rollback()
            elif order == ORDER_THAW:
                self._resume()
                return  # registered anew, or resumed with a wait of its own
            self.orders.wait()
        except (OSError, GuardUnavailable):
            self.orders.socket.close()
            self.orders = None

    def _resume(self) -> None:
        if self.killed and not self.ending:
            self._start()
        elif self.orders is not None:
            self.frozen = False
            _say(f"resumed {self.name}")
            self.orders.wait()

    def _look(self) -> None:
        """Our own look at the page: a dead or stopped guard holds the workload too."""
        if self.gate:
            if self.orders is None:
                if self.killed:
                    self._start()
                else:
                    self._thaw()
                    self._register()
        elif not self.killed and self.child is not None and self.child.poll() is None and self._unguarded():
            self._freeze()

    def _unguarded(self) -> bool:
        """True if no guard orders us: none took the registration, its socket closed, or it armed the page and does not run."""
        return self.orders is None or not self.gate.info().attached or bool(self.gate._fields()["armed"])

    # ---- the loop ----

    def _on_signal(self, number: int, _frame: object) -> None:
        self.ending = 128 + number
        os.write(self._pipe[1], b"x")

    def run(self) -> int:
        """Run until the end; returns the exit status: the command's own, 75 if it was stopped for good, 128 + signal."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        try:
            if self._wait_for_lease():
                self._start()
                self._loop()
        finally:
            self.hold.close()
            if self.orders is not None:
                self.orders.socket.close()
        if self.child is not None and not self.ending:
            return self.child.wait()
        return self.ending

    def _loop(self) -> None:
        while not self.ending:
            assert self.child is not None
            if self.child.poll() is not None and not self.killed:
                if not self.frozen and self.gate:
                    return
                self.killed = True  # killed with the gate closed: the guard's doing
            watch = [self._pipe[0]] + ([self.orders.socket.fileno()] if self.orders else []) + ([] if self.killed else [self.pidfd])
            ready, _, _ = select.select(watch, [], [], LOOK_S)
            if self.orders is not None and self.orders.socket.fileno() in ready:
                self._obey()
            self._look()
