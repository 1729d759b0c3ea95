# SPDX-License-Identifier: Apache-2.0
"""Power is cut at every write of a guard's life: each state of the disk that a cut could leave is built and a real guard started on it.

A preloaded recorder writes down every write and sync of the state directory, and what the guard told its clients meanwhile.  At
a cut, what was synced is there; what was not may be there, be torn, or be missing although a later write is there.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from .. import cose
from .._core import audit_verify, cbor_loads, claims_decode, sha256, tree_leaf
from .._tables import Event, Phase, Reason
from ..client import CHUNK, STATUS, GuardClient, Status
from ..errors import QsafpError
from .device import tree_of
from .registry import Figures, scenario
from .shim import build
from .stage import Failed, Stage, check
from .votes import lease_of, payload_of, refused

__all__ = ["Disk", "Entry", "Told", "cuts", "holds", "power_cut"]

ENTRY = struct.Struct("<IIq24s")
WRITE, CUT, SYNC_BEGIN, SYNC_END, TELL = range(1, 6)
PARALLEL = 2


class Entry(NamedTuple):
    """One line of the recorder: kind, file, offset (or size, or number of a sync), bytes."""

    kind: int
    name: str
    off: int
    data: bytes


@dataclass(frozen=True)
class Told:
    """What clients had been told when the power went, and must still hold: the newest serial and boot, a latch that nothing may
    have released yet, size and root of the log that was signed for.  ``part`` is an envelope that is being read.
    """

    serial: int = 0
    boot: int = 0
    latched: bool = False
    releasing: bool = False
    size: int = 0
    root: bytes = b""
    part: bytes = b""

    def hear(self, answer: bytes) -> Told:
        """Take up one frame of the guard; only answers of a known shape say something."""
        if len(answer) < 7 or answer[0] != 0xA5 or answer[2]:
            return self
        payload = answer[5:-2]
        if not payload:  # a lease begins to arrive: it may release from here on
            return replace(self, latched=self.latched and not self.releasing)
        if len(payload) == 12:
            return replace(self, serial=max(self.serial, int.from_bytes(payload[4:], "little")), part=b"")
        if len(payload) == STATUS.size:
            status = Status(*STATUS.unpack(payload))
            return replace(self, boot=max(self.boot, status.boot), latched=status.phase == Phase.FAILSAFE and any(status.latch_hash))
        total = int.from_bytes(payload[:4], "little")
        piece = len(payload) == 4 + min(CHUNK, total - len(self.part))
        return self._read(total, self.part + payload[4:]) if piece else self

    def _read(self, total: int, part: bytes) -> Told:
        """One more piece of an envelope."""
        if len(part) < total:
            return replace(self, part=part)
        claims = claims_decode(cbor_loads(cose.parse_sign1(cbor_loads(part)[1]).payload)[1])
        return replace(self, size=claims["log_size"], root=claims["log_root"], releasing=claims["has_failsafe"], part=b"")


@dataclass
class Disk:
    """Files by name."""

    files: dict[str, bytearray] = field(default_factory=dict)

    def write(self, e: Entry, upto: int | None = None) -> None:
        """Apply a write or a cut; of a torn write only so many bytes."""
        file = self.files.setdefault(e.name, bytearray())
        if e.kind == CUT:
            del file[e.off :]
            return
        data = e.data if upto is None else e.data[:upto]
        file.extend(bytes(max(0, e.off + len(data) - len(file))))
        file[e.off : e.off + len(data)] = data

    def copy(self) -> Disk:
        """A copy to spoil."""
        return Disk({name: bytearray(file) for name, file in self.files.items()})

    def digest(self) -> bytes:
        """Names equal states."""
        return sha256(b"".join(sha256(name.encode()) + sha256(bytes(file)) for name, file in sorted(self.files.items())))


def _entries(path: Path) -> list[Entry]:
    raw, out, at = path.read_bytes(), [], 0
    while at < len(raw):
        kind, size, off, name = ENTRY.unpack_from(raw, at)
        at += ENTRY.size
        out.append(Entry(kind, name.rstrip(b"\0").decode(), off, raw[at : at + size]))
        at += size
    return out


def _durable(entries: list[Entry], k: int) -> list[int]:
    """Which writes were on the disk for sure when entry ``k`` was about to happen."""
    ended = {e.off for e in entries[:k] if e.kind == SYNC_END}
    last = {e.name: i for i, e in enumerate(entries[:k]) if e.kind == SYNC_BEGIN and e.off in ended}
    return [i for i, e in enumerate(entries[:k]) if e.kind in (WRITE, CUT) and i < last.get(e.name, -1)]


def _disk(base: Disk, entries: list[Entry], which: list[int]) -> Disk:
    disk = base.copy()
    for i in which:
        disk.write(entries[i])
    return disk


Job = tuple[str, Disk, Told]


def cuts(base: Disk, entries: list[Entry]) -> Iterator[Job]:
    """Every state of the disk that a cut could leave: whole, torn, unsynced writes lost, or lost but for the last."""
    told, everything = Told(), list[int]()
    for k, e in enumerate(entries):
        if e.kind == TELL:
            told = told.hear(e.data)
            yield f"after answer {k}", _disk(base, entries, _durable(entries, k)), told
        if e.kind not in (WRITE, CUT):
            continue
        where = f"entry {k}: {len(e.data)} bytes of {e.name} at {e.off}"
        sure = _disk(base, entries, _durable(entries, k))
        yield f"{where}, unsynced lost", sure.copy(), told
        for part in {1, len(e.data) // 2, len(e.data) - 1} if e.kind == WRITE and e.data else set():
            torn = _disk(base, entries, everything)
            torn.write(e, part)
            yield f"{where}, torn at {part}", torn, told
        sure.write(e)
        yield f"{where}, unsynced lost but this", sure, told
        everything.append(k)
        yield f"{where}, whole", _disk(base, entries, everything), told


def _renew(s: Stage, guard: GuardClient) -> None:
    payload, _ = payload_of(guard)
    check(refused(guard, lease_of(s, payload, (0, 1, 2, 3))) is None, "a good lease was refused")
    guard.status()


def _note(guard: GuardClient, count: int) -> None:
    for i in range(count):
        guard.log_event(Event.WORKLOAD_REPORT, data=i.to_bytes(4))


def _young(s: Stage) -> None:
    """A guard's life: leases, two seals, a fail-safe, its release."""
    with s.client() as guard:
        for _ in range(4):
            _renew(s, guard)
            _note(guard, 8)
        guard.failsafe(Reason.MANUAL)
        check(guard.status().phase == Phase.FAILSAFE, "no fail-safe")
        _renew(s, guard)
        _renew(s, guard)


def _full(s: Stage) -> None:
    """The same with a log that is full: the oldest records go, sector by sector."""
    with s.client() as guard:
        for _ in range(3):
            _note(guard, 16)
            _renew(s, guard)


def _recovered(s: Stage, where: Path, disk: Disk, told: Told) -> None:
    """Start a real guard on this disk; raises Failed unless everything that was told still holds."""
    shutil.rmtree(where, ignore_errors=True)
    state = where / "guard/state"
    shutil.copytree(s.root / "guard/state", state)
    for name, file in disk.files.items():
        (state / name).write_bytes(file)
    text = (s.root / "guard/guard.toml").read_text().replace("../set/", f"{s.root}/set/")
    (where / "guard/guard.toml").write_text(text)
    name = f"cut-{where.name}"
    child = s.module(name, "guard", "--config", str(where / "guard/guard.toml"))
    ctl = where / "run/main/ctl.sock"
    s.wait("the guard to recover", lambda: child.poll() is not None or s.served(ctl))
    check(child.poll() is None, f"the guard does not start: {s.words(name).strip()[-200:]}")
    with GuardClient.connect(ctl) as guard:
        holds(guard, told)
    child.kill()
    s.stop(name)


def holds(guard: GuardClient, told: Told) -> None:
    """Raise Failed unless a guard that just started holds what clients had been told."""
    now = guard.status()
    check(now.phase in (Phase.NONE, Phase.FAILSAFE), f"phase {now.phase_name} after a power cut")
    check(now.boot > told.boot, f"boot {now.boot} was used before")
    check(now.phase == Phase.FAILSAFE or not told.latched, "the latch is gone")
    records = list(guard.records())
    first = int.from_bytes(records[0][8:16], "little")
    check(first + len(records) >= told.size, f"{first + len(records)} records, and {told.size} were signed for")
    audit_verify(b"".join(records[1:]), records[0][208:240])
    if first == 0 and told.size:  # of a longer log the guard itself checked what it still holds
        check(tree_of([tree_leaf(r[208:240]) for r in records[: told.size]]).root() == told.root, "not the log that was signed for")
    serial = guard.begin()[1]
    check(serial > told.serial, f"serial {serial} is used twice")


def _tape(s: Stage, name: str, live: Callable[[Stage], None]) -> tuple[Disk, list[Entry]]:
    """Record one life of the guard; returns the disk before it and what happened.  The state is put back."""
    state, kept, tape = s.root / "guard/state", s.base / f"{name}.state", s.base / f"{name}.tape"
    shutil.copytree(state, kept)
    base = Disk({p.name: bytearray(p.read_bytes()) for p in state.iterdir()})
    shim = {"LD_PRELOAD": str(build("recorder", s.base)), "QSAFP_RECORD_TO": str(tape), "QSAFP_RECORD_DIR": str(state.resolve())}
    s.guard(environment=shim)
    live(s)
    s.stop("guard")
    shutil.rmtree(state)
    kept.rename(state)
    return base, _entries(tape)


def _different(base: Disk, entries: list[Entry]) -> list[Job]:
    """The cuts that leave different disks, or the same disk after different words."""
    found = {disk.digest() + repr(told).encode(): (what, disk, told) for what, disk, told in cuts(base, entries)}
    return list(found.values())


@scenario(duration_ms=20_000)
def power_cut(s: Stage) -> Figures:
    """Power is cut at every write: whatever the disk kept, a real guard starts closed, repeats no serial, loses no latch or record."""
    tapes = [_tape(s, "young", _young)]
    s.guard()
    with s.client() as guard:
        for _ in range(2):  # 1,040 slots, and no more than 1,008 records between two leases
            _note(guard, 505)
            _renew(s, guard)
    s.stop("guard")
    tapes.append(_tape(s, "full", _full))
    jobs = [job for base, entries in tapes for job in _different(base, entries)]
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(lambda n: _lane(s, n, jobs[n::PARALLEL]), range(PARALLEL)))
    kinds = [e.kind for _, entries in tapes for e in entries]
    return {"writes": kinds.count(WRITE), "syncs": kinds.count(SYNC_END), "answers": kinds.count(TELL), "cuts_recovered": len(jobs)}


def _lane(s: Stage, lane: int, jobs: list[Job]) -> None:
    """Recover one cut after the other; raises Failed that names the first cut that does not."""
    for what, disk, told in jobs:
        try:
            _recovered(s, s.base / f"lane-{lane}", disk, told)
        except QsafpError as why:
            raise Failed(f"power cut, {what}: {why}") from why
