# SPDX-License-Identifier: Apache-2.0
"""COSE objects as this project uses them (RFC 9052; docs/formats.md): protected {1: alg, 4: kid}, nothing unprotected.

One external_aad label for each kind of object, so that a signature over one kind is none over another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from . import keys
from ._core import Tag, cbor_dumps, cbor_loads
from .errors import FormatError

__all__ = [
    "AAD_LEASE",
    "AAD_REFUSAL",
    "AAD_REQUEST",
    "AAD_REVOCATION",
    "AAD_SET",
    "REQUESTS",
    "VOTES",
    "CoseSignature",
    "Sign",
    "Sign1",
    "decode_signature",
    "encode_sign",
    "encode_sign1",
    "parse_sign",
    "parse_sign1",
    "sign_payload",
    "verify_payload",
]

AAD_LEASE = b"qsafp/1/lease"
AAD_REQUEST = b"qsafp/1/request"
AAD_REFUSAL = b"qsafp/1/refusal"
AAD_REVOCATION = b"qsafp/1/revocation"
AAD_SET = b"qsafp/1/set"

VOTES = (keys.ED25519, keys.ML_DSA_65)  # what validators and set keys sign with
REQUESTS = (keys.ED25519, keys.ESP256)  # what devices sign with

TAG_SIGN1 = 18
TAG_SIGN = 98

PublicOf = Callable[[int, bytes], bytes | None]


@dataclass(frozen=True)
class CoseSignature:
    """One signature with its header: algorithm, key id, the protected bytes as signed, the signature."""

    alg: int
    kid: bytes
    protected: bytes
    signature: bytes

    def as_list(self) -> list[Any]:
        """Return the COSE_Signature array [protected, {}, signature]."""
        return [self.protected, {}, self.signature]


@dataclass(frozen=True)
class Sign1:
    """A COSE_Sign1 taken apart; nothing in it is verified yet."""

    payload: bytes
    by: CoseSignature

    def verify(self, public: bytes, aad: bytes) -> bool:
        """Tell whether the signature is good under a raw public key whose id the header names."""
        tbs = cbor_dumps(["Signature1", self.by.protected, aad, self.payload])
        return keys.kid(public) == self.by.kid and keys.verify(self.by.alg, public, tbs, self.by.signature)


@dataclass(frozen=True)
class Sign:
    """A COSE_Sign taken apart; nothing in it is verified yet."""

    payload: bytes
    by: tuple[CoseSignature, ...]


def _protected(signer: keys.Signer) -> bytes:
    return cbor_dumps({1: signer.alg, 4: signer.kid})


def encode_sign1(payload: bytes, signer: keys.Signer, aad: bytes) -> bytes:
    """Return a tagged COSE_Sign1 over ``payload`` (RFC 9052 4.2, 4.4)."""
    protected = _protected(signer)
    signature = signer.sign(cbor_dumps(["Signature1", protected, aad, payload]))
    return cbor_dumps(Tag(TAG_SIGN1, [protected, {}, payload, signature]))


def sign_payload(payload: bytes, signer: keys.Signer, aad: bytes) -> CoseSignature:
    """Return one COSE_Signature over ``payload``, as a validator answers (context ``Signature``, empty body header)."""
    protected = _protected(signer)
    return CoseSignature(signer.alg, signer.kid, protected, signer.sign(cbor_dumps(["Signature", b"", protected, aad, payload])))


def verify_payload(payload: bytes, by: CoseSignature, public: bytes, aad: bytes) -> bool:
    """Tell whether one COSE_Signature over ``payload`` is good under a raw public key whose id its header names."""
    tbs = cbor_dumps(["Signature", b"", by.protected, aad, payload])
    return keys.kid(public) == by.kid and keys.verify(by.alg, public, tbs, by.signature)


def encode_sign(payload: bytes, signatures: Iterable[CoseSignature]) -> bytes:
    """Return a tagged COSE_Sign of a payload and signatures made with ``sign_payload``, in the order given."""
    return cbor_dumps(Tag(TAG_SIGN, [b"", {}, payload, [s.as_list() for s in signatures]]))


def _want(ok: bool, what: str) -> None:
    if not ok:
        raise FormatError(what)


def decode_signature(protected: object, unprotected: object, signature: object, algs: Sequence[int] = VOTES) -> CoseSignature:
    """Read the three parts of a COSE_Signature; raises FormatError for any header but {1: alg, 4: kid of 8 bytes}."""
    _want(isinstance(protected, bytes) and unprotected == {} and isinstance(signature, bytes), "a COSE header of another shape")
    assert isinstance(protected, bytes)
    assert isinstance(signature, bytes)
    head = cbor_loads(protected)
    _want(isinstance(head, dict) and head.keys() == {1, 4}, "a protected header of another shape")
    alg, kid = head[1], head[4]
    _want(type(alg) is int and alg in algs, f"unknown algorithm {alg!r}")
    _want(isinstance(kid, bytes) and len(kid) == 8, "a key id that is not 8 bytes")
    return CoseSignature(alg, kid, protected, signature)


def _tagged(data: bytes, number: int) -> Sequence[Any]:
    item = cbor_loads(data)
    _want(isinstance(item, Tag) and item.number == number, f"not a CBOR object of tag {number}")
    body: Sequence[Any] = item.value
    _want(isinstance(body, list) and len(body) == 4 and isinstance(body[2], bytes), "a COSE object of another shape")
    return body


def parse_sign1(data: bytes, algs: Sequence[int] = VOTES) -> Sign1:
    """Take a COSE_Sign1 apart; raises FormatError unless it is tagged, deterministic, of our profile and one of ``algs``."""
    protected, unprotected, payload, signature = _tagged(data, TAG_SIGN1)
    return Sign1(payload, decode_signature(protected, unprotected, signature, algs))


def parse_sign(data: bytes) -> Sign:
    """Take a COSE_Sign apart; raises FormatError unless it is tagged, deterministic and of our profile."""
    protected, unprotected, payload, signatures = _tagged(data, TAG_SIGN)
    _want(protected == b"" and unprotected == {} and isinstance(signatures, list), "a COSE_Sign of another shape")
    _want(all(isinstance(s, list) and len(s) == 3 for s in signatures), "a COSE_Signature of another shape")
    return Sign(payload, tuple(decode_signature(*s) for s in signatures))
