# SPDX-License-Identifier: Apache-2.0
"""What a killed guard leaves open, and what guard and agent weigh."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from frame import Bench, at, median, now_ns, subject
from places import STALE_MS, TICK_MS, Home, Lab, address, end, place, wait_for

from qsafp_embedded import Gate
from qsafp_embedded.client import GuardClient

KEYS = (
    "guard.kill9_to_closed_ms",
    "simulated.kill9_to_pin_low_ms",
    "guard.rss_mib",
    "agent.rss_mib",
    "agent.cold_start_to_lease_s",
)
AT_ONCE = 4
RENEW_MS = 400


def _kill(b: Bench) -> None:
    """Several guards at a time; each waits for itself, mostly asleep."""
    n = b.n(KEYS[0])
    closed, low = [], []
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as pool:
        labs = [Lab(stack.enter_context(place(f"k{i}"))) for i in range(min(AT_ONCE, n))]
        for turn in range(0, n, AT_ONCE):
            b.say(f"guard.kill9: {turn} of {n}")
            for c, p in pool.map(_killed, labs[: n - turn]):
                closed.append(c)
                low.append(p)
    b.put("guard.kill9_to_closed_ms", max(closed), samples=closed, limit=STALE_MS + 1)
    b.put("simulated.kill9_to_pin_low_ms", max(low), samples=low, limit=STALE_MS + TICK_MS)


def _killed(lab: Lab) -> tuple[float, float]:
    """Ms from SIGKILL to closed gate and to low line."""
    lib = subject()
    lab.start()
    lab.lease()
    with lab.pins() as pins:
        board, page = ctypes.c_void_p(address(pins)), ctypes.c_void_p(lib.subject_map(lab.page_fd))
        if not lib.subject_pin(board, 1, ctypes.c_uint64(now_ns() + 10**10)):
            raise RuntimeError("LEASE_VALID never rose")
        start = now_ns()
        lab.process.send_signal(signal.SIGKILL)
        lab.process.wait()
        due = lib.subject_deadline_ns(page)
        closed = lib.subject_wait_closed(page, ctypes.c_uint64(due), ctypes.c_uint64(start + 10**10))
        low = lib.subject_pin(board, 0, ctypes.c_uint64(start + 10**10))
    lab.stop()
    if not closed or not low:
        raise RuntimeError("a dead guard's gate or line stayed up for 10 s")
    return (closed - start) / 1e6, (low - start) / 1e6


# ---- weight ----


def memory(pid: int) -> tuple[float, float]:
    """VmRSS and PSS of a process, MiB."""
    rss = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    pss = next(line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    return int(rss.split()[1]) / 1024, int(pss.split()[1]) / 1024


def _bare() -> float:
    """VmRSS of an interpreter that imported nothing."""
    child = subprocess.Popen([sys.executable, "-I", "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.readline()
    rss = memory(child.pid)[0]
    end(child, signal.SIGKILL)
    return rss


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _weight(b: Bench) -> None:
    n = b.n("guard.rss_mib")
    with place("rss") as folder, Home(folder, duration_ms=RENEW_MS) as home:
        home.start_agent()
        assert home.agent
        wait_for(lambda: home.guard_pid() != 0, "a guard")
        with GuardClient.connect(home.run / "ctl.sock") as client:
            wait_for(lambda: client.status().renewals >= n, f"{n} renewals", seconds=30 + n, pause=0.05)
            pid = client.pid
        guard, agent = memory(pid), memory(home.agent.pid)
        for child in _children(pid):
            b.beside("guard.holder_pss_mib", memory(child)[1], "MiB", n=1)
        home.stop_agent()
    b.beside("process.bare_python_mib", _bare(), "MiB", n=1)
    b.beside("guard.pss_mib", guard[1], "MiB", n=1)
    b.beside("agent.pss_mib", agent[1], "MiB", n=1)
    b.put("guard.rss_mib", guard[0], n=n, limit=14)
    b.put("agent.rss_mib", agent[0], n=n, limit=60)


def _cold_start(b: Bench) -> None:
    samples = []
    with place("cold") as folder, Home(folder) as home:
        for _ in range(b.n("agent.cold_start_to_lease_s") + 1):  # the first fills the page cache
            start = now_ns()
            home.start_agent()
            gate = Gate(run_dir=home.run.parent)
            if not gate.wait(60):
                raise RuntimeError("no lease in 60 s")
            samples.append((now_ns() - start) / 1e9)
            gate.close()
            home.stop_agent()
    b.put("agent.cold_start_to_lease_s", median(samples[1:]), samples=samples[1:], limit=1.2, notes=[f"longest {at(samples[1:], 1):.2f} s"])


STEPS = ((KEYS[:2], _kill), (KEYS[2:4], _weight), (KEYS[4:], _cold_start))
