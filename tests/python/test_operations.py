# SPDX-License-Identifier: Apache-2.0
"""docs/operations.md names every key that the three configuration files take, and no other."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import pytest

from qsafp_embedded.agent import config as agent
from qsafp_embedded.guard import config as guard
from qsafp_embedded.validator import config as validator

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()


def documented(heading: str) -> set[str]:
    """The keys in the first column of the table under a heading."""
    section = TEXT.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return {key for row in re.findall(r"^\| (`[^|]+) \|", section, re.M) for key in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize(
    ("heading", "keys"),
    [("guard.toml", guard.DEFAULTS), ("agent.toml", agent.DEFAULTS), ("validator.toml", {*validator.TOP, *validator.POLICY})],
)
def test_every_key_is_documented_and_no_other(heading: str, keys: Collection[str]) -> None:
    assert documented(heading) == set(keys)
