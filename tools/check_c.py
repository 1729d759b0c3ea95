# SPDX-License-Identifier: Apache-2.0
"""Check the C core: ``test`` runs tests/c under the sanitizers, ``cross`` compiles cext/src for every target and holds its budgets,
``fuzz [--seconds N]`` runs tests/fuzz/fuzz_*.c for N seconds in all, or until stopped.

A test is a program that prints ``name: N passed, M failed`` and exits non-zero on failure.  A compiler that is not
installed is a skip, counted and named; nothing else is skipped.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import stack_c

ROOT = Path(__file__).resolve().parent.parent
WARN = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wmissing-prototypes", "-Wundef", "-Werror"]
INCLUDE = ["-Icext/include", "-Icext/src", "-Icext/monitor", "-Icext/monitor/boot", "-Iboard_ports/hifive_unleashed"]
CRYPTO = ("sha256*", "sha512*", "mldsa*", "keccak*", "ed25519*")
BUDGET_BYTES = 14 * 1024  # core without crypto, text at -Os: the goal
# What is allowed: the goal where it is met; ARMv6-M, which has shorter reach, is over it.  Only ever lowered.
RATCHET_BYTES = {"armv7-a": BUDGET_BYTES, "cortex-m0plus": 14799}
RESULT = re.compile(r"^(?P<name>\S+): (?P<passed>\d+) passed, (?P<failed>\d+) failed$", re.M)
LOADER_CALLS = "sha256_select"  # runs before any sanitizer does
FUZZ_PASS_S = 1800  # of `fuzz` without an end: how long one pass over the targets lasts
TIMEOUT_S = 300
SHOWN_LINES = 30


@dataclass(frozen=True)
class Target:
    """One architecture: its compiler with flags, and the name prefix of its binutils."""

    name: str
    cc: tuple[str, ...]
    tools: str
    thumb: bool = False


TARGETS = (
    Target("cortex-m0plus", ("arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb"), "arm-none-eabi-", thumb=True),
    Target("armv7-a", ("arm-none-eabi-gcc", "-march=armv7-a", "-mthumb", "-mfloat-abi=soft"), "arm-none-eabi-", thumb=True),
    Target("aarch64", ("aarch64-linux-gnu-gcc", "-mno-outline-atomics", "-fno-pic"), "aarch64-linux-gnu-"),
    Target("rv64imac", ("riscv64-linux-gnu-gcc", "-march=rv64imac", "-mabi=lp64", "-mcmodel=medany"), "riscv64-linux-gnu-"),
    Target("x86-64", ("gcc", "-m64", "-fno-pic", "-no-pie"), ""),
    Target("x86-64 clang", ("clang-14", "--target=x86_64-linux-gnu", "-fno-pic"), ""),
)


class CheckFailedError(Exception):
    """A compiler, a test or a budget said no; the message is what it said."""


def run(cmd: Iterable[str | Path], *, env: dict[str, str] | None = None) -> str:
    """Run and return what was printed; raise CheckFailedError with that text on a non-zero exit or after TIMEOUT_S seconds."""
    argv = [str(c) for c in cmd]
    try:
        done = subprocess.run(argv, cwd=ROOT, text=True, errors="replace", capture_output=True, timeout=TIMEOUT_S, env=env)
    except subprocess.TimeoutExpired as late:
        raise CheckFailedError(f"{' '.join(argv)}\nno end within {TIMEOUT_S} s") from late
    if done.returncode:
        raise CheckFailedError(f"{' '.join(argv)}\n{done.stdout}{done.stderr}exit {done.returncode}")
    return done.stdout


def sources() -> list[Path]:
    """The core's C files, relative to the root."""
    found = sorted(p.relative_to(ROOT) for p in (ROOT / "cext/src").glob("*.c"))
    if not found:
        raise CheckFailedError("cext/src holds no C file")
    return found


def newest_header() -> float:
    """Modification time of the youngest file that tests include, of this one too: an older object is rebuilt."""
    patterns = ("cext/**/*.h", "cext/monitor/**/*.c", "board_ports/*/*.[ch]", "tests/*/*.h", "tools/freestanding/*.h")
    headers = [*(f for p in patterns for f in ROOT.glob(p)), Path(__file__)]
    return max(h.stat().st_mtime for h in headers)


def compile_to(cc: Iterable[str], src: Path, obj: Path, headers: float) -> Path:
    """Compile one file unless the object is younger than all it came from."""
    if not obj.exists() or obj.stat().st_mtime <= max((ROOT / src).stat().st_mtime, headers):
        obj.parent.mkdir(parents=True, exist_ok=True)
        run([*cc, *WARN, *INCLUDE, "-c", src, "-o", obj])
    return obj


@dataclass(frozen=True)
class Build:
    """One way to compile the core and its test programs for this machine."""

    folder: str
    cc: tuple[str, ...]
    says: str
    plain: tuple[str, ...] = ()  # for LOADER_CALLS; empty: as all others

    def compile(self, src: Path, headers: float) -> Path:
        """The object of one source, made unless it is younger than all it came from."""
        cc = self.plain if self.plain and src.stem == LOADER_CALLS else self.cc
        return compile_to(cc, src, ROOT / "build/c" / self.folder / f"{src.stem}.o", headers)


ASAN = Build(
    "asan", ("gcc", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"), "ASan, UBSan"
)
TSAN = Build("tsan", ("gcc", "-g", "-O1", "-fsanitize=thread", "-Wno-tsan"), "TSan", ("gcc", "-O2"))
FUZZ = Build(
    "fuzz",
    ("clang-14", "-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"),
    "ASan, UBSan",
    ("clang-14", "-O2"),
)


class Outcome(NamedTuple):
    """What one job gave: a value, or the text of its failure."""

    name: str
    value: object
    error: str


def two_at_a_time(jobs: dict[str, Callable[[], object]]) -> list[Outcome]:
    """Run the jobs, two at once, keeping their order; a failure stops none of the others."""

    def one(item: tuple[str, Callable[[], object]]) -> Outcome:
        try:
            return Outcome(item[0], item[1](), "")
        except CheckFailedError as no:
            return Outcome(item[0], None, str(no))

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, jobs.items()))


def report(outcomes: list[Outcome]) -> int:
    """Print the failures; return how many."""
    bad = [o for o in outcomes if o.error]
    for o in bad:
        lines = o.error.splitlines()
        left = [f"({len(lines) - SHOWN_LINES} lines left out)"] if len(lines) > SHOWN_LINES else []
        print("\n".join([f"FAIL {o.name}", *left, *lines[-SHOWN_LINES:]]))
    return len(bad)


def objects_of(build: Build, headers: float) -> list[Path]:
    """The core compiled once for all programs of one kind."""
    jobs: dict[str, Callable[[], object]] = {str(src): partial(build.compile, src, headers) for src in sources()}
    outcomes = two_at_a_time(jobs)
    if report(outcomes):
        raise CheckFailedError("the core does not compile")
    return [o.value for o in outcomes if isinstance(o.value, Path)]


def run_test(src: Path, build: Build, core: list[Path], headers: float) -> tuple[int, str]:
    """Build and run one test program; return how many checks passed, and its line."""
    obj = build.compile(src, headers)
    exe = obj.with_suffix("")
    run([*build.cc, "-pthread", obj, *core, "-o", exe])
    out = run([exe], env={**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"})
    lines = list(RESULT.finditer(out))
    if len(lines) != 1 or lines[0]["failed"] != "0" or lines[0]["passed"] == "0" or lines[0]["name"] != src.stem:
        raise CheckFailedError(f"{out}wanted one line `{src.stem}: N passed, 0 failed` with N > 0")
    return int(lines[0]["passed"]), f"{lines[0][0]} ({build.says})"


def test() -> int:
    """Run every tests/c/test_*.c, those with threads under ThreadSanitizer too; return the number of failed programs."""
    headers = newest_header()
    tests = sorted(p.relative_to(ROOT) for p in (ROOT / "tests/c").glob("test_*.c"))
    if not tests:
        raise CheckFailedError("tests/c holds no test_*.c")
    todo = [(t, ASAN) for t in tests] + [(t, TSAN) for t in tests if "pthread.h" in (ROOT / t).read_text()]
    core = {build.folder: objects_of(build, headers) for build in (ASAN, TSAN)}
    jobs: dict[str, Callable[[], object]] = {f"{t} {b.says}": partial(run_test, t, b, core[b.folder], headers) for t, b in todo}
    outcomes = two_at_a_time(jobs)
    bad = report(outcomes)
    good = [o.value for o in outcomes if isinstance(o.value, tuple)]
    for _, line in good:
        print(line)
    print(f"C tests: {len(good)} programs passed, {bad} failed; {sum(n for n, _ in good)} checks passed")
    return bad


def no_fuzzer() -> str:
    """Why this machine cannot fuzz, or nothing."""
    if not shutil.which("clang-14"):
        return "clang-14 is not installed"
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.c"
        probe.write_text(
            "int LLVMFuzzerTestOneInput(const char *p, long n);\nint LLVMFuzzerTestOneInput(const char *p, long n) { return p && n < 0; }\n"
        )
        try:
            run([*FUZZ.cc, probe, "-o", probe.with_suffix("")])
        except CheckFailedError:
            return "clang-14 has no libFuzzer"
    return ""


def fuzz_target(src: Path, core: list[Path], headers: float, seconds: int) -> str:
    """Fuzz one target from its seeds, the corpus of earlier runs and tests/fuzz/found/; return its figures."""
    folder = ROOT / "build/fuzz" / src.stem
    shutil.rmtree(folder / "seeds", ignore_errors=True)
    for sub in ("seeds", "corpus"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    exe = folder / "run"
    run([*FUZZ.cc, FUZZ.compile(src, headers), *core, "-o", exe])
    run([exe, "--seeds", folder / "seeds"])
    found = ROOT / "tests/fuzz/found" / src.stem
    cmd = [exe, folder / "corpus", folder / "seeds", *([found] if found.is_dir() else []), f"-max_total_time={seconds}", "-timeout=20"]
    cmd += ["-rss_limit_mb=1024", "-max_len=4096", f"-artifact_prefix={folder}/", "-print_final_stats=1"]
    done = subprocess.run([str(c) for c in cmd], cwd=ROOT, text=True, errors="replace", capture_output=True, timeout=seconds + 120)
    out = done.stderr
    if done.returncode:
        said = "\n".join(re.findall(r"^(?:PROPERTY .*|.*runtime error: .*|SUMMARY: .*)$", out, re.M))
        file = re.search(r"Test unit written to (\S+)", out)
        raise CheckFailedError(
            f"{out}\n{said}\ninput: {file[1] if file else 'none'}\nagain: {exe.relative_to(ROOT)} FILE; exit {done.returncode}"
        )
    cov = re.findall(r"cov: (\d+)", out)
    execs = re.search(r"number_of_executed_units: (\d+)", out)
    rate = re.search(r"average_exec_per_sec:\s+(\d+)", out)
    if not (cov and execs and rate) or not int(execs[1]):
        raise CheckFailedError(f"{out}\nno figures")
    return f"{src.stem}: {execs[1]} inputs, {rate[1]} a second, {cov[-1]} coverage edges"


def fuzz_pass(targets: list[Path], seconds: int) -> int:
    """All targets for ``seconds`` together, two at once; return the number that failed."""
    headers = newest_header()
    core = objects_of(FUZZ, headers)
    share = max(1, seconds // ((len(targets) + 1) // 2))
    outcomes = two_at_a_time({t.stem: partial(fuzz_target, t, core, headers, share) for t in targets})
    bad = report(outcomes)
    for o in outcomes:
        if not o.error:
            print(o.value)
    print(f"fuzzing: {len(targets) - bad} targets passed, {bad} failed; {share} s each (ASan, UBSan)", flush=True)
    return bad


def fuzz(seconds: int = 0) -> int:
    """Fuzz for ``seconds`` in all, or (0) until something fails or somebody stops it; return the number of failed targets."""
    why = no_fuzzer()
    if why:
        print(f"SKIP fuzzing: {why}\nfuzzing: 0 targets passed, 0 failed, 1 skipped")
        return 0
    targets = sorted(p.relative_to(ROOT) for p in (ROOT / "tests/fuzz").glob("fuzz_*.c"))
    if not targets:
        raise CheckFailedError("tests/fuzz holds no fuzz_*.c")
    bad = fuzz_pass(targets, seconds or FUZZ_PASS_S)
    while not seconds and not bad:
        bad = fuzz_pass(targets, FUZZ_PASS_S)
    return bad


def section_sizes(target: Target, objects: list[Path]) -> tuple[int, int, int]:
    """Bytes of text (read-only data included), data and bss of some objects together."""
    rows = [line.split() for line in run([target.tools + "size", *objects]).splitlines()[1:]]
    text, data, bss = (sum(int(r[i]) for r in rows) for i in range(3))
    return text, data, bss


def foreign_symbols(target: Target, objects: list[Path], folder: Path) -> list[str]:
    """What the core asks of its host beyond mem* and the compiler's own arithmetic."""
    whole = folder / "whole.o"
    run([*target.cc, "-nostdlib", "-r", *objects, "-lgcc", "-o", whole])
    names = {line.split()[-1] for line in run([target.tools + "nm", "-u", whole]).splitlines() if line.strip()}
    return sorted(n for n in names if not re.fullmatch(r"mem(cpy|move|set|cmp)", n))


def check_budgets(target: Target, cc: list[str], objects: list[Path], core_text: int) -> list[str]:
    """Hold size, stack and RAM on Thumb; return the lines to print."""
    allowed, over = RATCHET_BYTES[target.name], core_text - BUDGET_BYTES
    size = f"  text without crypto {core_text} B, goal {BUDGET_BYTES} B: {f'over by {over}' if over > 0 else 'met'}"
    if core_text > allowed:
        raise CheckFailedError(f"{size}\nmore than the {allowed} B it had")
    probe = objects[0].parent / "ram.c"
    probe.write_text(stack_c.ram_source())
    run([*cc, *INCLUDE, "-c", probe, "-o", probe.with_suffix(".o")])
    graph = stack_c.read_graph(objects, [run([target.tools + "objdump", "-d", "--no-show-raw-insn", o]) for o in objects])
    try:
        stack, service = stack_c.check_stack(graph)
        ram = stack_c.check_ram(run([target.tools + "nm", "-S", "-t", "d", probe.with_suffix(".o")]), service)
    except stack_c.StackError as no:
        raise CheckFailedError(f"{size}\n{no}") from no
    return [size, f"  {stack}", f"  {ram}"]


def check_target(target: Target, headers: float) -> str:
    """Compile the core for one target and hold it to its promises; return the line to print."""
    folder = ROOT / "build/c" / target.name.replace(" ", "-")
    cc = [*target.cc, "-Os", "-ffreestanding", "-isystem", "tools/freestanding", *(["-fstack-usage"] if target.thumb else [])]
    objects = [compile_to(cc, src, folder / f"{src.stem}.o", headers) for src in sources()]
    text, data, bss = section_sizes(target, objects)
    plain = [o for o in objects if not any(fnmatch.fnmatch(o.name, pattern) for pattern in CRYPTO)]
    core_text = section_sizes(target, plain)[0]
    line = f"{target.name}: text {text} B, without crypto {core_text} B, data {data}, bss {bss}"
    if data or bss:
        raise CheckFailedError(f"{line}\nthe core holds no writable globals")
    foreign = foreign_symbols(target, objects, folder)
    if foreign:
        raise CheckFailedError(f"{line}\nundefined beyond mem*: {', '.join(foreign)}")
    return "\n".join([line, *(check_budgets(target, cc, objects, core_text) if target.thumb else [])])


def cross() -> int:
    """Check every target whose compiler is installed; return the number that failed."""
    headers = newest_header()
    absent = [t for t in TARGETS if not shutil.which(t.cc[0])]
    outcomes = two_at_a_time({t.name: partial(check_target, t, headers) for t in TARGETS if t not in absent})
    bad = report(outcomes)
    for o in outcomes:
        if not o.error:
            print(o.value)
    for t in absent:
        print(f"SKIP {t.name}: {t.cc[0]} is not installed")
    print(f"cross checks: {len(outcomes) - bad} passed, {bad} failed, {len(absent)} skipped")
    return bad


def main(argv: list[str]) -> int:
    """Run the named check; 0 only if all of it held."""
    checks: dict[str, Callable[[], int]] = {"test": test, "cross": cross, "fuzz": fuzz}
    if len(argv) == 3 and argv[:2] == ["fuzz", "--seconds"] and argv[2].isdecimal():
        seconds = int(argv[2])
        checks["fuzz"] = lambda: fuzz(seconds)
        argv = argv[:1]
    if len(argv) != 1 or argv[0] not in checks:
        print("usage: check_c.py test | cross | fuzz [--seconds N]", file=sys.stderr)
        return 2
    try:
        return 1 if checks[argv[0]]() else 0
    except CheckFailedError as no:
        print(f"FAIL {no}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
