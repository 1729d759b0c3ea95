# SPDX-License-Identifier: Apache-2.0
"""What GPIO chips and lines are here, read from the character device; nothing is requested or changed.

Two ioctls instead of the gpiod package, which has no wheels for armv7 and riscv64: pip falls back to another API there.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Chip", "LineInfo", "chips", "lines"]

DEV = Path("/dev")
GET_CHIPINFO = 0x8044B401  # _IOR(0xB4, 1, struct gpiochip_info): name[32], label[32], lines u32
GET_LINEINFO = 0xC100B405  # _IOWR(0xB4, 5, struct gpio_v2_line_info): name[32], consumer[32], offset u32, num_attrs u32, flags u64, ...
LINEINFO_BYTES = 256
USED = 1


class Chip(NamedTuple):
    """A GPIO chip; ``trouble`` says why it could not be read (label and lines are then empty)."""

    path: Path
    label: str = ""
    lines: int = 0
    trouble: str = ""


class LineInfo(NamedTuple):
    """A line; ``consumer`` is who holds it, None while nobody does."""

    offset: int
    name: str
    consumer: str | None


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")


def _number(path: Path) -> int:
    return int(re.sub(r"\D", "", path.name) or 0)


def chips() -> list[Chip]:
    """Every /dev/gpiochipN, by number."""
    return [_chip(p) for p in sorted(DEV.glob("gpiochip*"), key=_number)]


def _chip(path: Path) -> Chip:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as why:
        return Chip(path, trouble=why.strerror or "cannot be opened")
    try:
        _, label, count = struct.unpack("32s32sI", fcntl.ioctl(fd, GET_CHIPINFO, bytes(68)))
        return Chip(path, _text(label), count)
    except OSError as why:
        return Chip(path, trouble=why.strerror or "cannot be read")
    finally:
        os.close(fd)


def lines(chip: Chip) -> Iterator[LineInfo]:
    """Every line of a chip; raises OSError."""
    fd = os.open(chip.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for offset in range(chip.lines):
            asked = struct.pack("64xI", offset).ljust(LINEINFO_BYTES, b"\0")
            name, consumer, _, _, flags = struct.unpack_from("32s32sIIQ", fcntl.ioctl(fd, GET_LINEINFO, asked))
            yield LineInfo(offset, _text(name), _text(consumer) if flags & USED else None)
    finally:
        os.close(fd)
