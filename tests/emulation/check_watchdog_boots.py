# SPDX-License-Identifier: Apache-2.0
"""Three boots that the watchdog ended and no lease: the board is left alone, contained, and says so; a lease arms the watchdog (HW-12).

After check_watchdog.py: its reset is followed by a lease.
"""

from __future__ import annotations

from check_hold import HOLDERS, guard_pid, holder_pid
from check_watchdog import WATCHDOG_S, recorded, resets
from fleet import DEVICE, Fleet
from machine import Machine, wait_for
from outside import Lines

from qsafp_embedded.hardware.board import Board

GUARD = f"python3 -m qsafp_embedded.guard --config {DEVICE}/guard/guard.toml"
LOG = f"{DEVICE}/guard.log"


def start_guard(machine: Machine) -> str:
    """Start the guard alone, so that no lease can come; what it said."""
    pid = machine.spawn(GUARD, LOG)
    machine.until(f"grep -q serving {LOG}", "the guard serves", pid=pid)
    return machine.sh(f"cat {LOG}")


def test_a_pin_holder_that_hangs_and_a_guard_that_is_stopped_are_resets_too(machine: Machine, fleet: Fleet) -> None:
    machine.sh(f"kill -STOP {guard_pid(machine)}")
    resets(machine)
    assert "watchdog /dev/watchdog0" in start_guard(machine)
    machine.sh(f"kill -STOP {holder_pid(machine)}")
    resets(machine)
    assert "watchdog /dev/watchdog0" in start_guard(machine)
    machine.sh(f"kill -STOP {guard_pid(machine)}")
    resets(machine)


def test_after_three_of_them_without_a_lease_it_is_contained_and_not_armed(
    machine: Machine, fleet: Fleet, lines: Lines, wiring: Board
) -> None:
    said = start_guard(machine)
    assert "3 boots ended with the watchdog armed and without a lease: contained, and it is not armed until there is one" in said
    assert "watchdog none" in said
    assert lines.level(wiring.lines[0].offset) == 0
    assert machine.run("qsafp", "gate", "check", "--dir", DEVICE).code == 1
    assert machine.sh("cat /sys/class/watchdog/watchdog0/state").strip() == "inactive"
    pid = guard_pid(machine)
    machine.sh(f"kill -STOP {pid}; sleep {3 * WATCHDOG_S}; kill -CONT {pid}")  # of guest time, and no reset


def test_a_lease_arms_it_again(machine: Machine, fleet: Fleet, lines: Lines, wiring: Board) -> None:
    machine.sh(f"kill {guard_pid(machine)}")
    wait_for(lambda: not machine.sh(HOLDERS), "no guard")
    fleet.start_agent()
    fleet.forgive()  # the pin holder that hung latched a fail-safe
    machine.until(f"grep -q 'a lease runs, the watchdog is armed' {DEVICE}/agent.log", "the watchdog is armed")
    assert machine.sh("cat /sys/class/watchdog/watchdog0/state").strip() == "active"
    assert recorded(fleet) == [1, 1, 2, 3]
