# SPDX-License-Identifier: Apache-2.0
"""What all Python tests share: the root, the vectors, and property tests that give the same answer twice."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and what it starts would too


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of wire vectors, which C, Python and firmware read alike."""
    return ROOT / "tests/vectors"
