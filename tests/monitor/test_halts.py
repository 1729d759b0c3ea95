# SPDX-License-Identifier: Apache-2.0
"""A monitor that cannot trust what it starts from says why and stops for good: FAILSAFE high, LEASE_VALID low, no payload (HW-8, HW-10).

The code is common to all boards, so one stands for them; no entropy is tried on each (test_lease.py).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from test_attacks import parked
from unleashed import Board, Device, short_dir, until
from validator_kit import quorum

pytestmark = pytest.mark.board(Board.name)
SECTOR, STATE, LOG = 4096, 0xC00000, 0xC10000  # of the flash, as monitor_map.h has them
RECORD, SEED = 256, 48  # bytes of a record; where the seed lies in the fuses
END = re.compile(rb"qsafp monitor: (halted: [a-z ]+|serving)\r\n")


class Lived(Device):
    """A device whose board was on before: what fuses and flash hold may be spoiled."""

    flash: bytearray

    def __init__(self) -> None:
        """Its set is not the first."""
        super().__init__(document=quorum(m=4, n=6, lab=True, epoch=2).document)
        self.burnt = bytearray(super().fuses())

    def fuses(self) -> bytes:
        """What is burnt."""
        return bytes(self.burnt)


def another_seed(given: Lived) -> None:
    given.burnt[SEED] ^= 1


def blank_fuses(given: Lived) -> None:
    given.burnt[:] = bytes(len(given.burnt))


def another_bit_in_the_set(given: Lived) -> None:
    middle = len(given.document) // 2
    given.document = given.document[:middle] + bytes([given.document[middle] ^ 1]) + given.document[middle + 1 :]


def an_older_set(given: Lived) -> None:
    given.document = quorum(m=4, n=6, lab=True, epoch=1).document
    given.burnt[:] = Device.fuses(given)


def another_bit_in_a_record(given: Lived) -> None:
    given.flash[LOG + 120] ^= 1


def a_record_far_off(given: Lived) -> None:
    given.flash[LOG + 100 * RECORD : LOG + 101 * RECORD] = given.flash[LOG : LOG + RECORD]


def another_bit_in_the_state(given: Lived) -> None:
    for at in (STATE, STATE + SECTOR):
        given.flash[at + 40] ^= 1


def no_state(given: Lived) -> None:
    given.flash[STATE : STATE + 2 * SECTOR] = b"\xff" * (2 * SECTOR)


SPOILED: list[tuple[Callable[[Lived], None], str]] = [
    (another_seed, "no device keys"),
    (blank_fuses, "no device keys"),
    (another_bit_in_the_set, "no valid validator set"),
    (an_older_set, "log or state cannot be used"),
    (another_bit_in_a_record, "log or state is corrupt"),
    (a_record_far_off, "log or state is corrupt"),
    (another_bit_in_the_state, "corrupt"),
    (no_state, "cannot be used"),
]


@pytest.fixture(scope="module")
def lived() -> Lived:
    """After a first start."""
    given = Lived()
    with short_dir() as folder:
        with Board(given, folder) as board:
            until(lambda: b"serving" in board.said())
        given.flash = bytearray((folder / "flash.bin").read_bytes())
    return given


@pytest.mark.parametrize(("spoil", "why"), SPOILED, ids=lambda p: getattr(p, "__name__", "").replace("_", "-"))
def test_a_board_that_cannot_trust_its_start_halts(lived: Lived, folder: Path, spoil: Callable[[Lived], None], why: str) -> None:
    given = copy.copy(lived)
    given.flash, given.burnt = bytearray(lived.flash), bytearray(lived.burnt)
    spoil(given)
    (folder / "flash.bin").write_bytes(given.flash)
    with Board(given, folder) as board:
        said = until(lambda: END.search(board.said()))
        assert said[1].startswith(b"halted: ")
        assert said[1].endswith(why.encode())
        assert board.pins("FAILSAFE") == [1]
        assert board.pins("LEASE_VALID") == []
        assert parked(board) == [True, True]
        assert not any(board.orders().values())
