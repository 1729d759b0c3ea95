# SPDX-License-Identifier: Apache-2.0
"""Some cases of the Robot suites (renode/suites) on one board: the quick part of check_suites.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import suites
from unleashed import Board

QUICK = ("HW-T1", "HW-T2", "HW-T4", "HW-T12")


@pytest.mark.board(Board.name)
def test_the_quick_cases_run_and_pass(tmp_path: Path) -> None:
    assert suites.run(Board.name, *QUICK, xml=tmp_path / "quick.xml") == dict.fromkeys(QUICK, "passed")
