# SPDX-License-Identifier: Apache-2.0
"""Write into docs/conformance.md which case of renode/suites ran on which board: ``python tools/conformance.py [--check]``.

What ran is read from build/monitor/BOARD.robot.xml (QEMU) and BOARD.renode.xml (Renode).  ``--check`` needs no run: it says whether
the part that is written lists the cases and boards that there are.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

from firmware import TARGETS

ROOT = Path(__file__).resolve().parent.parent
DOC = ROOT / "docs/conformance.md"
BEGIN, END = "<!-- tools/conformance.py writes from here", "<!-- to here -->\n"
EMULATORS = {"robot": "QEMU", "renode": "Renode"}
BOARDS = tuple(TARGETS)
CASE = re.compile(r"^(HW-T\d+) (.+)$", re.M)
ROW = re.compile(r"^\| (HW-T\d+) \| (.+?) \|", re.M)


def cases(suites: Path = ROOT / "renode/suites") -> dict[str, str]:
    """Id and name of every case, in the order of the ids."""
    found = [m for path in sorted(suites.glob("*.robot")) for m in CASE.findall(path.read_text())]
    return dict(sorted(found, key=lambda case: int(case[0].removeprefix("HW-T"))))


def outcomes(xml: Path) -> dict[str, str]:
    """What a JUnit file says of each case, by id: passed, or why it failed or did not run."""
    found = {}
    for case in ET.parse(xml).iter("testcase"):
        told = {child.tag: child.get("message") or child.text or "" for child in case}
        why = next((f"failed: {told[tag]}" for tag in ("failure", "error") if tag in told), "passed")
        found[case.get("name", "").partition(" ")[0]] = f"did not run: {told['skipped']}" if "skipped" in told else why
    return found


def results(folder: Path = ROOT / "build/monitor") -> dict[tuple[str, str], dict[str, str]]:
    """The last runs, by board and emulator."""
    files = {(b, e): folder / f"{b}.{kind}.xml" for b in BOARDS for kind, e in EMULATORS.items()}
    return {key: outcomes(path) for key, path in files.items() if path.exists()}


def cell(case: str, board: str, ran: Mapping[tuple[str, str], Mapping[str, str]]) -> str:
    """What the last runs showed of a case on a board."""
    told = {e: found[case] for (b, e), found in ran.items() if b == board and case in found}
    return "; ".join(f"{e}: {'failed' if what.startswith('failed') else what}" for e, what in told.items()) or "did not run"


def table(ran: Mapping[tuple[str, str], Mapping[str, str]]) -> str:
    """The part that is written."""
    rows = [f"{BEGIN}, from the last run -->", f"| id | case | {' | '.join(BOARDS)} |", f"|{'---|' * (2 + len(BOARDS))}"]
    rows += [f"| {id_} | {name} | {' | '.join(cell(id_, b, ran) for b in BOARDS)} |" for id_, name in cases().items()]
    return "\n".join([*rows, END])


def written(text: str) -> str:
    """The part of the document that is written."""
    return BEGIN + text.partition(BEGIN)[2].partition(END)[0] + END


def stale(text: str) -> list[str]:
    """What the document lists that is not there, and the reverse."""
    part = written(text)
    listed = ROW.findall(part)
    there = list(cases().items())
    out = [f"{id_}: {name}" for id_, name in {*listed} ^ {*there}]
    out += [f"{id_} is listed twice" for id_, _ in {row for row in listed if listed.count(row) > 1}]
    return sorted([*out, *(b for b in BOARDS if f"| {b} |" not in part)])


def main(argv: list[str]) -> int:
    """Check, or write; 1 if the document is stale, or a case failed."""
    text = DOC.read_text()
    if argv == ["--check"]:
        print("\n".join(f"docs/conformance.md: {what}; run tools/conformance.py" for what in stale(text)), end="")
        return int(bool(stale(text)))
    ran = results()
    if not ran:
        print("nothing ran: make emulate, or python tests/monitor/suites.py")
        return 1
    DOC.write_text(text.replace(written(text), table(ran)))
    return int(any(what.startswith("failed") for found in ran.values() for what in found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
