# SPDX-License-Identifier: Apache-2.0
"""What a check costs, and whether an open gate is ever seen closed."""

from __future__ import annotations

import ctypes

import floors
from frame import Bench, Pinned, interleave, median, now_ns, subject
from frame import floors as c_floors
from places import MODEL, Lab, busy, place

from qsafp_embedded import Gate

KEYS = ("gate.c_check_ns", "gate.python_bool_ns", "gate.require_ns", "gate.false_closes")


def _checks(b: Bench) -> None:
    with place("gate") as folder, Lab(folder) as lab:
        lab.lease()
        with Pinned(0):
            _c_check(b, lab)
            _python(b, lab)


def _c_check(b: Bench, lab: Lab) -> None:
    lib, (bare, _), n = subject(), c_floors(), b.n("gate.c_check_ns")
    page, closed = ctypes.c_void_p(lib.subject_map(lab.page_fd)), ctypes.c_uint64()

    def loop() -> float:
        return float(lib.subject_gate_loop(page, ctypes.c_uint64(n), ctypes.byref(closed)) / n)

    ordered = [bare.floor_ordered_loop(ctypes.c_uint64(n)) / n for _ in range(5)]
    p = interleave(loop, lambda: bare.floor_counter_loop(ctypes.c_uint64(n)) / n)
    if closed.value:
        raise RuntimeError(f"the gate was closed {closed.value} times: nothing was measured")
    b.beside("gate.counter_read_ns", median(p.floor), "ns", samples=p.floor, n=n * len(p.floor))
    b.beside("gate.ordered_counter_read_ns", median(ordered), "ns", samples=ordered, n=n * len(ordered))
    b.put_paired("gate.c_check_ns", p, n=n * len(p.subject), factor=1.3)


def _python(b: Bench, lab: Lab) -> None:
    bare, module = c_floors()
    gate = Gate(run_dir=lab.root / "run", model=MODEL)
    gate.require()
    n = b.n("gate.python_bool_ns")
    noop = floors.unrolled("if g: pass", "g", module.Noop(), n)
    boolean = floors.unrolled("if g: pass", "g", gate, n)
    require = floors.unrolled("g.require()", "g", gate, b.n("gate.require_ns"))
    p = interleave(boolean, noop)
    counter = median([bare.floor_counter_loop(ctypes.c_uint64(n)) / n for _ in range(31)])
    b.beside("gate.python_noop_ns", median(p.floor), "ns", samples=p.floor, n=n * len(p.floor))
    limit = 1.3 * counter + 1.5 * median(p.floor)
    b.put_paired("gate.python_bool_ns", p, n=n * len(p.subject), limit=limit)
    q = interleave(require, boolean)
    b.put_paired("gate.require_ns", q, n=n * len(q.subject), factor=1.6)
    gate.close()


def _false_closes(b: Bench) -> None:
    lib, seconds, out = subject(), b.n("gate.false_closes"), (ctypes.c_uint64 * 4)()
    with place("false") as folder, Lab(folder, fifo=False) as lab:
        lab.lease()
        page = ctypes.c_void_p(lib.subject_map(lab.page_fd))
        with busy(2, folder):
            b.say(f"gate.false_closes: {seconds} s of load")
            lib.subject_false_closes(page, ctypes.c_uint64(now_ns() + seconds * 10**9), out)
    notes = [f"{out[0]:,} checks in {seconds} s, {out[1]} first looks failed, longest pause between two {out[3] / 1e6:.1f} ms"]
    b.put("gate.false_closes", out[2], n=seconds, limit=0, notes=notes)


STEPS = ((KEYS[:3], _checks), (KEYS[3:], _false_closes))
