# SPDX-License-Identifier: Apache-2.0
"""The validation checklist HW-T1 to HW-T18 as Robot suites (renode/suites), on every board under QEMU."""

from __future__ import annotations

from pathlib import Path

import pytest
import suites

CASES = [f"HW-T{n}" for n in range(1, 19)]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.board(name)) for name in suites.BOARDS])
def test_every_case_runs_and_passes(name: str) -> None:
    found = suites.run(name)
    assert {case: what for case, what in found.items() if what != "passed"} == {}
    assert sorted(found) == sorted(CASES)


@pytest.fixture
def toy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cases without a board: each writes a line down; one fails at first, one always, the third without the tag."""
    (folder / "toy.robot").write_text(
        "*** Settings ***\nLibrary    OperatingSystem\n*** Keywords ***\nCome\n    Append To File    ${CURDIR}/${TEST NAME}.txt    x\n"
        "    ${times}=    Get File Size    ${CURDIR}/${TEST NAME}.txt\n    RETURN    ${times}\n*** Test Cases ***\n"
        "A late\n    [Tags]    late\n    ${times}=    Come\n    Should Be Equal As Integers    ${times}    2\n"
        "B always late\n    [Tags]    late\n    Come\n    Fail    wrong\n"
        "C wrong\n    Come\n    Fail    wrong\n"
    )
    monkeypatch.setattr(suites, "SUITES", folder)
    monkeypatch.setattr(suites, "OUT", folder / "out")
    (folder / "out").mkdir()
    return folder


def test_a_case_runs_again_only_if_its_board_was_late(toy: Path) -> None:
    assert suites.run("toy") == {"A": "passed", "B": "failed: wrong", "C": "failed: wrong"}
    assert {path.stem[0]: path.stat().st_size for path in toy.glob("*.txt")} == {"A": 2, "B": suites.RUNS, "C": 1}
