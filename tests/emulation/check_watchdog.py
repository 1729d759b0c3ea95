# SPDX-License-Identifier: Apache-2.0
"""The deadline thread hangs, and nothing else: the line falls, the watchdog resets the board, and what starts next says so (HW-12)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from check_hold import guard_pid
from fleet import Fleet
from machine import SLOW, Machine, wait_for
from outside import Lines

from qsafp_embedded._tables import Event, Reason
from qsafp_embedded.audit import Log
from qsafp_embedded.hardware.board import Board

BY_WORKLOAD = 8  # a record's flag
WATCHDOG_S = 4
STOP_THREAD = (Path(__file__).parent / "guest/stop_thread.py").read_bytes()


def arm_board(machine: Machine) -> None:
    """Let QEMU reset the board and start it again, where it would end; load the watchdog's module, if there is one, now and then."""
    machine.qmp.call("set-action", reboot="reset", watchdog="reset")
    if machine.board.watchdog:
        load = partial(machine.sh, f"modprobe {machine.board.watchdog}")
        load()
        machine.at_start.append(load)


def resets(machine: Machine) -> float:
    """Wait for the watchdog, see it reset the board, and wait for the next start; the host's time of the reset in s."""
    limit = (WATCHDOG_S + 30) * SLOW
    assert machine.qmp.event("WATCHDOG", limit)["data"]["action"] == "reset"
    at = machine.qmp.event("RESET", limit)["timestamp"]
    before = machine.boot_id
    machine.again()
    assert machine.boot_id != before
    return float(at["seconds"]) + float(at["microseconds"]) / 1e6


def test_a_guard_with_a_watchdog_has_a_lease(machine: Machine, fleet: Fleet, lines: Lines, wiring: Board) -> None:
    fleet.stop_agent()
    wait_for(lambda: lines.level(wiring.lines[0].offset) == 0, "LEASE_VALID low outside")
    arm_board(machine)
    fleet.configure("watchdog", '"/dev/watchdog0"')
    fleet.configure("watchdog_s", str(WATCHDOG_S))
    fleet.start_agent()
    fleet.phase("active")
    wait_for(lambda: lines.level(wiring.lines[0].offset) == 1, "LEASE_VALID high outside")
    assert machine.sh("cat /sys/class/watchdog/watchdog0/timeout").strip() == str(WATCHDOG_S)
    machine.sh(f"sleep {WATCHDOG_S + 2}")  # of guest time: it is fed
    assert machine.sh("cat /sys/class/watchdog/watchdog0/state").strip() == "active"


def test_a_deadline_thread_that_hangs_drops_the_line_and_resets_the_board(machine: Machine, lines: Lines, wiring: Board) -> None:
    line = wiring.lines[0].offset
    machine.put("/run/stop_thread.py", STOP_THREAD)
    pid = guard_pid(machine)
    machine.spawn(f"python3 -S /run/stop_thread.py {pid}", "/run/stopped.log")
    machine.until("grep -q stopped /run/stopped.log", "the deadline thread is stopped")
    wait_for(lambda: lines.level(line) == 0, "LEASE_VALID low outside", pause_s=0.005)
    resets(machine)
    assert lines.level(line) == 0


def recorded(fleet: Fleet) -> list[int]:
    """What the guard recorded of boots that ended with the watchdog armed: how many since the last lease, each time."""
    log = fleet.fetch_log()
    assert fleet.verify(log)["ok"]
    records = Log.open(log, bytes.fromhex(fleet.enrolment["log_id"])).records
    found = [r for r in records if (r.event, r.reason, r.flags & BY_WORKLOAD) == (Event.ANOMALY, Reason.ANOMALY, 0)]
    return [int.from_bytes(r.data[:4], "little") for r in found]


def test_the_guard_that_starts_then_records_it_and_has_a_lease_again(fleet: Fleet, lines: Lines, wiring: Board) -> None:
    assert lines.level(wiring.lines[0].offset) == 0
    fleet.start_agent()
    fleet.phase("active")
    wait_for(lambda: lines.level(wiring.lines[0].offset) == 1, "LEASE_VALID high after the reset")
    assert recorded(fleet) == [1]
