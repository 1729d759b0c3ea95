# SPDX-License-Identifier: Apache-2.0
"""A payload that turns hostile in the non-secure world of an ARM processor: after every attack the lease ends on time, the pins are
right, both cores stand still, the log verifies (HW-12, HW-15).

What the payload does to secure memory and secure devices is reported to the payload alone on these boards; EL3 of AArch64 hears of the
registers that it keeps for itself.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from firmware import TARGETS
from test_attacks import LEASES_MS, attacked, check_the_end, open_with_an_old_approval, reports, stop_by_hand
from unleashed import Device
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


def secure_words(board: VirtAarch64, address: int, count: int) -> list[int]:
    """Words of secure memory, as the first core sees them in the monitor."""
    said = board.hmp(f"x /{count}xw {address:#x}")
    return [int(word, 16) for row in said.splitlines() for word in re.findall(r"0x([0-9a-f]{8})\b", row.partition(":")[2])]


@pytest.mark.parametrize("number", ATTACKS, ids=lambda n: ATTACKS[n].replace(" ", "-"))
def test_after_an_attack_the_lease_ends_on_time(kind: type[VirtAarch64], number: int) -> None:
    with attacked(kind, number) as (board, client, end_ns):
        found = reports(check_the_end(board, client, end_ns))
        assert {(core, cause >> 26) for core, cause, _, _ in found} == TOLD.get((kind, number), set())
        image = (board.out / "monitor.bin").read_bytes()[:64]
        assert b"".join(word.to_bytes(4, "little") for word in secure_words(board, board.code.start, 16)) == image
        assert int.from_bytes(board.memory(GATE_COPY + 4, 4), "little") != ARMED
        payload_memory = secure_words(board, TARGETS[kind.name].map["TABLES"] + 8, 1)[0]  # the descriptor of its GB
        assert payload_memory & NON_SECURE, "a wrong place in a copy could be a secure one"


def test_an_old_approval_opens_nothing(kind: type[VirtAarch64], folder: Path) -> None:
    open_with_an_old_approval(kind, Device(duration_ms=LEASES_MS[0]), folder, 0x40800000)


def test_a_fail_safe_by_hand_comes_through(kind: type[VirtAarch64], folder: Path) -> None:
    stop_by_hand(kind, folder)
