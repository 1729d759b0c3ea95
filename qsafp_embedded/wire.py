# SPDX-License-Identifier: Apache-2.0
"""What carries command frames to a guard (HW-14; docs/formats.md, Command frames): a Unix socket, a serial line, an SPI bus."""

from __future__ import annotations

import os
import select
import socket
import struct
import termios
import time
import tty
from pathlib import Path
from typing import Protocol

from ._core import cobs_decode, cobs_encode
from .errors import FormatError, GuardUnavailable

__all__ = ["BAUDS", "PacketWire", "SpiBus", "SpiWire", "StreamWire", "Wire", "open_wire"]

FRAME_MAX = 5 + 1024 + 2
BAUD = 115_200
BAUDS = {n: int(getattr(termios, f"B{n}")) for n in (9600, 19_200, 38_400, 57_600, BAUD, 230_400, 460_800, 921_600)}
SPI_HZ_MIN, SPI_HZ_MAX = 10_000, 10_000_000
SPI_FETCH = 64  # bytes of the first look for an answer: most are shorter
SPI_PAUSE_S = 0.001
REMEDY = "start it: python -m qsafp_embedded.guard --config …/guard/guard.toml"


class Wire(Protocol):
    """Carries whole frames.  ``peer`` names the other end in messages."""

    @property
    def peer(self) -> str:
        """Path of the socket or device."""

    def send(self, frame: bytes) -> None:
        """Send one frame; raises OSError."""

    def receive(self, timeout: float) -> bytes:
        """Return the next frame; raises TimeoutError after ``timeout`` seconds, other OSError if the wire is gone."""

    def close(self) -> None:
        """Give the wire up."""


class PacketWire:
    """A SEQPACKET Unix socket: one frame is one packet."""

    def __init__(self, path: str | Path, *, timeout: float = 5.0) -> None:
        """Connect within ``timeout`` seconds; raises GuardUnavailable."""
        self.peer = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(self.peer)
        except PermissionError as why:
            self._socket.close()
            raise GuardUnavailable(f"{path}: only the agent's user may command the guard; run this as that user") from why
        except OSError as why:
            self._socket.close()
            raise GuardUnavailable(f"{path}: no guard answers ({why.strerror or why}); {REMEDY}") from why

    @property
    def pid(self) -> int:
        """Process id of the guard, as the kernel tells it."""
        cred = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", cred)[0])

    def send(self, frame: bytes) -> None:
        """Send one packet."""
        self._socket.send(frame)

    def receive(self, timeout: float) -> bytes:
        """Return one packet; an empty one means that the guard hung up."""
        self._socket.settimeout(timeout)
        packet = self._socket.recv(FRAME_MAX)
        if not packet:
            raise ConnectionResetError("the guard hung up")
        return packet

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class StreamWire:
    """A byte stream, such as a UART or pseudo-terminal: frames are COBS-encoded and end in a zero byte."""

    def __init__(self, fd: int, peer: str, *, baud: int = 115_200) -> None:
        """Take over an open file descriptor; a terminal is put in raw mode at ``baud``, one of BAUDS."""
        self.peer = peer
        self._fd, self._rest = fd, b""
        os.set_blocking(fd, False)
        if os.isatty(fd):
            tty.setraw(fd, termios.TCSANOW)
            mode = termios.tcgetattr(fd)
            mode[4] = mode[5] = BAUDS[baud]
            termios.tcsetattr(fd, termios.TCSANOW, mode)
            termios.tcflush(fd, termios.TCIFLUSH)  # answers to whoever was here before

    @classmethod
    def open(cls, path: str | Path, *, baud: int = 115_200) -> StreamWire:
        """Open a device; raises GuardUnavailable."""
        try:
            return cls(os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC), str(path), baud=baud)
        except (OSError, termios.error) as why:
            raise GuardUnavailable(
                f"{path}: cannot open the line to the guard ({getattr(why, 'strerror', None) or why}); check the cable and the rights"
            ) from why

    def send(self, frame: bytes) -> None:
        """Send one frame between delimiters; what came before it is thrown away by the other side."""
        data = memoryview(b"\0" + cobs_encode(frame) + b"\0")
        while data:
            if not select.select([], [self._fd], [], 5.0)[1]:
                raise TimeoutError("the line takes no bytes")
            data = data[os.write(self._fd, data) :]

    def receive(self, timeout: float) -> bytes:
        """Return the next frame that decodes."""
        end = time.monotonic() + timeout
        while True:
            block, zero, rest = self._rest.partition(b"\0")
            if not zero:
                self._fill(end - time.monotonic())
                continue
            self._rest = rest
            if block:
                return _decoded(block)

    def _fill(self, timeout: float) -> None:
        if timeout <= 0 or not select.select([self._fd], [], [], timeout)[0]:
            raise TimeoutError("no answer")
        got = os.read(self._fd, 4096)
        if not got:
            raise ConnectionResetError("the line is closed")
        self._rest = (self._rest + got)[-4 * FRAME_MAX :]

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)


def _decoded(block: bytes) -> bytes:
    """A block that is no COBS becomes an empty frame, which no check accepts."""
    try:
        return bytes(cobs_decode(block))
    except FormatError:
        return b""


class SpiBus(Protocol):
    """What SpiWire needs of ``spidev.SpiDev``: full-duplex exchanges, each under one chip select."""

    def xfer2(self, values: list[int]) -> list[int]:
        """Send bytes and return as many; raises OSError."""

    def close(self) -> None:
        """Give the device up."""


class SpiWire:
    """An SPI bus whose host we are: chip select delimits frames, and the answer is fetched in later exchanges, 0xFF until it is ready."""

    def __init__(self, bus: SpiBus, peer: str) -> None:
        """Take over an open bus."""
        self.peer = peer
        self._bus = bus

    @classmethod
    def open(cls, path: str | Path, *, hz: int = SPI_HZ_MAX) -> SpiWire:
        """Open ``/dev/spidevB.C`` in mode 0 at ``hz``; raises GuardUnavailable."""
        try:
            import spidev
        except ImportError as why:
            raise GuardUnavailable(f"{path}: the package spidev is not installed; run: pip install spidev") from why
        bus = spidev.SpiDev()
        try:
            bus.open_path(str(path))
            bus.mode, bus.max_speed_hz = 0, hz
        except OSError as why:
            bus.close()
            raise GuardUnavailable(
                f"{path}: cannot open the bus to the guard ({why.strerror}); is this user in the group spi, and SPI enabled?"
            ) from why
        return cls(bus, str(path))

    def send(self, frame: bytes) -> None:
        """Send one frame; an answer that nobody fetched is dropped by the other side."""
        self._bus.xfer2(list(frame))

    def receive(self, timeout: float) -> bytes:
        """Return the answer once the other side has one."""
        end = time.monotonic() + timeout
        while (answer := self._fetch(SPI_FETCH))[0] == 0xFF:
            if time.monotonic() > end:
                raise TimeoutError("no answer")
            time.sleep(SPI_PAUSE_S)
        size = 7 + int.from_bytes(answer[3:5], "little")
        if SPI_FETCH < size <= FRAME_MAX:
            answer = self._fetch(size)
        return answer[:size]

    def _fetch(self, size: int) -> bytes:
        return bytes(self._bus.xfer2([0xFF] * size))

    def close(self) -> None:
        """Close the device."""
        self._bus.close()


def open_wire(path: str | Path, *, timeout: float, baud: int, spi_hz: int) -> Wire:
    """Open a ``ctl.sock`` (``timeout`` in seconds), a serial device at ``baud`` or an SPI device at ``spi_hz``; raises GuardUnavailable."""
    if Path(path).resolve().name.startswith("spidev"):
        return SpiWire.open(path, hz=spi_hz)
    return StreamWire.open(path, baud=baud) if Path(path).is_char_device() else PacketWire(path, timeout=timeout)
