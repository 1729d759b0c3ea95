# SPDX-License-Identifier: Apache-2.0
"""What tests of a board share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from unleashed import short_dir


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with short_dir() as path:
        yield path
