# SPDX-License-Identifier: Apache-2.0
"""A figure that is over what it may be is seen."""

from __future__ import annotations

import figures
import pytest
from power import MOST_PJ, Work


@pytest.mark.parametrize("name", figures.REFERENCE)
def test_more_than_5_percent_above_what_it_took_is_a_regression(name: str) -> None:
    was = figures.REFERENCE[name]
    assert [figures.counted(name, n).missed for n in (was // 2, was, was * 105 // 100, was * 105 // 100 + 1)] == [False, False, False, True]


def test_what_has_no_reference_is_reported_alone() -> None:
    assert not figures.counted("sha256_256", 10**12).missed


def test_power_is_instructions_times_rate_times_energy() -> None:
    work = Work("w", instructions=1_000_000, per_s=10, budget_mw=5)
    assert work.mw(100) == pytest.approx(1.0)  # 10^7 a second at 100 pJ
    assert not work.met
    assert work.mw(MOST_PJ) == pytest.approx(16.5, rel=0.01)
