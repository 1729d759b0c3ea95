# SPDX-License-Identifier: Apache-2.0
"""TPM 2.0 quotes as validators verify them: values in, a verdict out (docs/formats.md, Quote; CD-5, level 3)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from . import keys
from ._core import cbor_dumps, cbor_loads, sha256
from .errors import FormatError

__all__ = ["ATTESTED", "CLAIMED_MAX", "PCRS", "QUOTE_MAX", "Measured", "Quote", "check", "encode", "measured", "parse"]

CLAIMED_MAX = 2  # up to here a level is the guard's own word
ATTESTED = 3  # what a quote verifies
PCRS = 24
QUOTE_MAX = 512
HEAD = bytes.fromhex("ff544347 8018 0022 000b")  # TPM_GENERATED_VALUE, TPM_ST_ATTEST_QUOTE, a SHA-256 name
SELECTION = bytes.fromhex("00000001 000b 03")  # one bank, SHA-256, three bytes of it
LAYOUT = struct.Struct(">10s32s H32s Q8s B Q 7s3s H32s")


class Measured(NamedTuple):
    """One allowed state: its version, which PCRs, and the digest that a quote of them has."""

    version: int
    pcrs: tuple[int, ...]
    digest: bytes


class Quote(NamedTuple):
    """A quote taken apart; only ``check`` says whether a TPM made it.

    ``counts`` are resetCount and restartCount as they stand in it: later boots compare greater.
    """

    attest: bytes
    signature: bytes
    extra: bytes
    counts: bytes
    pcrs: tuple[int, ...]
    digest: bytes


def measured(version: int, values: Mapping[int, bytes]) -> Measured:
    """Return the allowed state of these PCR values (SHA-256 bank)."""
    pcrs = tuple(sorted(values))
    return Measured(version, pcrs, sha256(b"".join(values[n] for n in pcrs)))


def encode(attest: bytes, signature: bytes) -> bytes:
    """Return the bytes of envelope key 7 for a TPMS_ATTEST and its signature, r || s."""
    return cbor_dumps([attest, signature])


def parse(data: bytes) -> Quote:
    """Take a quote apart; raises FormatError for any form but ours: SHA-256 alone, nothing left over."""
    try:
        pair: Any = cbor_loads(data)
    except FormatError as why:
        raise FormatError(f"the quote is malformed: {why}") from why
    if not isinstance(pair, list) or [type(x) for x in pair] != [bytes, bytes]:
        raise FormatError("the quote is not an attestation and a signature")
    attest, signature = pair
    if len(attest) != LAYOUT.size:
        raise FormatError(f"the quote is {len(attest)} bytes where {LAYOUT.size} belong")
    head, _, n, extra, _, counts, _, _, selection, bits, m, digest = LAYOUT.unpack(attest)
    if head != HEAD:
        raise FormatError("the quote is no TPM 2.0 quote")
    if n != 32 or m != 32 or selection != SELECTION:
        raise FormatError("the quote is of another hash than SHA-256")
    pcrs = tuple(i for i in range(PCRS) if bits[i // 8] >> i % 8 & 1)
    return Quote(attest, signature, extra, counts, pcrs, digest)


def _state(q: Quote, allowed: Iterable[Measured]) -> int:
    """The version of the allowed state that was quoted; raises FormatError."""
    known = list(allowed)
    for m in known:
        if (q.pcrs, q.digest) == (m.pcrs, m.digest):
            return m.version
    versions = ", ".join(str(m.version) for m in known) or "none"
    listed = ", ".join(map(str, q.pcrs)) or "none"
    if q.pcrs not in {m.pcrs for m in known}:
        raise FormatError(f"PCRs {listed} were quoted, which no allowed version ({versions}) names")
    raise FormatError(f"PCRs {listed} are in no allowed state (versions {versions}): digest {q.digest.hex()}")


def check(data: bytes, ak: bytes, request_hash: bytes, allowed: Iterable[Measured], counts: bytes) -> tuple[int, bytes]:
    """Verify a quote; returns the version of the allowed state and the boot counts, which must not fall behind ``counts``.

    Args: ak: x || y of the attestation key.  request_hash: SHA-256 of the request's payload, 32 bytes.
    Raises: FormatError that says which one thing is wrong.
    """
    q = parse(data)
    if not keys.verify(keys.ESP256, ak, q.attest, q.signature):
        raise FormatError("the quote is not signed by the attestation key that is registered")
    if q.extra != request_hash:
        raise FormatError("the quote was made for another request")
    version = _state(q, allowed)
    if q.counts < counts:
        raise FormatError("the TPM's boot counts went back: it was cleared or replaced; enrol the device again")
    return version, q.counts
