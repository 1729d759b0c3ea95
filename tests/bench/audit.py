# SPDX-License-Identifier: Apache-2.0
"""What the log costs: append, durability, verification."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import floors
from frame import ROUNDS, Bench, Pinned, at, interleave, median, subject
from frame import floors as c_floors
from places import place

from qsafp_embedded._core import OwnLog
from qsafp_embedded._tables import Event

KEYS = (
    "audit.append_ns",
    "audit.append_python_ns",
    "audit.durable_ratio",
    "audit.single_durable_ratio",
    "audit.verify_ns_per_record",
    "audit.verify_linear_ratio",
)
BURST = 512
RING = 1040 * 256


def file_system(path: Path) -> str:
    """Type of the file system that holds ``path``."""
    best = ("", "")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if (path == Path(where) or Path(where) in path.parents) and len(where) >= len(best[0]):
            best = (where, kind)
    return best[1]


def _on_disk(work: Callable[[Bench, Path], None]) -> Callable[[Bench], None]:
    """In a folder of its own; refused on a file system where durability costs nothing."""

    def step(b: Bench) -> None:
        with place("log") as folder:
            if file_system(folder) == "tmpfs":
                raise RuntimeError("the checkout lies on tmpfs, where durability costs nothing")
            work(b, folder)

    return step


def _new_log(folder: Path, name: str) -> ctypes.c_void_p:
    (folder / name).mkdir()
    log = subject().subject_log_open(ctypes.c_char_p(str(folder / name).encode()))
    if not log:
        raise RuntimeError("the log cannot be made")
    return ctypes.c_void_p(log)


def _append(b: Bench, folder: Path) -> None:
    lib, log = subject(), _new_log(folder, "append")  # its writer was started before this thread is pinned
    bursts = max(1, b.n("audit.append_ns") // ROUNDS // BURST)

    def round_() -> float:
        ns = []
        for _ in range(bursts):
            took = lib.subject_log_burst(log, BURST)
            if took < 0 or lib.subject_log_drain(log):
                raise RuntimeError("append failed")
            ns.append(took / BURST)
        return median(ns)

    with Pinned(0):
        p = interleave(round_, floors.four_blocks_ns)
    lib.subject_log_close(log)
    b.beside("audit.four_blocks_ns", median(p.floor), "ns", samples=p.floor)
    b.put_paired("audit.append_ns", p, n=bursts * BURST * ROUNDS, factor=1.3, notes=["one LOG_PRUNED record per 16 is part of it"])


def _append_python(b: Bench, folder: Path) -> None:
    (folder / "python").mkdir()
    log = OwnLog(folder / "python", create=True)
    bursts = max(1, b.n("audit.append_python_ns") // ROUNDS // BURST)
    _, module = c_floors()
    event = int(Event.INFERENCE_COMPLETED)
    burst = floors.unrolled("log.append(event)", "log", log, BURST // 100 * 100, event=event)
    noop = floors.unrolled("log.call()", "log", module.Noop(), 50_000)

    def round_() -> float:
        ns = []
        for _ in range(bursts):
            ns.append(burst())
            log.sync()
        return median(ns)

    with Pinned(0):
        p = interleave(round_, floors.four_blocks_ns)
        call = [noop() for _ in range(ROUNDS)]
    log.close()
    b.beside("audit.python_noop_call_ns", median(call), "ns", samples=call)
    b.beside("audit.four_blocks_ns", median(p.floor), "ns", samples=p.floor)
    n = bursts * (BURST // 100 * 100) * ROUNDS
    b.put_paired("audit.append_python_ns", p, n=n, factor=1.6)


def _durable(b: Bench, folder: Path) -> None:
    lib, (bare, _), seconds = subject(), c_floors(), b.n("audit.durable_ratio")
    log = _new_log(folder, "durable")
    export = os.open(folder / "export", os.O_RDWR | os.O_CREAT, 0o600)
    ring = os.open(folder / "ring", os.O_RDWR | os.O_CREAT, 0o600)
    os.posix_fallocate(ring, 0, 4 * 65536)
    turns = 5
    part = ctypes.c_uint64(seconds * 10**9 // turns)

    def again(fd: int) -> int:
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    pairs = []
    for _ in range(turns):
        floor = bare.floor_durable_rate(ring, again(export), part, ctypes.c_uint64(4 * 65536))
        pairs.append((lib.subject_log_rate(log, again(export), part), floor))
    lib.subject_log_close(log)
    for fd in (export, ring):
        os.close(fd)
    if min(min(p) for p in pairs) <= 0:
        raise RuntimeError(f"writing failed: {pairs}")
    ratios = [s / f for s, f in pairs]
    b.beside("audit.durable_floor_mb_s", median([f for _, f in pairs]) / 1e6, "MB/s", samples=[f / 1e6 for _, f in pairs])
    b.beside("audit.durable_mb_s", median([s for s, _ in pairs]) / 1e6, "MB/s", samples=[s / 1e6 for s, _ in pairs])
    b.put("audit.durable_ratio", median(ratios), samples=ratios, n=seconds, limit=0.6, above=True)


def _single(b: Bench, folder: Path) -> None:
    lib, (bare, _), n = subject(), c_floors(), b.n("audit.single_durable_ratio")
    log = _new_log(folder, "single")
    ring = os.open(folder / "single.ring", os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(ring, bytes(RING), 0)
    os.fsync(ring)
    mine, floor = [], []
    part = max(1, n // 10)
    out = (ctypes.c_uint64 * part)()
    for _ in range(10):
        if bare.floor_write_sync(ring, ctypes.c_uint64(part), 256, out):
            raise RuntimeError("writing failed")
        floor += [v / 1e3 for v in out]
        if lib.subject_log_single(log, ctypes.c_uint64(part), out):
            raise RuntimeError("append failed")
        mine += [v / 1e3 for v in out]
    lib.subject_log_close(log)
    os.close(ring)
    b.beside("audit.pwrite_fdatasync_us", median(floor), "us", samples=floor)
    b.beside("audit.single_durable_us", median(mine), "us", samples=mine)
    notes = [f"p99 ratio {at(mine, 0.99) / at(floor, 0.99):.2f}"]
    b.put("audit.single_durable_ratio", median(mine) / median(floor), n=n, limit=1.5, notes=notes)


def _verify(b: Bench, folder: Path) -> None:
    lib, n = subject(), b.n("audit.verify_ns_per_record")
    path = folder / "export.log"
    with path.open("w+b") as file:
        os.posix_fallocate(file.fileno(), 0, n * 256)
        with mmap.mmap(file.fileno(), n * 256) as mapped:
            records = ctypes.c_char.from_buffer(mapped)
            base = ctypes.c_void_p(ctypes.addressof(records))
            lib.subject_chain(base, ctypes.c_uint64(n))

            def per_record(count: int) -> float:
                took = lib.subject_verify_log(base, ctypes.c_uint64(count))
                if took < 0:
                    raise RuntimeError(f"the chain does not verify: {took}")
                return float(took / count)

            with Pinned(0):
                p = interleave(lambda: per_record(n), floors.four_blocks_ns)
                q = interleave(lambda: per_record(n), lambda: per_record(n // 10))
            del records
    b.beside("audit.four_blocks_ns", median(p.floor), "ns", samples=p.floor)
    b.put_paired("audit.verify_ns_per_record", p, n=n, factor=1.2)
    b.put("audit.verify_linear_ratio", q.ratio[0], n=n, limit=1.05, ratio=q.ratio)


STEPS = (
    (KEYS[0:1], _on_disk(_append)),
    (KEYS[1:2], _on_disk(_append_python)),
    (KEYS[2:3], _on_disk(_durable)),
    (KEYS[3:4], _on_disk(_single)),
    (KEYS[4:], _on_disk(_verify)),
)
