# SPDX-License-Identifier: Apache-2.0
"""The board that all checks of a run share: booted once, ended whatever happened.  ``run.py`` starts these checks, nothing else does."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator

import outside
import pytest
from boards import BOARDS
from figures import Figures
from fleet import Fleet
from image import OUT, make
from machine import Machine
from recorded import RecordedDisk
from tpm import ChipTpm, HostTpm

from qsafp_embedded.hardware import board as hardware


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """The running board that QSAFP_BOARD names."""
    board = BOARDS[os.environ["QSAFP_BOARD"]]
    image, disk = make(board, print), RecordedDisk(OUT / board.name)
    if board.recorded:
        disk.make()
    with contextlib.ExitStack() as stack:
        extra = disk.words() if board.recorded else ()
        if board.chip_tpm:
            extra += stack.enter_context(ChipTpm(OUT / board.name)).words()
        yield stack.enter_context(Machine(board, image, extra=extra, trace=board.trace))


@pytest.fixture(scope="session")
def figures(machine: Machine, record_testsuite_property: Callable[[str, object], None]) -> Figures:
    """Where figures go."""
    return Figures(OUT / f"{machine.board.name}.figures.json", machine.board.name, record_testsuite_property)


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
    with contextlib.ExitStack() as stack:
        key = stack.enter_context(HostTpm(machine)).key if machine.board.tpm else ChipTpm.key if machine.board.chip_tpm else "file"
        made = stack.enter_context(Fleet(machine, root, board=machine.board.name, device_key=key))
        made.ready()
        yield made
