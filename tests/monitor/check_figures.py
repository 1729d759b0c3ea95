# SPDX-License-Identifier: Apache-2.0
"""No figure of a board is over its budget; what was measured stands in the JUnit file."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import figures
import power
import pytest
from kinds import KINDS

measured = cache(figures.measure)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.board(name)) for name in KINDS])
def test_every_figure_keeps_its_budget(name: str, record_property: Callable[[str, object], None]) -> None:
    found = measured(figures.ISAS[name])
    for figure in found:
        record_property(figure.what, figure.value)
    assert [f.what for f in found if f.missed] == []


@pytest.mark.board(figures.RV64.board.name)
def test_the_monitor_keeps_its_power(record_property: Callable[[str, object], None]) -> None:
    """Computed, at the most that was published for cores of this class (HW-16)."""
    found = power.works({f.what: f.value for f in measured(figures.RV64)})
    for work in found:
        record_property(f"computed mW: {work.what}", round(work.mw(power.MOST_PJ), 4))
    assert [w.what for w in found if not w.met] == []
