# SPDX-License-Identifier: Apache-2.0
"""A workload that leaves its hold, by a session of its own and a cgroup of its user's, is held and ended with the rest (HW-12)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from guard_kit import Device, until
from test_run import Run

from qsafp_embedded.enforce.hold import make_hold

LEAVES = """
import os, sys, time
beat, left = sys.argv[1:]
if os.fork():
    time.sleep(600)
os.setsid()
if os.fork():
    os._exit(0)
if left:
    with open(left, "w") as file:
        file.write("0")
with open(beat + ".pid", "w") as file:
    file.write(str(os.getpid()))
while True:
    with open(beat, "a") as file:
        file.write("x")
    time.sleep(0.005)
"""


def parent_of_holds() -> str:
    """The cgroup that a workload may write itself into; empty where there are no cgroups for us."""
    probe = make_hold("probe")
    probe.close()
    return str(probe.path.parent / "cgroup.procs") if probe.kind == "cgroup" else ""  # type: ignore[attr-defined]


def gone(pid: int) -> bool:
    """No such process, or nobody's to bury."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def end(r: Run, beat: str) -> None:
    """End the runner, and what a runner that fails would leave behind."""
    r.close()
    with contextlib.suppress(OSError):
        os.kill(int(Path(f"{beat}.pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("kind", ["cgroup", "signals"])
def test_who_leaves_the_hold_is_held_resumed_and_ended_with_it(device: Device, kind: str) -> None:
    left = parent_of_holds() if kind == "cgroup" else ""
    if kind == "cgroup" and not left:
        pytest.skip("no rights over cgroups here")
    device.lease()
    beat = str(device.root / "beat")
    r = Run(device, "--name", "stray", command=[sys.executable, "-c", LEAVES, beat, left], signals=kind == "signals")
    try:
        until(r.running)
        pid = int(Path(f"{beat}.pid").read_text())
        device.send(signal.SIGSTOP)
        until(r.held)
        device.send(signal.SIGCONT)
        until(r.running)
        device.revoke()
        until(lambda: gone(pid))
        assert r.held()
    finally:
        end(r, beat)


def test_nobody_outlives_the_runner(device: Device) -> None:
    device.lease()
    beat = str(device.root / "beat")
    r = Run(device, "--name", "stray", command=[sys.executable, "-c", LEAVES, beat, ""], signals=True)
    try:
        until(r.running)
        r.close()
        assert gone(int(Path(f"{beat}.pid").read_text()))
    finally:
        end(r, beat)
