# SPDX-License-Identifier: Apache-2.0
"""LEASE_RENEW asks for a renewal and VALIDATOR_REQ toggles once a query (HW-13), on the emulated HiFive Unleashed."""

from __future__ import annotations

from pathlib import Path

import pytest
from unleashed import Board, Device, until

pytestmark = pytest.mark.board(Board.name)


def test_a_press_asks_for_a_renewal_until_one_is_begun(folder: Path) -> None:
    with Board(Device(), folder) as board, board.client() as client:
        board.lease(client)
        assert board.pins("VALIDATOR_REQ") == [1]
        assert not client.status().renew_wanted
        board.renew_line(1)
        until(lambda: client.status().renew_wanted)
        board.lease(client)
        assert not client.status().renew_wanted  # a line that stays high is no second press
        assert board.pins("VALIDATOR_REQ") == [1, 0]
        board.renew_line(0)
        before = client.status().now_ns
        until(lambda: client.status().now_ns > before + 500_000_000)
        board.renew_line(1)
        until(lambda: client.status().renew_wanted)
