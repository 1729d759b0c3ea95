# SPDX-License-Identifier: Apache-2.0
"""A GPIO chip behind ioctl for programs of ours: a file per chip and per line in one folder, so that another process can watch and press.

``python fake_gpio.py FOLDER WORDS…`` runs the command line with it.  ``line<offset>.line`` tells what was driven, a character each;
``.in`` is a FIFO of edges, ``.held`` names who holds it.  What is held is free again when the process ends, as with a real kernel.
"""

from __future__ import annotations

import atexit
import os
import struct
import sys
from pathlib import Path

from qsafp_embedded.hardware import gpio

LINES = 8
RISING, FALLING = 1, 2


class Kernel:
    """What fcntl.ioctl does: ``lines`` are those of chips in ``folder``, whose content is their label."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: dict[int, Path] = {}
        self.taken: set[Path] = set()
        atexit.register(self.release)

    def release(self) -> None:
        for line in self.taken:
            line.with_suffix(".held").unlink(missing_ok=True)

    def ioctl(self, fd: int, what: int, words: bytes | bytearray) -> bytes:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if what == gpio.GET_CHIPINFO:
            return struct.pack("32s32sI", path.name.encode(), path.read_bytes(), LINES)
        if what == gpio.GET_LINEINFO:
            return self.info(path, struct.unpack_from("64xI", words)[0])
        if what == gpio.GET_LINE:
            assert isinstance(words, bytearray)
            return self.request(path, words)
        return self.value(self.open[fd], what, words)

    def info(self, chip: Path, offset: int) -> bytes:
        held = chip.with_name(f"line{offset}.held")
        who = held.read_bytes() if held.exists() else None
        return struct.pack("32s32sIIQ", f"GPIO{offset}".encode(), who or b"", offset, 0, who is not None)

    def request(self, chip: Path, words: bytearray) -> bytes:
        offset, consumer, flags, *_ = gpio.REQUEST.unpack(words)
        line = chip.with_name(f"line{offset}.line")
        if line.with_suffix(".held").exists():
            raise OSError(16, os.strerror(16))
        if line.with_suffix(".wrong").exists():
            raise OSError(22, os.strerror(22))
        line.with_suffix(".held").write_bytes(consumer.rstrip(b"\0"))
        with line.open("a") as told:
            told.write("0" if flags & gpio.OUTPUT else "")
        fd = os.open(line.with_suffix(".in") if flags & gpio.INPUT else line, os.O_RDWR)
        self.open[fd] = line
        self.taken.add(line)
        words[-4:] = struct.pack("i", fd)
        return bytes(words)

    def value(self, line: Path, what: int, words: bytes) -> bytes:
        if what == gpio.SET_VALUES:
            with line.open("a") as told:
                told.write(str(struct.unpack("=QQ", words)[0]))
            return words
        level = line.with_suffix(".level")
        return struct.pack("=QQ", int(level.read_text()), 1)


def make(folder: Path, label: str) -> None:
    """A chip whose lines can all be inputs."""
    (folder / "gpiochip0").write_text(label)
    for offset in range(LINES):
        os.mkfifo(folder / f"line{offset}.in")
        (folder / f"line{offset}.level").write_text("0")


def press(folder: Path, offset: int, edges: str) -> None:
    """Move an input: ``1`` and ``0`` are edges to these levels."""
    (folder / f"line{offset}.level").write_text(edges[-1])
    with (folder / f"line{offset}.in").open("wb", buffering=0) as line:
        line.write(b"".join(gpio.EVENT.pack(0, RISING if e == "1" else FALLING, offset) for e in edges))


if __name__ == "__main__":
    from qsafp_embedded.cli import main

    gpio.DEV = Path(sys.argv[1])
    gpio.fcntl.ioctl = Kernel(gpio.DEV).ioctl  # type: ignore[assignment]
    sys.exit(main(sys.argv[2:]))
