# SPDX-License-Identifier: Apache-2.0
"""A payload that turns hostile at non-secure EL1: after every attack the lease ends on time, the pins are right, both cores stand still,
the log verifies (HW-12, HW-15).  Run it by name: it takes some seconds per attack.

What the payload does to secure memory and secure devices is reported to the payload alone on this board: the log names what EL3 sees.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from check_attacks import ENDLESS, check_the_end, open_with_an_old_approval, reports
from unleashed import Device, until
from virt_aarch64 import VirtAarch64

from qsafp_embedded._tables import Phase

pytestmark = pytest.mark.board(VirtAarch64.name)
REGISTER = 0x18  # exception class: a register that EL3 keeps for itself
PROTECTION, DMA = 6, 7
ATTACKS = {
    1: "masks its interrupts",
    2: "reprograms timers and interrupt controller",
    3: "reads and writes secure memory",
    4: "drives the pins",
    5: "writes the flash",
    6: "changes secure registers and borrows rights",
    7: "programs bus masters",
    8: "jumps into the monitor",
    9: "races arguments from the other core",
    10: "passes bad pointers",
    11: "calls begin in a loop",
    13: "floods calls",
    14: "never yields",
    15: "faults without end",
    16: "shows itself an open gate",
}


def secure_words(board: VirtAarch64, address: int, count: int) -> list[int]:
    """Words of secure memory, as the first core sees them at EL3."""
    said = board.hmp(f"x /{count}xw {address:#x}")
    return [int(word, 16) for row in said.splitlines() for word in re.findall(r"0x([0-9a-f]{8})\b", row.partition(":")[2])]


@pytest.mark.parametrize("number", ATTACKS, ids=lambda n: ATTACKS[n].replace(" ", "-"))
def test_after_an_attack_the_lease_ends_on_time(number: int, folder: Path) -> None:
    with VirtAarch64(Device(duration_ms=6000), folder, attack=number) as board, board.client() as client:
        board.lease(client)
        status = client.status()
        assert status.phase == Phase.ACTIVE
        if number not in ENDLESS:
            until(lambda: board.orders()["finished"])
        found = reports(check_the_end(board, client, status.now_ns + status.remaining_ns))
        assert {cause >> 26 for cause, _, _ in found} == ({REGISTER} if number == PROTECTION else set())
        image = (board.out / "monitor.bin").read_bytes()[:64]
        assert b"".join(word.to_bytes(4, "little") for word in secure_words(board, board.code.start, 16)) == image


def test_an_old_approval_opens_nothing(folder: Path) -> None:
    open_with_an_old_approval(VirtAarch64, Device(duration_ms=6000), folder, 0x40800000)
