# SPDX-License-Identifier: Apache-2.0
"""What guard, pin holder and agent take of the board's memory while a lease runs."""

from __future__ import annotations

from check_hold import guard_pid, holder_pid
from figures import Figures
from fleet import Fleet
from machine import Machine


def test_resident_memory_is_reported(machine: Machine, fleet: Fleet, figures: Figures) -> None:
    fleet.phase("active")
    for name, pid in (("guard", guard_pid(machine)), ("pin_holder", holder_pid(machine)), ("agent", fleet.agent_pid)):
        rows = dict(row.split(":", 1) for row in machine.sh(f"cat /proc/{pid}/smaps_rollup").splitlines()[1:])
        figures.put(f"emulated.{name}_rss_kib", int(rows["Rss"].split()[0]), "KiB", note=f"PSS {int(rows['Pss'].split()[0])} KiB")
