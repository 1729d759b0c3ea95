# SPDX-License-Identifier: Apache-2.0
"""The evidence store as values: what the guard kept of leases, refusals, revocations and set documents (HW-8; docs/formats.md, State)."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from . import cose, sets
from ._core import cbor_dumps, cbor_loads, sha256
from .errors import AuditError, FormatError, StoreError

__all__ = ["Piece", "export", "known_sets", "read"]

HEAD = struct.Struct("<4sI32s")
FILES = ("evidence.old", "evidence.log")
AADS = {"refusal": cose.AAD_REFUSAL, "revocation": cose.AAD_REVOCATION}
TRIES, PAUSE_S = 5, 0.05


@dataclass(frozen=True)
class Piece:
    """One entry: ``number`` counts from 0 over both halves, oldest first; ``file`` and ``offset`` say where it is, ``raw`` holds it."""

    number: int
    file: str
    offset: int
    hash: bytes
    raw: bytes

    @cached_property
    def _opened(self) -> tuple[str, dict[int, Any], tuple[bytes, ...]]:
        """Kind, payload and key ids; raises FormatError for what is no object of ours."""
        if self.raw[:1] == b"\xd2":
            one = cose.parse_sign1(self.raw)
            by: tuple[cose.CoseSignature, ...]
            body, by = cbor_loads(one.payload), (one.by,)
            kinds = {(1, 2, 3, 4, 5): "refusal", (1, 2, 3, 4, 5, 6): "revocation"}
        else:
            many = cose.parse_sign(self.raw)
            body, by = cbor_loads(many.payload), many.by
            kinds = {(1, 2, 3, 4, 5, 6, 7, 8): "set"}
        if not isinstance(body, dict):
            raise FormatError("its payload is no map")
        kind = "lease" if 256 in body and self.raw[:1] != b"\xd2" else kinds.get(tuple(body))
        if kind is None:
            raise FormatError("neither lease, refusal, revocation nor set document")
        return kind, body, tuple(s.kid for s in by)

    @property
    def kind(self) -> str:
        """``lease``, ``refusal``, ``revocation``, ``set``, or ``unknown``."""
        try:
            return self._opened[0]
        except FormatError:
            return "unknown"

    @property
    def kids(self) -> tuple[bytes, ...]:
        """Ids of the keys that its signatures name, in order."""
        return self._opened[2] if self.kind != "unknown" else ()

    def _number(self, **keys: int) -> int | None:
        value = self._opened[1].get(keys[self.kind]) if self.kind in keys else None
        return value if type(value) is int else None

    @property
    def serial(self) -> int | None:
        """The serial that a lease has or a revocation reaches; a refusal names its request by hash only."""
        return self._number(lease=-65538, revocation=4)

    @property
    def epoch(self) -> int | None:
        """The epoch that it names, if any."""
        return self._number(lease=-65544, revocation=3, set=2)

    def verify(self, known: Mapping[int, sets.ValidatorSet]) -> tuple[int, ...]:
        """Return the indexes of the validators whose signatures hold, none for a set document; raises FormatError.

        ``known`` are the set documents that are trusted, by epoch.
        """
        kind, _, kids = self._opened
        if kind in AADS:
            return (self._one(known, AADS[kind]),)
        members = known.get(self.epoch or 0)
        if members is None:
            raise FormatError(f"no trusted set document of epoch {self.epoch}")
        if kind == "set":
            if members.document != self.raw:
                raise FormatError(f"not the trusted set document of epoch {self.epoch}")
            return ()
        sets.verify_lease(self.raw, members)
        return tuple(v.index for s in cose.parse_sign(self.raw).by[:: len(kids) // members.m] if (v := members.member(s.alg, s.kid)))

    def _one(self, known: Mapping[int, sets.ValidatorSet], aad: bytes) -> int:
        """Who signed a refusal or revocation; a refusal names no epoch, so any that is known may have its key."""
        token = cose.parse_sign1(self.raw)
        for epoch in [self.epoch] if self.epoch is not None else sorted(known, reverse=True):
            members = known.get(epoch)
            member = members.member(token.by.alg, token.by.kid) if members else None
            public = members.public(member, token.by.alg) if members and member else None
            if member is None or public is None:
                continue
            if not token.verify(public, aad):
                raise FormatError(f"a bad signature of validator {member.index}")
            return member.index
        raise FormatError(f"signed by {token.by.kid.hex()}, a key of nobody in a trusted set")


def _entries(data: bytes, path: Path, first: int) -> Iterator[Piece]:
    """The entries of one file; raises AuditError that names the first that is damaged."""
    at, number = 0, first
    while at < len(data):
        where = f"{path}: entry {number - first} at byte {at}"
        if len(data) - at < HEAD.size:
            raise AuditError(f"{where} is cut: {len(data) - at} bytes are no head", index=number)
        magic, size, digest = HEAD.unpack_from(data, at)
        raw = data[at + HEAD.size : at + HEAD.size + size]
        if magic != b"QEV1":
            raise AuditError(f"{where} does not begin as one: it or the one before was changed", index=number)
        if len(raw) < size:
            raise AuditError(f"{where} is cut: {len(raw)} of {size} bytes are there", index=number)
        if sha256(raw) != digest:
            raise AuditError(f"{where} does not have its hash {digest.hex()[:16]}…: it was changed", index=number)
        yield Piece(number, path.name, at, digest, raw)
        at, number = at + HEAD.size + size, number + 1


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if path.name == FILES[1]:
            raise StoreError(f"{path}: no evidence store there; name the guard's state directory") from None
        return b""  # nothing was pruned yet
    except OSError as why:
        raise StoreError(f"{path}: {why.strerror}; run this as the guard's user") from why


def _pieces(folder: Path) -> list[Piece]:
    out: list[Piece] = []
    for name in FILES:
        out += _entries(_bytes(folder / name), folder / name, len(out))
    return out


def read(folder: Path) -> list[Piece]:
    """Read the store in a guard's state directory, oldest first; the guard may be at work meanwhile.

    Raises StoreError if it cannot be read, AuditError naming the file, entry and byte if it is damaged.
    """
    now = folder / FILES[1]
    for left in reversed(range(TRIES)):
        try:
            before = now.stat().st_ino if now.exists() else 0
            found = _pieces(folder)
            if not left or now.stat().st_ino == before:  # else the halves changed places meanwhile
                return found
        except AuditError:
            if not left:  # else perhaps an entry that was being written
                raise
        time.sleep(PAUSE_S)
    raise AssertionError("the last try returns or raises")


def known_sets(trusted: sets.ValidatorSet, pieces: Iterable[Piece]) -> dict[int, sets.ValidatorSet]:
    """Return the set documents by epoch that a chain of signatures ties to the trusted one, forwards or backwards."""
    known = {trusted.epoch: trusted}
    found = [(abs(p.epoch - trusted.epoch), p.epoch, p.raw) for p in pieces if p.kind == "set" and p.epoch is not None]
    for _, epoch, document in sorted(found):  # the nearest first
        try:
            if epoch > trusted.epoch and epoch - 1 in known:
                known.setdefault(epoch, sets.load(document, old=known[epoch - 1]))
            elif epoch < trusted.epoch and epoch + 1 in known:
                old = sets.load(document)
                sets.load(known[epoch + 1].document, old=old)
                known.setdefault(epoch, old)
        except FormatError:
            continue  # verify says that no trusted document is like it
    return known


def export(log_id: bytes, pieces: Iterable[Piece]) -> bytes:
    """Return the CBOR map {1: log id, 2: [what was stored, oldest first]} (rule evidence-export of docs/formats.cddl)."""
    return cbor_dumps({1: log_id, 2: [p.raw for p in pieces]})
