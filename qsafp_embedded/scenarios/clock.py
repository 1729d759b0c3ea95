# SPDX-License-Identifier: Apache-2.0
"""The wall clock jumps by a hundred years, for every process of the fleet but not for this host."""

from __future__ import annotations

import struct
import time
from pathlib import Path

from .._tables import Event
from ..validator import admin_client
from .registry import Figures, scenario
from .shim import build
from .stage import Stage, check, ms

__all__ = ["clock_jump"]

CENTURY_S = 3_155_760_000


def _jump(shift: Path, seconds: int) -> None:
    """In place: a file that is cut for a moment would kill who maps it."""
    with shift.open("r+b") as file:
        file.write(struct.pack("<q", seconds))


@scenario(fast=True, duration_ms=3000)
def clock_jump(s: Stage) -> Figures:
    """The wall clock of guard, agent and validators jumps by 100 years and back: renewals go on, TLS too, no lease changes its length."""
    shift = s.base / "shift"
    shift.write_bytes(struct.pack("<q", 0))
    environment = {"LD_PRELOAD": str(build("clock", s.base)), "QSAFP_SHIFT": str(shift)}
    s.validators(environment=environment)
    s.guard(environment=environment)
    s.agent(environment=environment)
    s.opened()
    s.workload()
    s.wait("an open gate", lambda: s.stamp().opens > 0)
    longest = 0.0
    for seconds in (CENTURY_S, -CENTURY_S, 0):
        _jump(shift, seconds)
        s.stop("validator-0")  # a fresh handshake, under a clock at which no certificate is valid yet
        s.validator(0, environment=environment)
        s.renewed(2)
        longest = max(longest, ms(s.status().remaining_ns))
        seen = admin_client.decisions(s.admin(0))[0]["at_ms"] / 1e3 - time.time()
        check(abs(seen - seconds) < 3600, f"validator 0 saw a shift of {seen:.0f} s, not {seconds}")
        check(s.stamp().closes == 0, f"the gate closed at a jump of {seconds} s")
    check(longest <= s.duration_ms, f"a lease ran {longest} ms")
    walls = {r["wall_ms"] for r in s.records() if r["event"] == Event.LEASE_RENEWED}
    check(0 in walls and max(walls) > (time.time() + CENTURY_S / 2) * 1e3, f"the guard's clock did not jump: {sorted(walls)}")
    s.stop("agent")
    end = s.lease_end()
    _jump(shift, -CENTURY_S)  # a clock that goes back is no reprieve
    s.wait("a closed gate", lambda: s.stamp().closes > 0)
    over = ms(s.stamp().last_open_ns - end)
    check(over <= 0, f"open {over} ms after the lease's end")
    return {"jumps": 4, "years": 100, "longest_lease_ms": longest, "end_to_last_open_ms": over}
