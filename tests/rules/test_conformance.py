# SPDX-License-Identifier: Apache-2.0
"""docs/conformance.md has one row per requirement id; it and other documents name only tests, scenarios and files that exist."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import conformance
import pytest
from repo import ROOT, tracked
from test_words import known_ids

DOCS = ("docs/conformance.md", "docs/porting.md", "docs/power.md", "SAFETY.md")
TEST = re.compile(r"`(tests/[\w/.]+)::(\w+)`")
FILE = re.compile(r"`((?:tests|tools|examples|docs|cext|board_ports|renode)/[\w/.]+\.\w+)")
SCENARIO = re.compile(r"scenario `(\w+)`")
ROW = re.compile(r"^\| ((?:HW|OC|CD|GP)-T?\d+) \| (Built|Partly|Not yet) \|(.*)\|(.*)\|$", re.M)


def unknown(text: str, files: dict[str, str]) -> list[str]:
    """What a text names that is not there."""
    scenarios = "\n".join(t for n, t in files.items() if n.startswith("qsafp_embedded/scenarios/"))
    out = [f"{path}::{name}" for path, name in TEST.findall(text) if not re.search(rf"\b{name}\(", files.get(path, ""))]
    out += [path for path in FILE.findall(text) if path not in files]
    return out + [s for s in SCENARIO.findall(text) if f"\ndef {s}(" not in scenarios]


def test_every_requirement_has_one_row() -> None:
    rows = ROW.findall(tracked()["docs/conformance.md"])
    assert sorted(r[0] for r in rows) == sorted(known_ids())


def test_what_is_built_names_what_shows_it_and_the_rest_says_what_is_missing() -> None:
    for name, state, shown, missing in ROW.findall(tracked()["docs/conformance.md"]):
        assert bool(shown.strip()) == (state != "Not yet"), name
        assert state != "Partly" or missing.strip(), name


def test_every_named_test_file_and_scenario_exists() -> None:
    assert {n: bad for n in DOCS if (bad := unknown(tracked()[n], tracked()))} == {}


def test_the_rule_sees_a_name_that_is_not_there() -> None:
    files = {"tests/c/a.c": "static void here(void)", "qsafp_embedded/scenarios/x.py": "\ndef real(stage):"}
    assert unknown("`tests/c/a.c::gone`, `tests/c/b.c` scenario `fake`", files) == ["tests/c/a.c::gone", "tests/c/b.c", "fake"]
    assert unknown("`tests/c/a.c::here` scenario `real`", files) == []


def test_every_case_of_the_suites_is_listed_with_what_came_of_it() -> None:
    assert list(conformance.cases()) == [f"HW-T{n}" for n in range(1, 19)]
    assert conformance.stale(tracked()["docs/conformance.md"]) == []


def test_a_case_that_is_new_failed_or_did_not_run_is_told(tmp_path: Path) -> None:
    text = conformance.table({})
    assert text.count(" did not run |") == 18 * 3
    assert conformance.stale(text.replace("HW-T7 ", "HW-T99 ")) != []
    assert conformance.stale(text.replace("| virt_armv7 |", "|")) == ["virt_armv7"]
    bad, late = '<testcase name="HW-T1 a"><failure/></testcase>', '<testcase name="HW-T2 b"><skipped message="no | stage"/></testcase>'
    (tmp_path / "virt_armv7.robot.xml").write_text(f"<testsuite>{bad}{late}</testsuite>")
    ran = conformance.results(tmp_path)
    assert [conformance.cell(c, "virt_armv7", ran) for c in ("HW-T1", "HW-T2", "HW-T3")] == [
        "QEMU: failed",
        "QEMU: did not run: no / stage",
        "QEMU: did not run",
    ]


def test_a_page_that_says_something_else_than_the_run_is_seen() -> None:
    ran = {(board, "QEMU"): dict.fromkeys(conformance.cases(), "passed") for board in conformance.BOARDS}
    page = conformance.table(ran)
    assert conformance.differences(page, ran) == []
    assert conformance.differences(page, {}) == ["nothing ran that it could be held against"]
    ran["virt_armv7", "QEMU"] = {**ran["virt_armv7", "QEMU"], "HW-T3": "failed: late"}
    assert conformance.differences(page, ran) == ["HW-T3 on virt_armv7: it says 'QEMU: passed', the run 'QEMU: failed'"]
    assert conformance.differences(conformance.table(ran), ran) == []
    del ran["virt_armv7", "QEMU"]
    assert [d.partition(":")[0] for d in conformance.differences(page, ran)] == [f"{c} on virt_armv7" for c in conformance.cases()]


def recipe(target: str) -> list[str]:
    """What make would run, with PYTHON for Python."""
    words = ["make", "-n", "-o", "setup", target, "PY=PYTHON"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k not in ("BOARD", "BOARDS", "SKIP")}
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()


@pytest.mark.parametrize(("ran", "wrote"), [(0, 0), (1, 0), (0, 1), (3, 0)])
def test_make_emulate_writes_the_page_whatever_came_of_the_run(ran: int, wrote: int, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path}/said\ncase $1 in *emulate.py) exit {ran};; esac; exit {wrote}\n')
    python.chmod(0o755)
    (line,) = [row for row in recipe("emulate") if "emulate.py" in row]
    done = subprocess.run(["sh", "-c", line.replace("PYTHON", str(python))], timeout=60, check=False)
    assert (tmp_path / "said").read_text().split() == ["tests/monitor/emulate.py", "tools/conformance.py"]
    assert done.returncode == (ran or wrote)


def test_make_test_holds_the_page_against_its_own_run() -> None:
    rows = [row.strip() for row in recipe("test")]
    assert rows.index("PYTHON tools/conformance.py --check") == rows.index("PYTHON tests/monitor/emulate.py") + 1


def test_renode_leaves_its_results_where_they_are_read() -> None:
    text = tracked()[".github/workflows/renode.yml"]
    boards = re.findall(r"board: (\w+)", text)
    assert boards
    for board in boards:
        assert f"--xunit build/monitor/{conformance.file_name(board, 'Renode')} " in text.replace("${{ matrix.board }}", board)
