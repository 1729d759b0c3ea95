# SPDX-License-Identifier: Apache-2.0
"""LEASE_RENEW, driven from outside, renews a lease well before its half; released, it does not (HW-13)."""

from __future__ import annotations

from pathlib import Path

from fleet import DEVICE, Fleet
from machine import Machine
from outside import Lines

from qsafp_embedded.hardware.board import Board

SCRIPT = (Path(__file__).parent / "guest/renew.py").read_bytes()
LOG = "/run/renew.log"
USUAL = 0.525  # an agent renews at the half, or up to 5 % of it sooner
TRIES = 5  # on a host so slow that half of a lease passes between two commands


def told(machine: Machine, word: str) -> list[str]:
    """What follows a word that the guest's program says."""
    machine.until(f"grep -q '^{word}' {LOG}", f"the {word} lease")
    return machine.sh(f"grep '^{word}' {LOG}").split()[1:]


def test_a_press_renews_a_lease_that_is_not_half_over_and_its_release_does_not(
    machine: Machine, fleet: Fleet, lines: Lines, wiring: Board
) -> None:
    fleet.phase("active")
    machine.put("/run/renew.py", SCRIPT)
    line = wiring.lines[3].offset
    lines.drive(line, 0)
    for _ in range(TRIES):
        machine.spawn(f"python3 /run/renew.py {DEVICE}/run/main/ctl.sock", LOG)
        told(machine, "fresh")
        lines.drive(line, 1)
        left, duration = told(machine, "first")
        lines.drive(line, 0)
        pressed = int(left) / int(duration)
        left, duration = told(machine, "second")
        released = int(left) / int(duration)
        if pressed > 0.55:
            break
    print(f"pressed: renewed with {pressed:.0%} of the lease left; released: with {released:.0%}")
    assert pressed > 0.55
    assert released <= USUAL
