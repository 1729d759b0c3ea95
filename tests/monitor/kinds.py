# SPDX-License-Identifier: Apache-2.0
"""The emulated bare-metal boards, by name."""

from __future__ import annotations

from unleashed import Board
from virt_aarch64 import VirtAarch64
from virt_armv7 import VirtArmv7

KINDS: dict[str, type[Board]] = {kind.name: kind for kind in (Board, VirtAarch64, VirtArmv7)}
HOST = "host"  # what runs on this machine: the boards' own C and the image format
