# SPDX-License-Identifier: Apache-2.0
"""Client of a guard's command frames over any wire (HW-14; docs/formats.md, Command frames)."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ._core import crc16
from ._tables import CommandStatus, Error, Opcode, Phase, Reason
from ._tables import Status as LeaseStatus
from .errors import GuardUnavailable, QsafpError
from .wire import BAUD, REMEDY, SPI_HZ_MAX, PacketWire, Wire, open_wire

__all__ = ["CommandRefused", "GuardClient", "Status", "Version"]

CHUNK = 1000
BENT = {CommandStatus.BAD_CRC, CommandStatus.BAD_LENGTH}  # what a frame that was bent on its way is answered
OLD_DEFAULT = 2**64 - 1
RECORD_BYTES = 256
STATUS = struct.Struct("<QQQIHIIBBI32s16sBQQ33s32s32sQ32sIQH")
BOUND = struct.Struct("<BBQQ")
KEY_PLACES = ("file", "tpm", "tpm-sealed")


class CommandRefused(QsafpError):
    """The guard answered no.  Attributes: ``status`` of the frame, ``error`` of the core for a refused token, else None."""

    def __init__(self, message: str, *, status: CommandStatus | int, error: Error | None = None) -> None:
        super().__init__(message)
        self.status, self.error = status, error


@dataclass(frozen=True)
class Version:
    """Answer of opcode 0x00: C ABI, suite number (1 ed25519, 2 ml-dsa-65, 3 hybrid), largest payload in bytes."""

    abi: int
    suite: int
    frame_max: int


@dataclass(frozen=True)
class Status:
    """Answer of opcode 0x01 (docs/formats.md): times in ns or ms as named, sizes in records; ``denied`` has a bit per validator index."""

    remaining_ns: int
    duration_ms: int
    serial: int
    status: int
    phase: int
    reason: int
    generation: int
    approvals: int
    total: int
    renewals: int
    model: bytes
    lease_id: bytes
    flags: int
    log_next: int
    log_size_at_lease: int
    ueid: bytes
    log_id: bytes
    log_head: bytes
    latch_seq: int
    latch_hash: bytes
    boot: int
    now_ns: int
    denied: int
    key: int | None = None  # from here on what a Linux guard says of itself
    bound: int = 0
    anchor_seq: int = 0
    anchor_age_ms: int = 0

    @property
    def key_place(self) -> str | None:
        """Where the device key is: file, tpm or tpm-sealed; None if the guard does not say."""
        return KEY_PLACES[self.key] if self.key is not None and self.key < len(KEY_PLACES) else None

    @property
    def renew_wanted(self) -> bool:
        """The guard asks for a renewal."""
        return bool(self.flags & 1)

    @property
    def contained(self) -> bool:
        """Workloads are held, frozen or killed."""
        return bool(self.flags & 2)

    @property
    def lab(self) -> bool:
        """The validators share a host: no real quorum."""
        return bool(self.flags & 4)

    @property
    def isolated(self) -> bool:
        """No revocation by a quorum could arrive: too few polls are alive, or no agent says so."""
        return bool(self.flags & 8)

    @property
    def phase_name(self) -> str:
        """Name of the phase, in lower case."""
        return _name(Phase, self.phase)

    @property
    def status_name(self) -> str:
        """Name of the lease status."""
        return _name(LeaseStatus, self.status)

    @property
    def reason_name(self) -> str:
        """Name of the reason why the gate is closed."""
        return _name(Reason, self.reason)


def _name(table: type[Phase] | type[LeaseStatus] | type[Reason], value: int) -> str:
    try:
        return table(value).name
    except ValueError:
        return f"unknown ({value:#x})"


class GuardClient:
    """Speaks to one guard, one command at a time; not for two threads at once.  Use as a context manager."""

    def __init__(self, wire: Wire, *, timeout: float = 5.0) -> None:
        """``timeout`` is in seconds per attempt."""
        self._wire, self._timeout, self._tag = wire, timeout, os.urandom(1)[0]

    @classmethod
    def connect(cls, path: str | Path, *, timeout: float = 5.0, baud: int = BAUD, spi_hz: int = SPI_HZ_MAX) -> GuardClient:
        """Connect to a ``ctl.sock``, or to a coprocessor behind a serial or SPI device; raises GuardUnavailable."""
        return cls(open_wire(path, timeout=timeout, baud=baud, spi_hz=spi_hz), timeout=timeout)

    @property
    def peer(self) -> str:
        """Path of the socket or device."""
        return self._wire.peer

    @property
    def pid(self) -> int:
        """Process id of a guard on this host, 0 behind a line."""
        return self._wire.pid if isinstance(self._wire, PacketWire) else 0

    def __enter__(self) -> GuardClient:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the wire."""
        self.close()

    def close(self) -> None:
        """Give the wire up."""
        self._wire.close()

    def version(self) -> Version:
        """Ask for versions (opcode 0x00); raises GuardUnavailable, CommandRefused."""
        return Version(*struct.unpack("<IBH", self._exact(self._command(Opcode.VERSION), 7)))

    def status(self) -> Status:
        """Ask for the state of the lease (opcode 0x01); raises GuardUnavailable, CommandRefused."""
        answer = self._command(Opcode.STATUS)  # later versions may say more
        more = answer[STATUS.size : STATUS.size + BOUND.size]
        bound = BOUND.unpack(more) if len(more) == BOUND.size else ()
        return Status(*STATUS.unpack(self._exact(answer[: STATUS.size], STATUS.size)), *bound)

    def begin(self) -> tuple[int, int]:
        """Make or repeat the pending request; returns its length in bytes and its serial."""
        length, serial = struct.unpack("<IQ", self._exact(self._command(Opcode.RENEW, b"\0"), 12))
        return length, serial

    def envelope(self, old: int | None = None) -> bytes:
        """Read the envelope of the pending request for a validator that knows ``old`` records (None: the previous lease's size)."""
        size = OLD_DEFAULT if old is None else old
        out, total = b"", 1
        while len(out) < total:
            got = self._command(Opcode.RENEW, struct.pack("<BQI", 1, size, len(out)))
            if len(got) < 5:
                raise self._strange()
            total = int.from_bytes(got[:4], "little")
            out += got[4:]
        return out

    def put(self, token: bytes) -> None:
        """Give the guard a lease, refusal or revocation; raises CommandRefused whose ``error`` says why it did not count."""
        self._put(Opcode.RENEW, token)

    def install_set(self, document: bytes) -> None:
        """Give the guard the set document of the next epoch; raises CommandRefused whose ``error`` says why it was not taken."""
        self._put(Opcode.SET, document)

    def set_document(self) -> bytes:
        """Read the set document in force."""
        out, total = b"", 1
        while len(out) < total:
            got = self._command(Opcode.SET, struct.pack("<BI", 1, len(out)))
            if len(got) < 5:
                raise self._strange()
            total = int.from_bytes(got[:4], "little")
            out += got[4:]
        return out

    def polls(self, alive: int) -> None:
        """Tell the guard through how many polls a revocation could arrive; with too few it shows itself as isolated."""
        self._command(Opcode.RENEW, bytes((4, alive)))

    def _put(self, opcode: Opcode, data: bytes) -> None:
        for at in range(0, len(data), CHUNK):
            self._command(opcode, struct.pack("<BII", 2, at, len(data)) + data[at : at + CHUNK])
        self._command(opcode, b"\3")

    def records(self, start: int = 0) -> Iterator[bytes]:
        """Yield the audit records of 256 bytes from a sequence, or from the oldest kept, up to the newest."""
        while True:
            got = self._command(Opcode.READ_LOG, struct.pack("<QH", start, 3))
            if len(got) % RECORD_BYTES != 8:
                raise self._strange()
            if len(got) == 8:
                return
            for at in range(8, len(got), RECORD_BYTES):
                record = got[at : at + RECORD_BYTES]
                start = int.from_bytes(record[8:16], "little") + 1
                yield record

    def failsafe(self, reason: Reason = Reason.MANUAL) -> None:
        """Stop the device now: the frame is sent until it was confirmed (HW-12); reason MANUAL, BUS or ANOMALY."""
        tag, payload = self._next_tag(), struct.pack("<I", reason)
        for _ in range(4):  # once more than needed on each side, should an answer be lost
            if self._exchange(tag, Opcode.FAILSAFE, payload)[0] == CommandStatus.OK:
                return
        raise GuardUnavailable(f"{self.peer}: the guard never confirmed the fail-safe; cut the actuator's power by hand")

    def log_event(self, event: int, reason: int = 0, data: bytes = b"") -> None:
        """Write a workload's record: event of the table, reason, at most 96 bytes (HW-9)."""
        self._command(Opcode.LOG_EVENT, struct.pack("<HI", event, reason) + data)

    def workload(self, payload: bytes) -> bytes:
        """Send a workload command (opcode 0x07), as docs/formats.md lays its payload out; returns the answer's payload."""
        return self._command(Opcode.WORKLOAD, payload)

    def _next_tag(self) -> int:
        self._tag = self._tag % 255 + 1  # 0 is answered to what has no tag
        return self._tag

    def _command(self, opcode: Opcode, payload: bytes = b"") -> bytes:
        status, answer = self._exchange(self._next_tag(), opcode, payload)
        if status != CommandStatus.OK:
            raise self._refused(opcode, status, answer)
        return answer

    def _exchange(self, tag: int, opcode: Opcode, payload: bytes) -> tuple[int, bytes]:
        """Send one frame and check its answer; one retry with the same bytes, which the guard answers from its cache."""
        frame = bytes((tag, opcode)) + len(payload).to_bytes(2, "little") + payload
        frame += crc16(frame).to_bytes(2, "little")
        why = ""
        for bent in (BENT, {CommandStatus.BAD_CRC}):  # said twice, a wrong length is ours
            try:
                self._wire.send(frame)
                answer = self._answer(tag)
            except TimeoutError:
                why = f"no answer in {self._timeout:g} s"
                continue
            except OSError as lost:
                raise GuardUnavailable(f"{self.peer}: {lost.strerror or lost}; {REMEDY}") from lost
            if answer is not None and answer[2] not in bent:
                return answer[2], answer[5:-2]
            why = "garbled twice"
        raise GuardUnavailable(f"{self.peer}: {why}; check the line, or restart the guard")

    def _answer(self, tag: int) -> bytes | None:
        """Return the answer of this tag, skipping late ones; None if it is garbled."""
        end = time.monotonic() + self._timeout
        for _ in range(4):
            got = self._wire.receive(max(end - time.monotonic(), 0.001))
            whole = len(got) >= 7 and got[0] == 0xA5 and int.from_bytes(got[3:5], "little") == len(got) - 7
            if not whole or crc16(got[:-2]) != int.from_bytes(got[-2:], "little"):
                return None
            if got[1] == tag:
                return got
        return None

    def _refused(self, opcode: Opcode, status: int, answer: bytes) -> CommandRefused:
        try:
            known: CommandStatus | int = CommandStatus(status)
            error = Error(answer[0]) if known == CommandStatus.REFUSED and len(answer) == 1 else None
        except ValueError:
            known, error = status, None
        name = known.name if isinstance(known, CommandStatus) else f"status {status}"
        return CommandRefused(f"{self.peer}: {opcode.name}: {error.name if error else name}", status=known, error=error)

    def _exact(self, answer: bytes, size: int) -> bytes:
        if len(answer) != size:
            raise self._strange()
        return answer

    def _strange(self) -> GuardUnavailable:
        return GuardUnavailable(f"{self.peer}: an answer of another shape; agent and guard are of different versions")
