# SPDX-License-Identifier: Apache-2.0
"""Which of several limits an agent obeys: a member that lies about its own starves nobody (decision 6)."""

from __future__ import annotations

import pytest
from validator_kit import quorum

from qsafp_embedded._tables import Refusal
from qsafp_embedded.agent.quorum import Refused, shortening

FLEET, HOME, LAB = (quorum(m=m, n=n).members for m, n in ((4, 6), (2, 3), (3, 3)))


@pytest.mark.parametrize(
    ("members", "limits", "obeyed"),
    [
        (FLEET, [], None),
        (FLEET, [1], None),
        (FLEET, [1, 1], None),
        (FLEET, [30_000, 30_000, 1], 30_000),
        (FLEET, [10**15, 30_000, 30_000], 30_000),
        (FLEET, [30_000, 1, 30_000, 30_000, 30_000, 30_000], 30_000),
        (FLEET, [40_000, 30_000, 20_000], 30_000),
        (HOME, [1], None),
        (HOME, [30_000, 20_000], 30_000),
        (LAB, [30_000], 30_000),
        (LAB, [30_000, 10_000, 20_000], 10_000),
    ],
)
def test_the_limit_that_is_obeyed(members: object, limits: list[int], obeyed: int | None) -> None:
    refusals = [Refused(False, Refusal.LIMITS, "", {1: most}, b"%d" % most) for most in limits]
    found = shortening(refusals, members)  # type: ignore[arg-type]
    assert (found and found.data[1]) == obeyed
