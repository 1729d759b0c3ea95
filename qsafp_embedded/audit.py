# SPDX-License-Identifier: Apache-2.0
"""The audit log as values: records, and a log that is opened, verified and exported (HW-8, HW-9; docs/formats.md, Audit record)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ._core import Tree, audit_verify, cbor_dumps, cbor_loads, record_decode, seal, seal_evolve, sha256, tree_leaf
from ._tables import Event, Reason
from .errors import AuditError, FormatError, StoreError
from .lease import Lease

__all__ = ["RECORD_BYTES", "Log", "Record"]

RECORD_BYTES = 256
BLANK = b"\xff" * RECORD_BYTES
SECTOR = 16


@dataclass(frozen=True)
class Record:
    """One record: ``boot_ns`` on the boot clock, ``wall_ms`` Unix ms or 0, ``boot`` counts starts of the guard; ``raw`` is all of it."""

    seq: int
    event: int
    flags: int
    boot_ns: int
    wall_ms: int
    boot: int
    reason: int
    serial: int
    model: bytes
    evidence: bytes
    data: bytes
    hash: bytes
    seal: bytes
    raw: bytes

    @classmethod
    def decode(cls, raw: bytes) -> Record:
        """Read 256 bytes; raises FormatError for another magic, event, flag or padding.  The chain is the log's to check."""
        return cls(**record_decode(raw), raw=bytes(raw))

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON: names for numbers, hex for bytes."""
        shown = {k: v.hex() if isinstance(v, bytes) else v for k, v in asdict(self).items()}
        return shown | {"event": _name(Event, self.event), "reason": _name(Reason, self.reason)}


def _name(table: type[Event] | type[Reason], value: int) -> str:
    return next((x.name for x in table if x == value), str(value))


def _number(raw: bytes) -> int:
    return int.from_bytes(raw[8:16], "little")


@dataclass(frozen=True)
class Log:
    """Consecutive records, oldest first; ``log_id`` is the hash of record 0, which the device was enrolled with."""

    log_id: bytes
    raw: tuple[bytes, ...]

    @classmethod
    def of(cls, records: Iterable[bytes], log_id: bytes | None = None) -> Log:
        """Make a log of records; without ``log_id`` record 0 must be among them.  Raises AuditError."""
        raw = tuple(records)
        if log_id is None:
            if not raw or _number(raw[0]) != 0:
                raise AuditError("record 0 was pruned: say which log id the device was enrolled with", index=0)
            log_id = raw[0][208:240]
        return cls(log_id, raw)

    @classmethod
    def open(cls, path: Path, log_id: bytes | None = None) -> Log:
        """Read a file: records one after the other, a guard's ``log.ring``, or an export in JSON Lines or CBOR.

        Raises StoreError if it cannot be read, AuditError if it holds no log.  Nothing is verified yet.
        """
        try:
            data = path.read_bytes()
        except OSError as why:
            raise StoreError(f"{path}: {why.strerror}") from why
        try:
            if data[:1] == b"{":
                return cls.of((bytes.fromhex(json.loads(line)["raw"]) for line in data.splitlines()), log_id)
            if data[:4] == b"QAR1" or data[:4] == BLANK[:4]:
                return cls.of(_slots(data), log_id)
            export = cbor_loads(data)
            if list(export) != [1, 2, 3] or any(_number(r) != export[2] + i for i, r in enumerate(export[3])):
                raise AuditError(f"{path}: an export of another shape, or with a record missing", index=0)
            return cls.of(export[3], export[1] if log_id is None else log_id)
        except (FormatError, KeyError, TypeError, ValueError) as why:
            raise AuditError(f"{path}: neither records nor an export of them: {why}", index=0) from why

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """All records, read; raises FormatError."""
        return tuple(Record.decode(r) for r in self.raw)

    @property
    def first(self) -> int:
        """Sequence of the oldest record; raises AuditError if there is none."""
        if not self.raw:
            raise AuditError("the log is empty", index=0)
        return _number(self.raw[0])

    def verify(self) -> bytes:
        """Check the chain and return the hash of the newest record; raises AuditError whose ``index`` is the sequence that fails first.

        Record 0 must be the log's own beginning.  If older records were pruned, the first that is left is taken as the start.
        """
        first = self.first
        if first == 0 and self.raw[0][208:240] != self.log_id:
            raise AuditError("record 0 is not the beginning of this device's log", index=0)
        if len(self.raw) > 1 and _number(self.raw[1]) != first + 1:
            raise AuditError(f"record {first} is not followed by the next", index=first)
        start, prev = (0, bytes(32)) if first == 0 else (1, self.raw[0][208:240])
        try:
            return audit_verify(b"".join(self.raw[start:]), prev)
        except AuditError as why:
            number = first + start + why.index
            raise AuditError(f"record {number} does not verify: it or the one before was changed", index=number) from why

    def check_seals(self, k0: bytes) -> int:
        """Check every seal under the key that evolves from ``k0``; returns how many there are.  Raises AuditError."""
        key, epoch, good = k0, 0, 0
        for r in self.raw:
            number = _number(r)
            if number % SECTOR != SECTOR - 1:
                continue
            while epoch < number // SECTOR:
                key, epoch = seal_evolve(key), epoch + 1
            if seal(key, r[208:240]) != r[240:256]:
                raise AuditError(f"record {number}: the seal does not verify: written without the log's key", index=number)
            good += 1
        return good

    def anchored(self, value: bytes) -> int:
        """Check the log against what a TPM's anchor holds; returns the sequence of the record that went in last, 0 if none did.

        The anchor is extended by the hash of each LOG_ANCHORED record, after that record is durable: one at most may not be in yet
        (docs/design.md).  Raises AuditError if the log was cut or rewritten before the record that went in last.
        """
        rows = [r for r in self.records if r.event == Event.LOG_ANCHORED]
        start = sha256(bytes(32) + self.log_id)
        may_be = {start} if self.first == 0 else set()
        last = 0 if value == start else None
        for r in rows:
            before, after = r.data[:32], sha256(r.data[:32] + r.hash)
            if may_be and before not in may_be:
                raise AuditError(f"record {r.seq} does not follow the anchor before it", index=r.seq)
            may_be = {before, after}
            last = r.seq if after == value else last
        late = next((r.seq for r in rows if last is not None and r.seq > last and r.data[:32] != value), None)
        if last is None or late is not None:
            text = "the TPM's anchor stands for another log: this one was cut or rewritten, or its TPM was exchanged"
            raise AuditError(text, index=late or self.first)
        return last

    def root(self, size: int) -> bytes:
        """Root of the RFC 9162 tree over the first ``size`` records; raises AuditError unless all of them are here."""
        if size and self.first:
            raise AuditError(f"records before {self.first} were pruned: their tree cannot be made again", index=0)
        if size > len(self.raw):
            raise AuditError(f"the log has {len(self.raw)} records, not {size}: it was cut", index=len(self.raw))
        tree = Tree()
        for r in self.raw[:size]:
            tree.append(tree_leaf(r[208:240]))
        return tree.root()

    def covers(self, lease: Lease) -> None:
        """Return if the lease's log head is this log's; raises AuditError if the log was cut or rewritten since (decision 9)."""
        if lease.log_id != self.log_id:
            raise AuditError(f"lease {lease.serial} names another log", index=0)
        if self.root(lease.log_size) != lease.log_root:
            text = f"the first {lease.log_size} records are not those that the validators signed in lease {lease.serial}"
            raise AuditError(text, index=0)

    def jsonl(self) -> str:
        """One JSON object a line; raises FormatError."""
        return "".join(json.dumps(r.as_json()) + "\n" for r in self.records)

    def cbor(self) -> bytes:
        """The CBOR map {1: log id, 2: first sequence, 3: [records]} (rule log-export of docs/formats.cddl)."""
        return cbor_dumps({1: self.log_id, 2: self.first if self.raw else 0, 3: list(self.raw)})


def _slots(data: bytes) -> list[bytes]:
    """Records of a file in order of sequence; a ring has blank slots and begins somewhere."""
    if len(data) % RECORD_BYTES:
        raise AuditError(f"{len(data)} bytes are not whole records", index=len(data) // RECORD_BYTES)
    used = [r for at in range(0, len(data), RECORD_BYTES) if (r := data[at : at + RECORD_BYTES]) != BLANK]
    turn = next((i for i in range(1, len(used)) if _number(used[i]) < _number(used[i - 1])), 0)
    return used[turn:] + used[:turn]
