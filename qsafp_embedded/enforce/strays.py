# SPDX-License-Identifier: Apache-2.0
"""Who left a hold: what descends from us and runs outside of it (HW-12).

A workload of our own user may write itself into another cgroup of ours, and where signals hold it, make a session of its own.
It stays our descendant: orphans come to us (PR_SET_CHILD_SUBREAPER), so they are found and stopped one by one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Strays"]

PR_SET_CHILD_SUBREAPER = 36


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError):  # gone meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            found.update(map(int, (task / "children").read_text().split()))
    return found


class Strays:
    """Signals descendants that ``inside`` does not know.  For a program of its own: it becomes the parent of every orphan."""

    def __init__(self, inside: Callable[[int], bool]) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._inside = inside
        self.spare()

    def spare(self) -> None:
        """Leave the children of this moment alone from now on."""
        self._spared = _children(os.getpid())

    def _below(self) -> set[int]:
        found: set[int] = set()
        wave = _children(os.getpid()) - self._spared
        while wave:
            found |= wave
            wave = set().union(*map(_children, wave)) - found
        return found

    def signal(self, number: int) -> None:
        """Send all of them a signal, and what they started meanwhile."""
        told: set[int] = set()
        while new := {pid for pid in self._below() - told if not self._inside(pid)}:
            for pid in new:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            told |= new

    def reap(self, but: int) -> None:
        """Bury orphans that ended; ``but`` is somebody else's to wait for."""
        for pid in _children(os.getpid()) - self._spared - {but}:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)

    def bury(self, seconds: float) -> None:
        """Wait for all who were killed: an unburied one still counts as a member of its group."""
        end = time.monotonic() + seconds
        while _children(os.getpid()) - self._spared and time.monotonic() < end:
            self.reap(0)
            time.sleep(0.001)
