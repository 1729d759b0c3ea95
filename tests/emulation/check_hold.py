# SPDX-License-Identifier: Apache-2.0
"""LEASE_VALID falls when nobody vouches for it: the guard is stopped, then killed, and seen from outside (HW-13; I4)."""

from __future__ import annotations

import time

from fleet import Fleet
from machine import SLOW, Machine, wait_for
from outside import Lines

from qsafp_embedded.hardware.board import Board

STALE_S = 1.0  # stale_after_ms of guard.toml
LATE_S = 0.1


# One that ends meanwhile is none.
HOLDERS = "for s in $(grep -ls '^Name:.qsafp-pins$' /proc/[0-9]*/status); do sed -n 's/^PPid:[^0-9]*//p' $s 2>/dev/null || :; done"


def holders(machine: Machine) -> list[int]:
    """The parent of each pin holder; 1 for one whose guard is gone."""
    return [int(word) for word in machine.sh(HOLDERS).split()]


def guard_pid(machine: Machine) -> int:
    """The one guard."""
    (pid,) = [p for p in holders(machine) if p != 1]
    return pid


def holder_pid(machine: Machine) -> int:
    """The one pin holder."""
    return int(machine.sh("grep -ls '^Name:.qsafp-pins$' /proc/[0-9]*/status | cut -d/ -f3"))


def falls(machine: Machine, lines: Lines, line: int, script: str) -> float:
    """Seconds of host time from before a script in the guest until the line is seen low outside."""
    assert lines.level(line) == 1
    began = time.monotonic()
    machine.sh(script)
    wait_for(lambda: lines.level(line) == 0, "LEASE_VALID low outside", pause_s=0.005)
    return time.monotonic() - began


def test_people_let_it_start_again(fleet: Fleet, lines: Lines, wiring: Board) -> None:
    fleet.forgive()
    fleet.phase("active")
    wait_for(lambda: lines.level(wiring.lines[0].offset) == 1, "LEASE_VALID high outside")


def test_a_guard_that_is_stopped_loses_the_line_and_has_it_back(machine: Machine, lines: Lines, wiring: Board) -> None:
    pid = guard_pid(machine)
    took = falls(machine, lines, wiring.lines[0].offset, f"kill -STOP {pid}")
    machine.sh(f"kill -CONT {pid}")
    print(f"SIGSTOP to LEASE_VALID low outside: {took:.3f} s of host time, the command's way in included")
    assert took < (STALE_S + LATE_S) * SLOW * 2
    wait_for(lambda: lines.level(wiring.lines[0].offset) == 1, "LEASE_VALID high again")


def test_a_guard_that_is_killed_loses_the_line_and_the_next_one_takes_it_over(
    machine: Machine, fleet: Fleet, lines: Lines, wiring: Board
) -> None:
    took = falls(machine, lines, wiring.lines[0].offset, f"kill -KILL {guard_pid(machine)}")
    print(f"SIGKILL to LEASE_VALID low outside: {took:.3f} s of host time, the command's way in included")
    assert took < (STALE_S + LATE_S) * SLOW * 2
    fleet.phase("active")
    wait_for(lambda: lines.level(wiring.lines[0].offset) == 1, "LEASE_VALID high under the next guard", 90)
    assert holders(machine) == [guard_pid(machine)], "the holder of the guard that died gave way"
