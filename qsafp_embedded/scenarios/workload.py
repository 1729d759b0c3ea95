# SPDX-License-Identifier: Apache-2.0
"""A workload that stamps when it last ran and when it last found the gate open: the measuring end of a scenario.

The stamps are in shared memory of a file, so that what it did last is known even after it was frozen or killed.
"""

from __future__ import annotations

import argparse
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import NamedTuple

from .._core import now_ns
from ..gate import Gate

__all__ = ["Stamp", "main"]

LAYOUT = struct.Struct("7Q")
IDLE_S = 0.0005


class Stamp(NamedTuple):
    """Steps done; boot time, ns, of the last one; the same for steps with an open gate; how often it closed and when last; pid."""

    runs: int = 0
    last_run_ns: int = 0
    opens: int = 0
    last_open_ns: int = 0
    closes: int = 0
    closed_ns: int = 0
    pid: int = 0

    @classmethod
    def read(cls, path: Path) -> Stamp:
        """Read a stamp file; one that is not there yet is all zeros."""
        raw = path.read_bytes() if path.exists() else b""
        return cls(*LAYOUT.unpack(raw[: LAYOUT.size].ljust(LAYOUT.size, b"\0")))


def _step(s: Stamp, gate: Gate | None) -> Stamp:
    """One step.  The time is taken before the gate is asked: a stamp is never later than the answer it stands for."""
    now = now_ns()
    s = s._replace(runs=s.runs + 1, last_run_ns=now)
    if gate is None:
        return s
    if gate:
        return s._replace(opens=s.opens + 1, last_open_ns=now)
    return s._replace(closes=s.closes + 1, closed_ns=now) if s.last_open_ns > s.closed_ns else s


def _hidden(mine: Path, hidden: Path) -> Path:
    """Ignore what can be ignored and fork twice; returns the stamp file of whoever returns."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    if os.fork():
        return mine
    os.setsid()
    if os.fork():
        os._exit(0)
    return hidden


def main(argv: list[str] | None = None) -> int:
    """Run until killed: with ``--gate`` it asks before each step, without it never asks and is busy."""
    p = argparse.ArgumentParser(description="a workload that stamps what it does")
    p.add_argument("--stamp", type=Path, required=True)
    p.add_argument("--gate", type=Path, help="run directory of the gate to ask")
    p.add_argument("--writes", type=Path, help="spoil this file a little with every step")
    p.add_argument("--hide", type=Path, help="ignore signals and have a busy child in a session of its own, which stamps this file")
    args = p.parse_args(argv)
    os.nice(5)
    if args.hide:
        args.stamp = _hidden(args.stamp, args.hide)
    gate = Gate(run_dir=args.gate) if args.gate else None
    with args.stamp.open("wb+") as file:
        file.truncate(mmap.PAGESIZE)
        page = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
    s = Stamp(pid=os.getpid())
    while True:
        s = _step(s, gate)
        for i, value in enumerate(s):  # one store each, so that a frozen workload leaves no half numbers
            page[i] = value
        if args.writes and s.runs % 1000 == 1:
            with args.writes.open("a") as spoilt:
                spoilt.write("spoilt\n")
        if gate is not None:
            time.sleep(IDLE_S)


if __name__ == "__main__":
    sys.exit(main())
