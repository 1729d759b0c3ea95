# SPDX-License-Identifier: Apache-2.0
"""Change the core in one place at a time and see whether a test notices.

``mutants.py [--sample N] [--seed S] [--full] [--only GLOB]``: each mutant is one operator, constant, condition, statement or return
of cext/src changed.  It is compiled without sanitizers, and the C tests that cover its file run until one fails; not ending counts
as failing.  A mutant that does not compile, or compiles to the same object, is no mutant.  Survivors are printed, with their reason
if tests/c/survivors.toml has one.  Exit 1 if fewer than 90 % were killed.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CC = ["gcc", "-std=c11", "-O1", "-w", "-I", str(ROOT / "cext/include"), "-I", str(ROOT / "cext/src")]
GOAL_PERCENT = 90
DEFAULT_SAMPLE = 900  # about ten minutes on two cores
MIN_CPU_S = 2
DEADLOCK_S = 120  # of wall clock, for a mutant that waits for itself
MEMORY_BYTES = 1 << 30

# The tests that cover a file, those that most often notice first.  Not on this machine: another architecture's SHA-256.
LEASE = ("test_lease_fault", "test_lease", "test_state", "test_quorum", "test_request", "test_frames", "test_gate", "test_race")
STATE = (*LEASE, "test_token", "test_api", "test_command", "test_vectors")
COVERED_BY: dict[str, tuple[str, ...]] = {
    "audit.c": ("test_log", *STATE, "test_audit"),
    "cbor.c": ("test_cbor", "test_set", *STATE),
    "cobs.c": ("test_frames", "test_command"),
    "ed25519_edge.c": ("test_ed25519_edge",),
    "keccak.c": ("test_mldsa65",),
    "mldsa65.c": ("test_mldsa65",),
    "record.c": ("test_log", *STATE, "test_audit"),
    "set.c": ("test_set", "test_quorum", "test_vectors"),
    "sha256.c": ("test_sha256",),
    "sha256_select.c": ("test_sha256",),
    "sha512.c": ("test_sha512",),
    "shape.c": ("test_cbor", "test_set", *STATE),
    "tree.c": ("test_tree", "test_log", *STATE),
    "verify.c": ("test_set", *STATE),
}
ELSEWHERE = {"sha256_armv8.c"}

SWAPS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "&&": "||", "||": "&&", "+": "-", "-": "+"}
OPERATOR = re.compile(r"(?<=\s)(<=|>=|==|!=|&&|\|\||<|>|\+|-)(?=\s)")
NUMBER = re.compile(r"(?<![\w.])(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)(?![\w.])")
CONDITION = re.compile(r"\b(?:if|while) \(")
RETURN = re.compile(r"\breturn ([^;]+);")
CALL = r"(?:\(void\))?[A-Za-z_*(][^=;{}]*\([^;]*\)"
ASSIGNMENT = r"[A-Za-z_*][\w.\->\[\]*+ ]*(?:[-+|&^]|<<|>>)?=(?!=)[^;{}]*"
STATEMENT = re.compile(rf"^\s*(?:if \(.*\) )?({CALL}|{ASSIGNMENT}|[\w.\->\[\]]+(?:\+\+|--));\s*$")
DECLARATION = re.compile(
    r"^\s*(?:static|const|extern|typedef|struct|enum|unsigned|bool|int|char|size_t|u?int\d+_t|qsafp_\w+_[tr]|qsafp_\w+|\w+_t)\s+\**\w+"
)
TABLE = re.compile(r"^[\s{}\dxXa-fA-FuUlL,-]*\d[\s{}\dxXa-fA-FuUlL,-]*,[\s{}\dxXa-fA-FuUlL,-]*$")
CODE_START = re.compile(r"^\s*(?:#|_Static_assert)")


@dataclass(frozen=True)
class Mutant:
    """One change: where, the line as it was, what was put in place of what."""

    file: str
    line: int
    column: int
    old: str
    new: str
    text: str

    @property
    def change(self) -> str:
        """`old -> new`, as printed and listed."""
        return f"{self.old} -> {self.new or 'nothing'}"

    def apply(self, source: str) -> str:
        """The source with the change made."""
        lines = source.splitlines(keepends=True)
        row = lines[self.line - 1]
        assert row[self.column :].startswith(self.old)
        lines[self.line - 1] = row[: self.column] + self.new + row[self.column + len(self.old) :]
        return "".join(lines)


def masked(source: str) -> list[str]:
    """The lines with comments, strings and characters blanked, so that columns stay."""
    blank = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", re.S)
    return blank.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), source).splitlines()


def closing(line: str, start: int) -> int:
    """Column of the parenthesis that closes the one at ``start``, or -1 if it is on another line."""
    depth = 0
    for i in range(start, len(line)):
        depth += {"(": 1, ")": -1}.get(line[i], 0)
        if depth == 0:
            return i
    return -1


def of_line(line: str) -> list[tuple[int, str, str]]:
    """The changes one masked line allows: column, old, new."""
    out = [(m.start(1), m[1], SWAPS[m[1]]) for m in OPERATOR.finditer(line)]
    for m in NUMBER.finditer(line):
        value = int(m[1], 0)
        out.append((m.start(), m[0], f"{value + 1}{m[2]}"))
        if value:
            out.append((m.start(), m[0], f"{value - 1}{m[2]}"))
    for m in CONDITION.finditer(line):
        start = m.end() - 1
        end = closing(line, start)
        if end > 0:
            out.append((start, line[start : end + 1], f"(!{line[start : end + 1]})"))
    for m in RETURN.finditer(line):
        if m[1] not in ("0", "false"):
            out.append((m.start(), m[0], "return 0;"))
        if m[1] in ("false", "0"):
            out.append((m.start(), m[0], "return 1;"))
    statement = STATEMENT.match(line)
    if statement and not DECLARATION.match(line) and not statement[1].startswith("return"):
        out.append((statement.start(1), statement[1], ""))
    return out


def mutants_of(path: Path) -> list[Mutant]:
    """Every mutant of one file; tables of constants and preprocessor lines are left alone."""
    source = path.read_text()
    lines = source.splitlines()
    found = []
    for i, line in enumerate(masked(source)):
        if not CODE_START.match(line) and not TABLE.match(line):
            found += [Mutant(path.name, i + 1, c, lines[i][c : c + len(old)], new, lines[i].strip()) for c, old, new in of_line(line)]
    return [m for m in found if m.old.strip()]


def limit(cpu_s: int) -> None:
    """In the child: a mutant may neither eat the machine nor turn for ever."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))


def ends_well(exe: Path, cpu_s: int) -> bool:
    """True if the program exits 0 within so much processor time (a busy machine kills nothing); whatever is left of it is killed."""
    quiet = subprocess.DEVNULL
    child = subprocess.Popen([exe], cwd=ROOT, stdout=quiet, stderr=quiet, start_new_session=True, preexec_fn=lambda: limit(cpu_s))
    try:
        return child.wait(DEADLOCK_S) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def children_s() -> float:
    """Processor seconds of the children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compiled(source: Path, obj: Path) -> bool:
    """True if it compiles.  Run beside the source, so that no path gets into the object."""
    cmd = [*CC, "-c", source.name, "-o", str(obj)]
    return subprocess.run(cmd, cwd=source.parent, capture_output=True, timeout=60, check=False).returncode == 0


class Bench:
    """The unchanged objects, the test objects, and how long each test takes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.core = {p.name: self._object(p) for p in sorted((ROOT / "cext/src").glob("*.c"))}
        named = {*STATE, *(t for tests in COVERED_BY.values() for t in tests)}
        self.tests = {p.stem: self._object(p) for p in sorted((ROOT / "tests/c").glob("test_*.c")) if p.stem in named}
        self.seconds: dict[str, float] = {}
        self.first: Counter[tuple[str, str]] = Counter()
        for name in self.tests:
            exe = self._link(name, list(self.core.values()), folder / f"{name}.base")
            before = children_s()
            if not ends_well(exe, DEADLOCK_S):
                raise SystemExit(f"{name} fails on the unchanged core")
            self.seconds[name] = children_s() - before

    def _object(self, source: Path) -> Path:
        obj = self.folder / f"{source.stem}.o"
        if not compiled(source, obj):
            raise SystemExit(f"{source.relative_to(ROOT)} does not compile")
        return obj

    def _link(self, test: str, core: list[Path], exe: Path) -> Path:
        subprocess.run(["gcc", "-pthread", self.tests[test], *core, "-o", exe], check=True, capture_output=True, timeout=60)
        return exe

    def covering(self, file: str) -> list[str]:
        """The tests for a file, those first that killed its mutants most often."""
        names = [t for t in COVERED_BY.get(file, STATE) if t in self.tests]
        return sorted(names, key=lambda t: -self.first[file, t])

    def verdict(self, m: Mutant) -> str:
        """`killed by …`, `survived`, or why it is no mutant."""
        with tempfile.TemporaryDirectory(dir=self.folder) as tmp:
            here = Path(tmp)
            source = here / m.file
            source.write_text(m.apply((ROOT / "cext/src" / m.file).read_text()))
            obj = here / "mutant.o"
            if not compiled(source, obj):
                return "does not compile"
            if obj.read_bytes() == self.core[m.file].read_bytes():
                return "same object"
            core = [obj if name == m.file else o for name, o in self.core.items()]
            for test in self.covering(m.file):
                try:
                    exe = self._link(test, core, here / test)
                except subprocess.CalledProcessError:
                    return "does not link"
                if not ends_well(exe, MIN_CPU_S + round(10 * self.seconds[test])):
                    self.first[m.file, test] += 1
                    return f"killed by {test}"
        return "survived"


class Reasons:
    """tests/c/survivors.toml: file (a glob), line and change (regular expressions, whole), and why such a survivor is harmless."""

    def __init__(self) -> None:
        path = ROOT / "tests/c/survivors.toml"
        listed = tomllib.loads(path.read_text())["survivor"] if path.exists() else []
        self._listed = [(str(s["file"]), re.compile(s["line"]), re.compile(s["change"]), str(s["why"])) for s in listed]

    def of(self, m: Mutant) -> str:
        """The reason for one survivor, or nothing."""
        for file, line, change, why in self._listed:
            if fnmatch.fnmatch(m.file, file) and line.fullmatch(m.text) and change.fullmatch(m.change):
                return why
        return ""


def chosen(args: argparse.Namespace) -> tuple[list[Mutant], int]:
    """The mutants to try, and how many there are."""
    files = [p for p in sorted((ROOT / "cext/src").glob("*.c")) if p.name not in ELSEWHERE and fnmatch.fnmatch(p.name, args.only)]
    every = [m for p in files for m in mutants_of(p)]
    if args.full or args.sample >= len(every):
        return every, len(every)
    return sorted(random.Random(args.seed).sample(every, args.sample), key=lambda m: (m.file, m.line, m.column)), len(every)


def show(tried: list[tuple[Mutant, str]]) -> int:
    """Print figures per file and every survivor; return 0 if the goal was met."""
    why, no_reason = Reasons(), "NO REASON LISTED"
    real = [(m, v) for m, v in tried if v == "survived" or v.startswith("killed")]
    alive = [m for m, v in real if v == "survived"]
    for m in alive:
        print(f"SURVIVED cext/src/{m.file}:{m.line}: {m.change}\n    {m.text}\n    {why.of(m) or no_reason}")
    total, dead = Counter(m.file for m, _ in real), Counter(m.file for m, v in real if v != "survived")
    for file in sorted(total):
        print(f"{file}: {dead[file]}/{total[file]} killed")
    unlisted = sum(not why.of(m) for m in alive)
    percent = 100 * (len(real) - len(alive)) / len(real) if real else 0.0
    print(f"{len(tried) - len(real)} more did not compile or changed nothing in the object")
    print(
        f"mutants: {len(real) - len(alive)}/{len(real)} killed ({percent:.1f} %), {len(alive)} survived, {unlisted} without a listed reason"
    )
    return 0 if real and percent >= GOAL_PERCENT else 1


def main() -> int:
    """Try the mutants, two at a time; 0 if enough were killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=DEFAULT_SAMPLE, help=f"how many mutants to try (default {DEFAULT_SAMPLE})")
    parser.add_argument("--seed", type=int, default=1, help="which sample (default 1)")
    parser.add_argument("--full", action="store_true", help="try all of them")
    parser.add_argument("--only", default="*", help="only files whose name matches")
    args = parser.parse_args()
    picked, every = chosen(args)
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build", prefix="mutants-") as folder:
        bench = Bench(Path(folder))
        part = "all" if len(picked) == every else f"a sample of {len(picked)} (seed {args.seed}) of"
        print(f"trying {part} {every} mutants, two at a time; {DEFAULT_SAMPLE} take about ten minutes on two idle cores", flush=True)
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            verdicts = list(pool.map(bench.verdict, picked))
        print(f"{time.monotonic() - began:.0f} s")
    return show(list(zip(picked, verdicts, strict=True)))


if __name__ == "__main__":
    sys.exit(main())
