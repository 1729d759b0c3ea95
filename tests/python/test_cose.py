# SPDX-License-Identifier: Apache-2.0
"""COSE objects: what we write is RFC 9052, and nothing else is read."""

from __future__ import annotations

import secrets

import pytest
from cwt import COSE, COSEKey

from qsafp_embedded import cose, keys
from qsafp_embedded._core import Tag, cbor_dumps, cbor_loads
from qsafp_embedded.errors import FormatError

ED = keys.Ed25519Key.from_seed(bytes(range(32)))
ML = keys.MLDSA65Key.from_seed(bytes(range(32)))


@pytest.mark.parametrize("key", [ED, ML], ids=["ed25519", "ml-dsa-65"])
def test_a_sign1_verifies_under_its_key_and_label(key: keys.Signer) -> None:
    signed = cose.parse_sign1(cose.encode_sign1(b"payload", key, cose.AAD_REFUSAL))
    assert signed.payload == b"payload"
    assert (signed.by.alg, signed.by.kid) == (key.alg, key.kid)
    assert signed.verify(key.public, cose.AAD_REFUSAL)
    assert not signed.verify(key.public, cose.AAD_REVOCATION)


def test_another_implementation_accepts_our_sign1() -> None:
    """`cwt` knows EdDSA (-8) only, so the same key signs our Sig_structure under a header that names it so."""
    protected = cbor_dumps({1: -8, 4: ED.kid})
    tbs = cbor_dumps(["Signature1", protected, cose.AAD_REQUEST, b"payload"])
    token = cbor_dumps(Tag(18, [protected, {}, b"payload", ED.sign(tbs)]))
    theirs = COSEKey.new({1: 1, -1: 6, -2: ED.public, 2: ED.kid, 3: -8})
    assert COSE.new().decode(token, theirs, external_aad=cose.AAD_REQUEST) == b"payload"


@pytest.mark.parametrize("key", [ED, ML], ids=["ed25519", "ml-dsa-65"])
def test_a_signature_of_a_lease_verifies_and_no_spoiled_one_does(key: keys.Signer) -> None:
    by = cose.sign_payload(b"lease", key, cose.AAD_LEASE)
    assert cose.verify_payload(b"lease", by, key.public, cose.AAD_LEASE)
    assert not cose.verify_payload(b"leasf", by, key.public, cose.AAD_LEASE)
    assert not cose.verify_payload(b"lease", by, key.public, cose.AAD_SET)
    for at in range(0, len(by.signature), 37):
        bad = bytearray(by.signature)
        bad[at] ^= 1
        spoiled = cose.CoseSignature(by.alg, by.kid, by.protected, bytes(bad))
        assert not cose.verify_payload(b"lease", spoiled, key.public, cose.AAD_LEASE), at


def test_a_sign1_is_no_vote_for_a_lease() -> None:
    token = cose.parse_sign1(cose.encode_sign1(b"lease", ED, cose.AAD_LEASE))
    assert not cose.verify_payload(b"lease", token.by, ED.public, cose.AAD_LEASE)


def test_a_sign_object_keeps_its_signatures_in_order() -> None:
    votes = [cose.sign_payload(b"lease", k, cose.AAD_LEASE) for k in (ED, ML)]
    parsed = cose.parse_sign(cose.encode_sign(b"lease", votes))
    assert parsed.payload == b"lease"
    assert list(parsed.by) == votes


def test_a_key_with_another_id_than_the_header_names_is_refused() -> None:
    signed = cose.parse_sign1(cose.encode_sign1(b"p", ED, cose.AAD_SET))
    other = keys.Ed25519Key.from_seed(secrets.token_bytes(32))
    assert not signed.verify(other.public, cose.AAD_SET)


def _sign1(protected: object, unprotected: object = None, *, tag: int = 18) -> bytes:
    head = protected if isinstance(protected, bytes) else cbor_dumps(protected)
    return cbor_dumps(Tag(tag, [head, unprotected if unprotected is not None else {}, b"payload", bytes(64)]))


@pytest.mark.parametrize(
    "data",
    [
        _sign1({1: -8, 4: bytes(8)}),
        _sign1({1: -7, 4: bytes(8)}),
        _sign1({1: -19}),
        _sign1({1: -19, 2: [4], 4: bytes(8)}),
        _sign1({1: -19, 4: bytes(7)}),
        _sign1({1: -19, 4: "12345678"}),
        _sign1({1: True, 4: bytes(8)}),
        _sign1(b"\xa2\x04\x48" + bytes(8) + b"\x01\x32"),
        _sign1({1: -19, 4: bytes(8)}, {4: b"x"}),
        _sign1({1: -19, 4: bytes(8)}, tag=98),
        cbor_dumps([cbor_dumps({1: -19, 4: bytes(8)}), {}, b"payload", bytes(64)]),
        cose.encode_sign1(b"payload", ED, cose.AAD_SET) + b"\x00",
        cose.encode_sign1(b"payload", ED, cose.AAD_SET)[:-1],
        b"",
        b"\xd2",
        bytes(300),
        b"\xff" * 300,
    ],
)
def test_a_sign1_of_another_shape_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        cose.parse_sign1(data)


def test_a_sign_object_with_a_body_header_is_refused() -> None:
    vote = cose.sign_payload(b"lease", ED, cose.AAD_LEASE).as_list()
    for body in ([cbor_dumps({1: -19}), {}, b"lease", [vote]], [b"", {1: 1}, b"lease", [vote]], [b"", {}, b"lease", [vote[:2]]]):
        with pytest.raises(FormatError):
            cose.parse_sign(cbor_dumps(Tag(98, body)))


def test_the_protected_header_is_what_the_device_reads() -> None:
    by = cose.sign_payload(b"x", ED, cose.AAD_LEASE)
    assert cbor_loads(by.protected) == {1: -19, 4: ED.kid}
    assert len(cbor_dumps([by.as_list()])) <= 96  # docs/formats.md: an approval
