# SPDX-License-Identifier: Apache-2.0
"""An unchanged, busy program under ``qsafp run`` stops with its lease, children too, and starts again after the release (tier 1).

The host reads what the program says on a serial port of its own: silence is seen outside.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fleet import DEVICE, Fleet
from machine import Machine, wait_for

from qsafp_embedded._tables import Event
from qsafp_embedded.audit import Log

BEAT = (Path(__file__).parent / "guest/beat.py").read_bytes()
QUIET_S = 2.0
FREEZE, KILL, DONE = 2, 3, 0  # steps and result of a CONTAINMENT record
NAMES = {"parent", "child"}


class Beats:
    """What the program said so far."""

    def __init__(self, machine: Machine) -> None:
        self._path = machine.out / "beat.txt"

    def size(self) -> int:
        """Bytes so far."""
        return self._path.stat().st_size

    def pids(self, since: int = 0) -> dict[str, int]:
        """Newest process id of each name in whole lines after so many bytes."""
        rows = self._path.read_bytes()[since:].split(b"\n")[1 if since else 0 : -1]
        return {name.decode(): int(pid) for name, pid in (row.split() for row in rows)}

    def both(self) -> dict[str, int]:
        """Wait until both have something new to say; their process ids."""
        since = self.size()
        wait_for(lambda: self.pids(since).keys() == NAMES, "both processes at work, as seen outside")
        return self.pids(since)


@pytest.fixture(scope="module")
def beats(machine: Machine, fleet: Fleet) -> Iterator[Beats]:
    """The program at work under a lease, and gone after."""
    fleet.phase("active")
    machine.put("/run/beat.py", BEAT)
    runner = machine.spawn(f"qsafp run --json --dir {DEVICE} -- python3 -S /run/beat.py /dev/vport*p2", "/run/workload.log")
    yield Beats(machine)
    machine.sh(f"kill {runner}")


def test_a_busy_program_runs_while_its_lease_does(beats: Beats) -> None:
    assert beats.both().keys() == NAMES


def test_a_revocation_silences_it_and_its_child(machine: Machine, fleet: Fleet, beats: Beats) -> None:
    pids = beats.both()
    fleet.revoke(0, 1, 2)
    began, size = time.monotonic(), beats.size()
    last = began
    while (now := time.monotonic()) - last < QUIET_S:
        assert now - began < 60, "it still runs"
        if (new := beats.size()) != size:
            size, last = new, now
        time.sleep(0.005)
    print(f"third revocation to the last sign of life outside: {last - began:.3f} s of host time, the revocation's way in included")
    assert fleet.phase("failsafe")["reason"] == "VALIDATOR_DENIED"
    for name, pid in pids.items():
        wait_for(partial(gone, machine, pid), f"the {name} is dead")
    assert beats.size() == size


def gone(machine: Machine, pid: int) -> bool:
    """Whether there is no such process."""
    return machine.run("kill", "-0", str(pid)).code != 0


def test_the_log_says_that_its_cgroup_was_frozen_and_killed(machine: Machine, fleet: Fleet) -> None:
    assert '"cgroup"' in machine.sh("cat /run/workload.log")
    log = Log.open(fleet.fetch_log(), bytes.fromhex(fleet.enrolment["log_id"]))
    steps = [r.data[0] for r in log.records if r.event == Event.CONTAINMENT and r.data[10] == DONE]
    assert FREEZE in steps
    assert KILL in steps[steps.index(FREEZE) :]


def test_after_the_release_it_starts_again(fleet: Fleet, beats: Beats) -> None:
    before = beats.pids()
    fleet.forgive()
    after = beats.both()
    assert not set(before.values()) & set(after.values())
