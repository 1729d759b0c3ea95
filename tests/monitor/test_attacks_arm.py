# SPDX-License-Identifier: Apache-2.0
"""A payload that turns hostile in the non-secure world of an ARM processor: after every attack the lease ends on time, the pins are
right, both cores stand still, the log verifies (HW-12, HW-15).

What the payload does to secure memory and secure devices is reported to the payload alone on these boards; EL3 of AArch64 hears of the
registers that it keeps for itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from firmware import TARGETS
from test_attacks import attacks, old_approvals, one_in_time, reports, stop_by_hand
from virt_aarch64 import VirtAarch64
from virt_armv7 import VirtArmv7

BOARDS = {kind.name: kind for kind in (VirtAarch64, VirtArmv7)}
REGISTER = 0x18  # exception class: a register that EL3 keeps for itself
PROTECTION = 6
NON_SECURE = 1 << 5  # in a descriptor
GATE_COPY, ARMED = 0x40200000, 0x5A3C96E1  # of the gate page, in the payload's memory
TOLD = {(VirtAarch64, PROTECTION): {(1, REGISTER), (2, REGISTER)}}
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


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.board(name)) for name in BOARDS])
def kind(request: pytest.FixtureRequest) -> type[VirtAarch64]:
    """A board."""
    return BOARDS[request.param]


@pytest.mark.parametrize("number", ATTACKS, ids=lambda n: ATTACKS[n].replace(" ", "-"))
def test_after_an_attack_the_lease_ends_on_time(kind: type[VirtAarch64], number: int) -> None:
    def check(board: VirtAarch64, records: list[dict[str, Any]]) -> None:
        found = reports(records)
        assert {(core, cause >> 26) for core, cause, _, _ in found} == TOLD.get((kind, number), set())
        assert board.seen_by_first(board.code.start, 64) == (board.out / "monitor.bin").read_bytes()[:64]
        assert int.from_bytes(board.memory(GATE_COPY + 4, 4), "little") != ARMED
        payload_memory = board.seen_by_first(TARGETS[kind.name].map["TABLES"] + 8, 1)[0]  # of the descriptor of its GB
        assert payload_memory & NON_SECURE, "a wrong place in a copy could be a secure one"

    one_in_time(attacks(kind, number, check))


def test_an_old_approval_opens_nothing(kind: type[VirtAarch64]) -> None:
    one_in_time(old_approvals(kind, 0x40800000))


def test_a_fail_safe_by_hand_comes_through(kind: type[VirtAarch64], folder: Path) -> None:
    stop_by_hand(kind, folder)
