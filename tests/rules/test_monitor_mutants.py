# SPDX-License-Identifier: Apache-2.0
"""tools/monitor_mutants.py changes what is there, names tests that are there, and takes no other failure for the one it waits for."""

from __future__ import annotations

from pathlib import Path

import monitor_mutants as mutants
import pytest
from repo import tracked

ASKED = ("PMP lock", "FIQ route", "signature", "parking of the second", "copy of a call's arguments")


def test_what_has_to_turn_a_test_red_is_taken_away_on_each_board_where_it_is() -> None:
    every = " ".join(f"{change.what} {board}" for change in mutants.CHANGES for board in change.boards)
    assert [words for words in ASKED if words not in every] == []
    assert {b for change in mutants.CHANGES if change.what.startswith("FIQ route") for b in change.boards} == {mutants.A64, mutants.T32}


@pytest.mark.parametrize("change", mutants.CHANGES, ids=lambda c: f"{c.what} {c.boards[0]}".replace(" ", "-"))
def test_what_is_changed_stands_there_once_and_the_test_exists(change: mutants.Change) -> None:
    assert change.shows
    for board in change.boards:
        for file, old, new in (mutants.of_board(edit, board) for edit in change.edits):
            assert mutants.edited(tracked()[file], old, new) != tracked()[file]
    path, _, name = change.name.partition("::")
    assert f"def {name}(" in tracked()[path]


def test_the_document_has_the_table() -> None:
    assert mutants.table() in tracked()["docs/conformance.md"]


def test_a_change_that_does_not_fit_any_more_is_refused() -> None:
    with pytest.raises(LookupError, match="stands there 0 times"):
        mutants.edited("a = 1", "b", "c")
    with pytest.raises(LookupError, match="stands there 2 times"):
        mutants.edited("a a", "a", "c")


@pytest.mark.parametrize(
    ("xml", "state"),
    [
        ("<testcase/>", "passed"),
        ("<testcase><failure>E   said.halted</failure></testcase>", "failed"),
        ("<testcase><error>it does not compile</error></testcase>", "broken"),
        ("<testcase><skipped/></testcase>", "skipped"),
        ("", "did not run"),
    ],
)
def test_only_a_failure_of_the_test_itself_is_one(xml: str, state: str, tmp_path: Path) -> None:
    (tmp_path / "result.xml").write_text(f"<testsuite>{xml}</testsuite>")
    assert mutants.read(tmp_path / "result.xml").state == state


def test_a_failure_at_another_line_is_not_the_one() -> None:
    assert mutants.blamed(">   assert said.halted\nE   assert False", "said.halted") == "assert said.halted"
    assert mutants.blamed(">   assert other\n    said.halted", "said.halted") == ""
