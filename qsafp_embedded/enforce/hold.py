# SPDX-License-Identifier: Apache-2.0
"""What holds a process tree: a cgroup where we may make one, signals to its process group where we may not."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
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

    def holds(self, pid: int) -> bool:
        """Tell whether a process is inside, or gone."""

    def freeze(self, on: bool) -> None:
        """Freeze or thaw."""

    def kill(self) -> None:
        """Kill everything inside."""

    def await_end(self) -> None:
        """Return once nothing runs inside; the child is the caller's to wait for, before this.  Raises StoreError after 5 s."""

    def close(self) -> None:
        """Kill what is left and remove what was made; raises StoreError."""


def _until(empty: Callable[[], bool], name: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not empty():
        if time.monotonic() > end:
            raise StoreError(f"{name}: something in it still runs {LIMIT_S:g} s after it was killed")
        time.sleep(0.002)


class CgroupHold:
    """A cgroup v2 of its own; what is inside leaves it only with rights over the parent, which our own user has (strays.py)."""

    kind = "cgroup"

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        self._fds: list[int] = []
        try:
            for name, mode in (("freeze", os.O_RDWR), ("kill", os.O_WRONLY), ("events", os.O_RDONLY)):
                self._fds.append(os.open(path / f"cgroup.{name}", mode | os.O_CLOEXEC))
        except OSError:
            for fd in self._fds:
                os.close(fd)
            path.rmdir()
            raise

    def enter(self) -> None:
        """Put the calling process inside."""
        (self.path / "cgroup.procs").write_text("0")

    def fds(self) -> list[int]:
        """Descriptors for the guard."""
        return self._fds

    def started(self, pid: int) -> None:
        """Nothing to remember: the cgroup knows."""

    def holds(self, pid: int) -> bool:
        """Tell whether a process is inside, or gone."""
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except OSError:
            return True
        name = f"0::/{self.path.relative_to(_mount())}"
        return any(line == name or line.startswith(f"{name}/") for line in lines)

    def freeze(self, on: bool) -> None:
        """Freeze or thaw."""
        os.pwrite(self._fds[0], b"1" if on else b"0", 0)

    def kill(self) -> None:
        """Kill everything inside."""
        os.pwrite(self._fds[1], b"1", 0)

    def await_end(self) -> None:
        """Return once the cgroup is empty."""
        _until(lambda: b"populated 0" in os.pread(self._fds[2], 256, 0), str(self.path))

    def close(self) -> None:
        """Kill what is left and remove the cgroup."""
        try:
            self.kill()
            self.await_end()
            self.path.rmdir()
        finally:
            for fd in self._fds:
                os.close(fd)


class SignalHold:
    """A process group of its own; a workload that makes another group or session leaves it (strays.py)."""

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

    def holds(self, pid: int) -> bool:
        """Tell whether a process is in the group, or gone."""
        try:
            return os.getpgid(pid) == self.pid
        except ProcessLookupError:
            return True

    def _signal(self, number: int) -> bool:
        """Signal the group; False if it is gone."""
        try:
            if self.pid:
                os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        return self.pid != 0

    def freeze(self, on: bool) -> None:
        """Stop or continue the group."""
        self._signal(signal.SIGSTOP if on else signal.SIGCONT)

    def kill(self) -> None:
        """Kill the group."""
        self._signal(signal.SIGKILL)

    def await_end(self) -> None:
        """Return once the group is empty."""
        _until(lambda: not self._signal(0), f"process group {self.pid}")

    def close(self) -> None:
        """Kill what is left of the group."""
        self.kill()


def _mount() -> Path:
    """Where cgroup v2 is mounted; raises StoreError if nowhere."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for m in mounts:
        if m[m.index("-") + 1] == "cgroup2":
            return Path(m[4])
    raise StoreError("no cgroup v2 here")


def _own_cgroup() -> Path:
    """Our own cgroup v2 directory; raises StoreError without one."""
    mine = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    if not mine:
        raise StoreError("no cgroup v2 here")
    return _mount() / mine[0].lstrip("/")


def _may_enter(hold: CgroupHold) -> bool:
    """Try it with a child: rights to make a cgroup are not yet rights to move a process into it."""
    pid = os.fork()
    if pid == 0:
        try:
            hold.enter()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def _sweep(parent: Path) -> None:
    """Remove what runners that were killed left behind: the guard has emptied it."""
    for path in parent.glob("qsafp-*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                path.rmdir()


def make_hold(name: str) -> Hold:
    """A cgroup where that is allowed, else signals."""
    try:
        parent = _own_cgroup()
        _sweep(parent)
        hold = CgroupHold(parent / f"qsafp-{name}-{os.getpid()}")
    except OSError:
        return SignalHold()
    if _may_enter(hold):
        return hold
    hold.close()
    return SignalHold()
