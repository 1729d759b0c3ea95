# SPDX-License-Identifier: Apache-2.0
"""Write into docs/conformance.md which case of renode/suites ran on which board: ``python tools/conformance.py [--check]``.

What ran is read from build/monitor/BOARD.robot.xml (QEMU: ``make emulate``) and BOARD.renode.xml (Renode: .github/workflows/renode.yml).
Exit 1 if a case failed.  ``--check`` writes nothing: it says where the page is not what ran.
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
EMULATORS = {"QEMU": "robot", "Renode": "renode"}
BOARDS = tuple(TARGETS)
CASE = re.compile(r"^(HW-T\d+) (.+)$", re.M)
Ran = Mapping[tuple[str, str], Mapping[str, str]]  # by board and emulator, then by case
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


def file_name(board: str, emulator: str) -> str:
    """The JUnit file of a board's run."""
    return f"{board}.{EMULATORS[emulator]}.xml"


def results(folder: Path = ROOT / "build/monitor") -> Ran:
    """The last runs."""
    files = {(b, e): folder / file_name(b, e) for b in BOARDS for e in EMULATORS}
    return {key: outcomes(path) for key, path in files.items() if path.exists()}


def cell(case: str, board: str, ran: Ran) -> str:
    """What the last runs showed of a case on a board."""
    told = {e: found.get(case, "did not run") for (b, e), found in ran.items() if b == board}
    said = "; ".join(f"{e}: {'failed' if what.startswith('failed') else what}" for e, what in told.items())
    return " ".join(said.replace("|", "/").split()) or "did not run"


def table(ran: Ran) -> str:
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


def cells(part: str) -> dict[tuple[str, str], str]:
    """What a table says, by case and board."""
    rows = [[said.strip() for said in row.strip("|").split("|")] for row in part.splitlines() if row.startswith("|")]
    return {(row[0], board): said for row in rows[2:] for board, said in zip(rows[0][2:], row[2:], strict=True)}


def differences(text: str, ran: Ran) -> list[str]:
    """Where the document says something else than what ran."""
    if not ran:
        return ["nothing ran that it could be held against"]
    says, shown = cells(written(text)), cells(table(ran))
    wrong = [key for key, what in shown.items() if says[key] != what]
    return [f"{key[0]} on {key[1]}: it says {says[key]!r}, the run {shown[key]!r}" for key in wrong]


def main(argv: list[str]) -> int:
    """Check, or write; 1 if the document is not what ran, or a case failed."""
    text, ran = DOC.read_text(), results()
    if argv == ["--check"]:
        wrong = stale(text) or differences(text, ran)
        print("".join(f"docs/conformance.md: {what}; make emulate writes it\n" for what in wrong), end="")
        return int(bool(wrong))
    DOC.write_text(text.replace(written(text), table(ran)))
    return int(any(what.startswith("failed") for found in ran.values() for what in found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
