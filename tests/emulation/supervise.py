# SPDX-License-Identifier: Apache-2.0
"""Run the checks of several boards, each in a pytest of its own, some at a time: progress, JUnit, a table, a clean end on Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from machine import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
RUNNING: list[subprocess.Popen[bytes]] = []
TOLD = re.compile(r"^(\S+)::(\S+) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS).*\[ *(\d+)/(\d+)\]")
WHY_MAX = 300
QUIET_S = 2.0  # a check that passed is told if nothing was for so long


@dataclass(frozen=True)
class Outcome:
    """What became of a board: checks that passed, failed and were skipped, seconds for image and checks, one line for people."""

    name: str
    state: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    image_s: float = 0.0
    checks_s: float = 0.0
    text: str = ""

    @property
    def good(self) -> bool:
        """True if it ran and nothing failed or was left out, if it was left out on the user's word, or if a quick run skipped it."""
        return self.state in ("passed", "left out", "skipped")


def say(board: str, text: str) -> None:
    """One line of progress."""
    print(f"{time.strftime('%H:%M:%S')}  {board:<20} {text}", flush=True)


def write_failure(xml: Path, kind: str, text: str) -> None:
    """A JUnit file for a board whose checks never started."""
    suite = ET.Element("testsuite", name=xml.stem, tests="1", failures="0", errors="1", skipped="0")
    ET.SubElement(ET.SubElement(suite, "testcase", classname=xml.stem, name=kind), "error", message=text.splitlines()[0]).text = text
    ET.ElementTree(suite).write(xml, encoding="unicode")


def why(case: ET.Element) -> str:
    """What a case that did not pass says of itself, in one line."""
    said = next((found.get("message", "") for found in case if found.tag in ("failure", "error", "skipped")), "")
    return f": {' '.join(said.split())[:WHY_MAX]}" if said else ""


def counts(xml: Path) -> tuple[int, int, int, list[str]]:
    """Passed, failed and skipped checks of a JUnit file, and what did not pass: its name, and why in one line."""
    cases = list(ET.parse(xml).iter("testcase"))
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = [c for c in cases if c.find("skipped") is not None]
    names = [f"{c.get('classname', '').rpartition('.')[2]}::{c.get('name')}{why(c)}" for c in failed + skipped]
    return len(cases) - len(failed) - len(skipped), len(failed), len(skipped), names


class Teller:
    """Tells what pytest says of its checks: all that did not pass, and enough of the rest to see it move."""

    def __init__(self, board: str) -> None:
        self._board, self._last = board, time.monotonic()

    def __call__(self, line: str) -> None:
        """Take one line of pytest's."""
        found = TOLD.match(line)
        quiet = time.monotonic() - self._last < QUIET_S
        if found and (found[3] != "PASSED" or not quiet):
            say(self._board, f"{found[4]}/{found[5]}  {found[3].lower():<8}{Path(found[1]).stem}::{found[2]}")
            self._last = time.monotonic()


def end(child: subprocess.Popen[bytes]) -> None:
    """Interrupt the checks, so that they clean up; kill them if they do not."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(timeout=60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def start(board: str, out: Path, files: Sequence[Path | str], paths: str) -> subprocess.Popen[bytes]:
    """Start the checks."""
    # Whoever is killed, all below it ends: pytest is interrupted and cleans up, QEMU and the validators die with their parent.
    words = [sys.executable, "-m", "pytest", "-vv", "-rA", "--tb=short", "-p", "no:cacheprovider", "-o", f"pythonpath={paths}"]
    words += ["-o", "console_output_style=count", "-o", f"junit_suite_name={board}", f"--junitxml={out / board}.xml", *map(str, files)]
    env, fate = {**os.environ, "QSAFP_BOARD": board, "PYTHONUNBUFFERED": "1"}, partial(die_with_parent, signal.SIGINT)
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=fate,
    )


def check(board: str, out: Path, files: Sequence[Path | str], *, paths: str, limit_s: float) -> Outcome:
    """Run these checks with QSAFP_BOARD set; they are in ``out``/BOARD.xml, what pytest said in ``out``/BOARD/checks.txt."""
    xml, text, begun = out / f"{board}.xml", out / board / "checks.txt", time.monotonic()
    xml.unlink(missing_ok=True)
    text.parent.mkdir(parents=True, exist_ok=True)
    child, tell = start(board, out, files, paths), Teller(board)
    RUNNING.append(child)
    late = threading.Timer(limit_s, end, [child])
    late.start()
    try:
        assert child.stdout is not None
        with text.open("wb") as log, child.stdout as said:
            for line in said:
                log.write(line)
                tell(line.decode(errors="replace"))
        code = child.wait()
    finally:
        killed = not late.is_alive()
        late.cancel()
        end(child)
    if not xml.exists():
        write_failure(xml, "checks", f"no end within {limit_s:.0f} s" if killed else f"pytest ended with {code}")
    passed, failed, skipped, names = counts(xml)
    good = code == 0 and passed > 0 and not failed and not skipped
    told = "" if good else f"{', '.join(names[:3])}; see {text.relative_to(ROOT)}"
    return Outcome(board, "passed" if good else "failed", passed, failed, skipped, checks_s=time.monotonic() - begun, text=told)


def table(outcomes: list[Outcome]) -> str:
    """The result of all boards for people."""
    rows = [f"\n{'board':<22}{'result':<10}{'passed':>7}{'failed':>7}{'skipped':>8}{'image, s':>10}{'checks, s':>10}"]
    for o in outcomes:
        rows.append(
            f"{o.name:<22}{o.state:<10}{o.passed:>7}{o.failed:>7}{o.skipped:>8}{o.image_s:>10.1f}{o.checks_s:>10.1f}  {o.text}".rstrip()
        )
    return "\n".join(rows)


def chosen(words: list[str], known: Iterable[str]) -> tuple[list[str], set[str]]:
    """Names of the boards to run, and of those left out, from ``a,b`` and ``skip=c``.  Exits with the known names when one is not."""
    skip = {n for w in words if w.startswith("skip=") for n in w[5:].split(",") if n}
    named = [n for w in words if not w.startswith("skip=") for n in w.split(",") if n]
    if unknown := sorted((set(named) | skip) - set(known)):
        raise SystemExit(f"no board is named {unknown[0]!r}; there are {', '.join(known)}")
    return named or list(known), skip


def run_all(names: list[str], one: Callable[[str], Outcome], *, at_once: int) -> list[Outcome]:
    """Run the boards, some at a time, and print the table."""
    with ThreadPoolExecutor(at_once) as pool:
        try:
            outcomes = list(pool.map(one, names))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in RUNNING:
                child.send_signal(signal.SIGINT)
            raise
    print(table(outcomes))
    return outcomes
