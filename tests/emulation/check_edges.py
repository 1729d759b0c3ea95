# SPDX-License-Identifier: Apache-2.0
"""An input that is driven from outside is seen inside, edge by edge: LEASE_RENEW of a board whose chip tells edges."""

from __future__ import annotations

from check_lines import TOOL, chip_of
from machine import Machine, wait_for
from outside import Lines

from qsafp_embedded.hardware.board import Board


def test_an_input_is_seen_inside(machine: Machine, lines: Lines, wiring: Board) -> None:
    line = wiring.lines[3]
    lines.drive(line.offset, 0)
    pid = machine.spawn(f"{TOOL} watch {chip_of(machine, line)} {line.offset}", "/run/watch.log")

    def seen() -> list[str]:
        return [row.split()[0] for row in machine.sh("cat /run/watch.log").splitlines()]

    try:
        machine.until("grep -q ready /run/watch.log", "the line is watched", pid=pid)
        want = ["ready"]
        for level, edge in ((1, "rising"), (0, "falling"), (1, "rising"), (0, "falling")):
            lines.drive(line.offset, level)
            want.append(edge)
            wait_for(lambda: len(seen()) == len(want), f"{edge} edge inside")
        assert seen() == want
    finally:
        machine.run("kill", str(pid))
