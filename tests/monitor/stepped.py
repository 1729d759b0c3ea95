# SPDX-License-Identifier: Apache-2.0
"""A board whose virtual time passes only while somebody asks for it: QEMU counts instructions and stands still in between.

A board at rest waits as long as its timer says, in the host's time: skipping that would leave it minutes ahead before it is stopped.

Two things are lent from QEMU's network layer, none of which the guest sees.  A filter that stamps packets tells the virtual time.
A filter that holds packets back has a timer, which bounds how long one processor keeps the others waiting: without it a core that
spins starves the one that it spins for, as QEMU 7.2 changes between cores only when a timer is due.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boot_kit import Factory
from firmware import TARGETS
from shipped import Shipped, ShippedArmv7, ShippedUnleashed, ShippedVirt
from unleashed import GUEST_LIMIT_S, build

TURN_US = 1000
EACH_S = 0.02  # between two looks at what is waited for
MOST_S = 0.2  # and between two looks at the time
SHORT_S, WORD_S = 0.003, 0.00006  # of the host's: less than this is no sleep, and what QEMU takes for a word
FASTEST, LEAST_S = 16, 0.0003  # virtual seconds in one of the host's, at most; the shortest slice, in the host's
ICOUNT = "shift=5"  # 32 ns an instruction
RECORD = struct.Struct("<IIII")


class Stepped(Shipped):
    """What is mixed into a board.  Stopping flushes no disk: its file outlives QEMU anyway."""

    held = True
    gate_page = 0x40200000
    late_s = 0.0  # the furthest that it ever ran past where it was to stand still, on a host with no time to stop it

    def files(self) -> dict[str, bytes]:
        """What a board is loaded with, by the names that renode/*.resc load it by."""
        self.boot_from(factory(self.name))
        programs = {name: (self.out / name).read_bytes() for name in ("monitor.bin", "payload.bin")}
        images = bytes(self.store.flash).rstrip(b"\xff") + b"\xff"
        written = {"fuses.bin": self.device.fuses(), "entropy.bin": self._entropy, "set.cbor": self.device.document}
        return {**programs, **written, "boot.elf": self.store.factory.elf.read_bytes(), "images.bin": images}

    def _words(self) -> list[str]:
        self.boot_from(factory(self.name))
        images = (self.folder / "images.bin").read_bytes()  # maybe changed since
        self.store.flash[: len(images)] = images
        words = [w.replace("format=raw", "format=raw,cache=unsafe") if w.startswith("if=") else w for w in super()._words()]
        words += ["-icount", ICOUNT]
        words += ["-netdev", f"dgram,id=clock,local.type=unix,local.path={self.folder}/ask,remote.type=unix,remote.path={self.folder}/none"]
        words += ["-netdev", "hubport,id=hub,hubid=0,netdev=clock", "-object", f"filter-dump,id=time,netdev=clock,file={self.folder}/clock"]
        return [*words, "-object", f"filter-buffer,id=turn,netdev=hub,interval={TURN_US}"]

    def __enter__(self) -> Any:
        """Start it; no instruction has run."""
        (self.folder / "ask").unlink(missing_ok=True)
        self._asking = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        super().__enter__()
        self._started = 0.0
        self._started = self.now()
        return self

    def __exit__(self, *why: object) -> None:
        """End it."""
        super().__exit__(*why)
        self._asking.close()

    def now(self) -> float:
        """Virtual seconds since the start."""
        path = self.folder / "clock"
        before = path.stat().st_size
        self._asking.sendto(b"?" * 14, str(self.folder / "ask"))
        end = time.monotonic() + GUEST_LIMIT_S
        while path.stat().st_size == before:
            assert time.monotonic() < end, "QEMU does not tell the time"
            time.sleep(0.0002)
        with path.open("rb") as file:
            file.seek(-(RECORD.size + 14), os.SEEK_END)
            seconds, micros, *_ = RECORD.unpack(file.read(RECORD.size))
        return float(seconds) + micros / 1e6 - self._started

    def run(self, seconds: float, done: Callable[[], bool] | None = None) -> bool:
        """Let virtual time pass until something is done or ``seconds`` are over, no less and hardly more; whether it is done."""
        now = self.now()
        end = now + seconds
        while not (over := done is not None and done()) and now < end:
            wish = min(end - now, EACH_S if done else MOST_S)
            self._slice(max(wish / FASTEST, LEAST_S))
            before, now = now, self.now()
            self.late_s = max(self.late_s, now - before - wish)
        return over

    def _slice(self, seconds: float) -> None:
        """Go on and stop.  A short one lasts as long as QEMU takes for words that come all at once, however busy the host is."""
        if seconds < SHORT_S:
            self.qmp.all(["cont", *(["query-name"] * int(seconds / WORD_S)), "stop"])
        else:
            self.qmp.call("cont")
            time.sleep(seconds)
            self.qmp.call("stop")

    def text(self) -> str:
        """All that it said on its line."""
        return self.heard_log.read_bytes().decode(errors="replace")

    def peek(self, address: int, size: int) -> int:
        """A word of ordinary memory."""
        return int(self._edges.ask(f"read{'l' if size == 4 else 'q'} {address:#x}"), 16)

    def poke(self, address: int, word: int) -> None:
        """Write a word of 32 bits to ordinary memory."""
        self._edges.ask(f"writel {address:#x} {word:#x}")


class SteppedUnleashed(Stepped, ShippedUnleashed):
    """The HiFive Unleashed."""

    gate_page = 0x80010000


class SteppedAarch64(Stepped, ShippedVirt):
    """The virt machine."""


class SteppedArmv7(Stepped, ShippedArmv7):
    """The same with a 32-bit processor."""


KINDS: dict[str, type[Stepped]] = {kind.name: kind for kind in (SteppedUnleashed, SteppedAarch64, SteppedArmv7)}


@functools.cache
def built(name: str) -> type[Stepped]:
    """A board whose programs are compiled, once."""
    build(name)
    return KINDS[name]


@functools.cache
def factory(name: str) -> Factory:
    """A root key, and the boot stage that knows it."""
    folder = Path(tempfile.mkdtemp(prefix="qf"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Factory(TARGETS[name], folder, program=(TARGETS[name].out / "booted.bin").read_bytes())
