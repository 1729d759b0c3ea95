# SPDX-License-Identifier: Apache-2.0
"""What all areas share: the goal table, results and their statistics, the compiled helpers."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
OUT = ROOT / "build" / "bench"
MODES = ("full", "default", "quick")
ROUNDS = 31
NOISY = 1.2  # a floor's round this far from the median is called noisy


@dataclass(frozen=True)
class Key:
    """One row of goals.toml."""

    name: str
    unit: str
    what: str
    n: tuple[int, int, int]
    goal: str
    floor: str = ""
    rounds: int = 0
    per_round: bool = False
    counts: str = ""


def goals() -> dict[str, Key]:
    """The checked-in goal table, in its order."""
    rows = tomllib.loads((HERE / "goals.toml").read_text())["key"]
    return {r["name"]: Key(**{**r, "n": tuple(r["n"])}) for r in rows}


def at(samples: Sequence[float], q: float) -> float:
    """The quantile of measured samples: one of them, never between two."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def median(samples: Sequence[float]) -> float:
    """The middle one of an odd number of rounds."""
    return at(samples, 0.5)


@dataclass
class Result:
    """One figure.  ``limit`` is the goal as a number, ``above`` says that it is a lower one."""

    key: str
    value: float
    unit: str
    n: int
    samples: list[float] = field(default_factory=list)
    floor_key: str | None = None
    limit: float | None = None
    above: bool = False
    ratio: tuple[float, float, float] | None = None
    floor: list[float] = field(default_factory=list)
    factor: float | None = None  # the goal where it is a multiple of the floor: the rounds' median ratio decides
    notes: list[str] = field(default_factory=list)

    @property
    def met(self) -> bool | None:
        """None where there is no goal."""
        if self.factor is not None and self.ratio:
            return self.ratio[0] <= self.factor
        if self.limit is None:
            return None
        return self.value >= self.limit if self.above else self.value <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """As build/bench.json holds it."""
        s = self.samples
        tail = {"p50": at(s, 0.5), "p99": at(s, 0.99), "p999": at(s, 0.999)} if s else {"p50": None, "p99": None, "p999": None}
        goal = {"floor_key": self.floor_key, "goal": self.limit, "met": self.met}
        out: dict[str, Any] = {"value": self.value, "unit": self.unit, **tail, "n": self.n, **goal}
        if self.floor:
            out["floor"] = median(self.floor)
        if self.ratio:
            out["ratio"] = dict(zip(("p50", "p5", "p95"), self.ratio, strict=True))
        return out | ({"notes": self.notes} if self.notes else {})


@dataclass(frozen=True)
class Paired:
    """Rounds of a subject and its floor, taken in turn."""

    subject: list[float]
    floor: list[float]

    @property
    def ratio(self) -> tuple[float, float, float]:
        """Median, p5 and p95 of the rounds' ratios."""
        r = [s / f for s, f in zip(self.subject, self.floor, strict=True)]
        return median(r), at(r, 0.05), at(r, 0.95)

    def notes(self) -> list[str]:
        """Names noisy rounds; they stay in."""
        mid = median(self.floor)
        bad = sum(not mid / NOISY <= f <= mid * NOISY for f in self.floor)
        return [f"{bad} of {len(self.floor)} rounds noisy"] if bad else []


class Bench:
    """Collects results; knows how often to measure."""

    def __init__(self, mode: str, keys: set[str]) -> None:
        self.mode, self.wanted = mode, keys
        self.table = goals()
        self.results: dict[str, Result] = {}
        self.problems: dict[str, str] = {}

    def wants(self, *names: str) -> bool:
        """True if one of these keys was asked for."""
        return bool(self.wanted & set(names))

    def n(self, name: str) -> int:
        """How often ``name`` is to be measured in this mode."""
        return self.table[name].n[MODES.index(self.mode)]

    def say(self, text: str) -> None:
        """Progress, on standard error."""
        print(f"  {text}", file=sys.stderr, flush=True)

    def put(self, name: str, value: float, *, samples: Sequence[float] = (), n: int = 0, **more: Any) -> Result:
        """Keep a figure of the goal table; more: limit or factor, above, ratio, floor (its samples), notes."""
        k = self.table[name]
        r = Result(name, value, k.unit, n or len(samples), list(samples), k.floor or None, **more)
        if r.factor is not None:
            r.limit = r.factor * median(r.floor)
        mine, full = k.n[MODES.index(self.mode)], k.n[0]
        if mine < full:
            what = k.counts or ("per round" if k.per_round else "samples")
            r.notes.insert(0, f"{self.mode}: {mine:,} of {full:,} {what}")
        self.results[name] = r
        return r

    def put_paired(self, name: str, p: Paired, *, n: int, **more: Any) -> Result:
        """Keep the rounds of a figure and its floor; more: factor or limit."""
        notes = p.notes() + more.pop("notes", [])
        return self.put(name, median(p.subject), samples=p.subject, n=n, ratio=p.ratio, floor=p.floor, notes=notes, **more)

    def beside(self, name: str, value: float, unit: str, *, samples: Sequence[float] = (), n: int = 0) -> Result:
        """Keep a floor, or a figure beside a key: it has no goal."""
        self.results[name] = Result(name, value, unit, n or len(samples), list(samples))
        return self.results[name]


def interleave(subject: Callable[[], float], floor: Callable[[], float], rounds: int = ROUNDS) -> Paired:
    """Run floor and subject in turn, once before the count starts."""
    floor(), subject()
    pairs = [(floor(), subject()) for _ in range(rounds)]
    return Paired([s for _, s in pairs], [f for f, _ in pairs])


class Pinned:
    """This thread on one core, as a context manager."""

    def __init__(self, core: int) -> None:
        self._core = core

    def __enter__(self) -> None:
        self._before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self._core})

    def __exit__(self, *exc: object) -> None:
        os.sched_setaffinity(0, self._before)


def other_core() -> int:
    """A core beside core 0; core 0 itself where there is only one."""
    return 1 if (os.cpu_count() or 1) > 1 else 0


# ---- compiled helpers ----

FLAGS = ["-O2", "-std=c11", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden", "-Wall", "-Wextra"]


def _build(target: Path, sources: list[Path], include: list[Path]) -> Path:
    newest = max(p.stat().st_mtime for p in [*sources, *(h for d in include for h in d.glob("*.h"))])
    if target.exists() and target.stat().st_mtime > newest:
        return target
    OUT.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(f".{os.getpid()}")
    words = ["cc", *FLAGS, *(f"-I{d}" for d in include), *map(str, sources), "-o", str(fresh), "-ldl"]
    subprocess.run(words, check=True, cwd=ROOT)
    fresh.replace(target)
    return target


def _typed(lib: ctypes.CDLL, table: dict[str, Any]) -> ctypes.CDLL:
    for name, kind in table.items():
        getattr(lib, name).restype = kind
    return lib


U64, I64, PTR, DBL, INT = ctypes.c_uint64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_double, ctypes.c_int


def subject() -> ctypes.CDLL:
    """The product linked with tests/bench/subject.c."""
    folders = [ROOT / "cext" / "include", ROOT / "cext" / "src", ROOT / "board_ports" / "linux"]
    sources = [p for d in (*folders[1:], ROOT / "board_ports" / "simulated") for p in sorted(d.glob("*.c"))]
    lib = ctypes.CDLL(str(_build(OUT / "libsubject.so", [*sources, HERE / "subject.c"], folders)))
    names: dict[str, Any] = dict.fromkeys(("gate_loop", "wait_closed", "wait_open", "deadline_ns", "hz", "serials", "pin"), U64)
    names |= {"map": PTR, "false_closes": None}
    names |= {"log_open": PTR, "log_close": None, "log_drain": INT, "log_burst": I64, "log_single": INT, "log_rate": DBL}
    names |= {"chain": None, "verify_log": I64, "core": PTR, "core_begin": INT, "core_put": I64, "trip": INT}
    return _typed(lib, {f"subject_{k}": v for k, v in names.items()})


def floors() -> tuple[ctypes.CDLL, Any]:
    """tests/bench/floors.c: its functions, and the Python module it makes."""
    path = _build(OUT / "bench_floors.so", [HERE / "floors.c"], [Path(sysconfig.get_paths()["include"])])
    spec = importlib.util.spec_from_file_location("bench_floors", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names: dict[str, Any] = dict.fromkeys(("boot_ns", "counter_loop", "ordered_loop", "wait_text"), U64)
    names |= dict.fromkeys(("write_sync", "timer_wake", "visibility"), INT)
    names |= {"durable_rate": DBL, "freeze": I64, "verify_ed25519": I64}
    return _typed(ctypes.CDLL(str(path)), {f"floor_{k}": v for k, v in names.items()}), module


def now_ns() -> int:
    """Boot time, the clock of leases."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def tick_hz(lib: ctypes.CDLL) -> float:
    """Counter ticks per second as the product measures them."""
    return float(lib.subject_hz())
