# SPDX-License-Identifier: Apache-2.0
"""What tests of the monitor share.

``@pytest.mark.board(NAME)`` says on which board a test runs: it is skipped where that cannot, and its monitor is built before.
QSAFP_BOARD=NAME takes the tests of one board alone, QSAFP_BOARD=host those of none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from kinds import HOST, KINDS
from unleashed import build, short_dir


def board_of(item: pytest.Item) -> str:
    """The board of a test."""
    mark = item.get_closest_marker("board")
    return str(mark.args[0]) if mark else HOST


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "board(name): the emulated bare-metal board that it runs on")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = os.environ.get("QSAFP_BOARD")
    others = [i for i in items if wanted and board_of(i) != wanted]
    config.hook.pytest_deselected(items=others)
    items[:] = [i for i in items if i not in others]


build_once = cache(build)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    name = board_of(item)
    if name == HOST:
        return
    if missing := KINDS[name].absent():
        pytest.skip(f"not installed: {missing}")
    build_once(name)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with short_dir() as path:
        yield path
