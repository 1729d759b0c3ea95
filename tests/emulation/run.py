# SPDX-License-Identifier: Apache-2.0
"""``make boards``: boot emulated Linux boards and check them from outside.

Writes build/boards/<board>.xml (JUnit) and, in build/boards/<board>/, what console, guest, QEMU and validators said.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from boards import BOARDS, Board
from debian import ImageError, alone
from image import OUT, make
from machine import die_with_parent

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
AT_ONCE = 2
RUNNING: list[subprocess.Popen[bytes]] = []
LIMIT_S = 1800  # for the checks of one board; none takes a tenth of it on a quiet host
TOOLS = ("qemu-img", "dpkg-deb", "apt-get", "mke2fs", "e2fsck", "debugfs", "depmod", "fdtput")


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


def cannot(board: Board) -> str:
    """Why this host cannot run the board, or nothing."""
    tools = (*TOOLS, board.arch.qemu, f"{board.arch.triplet}-gcc", *(("swtpm",) if board.tpm or board.chip_tpm else ()))
    missing = [t for t in tools if shutil.which(t) is None]
    return f"not on this host: {', '.join(missing)}; run tools/bootstrap.sh boards" if missing else ""


def write_failure(board: str, kind: str, text: str) -> None:
    """A JUnit file for a board whose checks never started."""
    suite = ET.Element("testsuite", name=board, tests="1", failures="0", errors="1", skipped="0")
    ET.SubElement(ET.SubElement(suite, "testcase", classname=board, name=kind), "error", message=text.splitlines()[0]).text = text
    ET.ElementTree(suite).write(OUT / f"{board}.xml", encoding="unicode")


def shortly(text: str) -> str:
    """The line that says most: the first with an error, else the first."""
    lines = text.splitlines()
    return next((line.strip() for line in lines if "error:" in line.lower()), lines[0])


def check(board: Board, files: tuple[str, ...]) -> tuple[int, bool]:
    """Run these checks in a process of their own; its exit code, and whether it had to be killed."""
    # Whoever is killed, all below it ends: pytest is interrupted and cleans up, QEMU and the validators die with their parent.
    words = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=short", "-p", "no:cacheprovider", "-o", "pythonpath=tests/emulation"]
    words += ["-o", f"junit_suite_name={board.name}", f"--junitxml={OUT / board.name}.xml", *(str(HERE / c) for c in files)]
    with (OUT / board.name / "checks.txt").open("wb") as log:
        env = {**os.environ, "QSAFP_BOARD": board.name}
        fate = partial(die_with_parent, signal.SIGINT)
        child = subprocess.Popen(
            words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=fate
        )
        RUNNING.append(child)
        try:
            return child.wait(timeout=LIMIT_S), False
        except subprocess.TimeoutExpired:
            return -1, True
        finally:
            end(child)


def end(child: subprocess.Popen[bytes]) -> None:
    """Interrupt the checks, so that they clean up; kill them if they do not."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(timeout=60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def counts(board: str) -> tuple[int, int, int, list[str]]:
    """Passed, failed and skipped checks of a JUnit file, and the names of what did not pass."""
    cases = list(ET.parse(OUT / f"{board}.xml").iter("testcase"))
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = [c for c in cases if c.find("skipped") is not None]
    names = [f"{c.get('classname', '').rpartition('.')[2]}::{c.get('name')}" for c in failed + skipped]
    return len(cases) - len(failed) - len(skipped), len(failed), len(skipped), names


def run_board(board: Board, files: tuple[str, ...]) -> Outcome:
    """Make the image, run the checks; no two runs of one board at a time."""
    try:
        with alone(OUT / f"{board.name}.lock", wait=False):
            return run_alone(board, files)
    except BlockingIOError:
        return Outcome(board.name, "failed", failed=1, text="another run is at work on it")


def run_alone(board: Board, files: tuple[str, ...]) -> Outcome:
    """Make the image, run the checks."""
    (OUT / f"{board.name}.xml").unlink(missing_ok=True)
    if text := cannot(board):
        write_failure(board.name, "tools", text)
        return Outcome(board.name, "failed", failed=1, text=text)
    began = time.monotonic()
    try:
        make(board, lambda text: say(board.name, text))
    except ImageError as why:
        write_failure(board.name, "image", str(why))
        return Outcome(board.name, "failed", failed=1, image_s=time.monotonic() - began, text=shortly(str(why)))
    image_s = time.monotonic() - began
    say(board.name, f"image ready after {image_s:.0f} s; {len(files)} files of checks")
    began = time.monotonic()
    code, killed = check(board, files)
    checks_s = time.monotonic() - began
    if not (OUT / f"{board.name}.xml").exists():
        text = f"no end within {LIMIT_S} s" if killed else f"pytest ended with {code}"
        write_failure(board.name, "checks", text)
    passed, failed, skipped, names = counts(board.name)
    good = code == 0 and passed > 0 and not failed and not skipped
    text = "" if good else f"{', '.join(names[:3])}; see {(OUT / board.name / 'checks.txt').relative_to(ROOT)}"
    return Outcome(board.name, "passed" if good else "failed", passed, failed, skipped, image_s, checks_s, text)


def table(outcomes: list[Outcome]) -> str:
    """The result of all boards for people."""
    rows = [f"\n{'board':<22}{'result':<10}{'passed':>7}{'failed':>7}{'skipped':>8}{'image, s':>10}{'checks, s':>10}"]
    for o in outcomes:
        rows.append(
            f"{o.name:<22}{o.state:<10}{o.passed:>7}{o.failed:>7}{o.skipped:>8}{o.image_s:>10.1f}{o.checks_s:>10.1f}  {o.text}".rstrip()
        )
    return "\n".join(rows)


def arguments() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="make boards",
        description="Boot emulated Linux boards with Debian's kernels and check them from outside: pins, a lease, a revocation, the log.",
        epilog="examples:\n  make boards                                # all\n  make boards BOARD=virt_aarch64_linux       # one\n"
        "  make boards SKIP=ast2600_evb               # all but one: what is left out is named\n"
        "  .venv/bin/python tests/emulation/run.py quick virt_aarch64_linux   # its short checks; names those left out\n"
        "  .venv/bin/python tests/emulation/run.py --list\n\n"
        "The first run fetches packages into ~/.cache/qsafp (deleting it makes the next run take the newest); later runs fetch nothing.\n"
        "A board that cannot run here counts as failed, unless skip names it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = "boards to run, by name or names with commas (default: all); quick: fewer checks"
    p.add_argument("words", nargs="*", metavar="quick|BOARD|skip=BOARD", help=what)
    p.add_argument("--list", action="store_true", help="list the boards")
    return p.parse_args()


def chosen(words: list[str]) -> tuple[list[str], set[str]]:
    """Names of the boards to run, and of those left out.  Exits with the known names when one is not."""
    skip = {n for w in words if w.startswith("skip=") for n in w[5:].split(",") if n}
    named = [n for w in words if w != "quick" and not w.startswith("skip=") for n in w.split(",") if n]
    if unknown := sorted((set(named) | skip) - set(BOARDS)):
        raise SystemExit(f"boards: no board is named {unknown[0]!r}; there are {', '.join(BOARDS)}")
    return named or list(BOARDS), skip


def main() -> int:
    """Run what was chosen; 0 if every board passed or was left out by name."""
    args = arguments()
    if args.list:
        for b in BOARDS.values():
            print(f"{b.name:<22}{b.arch.debian:<7}{b.kernel:<20}{', '.join(b.checks)}")
        return 0
    names, skip = chosen(args.words)
    OUT.mkdir(parents=True, exist_ok=True)
    return run_all(names, skip, quick="quick" in args.words)


def run_one(name: str, *, skip: set[str], quick: bool) -> Outcome:
    """Run one board, or say why not."""
    board = BOARDS[name]
    left_out = board.heavy if quick else ()
    files = tuple(c for c in board.checks if c not in left_out)
    if name in skip:
        found = Outcome(name, "left out", text="skip= named it")
    elif quick and (text := cannot(board)):
        found = Outcome(name, "skipped", skipped=1, text=text)
    else:
        found = run_board(board, files)
    say(name, found.state + (f": {found.text}" if found.text else ""))
    if left_out:
        say(name, f"quick: left out {', '.join(left_out)}; make boards BOARD={name} runs them")
    return found


def run_all(names: list[str], skip: set[str], *, quick: bool) -> int:
    """Run the boards, ``AT_ONCE`` of them at a time; the exit code."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            outcomes = list(pool.map(partial(run_one, skip=skip, quick=quick), names))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in RUNNING:
                child.send_signal(signal.SIGINT)
            raise
    print(table(outcomes))
    if quick and (others := [n for n in BOARDS if n not in names]):
        print(f"left out: {', '.join(others)}; make boards runs them")
    return int(not all(o.good for o in outcomes))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("boards: interrupted", file=sys.stderr)
        sys.exit(130)
