# SPDX-License-Identifier: Apache-2.0
"""GPIO chips and lines through the character device: what is here, who holds a line, and one line of one's own.

A few ioctls instead of the gpiod package, which has no wheels for armv7 and riscv64: pip falls back to another API there.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

__all__ = ["Chip", "LineInfo", "Request", "chips", "find", "holder", "lines"]

DEV = Path("/dev")
PROC = Path("/proc")
GET_CHIPINFO = 0x8044B401  # _IOR(0xB4, 1, struct gpiochip_info): name[32], label[32], lines u32
GET_LINEINFO = 0xC100B405  # _IOWR(0xB4, 5, struct gpio_v2_line_info): name[32], consumer[32], offset u32, num_attrs u32, flags u64, ...
GET_LINE = 0xC250B407  # _IOWR(0xB4, 7, struct gpio_v2_line_request)
GET_VALUES = 0xC010B40E  # _IOWR(0xB4, 14, struct gpio_v2_line_values): bits u64, mask u64
SET_VALUES = 0xC010B40F
LINEINFO_BYTES = 256
EVENT = struct.Struct("=QII32x")  # timestamp_ns, id (1 rising, 2 falling), offset
REQUEST = struct.Struct("=I252x32sQI20xI4xI4xQ216xI24xi")  # offset, consumer, flags, one attribute (how many, id, us, mask), lines, fd
USED, INPUT, OUTPUT, BOTH_EDGES = 1, 1 << 2, 1 << 3, 3 << 4
DEBOUNCE = 3  # the attribute's id
FLAGS = {1: 1 << 1, 2: 1 << 6, 4: 1 << 8, 8: 1 << 9, 16: 1 << 10}  # those of a board's Line, in the kernel's words


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


def find(chip: Chip, name: str, offset: int) -> LineInfo | None:
    """The line of that name, or of that offset if ``name`` is empty; None if there is none.  Raises OSError."""
    return next((line for line in lines(chip) if (line.name == name if name else line.offset == offset)), None)


def holder(chip: Chip, offset: int) -> str:
    """The process that holds a line, as ``name (pid 12)``; empty where an older kernel or our rights do not tell."""
    wanted = {f"gpio-chip:\t{chip.path.name}", f"gpio-line:\t{offset}"}
    for info in PROC.glob("[0-9]*/fdinfo/*"):
        try:
            if wanted <= set(info.read_text().splitlines()):
                return f"{(info.parents[1] / 'comm').read_text().strip()} (pid {info.parents[1].name})"
        except OSError:  # it ended, or is another user's
            continue
    return ""


class Request:
    """A line of one's own until it is closed, an input with both edges or an output that begins low.  Use as a context manager."""

    def __init__(self, chip: Chip, offset: int, *, consumer: str, output: bool, flags: int = 0, debounce_us: int = 0) -> None:
        """``flags`` are those of a board's Line.  Raises OSError: EBUSY if it is held, EINVAL if it cannot be what is asked."""
        asked = (OUTPUT if output else INPUT | BOTH_EDGES) | sum(bit for ours, bit in FLAGS.items() if flags & ours)
        attrs = (1, DEBOUNCE, debounce_us, 1) if debounce_us else (0, 0, 0, 0)
        words = bytearray(REQUEST.pack(offset, consumer.encode(), asked, *attrs, 1, 0))
        fd = os.open(chip.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, GET_LINE, words)
        finally:
            os.close(fd)
        self._fd = REQUEST.unpack(words)[-1]

    def __enter__(self) -> Request:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give the line back."""
        os.close(self._fd)

    def set(self, level: int) -> None:
        """Drive an output; raises OSError."""
        fcntl.ioctl(self._fd, SET_VALUES, struct.pack("=QQ", level, 1))

    def get(self) -> int:
        """Read the level; raises OSError."""
        bits, _ = struct.unpack("=QQ", fcntl.ioctl(self._fd, GET_VALUES, struct.pack("=QQ", 0, 1)))
        return int(bits & 1)

    def edge(self, timeout_s: float) -> int | None:
        """Wait for an edge of an input: 1 rising, 0 falling, None if none came in time.  Raises OSError."""
        if not select.select([self._fd], [], [], timeout_s)[0]:
            return None
        return int(EVENT.unpack(os.read(self._fd, EVENT.size))[1] == 1)
