# SPDX-License-Identifier: Apache-2.0
"""``make boards``: boot emulated Linux boards and check them from outside.

Writes build/boards/<board>.xml (JUnit) and, in build/boards/<board>/, what console, guest, QEMU and validators said.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import supervise
from boards import BOARDS, Board
from debian import ImageError, alone
from image import OUT, make
from supervise import Outcome, say, write_failure

HERE = Path(__file__).resolve().parent
AT_ONCE = 2
LIMIT_S = 1800  # for the checks of one board; none takes a tenth of it on a quiet host
TOOLS = ("qemu-img", "dpkg-deb", "apt-get", "mke2fs", "e2fsck", "debugfs", "depmod", "fdtput")


def cannot(board: Board) -> str:
    """Why this host cannot run the board, or nothing."""
    tools = (*TOOLS, board.arch.qemu, f"{board.arch.triplet}-gcc", *(("swtpm",) if board.tpm or board.chip_tpm else ()))
    missing = [t for t in tools if shutil.which(t) is None]
    return f"not on this host: {', '.join(missing)}; run tools/bootstrap.sh boards" if missing else ""


def shortly(text: str) -> str:
    """The line that says most: the first with an error, else the first."""
    lines = text.splitlines()
    return next((line.strip() for line in lines if "error:" in line.lower()), lines[0])


def run_board(board: Board, files: tuple[str, ...]) -> Outcome:
    """Make the image, run the checks; no two runs of one board at a time."""
    try:
        with alone(OUT / f"{board.name}.lock", wait=False):
            return run_alone(board, files)
    except BlockingIOError:
        return Outcome(board.name, "failed", failed=1, text="another run is at work on it")


def run_alone(board: Board, files: tuple[str, ...]) -> Outcome:
    """Make the image, run the checks."""
    xml = OUT / f"{board.name}.xml"
    if text := cannot(board):
        write_failure(xml, "tools", text)
        return Outcome(board.name, "failed", failed=1, text=text)
    began = time.monotonic()
    try:
        make(board, lambda text: say(board.name, text))
    except ImageError as why:
        write_failure(xml, "image", str(why))
        return Outcome(board.name, "failed", failed=1, image_s=time.monotonic() - began, text=shortly(str(why)))
    image_s = time.monotonic() - began
    say(board.name, f"image ready after {image_s:.0f} s; {len(files)} files of checks")
    found = supervise.check(board.name, OUT, [HERE / f for f in files], paths="tests/emulation", limit_s=LIMIT_S)
    return replace(found, image_s=image_s)


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


def main() -> int:
    """Run what was chosen; 0 if every board passed or was left out by name."""
    args = arguments()
    if args.list:
        for b in BOARDS.values():
            print(f"{b.name:<22}{b.arch.debian:<7}{b.kernel:<20}{', '.join(b.checks)}")
        return 0
    names, skip = supervise.chosen([w for w in args.words if w != "quick"], BOARDS)
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
    """Run the boards; the exit code."""
    outcomes = supervise.run_all(names, partial(run_one, skip=skip, quick=quick), at_once=AT_ONCE)
    if quick and (others := [n for n in BOARDS if n not in names]):
        print(f"left out: {', '.join(others)}; make boards runs them")
    return int(not all(o.good for o in outcomes))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("boards: interrupted", file=sys.stderr)
        sys.exit(130)
