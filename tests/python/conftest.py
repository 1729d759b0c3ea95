# SPDX-License-Identifier: Apache-2.0
"""A device of its own for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from guard_kit import Device, short_dir


@pytest.fixture
def enrolled() -> Iterator[Device]:
    """A device whose guard does not run yet; what a test starts is ended."""
    with short_dir() as root:
        made = Device(root)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def device(enrolled: Device) -> Device:
    """A device whose guard runs."""
    return enrolled.start()
