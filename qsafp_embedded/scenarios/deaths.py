# SPDX-License-Identifier: Apache-2.0
"""Guard and agent die, stop and come back; workloads are held whether they ask or not."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from .._core import now_ns
from .._tables import Event, Phase, Reason
from .registry import Figures, scenario
from .stage import MARGIN_MS, Stage, check, ms

__all__ = ["agent_kill", "containment_release", "guard_kill", "guard_stopped", "reboot_after_failsafe", "uncooperative_workload"]

PERIOD_MS = 100.0  # how often qsafp run looks, and the deadline thread ticks
FREEZE, KILL, ROLLBACK = 2, 3, 4


def _two_workloads(s: Stage) -> str:
    """One that asks, one that is busy and never does; returns what holds the second."""
    s.start()
    s.workload()
    s.held("busy")
    s.wait("open gates and a high line", lambda: s.stamp().opens > 0 and s.pin()[0] == 1)
    return s.held_by("busy")


def _still(s: Stage, name: str) -> bool:
    """Whether a workload stands still while another one goes on for 300 steps."""
    runs, clock = s.stamp(name).runs, s.stamp().runs
    s.wait("time to pass", lambda: s.stamp().runs >= clock + 300)
    return s.stamp(name).runs == runs


def _closed_within(s: Stage, at: int, what: str) -> Figures:
    """Assert what a dead or stopped guard must leave behind; ``at`` is when it ended, boot time in ns."""
    limit = s.stale_after_ms
    s.wait("a closed gate", lambda: s.stamp().closes > 0)
    s.wait("LEASE_VALID to fall", lambda: s.pin()[0] == 0)
    s.wait("the busy workload to be held", lambda: "held busy" in s.words("run-busy"))
    check(_still(s, "busy"), "the busy workload still runs")
    last, low, busy = ms(s.stamp().last_open_ns - at), ms(s.pin()[1] - at), ms(s.stamp("busy").last_run_ns - at)
    check(last <= limit, f"the gate was open {last} ms after {what}")
    check(low <= limit + PERIOD_MS + MARGIN_MS, f"LEASE_VALID fell {low} ms after {what}")
    check(busy <= limit + PERIOD_MS + MARGIN_MS, f"the busy workload ran {busy} ms after {what}")
    return {"last_open_ms": last, "pin_low_ms": low, "busy_last_ran_ms": busy, "stale_after_ms": limit}


def _resumed(s: Stage) -> float:
    """Wait until both workloads run again; returns how long that took, ms."""
    begun, runs = now_ns(), s.stamp("busy").runs
    s.wait("both workloads to go on", lambda: s.stamp().last_open_ns > begun and s.stamp("busy").runs > runs)
    return ms(now_ns() - begun)


@scenario(fast=True, duration_ms=20_000)
def guard_kill(s: Stage) -> Figures:
    """SIGKILL to the guard with most of the lease left: gate, LEASE_VALID and a busy workload stop within stale_after."""
    by = _two_workloads(s)
    s.stop("agent")  # it would start another guard
    figures = _closed_within(s, s.kill("guard"), "the guard's death")
    s.agent()  # starts a guard by itself
    return {**figures, "back_ms": _resumed(s), "held_by": by}


@scenario(fast=True, duration_ms=20_000)
def guard_stopped(s: Stage) -> Figures:
    """SIGSTOP to the guard: the same stop, for nobody may trust a guard that does not run; SIGCONT resumes."""
    by = _two_workloads(s)
    guard = s.processes["guard"]
    guard.send_signal(signal.SIGSTOP)
    figures = _closed_within(s, now_ns(), "the guard was stopped")
    guard.send_signal(signal.SIGCONT)
    return {**figures, "back_ms": _resumed(s), "held_by": by}


@scenario(fast=True, duration_ms=4000)
def agent_kill(s: Stage) -> Figures:
    """SIGKILL to the agent: the lease runs to its end and never longer; one that restarts in time keeps the gate open."""
    s.start()
    s.workload()
    s.wait("an open gate", lambda: s.stamp().opens > 0)
    s.renewed()
    s.kill("agent")
    s.agent()
    s.renewed(2)
    check(s.stamp().closes == 0, "the gate closed although an agent came back in time")
    s.kill("agent")
    end = s.lease_end()
    left = ms(end - now_ns())
    s.wait("a closed gate", lambda: s.stamp().closes > 0)
    over = ms(s.stamp().last_open_ns - end)
    check(over <= 0, f"open {over} ms after the lease's end")
    check(over >= -MARGIN_MS, f"closed {-over} ms before the lease's end")
    s.phase(Phase.FAILSAFE)
    s.agent()
    s.opened()
    return {"leases_with_restarts": s.status().serial, "end_to_last_open_ms": over, "left_after_the_kill_ms": left}


@scenario(fast=True, duration_ms=6000)
def reboot_after_failsafe(s: Stage) -> Figures:
    """A denial is latched, everything is killed and started again: the latch holds until people release it."""
    s.start()
    s.workload()
    s.wait("an open gate", lambda: s.stamp().opens > 0)
    s.revoke(0, 1, 2)
    before = s.phase(Phase.FAILSAFE)
    s.until("the fail-safe to be on record", lambda now: any(now.latch_hash))
    before = s.status()
    for name in ["agent", "guard", *(f"validator-{i}" for i in range(6))]:
        s.kill(name)
    shutil.rmtree(s.root / "run/main")  # as a reboot empties /run
    s.validators()
    s.guard()
    after = s.status()
    held = after.phase == Phase.FAILSAFE and after.reason == before.reason and after.boot == before.boot + 1
    held = held and (after.latch_seq, after.latch_hash) == (before.latch_seq, before.latch_hash)
    check(held, f"after the reboot: {after.phase_name}, {after.reason_name}, record {after.latch_seq}")
    s.agent()
    s.allow(0, 1, 2)
    s.wait("all validators to wait for people", lambda: "waits for a person" in s.words("agent") or _waiting(s) == 6)
    check(s.status().phase == Phase.FAILSAFE and not s.gate(), "the gate opened without people")
    opens = s.stamp().opens
    s.release(*range(4))
    s.opened()
    s.wait("the workload to go on", lambda: s.stamp().opens > opens)
    return {"boots": after.boot, "latch_record": after.latch_seq, "latched": after.reason_name, "validators_that_waited": 6}


def _waiting(s: Stage) -> int:
    """How many validators list the fail-safe as one that waits for a person."""
    from ..validator import admin_client

    return sum(bool(admin_client.pending(s.admin(i))) for i in range(6))


def _dead(pid: int) -> bool:
    """Whether a process is gone, or waits only to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except FileNotFoundError:
        return True


def _steps(s: Stage, name: str) -> dict[int, float]:
    """Containment steps of a workload by the guard's log, with the ms each took since the gate closed."""
    rows = [r["data"] for r in s.records() if r["event"] == Event.CONTAINMENT and r["data"][16:48].rstrip(b"\0") == name.encode()]
    return {d[0]: ms(int.from_bytes(d[2:10], "little")) for d in rows}


@scenario(fast=True)
def uncooperative_workload(s: Stage) -> Figures:
    """A program that never asks, ignores signals and hides a child in another session is frozen under qsafp run, then killed."""
    s.start()
    s.workload()
    hidden = s.base / "hidden.stamp"
    s.held("stubborn", hide=hidden)
    s.wait("the hidden child", lambda: s.stamp("hidden").runs > 0)
    by = s.held_by("stubborn")
    s.stop("agent")
    end = s.lease_end()
    s.phase(Phase.GRACE)
    s.wait("the workload to be held", lambda: FREEZE in _steps(s, "stubborn"))
    late = ms(s.stamp("stubborn").last_run_ns - end)
    check(late <= MARGIN_MS, f"the program ran {late} ms after the lease's end")
    s.phase(Phase.FAILSAFE)
    s.wait("the workload to be killed", lambda: KILL in _steps(s, "stubborn"))
    check(_still(s, "stubborn"), "the program runs")
    if by == "cgroup":
        check(_still(s, "hidden"), "the hidden child runs")
        check(_dead(s.stamp("hidden").pid), "the hidden child lives")
    steps = _steps(s, "stubborn")
    return {"end_to_last_run_ms": late, "closed_to_frozen_ms": steps[FREEZE], "closed_to_killed_ms": steps[KILL], "held_by": by}


@scenario(fast=True, duration_ms=8000)
def containment_release(s: Stage) -> Figures:
    """A denial drains, freezes, kills and rolls back; nothing restarts by itself; people release it, and the program runs again."""
    s.start()
    s.workload()
    data = s.base / "data.txt"
    data.write_text("good\n")
    s.held("writer", "--checkpoint", str(data), "--store", str(s.base / "store"), writes=data)
    s.wait("the file to be spoilt", lambda: "spoilt" in data.read_text())
    pid = s.stamp("writer").pid
    s.revoke(0, 1, 2)
    s.phase(Phase.FAILSAFE)
    s.wait("the rollback", lambda: ROLLBACK in _steps(s, "writer"))
    check(data.read_text() == "good\n", f"after the rollback: {data.read_text()[:40]!r}")
    check(_still(s, "writer") and data.read_text() == "good\n", "the program runs after the rollback")
    s.allow(0, 1, 2)
    check(s.status().phase == Phase.FAILSAFE, "lifting a revocation released the fail-safe")
    s.release(*range(4))
    s.opened()
    s.wait("the program to be started again", lambda: s.stamp("writer").pid not in (0, pid) and "spoilt" in data.read_text())
    check(s.status().reason == Reason.NONE, "the latch stayed")
    steps = _steps(s, "writer")
    return {"closed_to_frozen_ms": steps[FREEZE], "closed_to_killed_ms": steps[KILL], "rollback_ms": steps[ROLLBACK]}
