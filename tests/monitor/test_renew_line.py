# SPDX-License-Identifier: Apache-2.0
"""LEASE_RENEW asks for a renewal and VALIDATOR_REQ toggles once a query (HW-13), on every emulated board."""

from __future__ import annotations

from pathlib import Path

import pytest
from kinds import KINDS
from unleashed import Device, until

from qsafp_embedded.client import GuardClient

LOOK_NS = 100_000_000


def some_looks(client: GuardClient) -> None:
    """Wait until the monitor has looked at the line again, the board's clock says."""
    before = client.status().now_ns
    until(lambda: client.status().now_ns > before + 3 * LOOK_NS)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.board(name)) for name in KINDS])
def test_a_press_asks_for_a_renewal_until_one_is_begun(name: str, folder: Path) -> None:
    with KINDS[name](Device(), folder) as board, board.client() as client:
        board.lease(client)
        assert board.pins("VALIDATOR_REQ") == [1]
        assert not client.status().renew_wanted
        board.renew_line(1)
        until(lambda: client.status().renew_wanted)
        board.lease(client)
        assert board.pins("VALIDATOR_REQ") == [1, 0]
        some_looks(client)
        assert not client.status().renew_wanted  # a line that stays high is no second press
        board.renew_line(0)
        some_looks(client)
        board.renew_line(1)
        until(lambda: client.status().renew_wanted)
