# SPDX-License-Identifier: Apache-2.0
"""The lines that board.toml names are what the kernel and the outside world see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from machine import Machine, wait_for
from outside import Lines

from qsafp_embedded.hardware.board import Board, Line

TOOL = "python3 -S /etc/board/lines.py"


def chip_of(machine: Machine, line: Line) -> str:
    """The device file of the chip with this label."""
    rows = [row.split() for row in machine.sh(f"{TOOL} list").splitlines()]
    (found,) = [path for path, label, *_ in rows if label == line.chip]
    return found


@contextmanager
def owned(machine: Machine, line: Line) -> Iterator[int]:
    """Hold a line, low at first; /run/told takes its levels.  The process id of the holder."""
    machine.sh("rm -f /run/told")
    pid = machine.spawn(f"{TOOL} drive {chip_of(machine, line)} {line.offset} /run/told", "/run/drive.log")
    try:
        machine.until("test -p /run/told", "the line is owned", pid=pid)
        yield pid
    finally:
        machine.run("kill", str(pid))


def test_an_output_is_seen_outside(machine: Machine, lines: Lines, wiring: Board) -> None:
    line = wiring.lines[0]

    def at(level: int) -> bool:
        return lines.level(line.offset) == level

    with owned(machine, line):
        for level in (1, 0, 1, 0):
            machine.sh(f"echo {level} > /run/told")
            wait_for(partial(at, level), f"LEASE_VALID at {level} outside")
