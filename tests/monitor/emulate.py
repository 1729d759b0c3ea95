# SPDX-License-Identifier: Apache-2.0
"""``make emulate``: the monitor on emulated bare-metal boards.

Writes build/monitor/<board>.xml (JUnit), and what pytest said into build/monitor/<board>/checks.txt; tools/conformance.py reads what
the Robot suites left there.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATHS = ("tests/monitor", "tests/python", "tests/emulation", "tools")
sys.path[:0] = [str(ROOT / p) for p in PATHS]

import conformance  # noqa: E402
import supervise  # noqa: E402
from kinds import HOST, KINDS  # noqa: E402
from supervise import Outcome, say, write_failure  # noqa: E402

OUT = ROOT / "build/monitor"
AT_ONCE = 3  # they wait a third of their time
LIMIT_S = 1800  # for the checks of one board; none takes a tenth of it on a quiet host
FILES = sorted(HERE.glob("test_*.py"))


def run_one(name: str) -> Outcome:
    """Run one board, or say why not."""
    missing = KINDS[name].absent() if name in KINDS else ""
    if missing:
        text = f"not on this host: {missing}; run tools/bootstrap.sh tests"
        write_failure(OUT / f"{name}.xml", "tools", text)
        found = Outcome(name, "failed", failed=1, text=text)
    else:
        found = supervise.check(name, OUT, FILES, paths=" ".join(PATHS), limit_s=LIMIT_S)
    say(name, f"{found.state} after {found.checks_s:.0f} s" + (f": {found.text}" if found.text else ""))
    return found


def forget() -> None:
    """Remove what earlier runs of the suites left: docs/conformance.md is written from this one."""
    for board in conformance.BOARDS:
        for emulator in conformance.EMULATORS:
            (OUT / conformance.file_name(board, emulator)).unlink(missing_ok=True)


def arguments() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="make emulate",
        description="The monitor on emulated bare-metal boards: boot, leases, hostile payloads, figures against their budgets.",
        epilog="examples:\n  make emulate                             # all boards, and what runs on this host of the same code\n"
        "  make emulate BOARDS=virt_aarch64         # the checks of one, or of some: a,b\n"
        "  make emulate SKIP=virt_aarch64           # all but one: what is left out is named\n"
        "  make emulate BOARD=hifive_unleashed      # no checks: that board starts, its line on this terminal (live.py)\n\n"
        "A board that cannot run here counts as failed, unless skip names it.  Results: build/monitor/<board>.xml.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("words", nargs="*", metavar="BOARD|skip=BOARD", help="boards to check, by name or names with commas (default: all)")
    p.add_argument("--list", action="store_true", help="list the boards")
    return p.parse_args()


def main() -> int:
    """Run what was chosen; 0 if every board passed or was left out by name."""
    args, known = arguments(), [*KINDS, HOST]
    if args.list:
        print("\n".join(known))
        return 0
    names, skip = supervise.chosen(args.words, known)
    OUT.mkdir(parents=True, exist_ok=True)
    forget()
    begun = time.monotonic()
    outcomes = supervise.run_all([n for n in names if n not in skip], run_one, at_once=AT_ONCE)
    for name in sorted(skip):
        print(f"{name:<22}left out: skip= named it")
    print(f"{time.monotonic() - begun:.0f} s")
    return int(not outcomes or not all(o.good for o in outcomes))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("emulate: interrupted", file=sys.stderr)
        sys.exit(130)
