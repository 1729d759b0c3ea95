# SPDX-License-Identifier: Apache-2.0
"""In the guest: one line of a GPIO chip through the character device (v2).

``list`` prints each chip's device, label and number of lines.  ``drive CHIP OFFSET FIFO`` owns an output and sets it to each 0 or 1
that comes through FIFO.  ``watch CHIP OFFSET`` owns an input and prints ``ready LEVEL``, then each edge as it comes.
"""

from __future__ import annotations

import fcntl
import glob
import os
import struct
import sys

INPUT, OUTPUT, RISING, FALLING = 1 << 2, 1 << 3, 1 << 4, 1 << 5
REQUEST = struct.Struct("=64I32sQI20x240xII20xi")
EVENT = struct.Struct("=QIIII24x")
VALUES = struct.Struct("=QQ")


def ioctl(fd: int, kind: int, number: int, size: int, data: bytes) -> bytes:
    """One call of the GPIO family; the kernel's answer."""
    return fcntl.ioctl(fd, kind << 30 | size << 16 | 0xB4 << 8 | number, data)


def line(chip: str, offset: int, flags: int) -> int:
    """Own one line; returns its file descriptor."""
    fd = os.open(chip, os.O_RDWR | os.O_CLOEXEC)
    try:
        ask = REQUEST.pack(offset, *[0] * 63, b"board-check", flags, 0, 1, 0, 0)
        return int(REQUEST.unpack(ioctl(fd, 3, 0x07, REQUEST.size, ask))[-1])
    finally:
        os.close(fd)


def chips() -> None:
    """List them."""
    for path in sorted(glob.glob("/dev/gpiochip*")):  # noqa: PTH207
        fd = os.open(path, os.O_RDONLY)
        _, label, count = struct.unpack("=32s32sI", ioctl(fd, 2, 0x01, 68, bytes(68)))
        print(path, label.rstrip(b"\0").decode(), count)
        os.close(fd)


def drive(chip: str, offset: int, fifo: str) -> None:
    """Set an output as told, until killed."""
    fd = line(chip, offset, OUTPUT)
    os.mkfifo(fifo)
    told = os.open(fifo, os.O_RDWR)
    while True:
        for byte in os.read(told, 64):
            if byte in b"01":
                ioctl(fd, 3, 0x0F, VALUES.size, VALUES.pack(byte - 48, 1))


def watch(chip: str, offset: int) -> None:
    """Print edges, until killed."""
    fd = line(chip, offset, INPUT | RISING | FALLING)
    level, _ = VALUES.unpack(ioctl(fd, 3, 0x0E, VALUES.size, VALUES.pack(0, 1)))
    print("ready", level, flush=True)
    while True:
        at_ns, edge, _, _, number = EVENT.unpack(os.read(fd, EVENT.size))
        print({1: "rising", 2: "falling"}[edge], number, at_ns, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["list"]:
            chips()
        case ["drive", chip, offset, fifo]:
            drive(chip, int(offset), fifo)
        case ["watch", chip, offset]:
            watch(chip, int(offset))
        case _:
            sys.exit(__doc__)
