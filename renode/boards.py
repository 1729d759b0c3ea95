# SPDX-License-Identifier: Apache-2.0
"""What the suites need to know of a board, as Robot variables: ``Variables  boards.py  hifive_unleashed``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepped import built
from unleashed import Device

ORDERS = {"attack": 0, "finished": 4, "batches": 8, "refused": 16, "leaked": 24, "moved": 32, "answers": 40, "odd": 48, "started": 56}
DEADLINE, COUNTER_HZ = 8, 40  # in the gate page


def get_variables(board: str) -> dict[str, Any]:
    """All of one board."""
    kind = built(board)
    page, region = kind.gate_page, kind(Device(), Path()).region
    return {
        "LINE": "sysbus.line",
        "ORDERS": {name: f"{kind.orders_at + offset:#x}" for name, offset in ORDERS.items()},
        "DEADLINE": f"{page + DEADLINE:#x}",
        "COUNTER_HZ": f"{page + COUNTER_HZ:#x}",
        "REGION": [f"{region + at:#x}" for at in range(0x100, 0x300, 0x40)],
    }
