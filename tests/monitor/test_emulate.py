# SPDX-License-Identifier: Apache-2.0
"""``make emulate`` runs every test of the monitor, each on one board, and tells what did not pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import emulate
import pytest
import supervise
from kinds import HOST, KINDS


def collected(board: str) -> list[str]:
    """The ids of the tests of a board; of all if it is empty."""
    words = [sys.executable, "-m", "pytest", "-o", "addopts=--import-mode=importlib", "--collect-only", "-q", *map(str, emulate.FILES)]
    env = {**os.environ, "QSAFP_BOARD": board}
    done = subprocess.run(words, cwd=emulate.ROOT, env=env, capture_output=True, text=True, timeout=120, check=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_every_file_runs_and_each_test_on_one_board() -> None:
    every = collected("")
    assert {id_.partition("::")[0] for id_ in every} == {str(f.relative_to(emulate.ROOT)) for f in emulate.FILES}
    assert sorted(id_ for board in (*KINDS, HOST) for id_ in collected(board)) == sorted(every)


def test_a_board_that_is_not_known_is_refused_with_those_that_are() -> None:
    assert supervise.chosen(["skip=virt_aarch64"], KINDS) == (list(KINDS), {"virt_aarch64"})
    with pytest.raises(SystemExit, match="no board is named 'x'; there are hifive_unleashed"):
        supervise.chosen(["hifive_unleashed,x"], KINDS)


def test_a_failure_is_told_at_once_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    supervise.Teller("b")("tests/monitor/test_x.py::test_y[1] FAILED     [ 3/12]")
    supervise.Teller("b")("tests/monitor/test_x.py::test_z PASSED     [ 4/12]")
    assert re.sub(r"^\S+ +", "", capsys.readouterr().out) == f"{'b':<20} 3/12  failed  test_x::test_y[1]\n"
    supervise.write_failure(tmp_path / "b.xml", "tools", "no QEMU")
    assert supervise.counts(tmp_path / "b.xml") == (0, 1, 0, ["b::tools: no QEMU"])
