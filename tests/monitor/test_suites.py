# SPDX-License-Identifier: Apache-2.0
"""The validation checklist HW-T1 to HW-T18 as Robot suites (renode/suites), on every board under QEMU."""

from __future__ import annotations

import pytest
import suites

CASES = [f"HW-T{n}" for n in range(1, 19)]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.board(name)) for name in suites.BOARDS])
def test_every_case_runs_and_passes(name: str) -> None:
    assert suites.run(name) == dict.fromkeys(CASES, "passed")
