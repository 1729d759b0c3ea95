# SPDX-License-Identifier: Apache-2.0
"""How fast a stop is: decision to gate, last denial to pin and to frozen workload, deadline to pin."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from frame import Bench, Pinned, at, now_ns, other_core, subject, tick_hz
from frame import floors as c_floors
from lease import Quorum
from places import Granted, Lab, address, busy, end, place, real_time

from qsafp_embedded._core import crc16
from qsafp_embedded._tables import Opcode
from qsafp_embedded.client import GuardClient

KEYS = (
    "failsafe.decision_to_gate_ns",
    "simulated.failsafe.denial_to_pin_us",
    "simulated.deadline_to_pin_us",
    "gate.deadline_error_us",
    "failsafe.denial_to_frozen_ms",
)
SHORT_MS = {"idle": 20, "busy": 80}  # a request lives half as long
LOADS = ("idle FIFO", "idle", "busy FIFO", "busy")


def _decision(b: Bench) -> None:
    lib, (bare, _), n = subject(), c_floors(), b.n("failsafe.decision_to_gate_ns")
    ns, out = 1e9 / tick_hz(lib), (ctypes.c_uint64 * n)()
    core, eye = Quorum("ed25519").core, other_core()
    with Pinned(0):
        if bare.floor_visibility(ctypes.c_uint64(n), eye, out):
            raise RuntimeError("no second thread")
        floor = [v * ns for v in out]
        if lib.subject_trip(core, ctypes.c_uint64(n), eye, out):
            raise RuntimeError("no trusted counter, or no second thread")
        mine = [v * ns for v in out]
    b.beside("failsafe.visibility_ns", at(floor, 0.5), "ns", samples=floor)
    b.put("failsafe.decision_to_gate_ns", at(mine, 0.99), samples=mine, limit=2000)


def _denials(b: Bench) -> None:
    _conditions(b, _denial_to_pin)


def _deadlines(b: Bench) -> None:
    _timer_floor(b)
    _conditions(b, _deadline)


def _conditions(b: Bench, run: Callable[[Bench, str, Path, bool], None]) -> None:
    """Idle and busy, with and without real-time rights; a case that cannot be had here is said to be missing."""
    for load in LOADS:
        fifo, spinning = load.endswith("FIFO"), load.startswith("busy")
        if fifo and not real_time():
            b.say(f"{load}: no right to SCHED_FIFO here")
            continue
        b.say(f"{run.__name__.strip('_')}: {load}")
        with place("fail") as folder, busy(2) if spinning else contextlib.nullcontext():
            run(b, load, folder, fifo)


def _keep(b: Bench, key: str, load: str, samples: list[float], limit: float | None) -> None:
    """The first case is the key's; the others stand beside it."""
    if load == LOADS[0]:
        b.put(key, at(samples, 0.999), samples=samples, limit=limit)
    else:
        name, _, unit = key.rpartition("_")
        b.beside(f"{name}_{unit}[{load}]", at(samples, 0.999), unit, samples=samples)


def frames(client: GuardClient, token: bytes) -> tuple[bytes, bytes]:
    """The frame that brings a short token, and the one that ends it: only then the guard looks at it."""
    out = []
    for tag, payload in ((0x71, struct.pack("<BII", 2, 0, len(token)) + token), (0x72, b"\3")):
        head = bytes((tag, Opcode.RENEW)) + len(payload).to_bytes(2, "little") + payload
        out.append(head + crc16(head).to_bytes(2, "little"))
    return out[0], out[1]


@contextlib.contextmanager
def urgent(allowed: bool) -> Iterator[None]:
    """Not interrupted between a stamp and what it stamps, where that is permitted."""
    if allowed:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    try:
        yield
    finally:
        if allowed:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Denier:
    """A second connection to the guard on which the last denial is put at a known instant."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._urgent = lab, real_time()
        self._wire = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._wire.connect(str(lab.run / "ctl.sock"))

    def deny(self, granted: Granted) -> int:
        """Put all denials of a lease; returns the boot time just before the last one became readable."""
        put, finish = frames(self._lab.client, self._lab.deny_but_one(granted))
        self._wire.send(put)
        self._wire.recv(2048)
        with urgent(self._urgent):
            start = now_ns()
            self._wire.send(finish)
        return start

    def answer(self) -> None:
        """Take the guard's answer to the last denial."""
        if self._wire.recv(2048)[2]:
            raise RuntimeError("the last denial did not count")

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()


def _denial_to_pin(b: Bench, load: str, folder: Path, fifo: bool) -> None:
    lib, samples = subject(), []
    with Lab(folder, fifo=fifo) as lab, lab.pins() as pins:
        board, denier = ctypes.c_void_p(address(pins)), Denier(lab)
        for _ in range(b.n("simulated.failsafe.denial_to_pin_us")):
            granted = lab.lease()
            if not lib.subject_pin(board, 1, ctypes.c_uint64(now_ns() + 10**10)):
                raise RuntimeError("LEASE_VALID never rose")
            start = denier.deny(granted)
            low = lib.subject_pin(board, 0, ctypes.c_uint64(start + 10**10))
            if not low:
                raise RuntimeError("LEASE_VALID stayed high")
            samples.append((low - start) / 1e3)
            denier.answer()
        denier.close()
    _keep(b, "simulated.failsafe.denial_to_pin_us", load, samples, 1000)


def _timer_floor(b: Bench) -> None:
    bare, _ = c_floors()
    out = (ctypes.c_uint64 * 500)()
    if bare.floor_timer_wake(ctypes.c_uint64(500), ctypes.c_uint64(2_000_000), out):
        raise RuntimeError("no timerfd")
    samples = [v / 1e3 for v in out]
    b.beside("failsafe.timerfd_wake_us", at(samples, 0.5), "us", samples=samples)


def _deadline(b: Bench, load: str, folder: Path, fifo: bool) -> None:
    lib, pin, gate = subject(), [], []
    with Lab(folder, duration_ms=SHORT_MS[load.split()[0]], grace_ms=3_600_000, fifo=fifo) as lab, lab.pins() as pins:
        board, page = ctypes.c_void_p(address(pins)), ctypes.c_void_p(lib.subject_map(lab.page_fd))
        while len(pin) < b.n("simulated.deadline_to_pin_us"):
            granted = lab.lease()
            if not lib.subject_pin(board, 1, ctypes.c_uint64(granted.end_ns)):
                continue  # the lease was over before its line was up
            closed = lib.subject_wait_closed(page, ctypes.c_uint64(granted.end_ns), ctypes.c_uint64(granted.end_ns + 10**10))
            low = lib.subject_pin(board, 0, ctypes.c_uint64(granted.end_ns + 10**10))
            if not closed or not low:
                raise RuntimeError("the gate or the line outlived the lease by 10 s")
            gate.append((closed - granted.end_ns) / 1e3)
            pin.append((low - granted.end_ns) / 1e3)
    _keep(b, "simulated.deadline_to_pin_us", load, pin, 1000)
    _keep(b, "gate.deadline_error_us", load, sorted(gate, key=abs), None)
    name = "gate.deadline_error_us" if load == LOADS[0] else f"gate.deadline_error_us[{load}]"
    b.results[name].notes.append(f"earliest {min(gate):.1f} us, latest {max(gate):.1f} us")


# ---- frozen ----


def cgroup_mount() -> Path | None:
    """Where control groups of version 2 are mounted and may be made; None if nowhere."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(where, os.W_OK):
            return Path(where)
    return None


@contextlib.contextmanager
def group(folder: Path) -> Iterator[Path]:
    """A new control group with a busy process in it."""
    folder.mkdir()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"], stdin=subprocess.DEVNULL)
    try:
        (folder / "cgroup.procs").write_text(str(child.pid))
        os.sched_setaffinity(child.pid, {other_core()})
        yield folder
    finally:
        (folder / "cgroup.freeze").write_text("0")
        end(child, signal.SIGKILL)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _frozen(b: Bench) -> None:
    mount, n = cgroup_mount(), b.n("failsafe.denial_to_frozen_ms")
    if mount is None:
        raise RuntimeError("no control group may be made here")
    with group(mount / f"qsafp-bench-{secrets.token_hex(4)}") as g, place("froz") as folder, Lab(folder) as lab:
        freeze = os.open(g / "cgroup.freeze", os.O_RDWR)
        events = os.open(g / "cgroup.events", os.O_RDONLY)
        floor = _bare_freeze(freeze, events, n)
        mine = _held(lab, g, (freeze, events), n)
        os.close(freeze)
        os.close(events)
    b.beside("failsafe.bare_freeze_ms", at(floor, 0.99), "ms", samples=floor)
    b.put("failsafe.denial_to_frozen_ms", at(mine, 0.99), samples=mine, limit=at(floor, 0.99) + 2)


def _bare_freeze(freeze: int, events: int, n: int) -> list[float]:
    bare, _ = c_floors()
    out = []
    for _ in range(n):
        took = bare.floor_freeze(freeze, events)
        if took < 0:
            raise RuntimeError("the kernel does not freeze")
        out.append(took / 1e6)
        os.pwrite(freeze, b"0", 0)
        _until(events, b"frozen 0")
    return out


def _until(events: int, text: bytes) -> int:
    """Boot time at which the kernel reports it; asleep in between, so that the guard has the core (its events come 10 ms apart)."""
    bare, _ = c_floors()
    seen = int(bare.floor_wait_text(events, ctypes.c_char_p(text), ctypes.c_uint64(now_ns() + 10**10)))
    if not seen:
        raise RuntimeError(f"waited 10 s for {text.decode()}")
    return seen


def _held(lab: Lab, g: Path, fds: tuple[int, int], n: int) -> list[float]:
    """A registered workload, denied n times."""
    out = []
    pid = int((g / "cgroup.procs").read_text().split()[0])
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    wire.connect(str(lab.run / "ctl.sock"))
    payload = b"\0\0bench"
    head = bytes((1, Opcode.WORKLOAD)) + len(payload).to_bytes(2, "little") + payload
    kill = os.open(g / "cgroup.kill", os.O_WRONLY)
    pidfd = os.pidfd_open(pid)
    socket.send_fds(wire, [head + crc16(head).to_bytes(2, "little")], [pidfd, fds[0], kill, fds[1]])
    if wire.recv(2048)[2]:
        raise RuntimeError("the workload was not registered")
    denier = Denier(lab)
    for _ in range(n):
        granted = lab.lease()
        _until(fds[1], b"frozen 0")
        start = denier.deny(granted)
        out.append((_until(fds[1], b"frozen 1") - start) / 1e6)
        denier.answer()
    lab.lease()
    _until(fds[1], b"frozen 0")
    denier.close()
    wire.close()
    os.close(kill)
    os.close(pidfd)
    return out


STEPS = ((KEYS[0:1], _decision), (KEYS[1:2], _denials), (KEYS[2:4], _deadlines), (KEYS[4:], _frozen))
