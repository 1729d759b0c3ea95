# SPDX-License-Identifier: Apache-2.0
"""The board that all checks of a run share: booted once, ended whatever happened.  ``run.py`` starts these checks, nothing else does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import outside
import pytest
from boards import BOARDS
from fleet import Fleet
from image import make
from machine import Machine

from qsafp_embedded.hardware import board as hardware


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """The running board that QSAFP_BOARD names."""
    board = BOARDS[os.environ["QSAFP_BOARD"]]
    with Machine(board, make(board, print), trace=board.trace) as started:
        yield started


@pytest.fixture(scope="session")
def lines(machine: Machine) -> outside.Lines:
    """Its lines, from outside."""
    return outside.lines_of(machine)


@pytest.fixture(scope="session")
def wiring(machine: Machine) -> hardware.Board:
    """Which lines are whose, as board.toml says."""
    return hardware.load(machine.board.name)


@pytest.fixture(scope="session")
def fleet(machine: Machine) -> Iterator[Fleet]:
    """Six validators on the host, and the device enrolled with them; its agent does not run yet."""
    root = machine.out / "fleet"
    shutil.rmtree(root, ignore_errors=True)
    with Fleet(machine, root, board=machine.board.name) as made:
        made.ready()
        yield made
