# SPDX-License-Identifier: Apache-2.0
"""In the guest: what a line's change costs.  Each new request of a guard toggles VALIDATOR_REQ, by the way that every line goes.

``pins.py trace CTL HOLDER SO OFFSET ROUNDS`` prints µs from the guard's wish (a uprobe at OFFSET of SO) to the return of the pin holder's
ioctl, as the kernel's tracer timed them.  ``pins.py count CTL HOLDER ROUNDS`` prints the instructions of the holder, [user, kernel], of so
many changes and of an idle second.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from qsafp_embedded.client import GuardClient

TRACING = Path("/sys/kernel/tracing")
SET_VALUES = "c010b40f"
LINE = re.compile(r"\s(?P<at>\d+\.\d+): (?P<what>.*)")
PERF_EVENT_OPEN, INSTRUCTIONS = 241, 1
NO_USER, NO_KERNEL = 1 << 4, 1 << 5


def toggle(ctl: str, rounds: int) -> None:
    """Make requests, each after the last one's time."""
    with GuardClient.connect(ctl, timeout=60) as guard:
        for _ in range(rounds):
            guard.begin()
            time.sleep(0.03)


def trace(ctl: str, holder: str, so: str, offset: str, rounds: str) -> list[float]:
    """Time each change."""
    if not (TRACING / "trace").exists():
        os.system(f"mount -t tracefs tracefs {TRACING}")
    settings = {
        "trace_clock": "boot",
        "buffer_size_kb": "4096",
        "uprobe_events": f"p:wanted {so}:{offset}",
        "events/uprobes/wanted/enable": "1",
    }
    for side, also in (("enter", f" && cmd==0x{SET_VALUES}"), ("exit", "")):
        settings[f"events/syscalls/sys_{side}_ioctl/filter"] = f"common_pid=={holder}{also}"
        settings[f"events/syscalls/sys_{side}_ioctl/enable"] = "1"
    for name, value in settings.items():
        (TRACING / name).write_text(value)
    toggle(ctl, int(rounds))
    (TRACING / "tracing_on").write_text("0")
    return spans((TRACING / "trace").read_text())


def spans(text: str) -> list[float]:
    """From each wish to the end of the first write that began after it."""
    wanted = began = None
    out = []
    for m in filter(None, map(LINE.search, text.splitlines())):
        at, what = float(m["at"]), m["what"]
        if what.startswith("wanted"):
            wanted, began = at, None
        elif SET_VALUES in what:
            began = at
        elif what.startswith("sys_ioctl ->") and wanted and began:
            out.append(round((at - wanted) * 1e6, 1))
            wanted = None
    return out


def counter(pid: int, flags: int) -> int:
    """A counter of instructions of one process."""
    attr = struct.pack("=IIQQQQQ16x", 0, 64, INSTRUCTIONS, 0, 0, 0, flags)
    fd = ctypes.CDLL(None, use_errno=True).syscall(PERF_EVENT_OPEN, attr, pid, -1, -1, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "perf_event_open: no counter of instructions here")
    return int(fd)


def count(ctl: str, holder: str, rounds: str) -> dict[str, list[int]]:
    """Count instructions."""
    counters = [counter(int(holder), NO_KERNEL), counter(int(holder), NO_USER)]

    def now() -> list[int]:
        return [int.from_bytes(os.read(fd, 8), "little") for fd in counters]

    def over(work: Callable[[], None]) -> list[int]:
        before = now()
        work()
        return [b - a for a, b in zip(before, now(), strict=True)]

    return {"busy": over(lambda: toggle(ctl, int(rounds))), "idle": over(lambda: time.sleep(1))}


if __name__ == "__main__":
    print(json.dumps(trace(*sys.argv[2:]) if sys.argv[1] == "trace" else count(*sys.argv[2:])))
