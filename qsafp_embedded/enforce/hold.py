# SPDX-License-Identifier: Apache-2.0
"""What holds a process tree: a cgroup where we may make one, signals to its process group where we may not."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Protocol

from ..errors import StoreError

__all__ = ["CgroupHold", "Hold", "SignalHold", "make_hold"]

LIMIT_S = 5.0


class Hold(Protocol):
    """Stops and resumes everything that was started inside it."""

    kind: str

    def enter(self) -> None:
        """Put the calling process inside; runs in the child between fork and exec."""

    def fds(self) -> list[int]:
        """Descriptors for the guard after the pidfd: cgroup.freeze, cgroup.kill, cgroup.events; none without a cgroup."""

    def started(self, pid: int) -> None:
        """Remember the child."""

    def freeze(self, on: bool) -> None:
        """Freeze or thaw."""

    def kill(self) -> None:
        """Kill everything inside."""

    def close(self) -> None:
        """Remove what was made; nothing runs inside any more."""


class CgroupHold:
    """A cgroup v2 of its own; nothing inside can leave it without rights over the parent."""

    kind = "cgroup"

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        try:
            self._freeze = os.open(path / "cgroup.freeze", os.O_RDWR | os.O_CLOEXEC)
            self._kill = os.open(path / "cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
            self._events = os.open(path / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            path.rmdir()
            raise

    def enter(self) -> None:
        """Put the calling process inside."""
        (self.path / "cgroup.procs").write_text("0")

    def fds(self) -> list[int]:
        """Descriptors for the guard."""
        return [self._freeze, self._kill, self._events]

    def started(self, pid: int) -> None:
        """Nothing to remember: the cgroup knows."""

    def freeze(self, on: bool) -> None:
        """Freeze or thaw."""
        os.pwrite(self._freeze, b"1" if on else b"0", 0)

    def kill(self) -> None:
        """Kill everything inside."""
        os.pwrite(self._kill, b"1", 0)

    def close(self) -> None:
        """Kill what is left and remove the cgroup."""
        self.kill()
        self.freeze(False)
        end = time.monotonic() + LIMIT_S
        while b"populated 1" in os.pread(self._events, 256, 0) and time.monotonic() < end:
            time.sleep(0.005)
        for fd in self.fds():
            os.close(fd)
        self.path.rmdir()


class SignalHold:
    """A process group of its own; a workload that makes another group or session escapes it, and SAFETY.md says so."""

    kind = "signals"

    def __init__(self) -> None:
        self.pid = 0

    def enter(self) -> None:
        """The child has a session of its own already."""

    def fds(self) -> list[int]:
        """None: the guard has the pidfd alone."""
        return []

    def started(self, pid: int) -> None:
        """Remember the group."""
        self.pid = pid

    def _signal(self, number: signal.Signals) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def freeze(self, on: bool) -> None:
        """Stop or continue the group."""
        self._signal(signal.SIGSTOP if on else signal.SIGCONT)

    def kill(self) -> None:
        """Kill the group."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill what is left of the group."""
        self.kill()


def _own_cgroup() -> Path:
    """Our own cgroup v2 directory; raises StoreError without one."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    roots = [Path(m[4]) for m in mounts if m[m.index("-") + 1] == "cgroup2"]
    mine = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    if not roots or not mine:
        raise StoreError("no cgroup v2 here")
    return roots[0] / mine[0].lstrip("/")


def make_hold(name: str) -> Hold:
    """A cgroup where that is allowed, else signals."""
    try:
        return CgroupHold(_own_cgroup() / f"qsafp-{name}-{os.getpid()}")
    except OSError:
        return SignalHold()
