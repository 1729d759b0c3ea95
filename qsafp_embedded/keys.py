# SPDX-License-Identifier: Apache-2.0
"""Signing keys in key files, and the signature algorithms that agent and validators know (architecture, decisions 11 and 12).

Ed25519 runs in libsodium, the library of the guard, at half the time of OpenSSL; ML-DSA-65 is signed by ``cryptography`` and
verified by the core.  ESP256 is what a TPM signs a device's requests with; here it is verified, by ``cryptography``.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from nacl.bindings import crypto_sign, crypto_sign_open
from nacl.exceptions import BadSignatureError

from ._core import edge_ok, mldsa65_verify, sha256
from .errors import ConfigError
from .keyfile import SECRET_BYTES, read_secret, write_secret

__all__ = [
    "DEVICE_KEYS",
    "ED25519",
    "ESP256",
    "ML_DSA_65",
    "Ed25519Key",
    "MLDSA65Key",
    "Signer",
    "device_key_ok",
    "generate",
    "kid",
    "load",
    "load_ed25519",
    "load_mldsa65",
    "read_secret",
    "verify",
    "write_secret",
]

ED25519 = -19
ML_DSA_65 = -49
ESP256 = -9

DEVICE_KEYS = {"ed25519": (ED25519, 32), "esp256": (ESP256, 64)}  # key_type of a device: algorithm, bytes of the raw public key
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def kid(public: bytes) -> bytes:
    """Return the key id of a raw public key: the first 8 bytes of its SHA-256 (formats, Lease)."""
    return sha256(public)[:8]


class Signer(Protocol):
    """What signs a COSE object: an algorithm number, a raw public key, its id, and one act."""

    @property
    def alg(self) -> int:
        """COSE algorithm number."""

    @property
    def public(self) -> bytes:
        """Raw public key."""

    @property
    def kid(self) -> bytes:
        """Key id, 8 bytes."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature over ``message``."""


@dataclass(frozen=True, eq=False)
class Ed25519Key:
    """An Ed25519 signing key (RFC 8032; COSE -19, RFC 9864); its secret never shows in ``repr``."""

    public: bytes
    kid: bytes
    secret: bytes
    alg: int = ED25519

    @classmethod
    def from_seed(cls, seed: bytes) -> Ed25519Key:
        """Make the key of a 32-byte seed; raises ValueError for another length."""
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        return cls(public, kid(public), seed + public)

    @property
    def private(self) -> Ed25519PrivateKey:
        """The key as ``cryptography`` takes it, for certificates."""
        return Ed25519PrivateKey.from_private_bytes(self.secret[:32])

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over ``message``."""
        return crypto_sign(message, self.secret)[:64]

    def __repr__(self) -> str:
        """Name the key by its id alone."""
        return f"Ed25519Key({self.kid.hex()})"


@dataclass(frozen=True, eq=False)
class MLDSA65Key:
    """An ML-DSA-65 signing key (FIPS 204; COSE -49)."""

    public: bytes
    kid: bytes
    private: MLDSA65PrivateKey
    alg: int = ML_DSA_65

    @classmethod
    def from_seed(cls, seed: bytes) -> MLDSA65Key:
        """Make the key of a 32-byte seed (FIPS 204, algorithm 6); raises ValueError for another length."""
        private = MLDSA65PrivateKey.from_seed_bytes(seed)
        public = private.public_key().public_bytes_raw()
        return cls(public, kid(public), private)

    def sign(self, message: bytes) -> bytes:
        """Return the 3,309-byte signature over ``message``, empty context."""
        return self.private.sign(message)

    def __repr__(self) -> str:
        """Name the key by its id alone."""
        return f"MLDSA65Key({self.kid.hex()})"


def _verify_ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    if len(signature) != 64 or len(public) != 32 or not edge_ok(signature, public):
        return False
    try:
        crypto_sign_open(signature + message, public)
    except (BadSignatureError, ValueError):
        return False
    return True


def _p256(public: bytes) -> ec.EllipticCurvePublicKey:
    """The point x || y; raises ValueError for another length or a point that is not on the curve."""
    if len(public) != 64:
        raise ValueError("a P-256 key is 64 bytes, x || y")
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + public)


def _verify_esp256(public: bytes, message: bytes, signature: bytes) -> bool:
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    if len(signature) != 64 or not 0 < r < P256_ORDER or not 0 < s <= P256_ORDER // 2:
        return False
    try:
        _p256(public).verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def device_key_ok(alg: int, public: bytes) -> bool:
    """Tell whether a raw public key may be a device's: of its length, and for ESP256 a point on P-256."""
    if alg != ESP256:
        return alg == ED25519 and len(public) == 32
    try:
        _p256(public)
    except ValueError:
        return False
    return True


def verify(alg: int, public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether ``signature`` over ``message`` is good under a raw public key.

    Edge cases (S >= L, small order, non-canonical points) are refused by the core before any library is asked; an unknown
    algorithm or a wrong length is a bad signature (architecture, decision 12).  ESP256 is r || s with s of the lower half (n - s
    would verify too): who relays a request cannot make a second one of it.
    """
    if alg == ED25519:
        return _verify_ed25519(public, message, signature)
    if alg == ESP256:
        return _verify_esp256(public, message, signature)
    if alg == ML_DSA_65 and len(public) == 1952 and len(signature) == 3309:
        return mldsa65_verify(public, message, signature)
    return False


def generate(path: Path, *, kind: str = "ed25519") -> Ed25519Key | MLDSA65Key:
    """Make a key of ``kind`` (``ed25519`` or ``ml-dsa-65``), write its seed to ``path``, and return it; raises ConfigError."""
    if kind not in {"ed25519", "ml-dsa-65"}:
        raise ConfigError(f"no key kind {kind!r}: ed25519 or ml-dsa-65")
    seed = secrets.token_bytes(SECRET_BYTES)
    write_secret(path, kind, seed)
    return Ed25519Key.from_seed(seed) if kind == "ed25519" else MLDSA65Key.from_seed(seed)


def load_ed25519(path: Path) -> Ed25519Key:
    """Load an Ed25519 key file; raises ConfigError."""
    return Ed25519Key.from_seed(read_secret(path, "ed25519"))


def load_mldsa65(path: Path) -> MLDSA65Key:
    """Load an ML-DSA-65 key file; raises ConfigError."""
    return MLDSA65Key.from_seed(read_secret(path, "ml-dsa-65"))


def load(path: Path) -> Ed25519Key | MLDSA65Key:
    """Load a key file of either kind, as its first line says; raises ConfigError."""
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            kind = file.readline(64).split()[-1:]
    except OSError as why:
        raise ConfigError(f"{path}: cannot read the key file: {why.strerror}") from why
    return load_mldsa65(path) if kind == ["ml-dsa-65"] else load_ed25519(path)
