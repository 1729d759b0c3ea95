# SPDX-License-Identifier: Apache-2.0
"""Firmware images and the manufacturer root key that signs them (HW-2; docs/formats.md, Image).

What boots is decided by ``cext/monitor/boot/image.c``; this module makes images and refuses the same ones before they are shipped.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from . import keys
from ._core import sha256
from ._tables import Board, ImageKind, ImageVerdict
from .errors import FormatError
from .keyfile import SECRET_BYTES, read_secret, write_secret

__all__ = ["FRONT_BYTES", "Image", "Place", "RootKey", "name_of", "verdict"]

LABEL = b"qsafp/1/image"
HEADER = struct.Struct("<4sHHIIQQI4x32s")
PARTS = struct.Struct("<32s1952s64s3309s3x")
MAGIC, FORMAT = b"QIM1", 1
FRONT_BYTES = HEADER.size + PARTS.size
U32, U64 = 2**32, 2**64


@dataclass(frozen=True)
class RootKey:
    """The manufacturer root key: one of Ed25519 and one of ML-DSA-65, both made from one 32-byte secret."""

    ed25519: keys.Ed25519Key
    mldsa65: keys.MLDSA65Key

    @classmethod
    def from_secret(cls, secret: bytes) -> RootKey:
        """Make both keys of a 32-byte secret: the seed of each is the SHA-256 of a label and the secret."""
        ed, ml = (sha256(b"qsafp/1/image-key/" + name + secret) for name in (b"ed25519", b"ml-dsa-65"))
        return cls(keys.Ed25519Key.from_seed(ed), keys.MLDSA65Key.from_seed(ml))

    @classmethod
    def generate(cls, path: Path) -> RootKey:
        """Make a key in a new file of mode 0600; raises ConfigError."""
        secret = secrets.token_bytes(SECRET_BYTES)
        write_secret(path, "root", secret)
        return cls.from_secret(secret)

    @classmethod
    def load(cls, path: Path) -> RootKey:
        """Read a key file; raises ConfigError."""
        return cls.from_secret(read_secret(path, "root"))

    @property
    def hash(self) -> bytes:
        """What a boot stage knows of this key: the SHA-256 of both raw public keys."""
        return sha256(self.ed25519.public + self.mldsa65.public)


@dataclass(frozen=True)
class Place:
    """What may boot somewhere; a field that is None is not asked about."""

    root: bytes
    board: int | None = None
    kind: int | None = None
    counter: int = 0
    base: int | None = None
    capacity_bytes: int = U32 - 1


@dataclass(frozen=True)
class Image:
    """One image: the header's fields, both public keys and signatures, and the body.  Addresses and sizes are in bytes."""

    kind: int
    board: int
    security_version: int
    load: int
    entry: int
    size: int
    sha256: bytes
    ed25519: bytes
    mldsa65: bytes
    signature: bytes
    signature2: bytes
    body: bytes

    @classmethod
    def sign(cls, body: bytes, key: RootKey, *, kind: int, board: int, security_version: int, load: int, entry: int | None = None) -> Image:
        """Sign ``body``, whose first instruction is at ``entry`` (default: its first byte); raises FormatError for what no boot takes."""
        entry = load if entry is None else entry
        if not 0 <= security_version < U32 or not 0 <= load < U64 - len(body):
            raise FormatError("a security version is 32 bits, and the whole image lies below 2^64")
        if not body or len(body) >= U32:
            raise FormatError("a body is 1 byte to 4 GiB")
        if kind == ImageKind.PAYLOAD and entry != load:
            raise FormatError(f"entry {entry:#x}: a payload starts at its first byte, {load:#x}")
        if not load <= entry < load + len(body) or entry % 4:
            raise FormatError(f"entry {entry:#x} is not a multiple of 4 inside the image, {load:#x} to {load + len(body) - 1:#x}")
        public = key.ed25519.public, key.mldsa65.public
        image = cls(kind, board, security_version, load, entry, len(body), sha256(body), *public, b"", b"", body)
        return replace(image, signature=key.ed25519.sign(image.signed), signature2=key.mldsa65.sign(image.signed))

    @classmethod
    def decode(cls, raw: bytes) -> Image:
        """Take an image apart; nothing in it is verified.  Raises FormatError if it cannot be one of this format."""
        if len(raw) < FRONT_BYTES:
            raise FormatError(f"{len(raw)} bytes: an image is longer than {FRONT_BYTES}")
        magic, version, *fields = HEADER.unpack_from(raw)
        if magic != MAGIC:
            raise FormatError("MAGIC: this is no image: it does not begin with QIM1")
        if version != FORMAT:
            raise FormatError(f"FORMAT: format version {version}; this program knows {FORMAT}")
        return cls(*(*fields, *PARTS.unpack_from(raw, HEADER.size), raw[FRONT_BYTES:]))

    def encode(self) -> bytes:
        """The bytes of the image, as they lie in a slot."""
        return self.signed[len(LABEL) :] + PARTS.pack(self.ed25519, self.mldsa65, self.signature, self.signature2) + self.body

    @property
    def signed(self) -> bytes:
        """What both signatures cover: a label, then the first 72 bytes."""
        fields = (self.kind, self.board, self.security_version, self.load, self.entry, self.size, self.sha256)
        return LABEL + HEADER.pack(MAGIC, FORMAT, *fields)

    @property
    def root(self) -> bytes:
        """The SHA-256 of the public keys that the image claims to be signed with."""
        return sha256(self.ed25519 + self.mldsa65)


def _refusals(image: Image, raw: bytes, place: Place) -> Iterator[tuple[bool, ImageVerdict]]:
    """Each check, refused or not, in the order of the boot stage: signatures come last and are asked only if all else holds."""
    yield place.kind not in (None, image.kind), ImageVerdict.KIND
    yield place.board not in (None, image.board), ImageVerdict.BOARD
    yield image.security_version < place.counter, ImageVerdict.OLD
    yield place.base not in (None, image.load), ImageVerdict.LOAD
    yield not 0 < image.size <= place.capacity_bytes, ImageVerdict.SIZE
    entries = 1 if image.kind == ImageKind.PAYLOAD else image.size
    yield not 0 <= image.entry - image.load < entries or image.entry % 4 != 0, ImageVerdict.ENTRY
    yield image.encode() != raw, ImageVerdict.RESERVED
    yield image.root != place.root, ImageVerdict.ROOT_KEY
    yield len(image.body) != image.size or sha256(image.body) != image.sha256, ImageVerdict.HASH
    yield not keys.verify(keys.ED25519, image.ed25519, image.signed, image.signature), ImageVerdict.ED25519
    yield not keys.verify(keys.ML_DSA_65, image.mldsa65, image.signed, image.signature2), ImageVerdict.ML_DSA_65


def verdict(raw: bytes, place: Place) -> ImageVerdict:
    """Tell whether an image may boot at ``place``: GOOD, or the first reason why not, as the boot stage names it (HW-2)."""
    if raw[:4] != MAGIC:
        return ImageVerdict.MAGIC
    if raw[4:6] != FORMAT.to_bytes(2, "little"):
        return ImageVerdict.FORMAT
    try:
        image = Image.decode(raw)
    except FormatError:
        return ImageVerdict.SIZE
    return next((why for refused, why in _refusals(image, raw, place) if refused), ImageVerdict.GOOD)


def name_of(table: type[Board] | type[ImageKind], number: int) -> str:
    """The name of a board or kind in lower case, or its number."""
    try:
        return table(number).name.lower()
    except ValueError:
        return f"{number} (unknown)"
