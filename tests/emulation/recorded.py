# SPDX-License-Identifier: Apache-2.0
"""A disk whose every write and flush is recorded (QEMU's blklogwrites), and what a power cut could have left of it.

The log has the format of the kernel's dm-log-writes: a block for itself, then for each write one block that tells where it goes,
and its data.  Writes stand in the order in which the guest handed them over.  The device is ``ROOM`` longer than its file system:
there the guest notes what it was told, between the writes of the guard.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from debian import run

__all__ = ["Cut", "Entry", "RecordedDisk", "cuts"]

SECTOR = 512
FS_BYTES = 16 << 20
ROOM = 4096
HEAD, ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")
MAGIC = 0x6A736677736872
FLUSH, DISCARD = 1, 4


class Entry(NamedTuple):
    """One write (its offset in bytes), or a flush."""

    flush: bool
    off: int
    data: bytes

    @property
    def note(self) -> dict[str, Any] | None:
        """What the guest had been told when it wrote this, if it is no write of the file system."""
        return dict(json.loads(self.data.rstrip(b"\0"))) if not self.flush and self.off >= FS_BYTES else None


class RecordedDisk:
    """The files of one such disk: ``base`` as it was made, ``data`` as it is, ``log`` of its writes."""

    def __init__(self, out: Path) -> None:
        """Name them in a folder."""
        self.base, self.data, self.log = (out / f"recorded.{part}" for part in ("base", "data", "writes"))

    def make(self) -> None:
        """Make an empty file system, and an empty record."""
        for path in (self.base, self.data):
            path.unlink(missing_ok=True)
            run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-E", "root_owner=0:0,nodiscard", path, f"{FS_BYTES >> 10}k"])
            with path.open("r+b") as file:
                file.truncate(FS_BYTES + ROOM)
        self.data.write_bytes(self.base.read_bytes())
        self.log.write_bytes(b"")

    def words(self) -> tuple[str, ...]:
        """QEMU's words."""
        nodes = (
            f"driver=file,node-name=recorded-data,filename={self.data},cache.no-flush=on",
            f"driver=file,node-name=recorded-log,filename={self.log},cache.no-flush=on",
            "driver=blklogwrites,node-name=recorded,file=recorded-data,log=recorded-log",
        )
        return (*(w for n in nodes for w in ("-blockdev", n)), "-device", "virtio-blk-pci,drive=recorded")

    def entries(self) -> list[Entry]:
        """All that was recorded so far.  Raises ValueError if it is no such log."""
        with self.log.open("rb") as file:
            magic, version, _, size = HEAD.unpack(file.read(HEAD.size))
            if (magic, version, size) != (MAGIC, 1, SECTOR):
                raise ValueError(f"{self.log}: no log of writes in sectors of {SECTOR} bytes")
            found = []
            file.seek(SECTOR)
            while len(head := file.read(SECTOR)) == SECTOR:
                sector, count, flags, _ = ENTRY.unpack_from(head)
                if flags & DISCARD:
                    raise ValueError(f"{self.log}: a discard, which is not replayed")
                if not count and not flags:
                    break
                found.append(Entry(bool(flags & FLUSH), sector * SECTOR, file.read(count * SECTOR)))
        return found


@dataclass
class Cut:
    """What a disk may hold after a power cut: some of the recorded entries, in order; ``told`` is what had been told before.

    The first ``sure`` entries all, then those in ``rest``, of the last one only ``torn`` bytes.
    """

    name: str
    told: dict[str, Any]
    sure: int
    rest: list[int] = field(default_factory=list)
    torn: int | None = None


def cuts(entries: list[Entry]) -> Iterator[Cut]:
    """Every prefix of the writes; between two flushes also none of the writes since the first, some of them, and a torn one.

    They begin with the first note: before it, nothing was told.
    """
    dice = random.Random(1)
    told: dict[str, Any] | None = None
    sure, since = 0, list[int]()
    for i, e in enumerate(entries):
        if e.flush:
            if told is not None:
                yield Cut(f"before flush {i}, nothing since {sure}", told, sure)
                yield Cut(f"before flush {i}, some since {sure}", told, sure, [k for k in since if dice.random() < 0.5])
            sure, since = i + 1, []
            continue
        if told is not None and len(e.data) > SECTOR:
            yield Cut(f"in write {i}", told, sure, [*since, i], dice.randrange(1, len(e.data) // SECTOR) * SECTOR)
        since.append(i)
        told = e.note or told
        if told is not None:
            yield Cut(f"after write {i}", told, sure, list(since))
