# SPDX-License-Identifier: Apache-2.0
"""The refusal of Ed25519 edge cases, against the curve itself, libsodium, OpenSSL and Project Wycheproof."""

from __future__ import annotations

import ctypes
import hashlib
import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nacl._sodium
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
EdgeOk = Callable[[bytes, bytes], bool]


def added(a: Point, b: Point) -> Point:
    """RFC 8032 section 5.1.4, in affine form."""
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P


def times(k: int, a: Point) -> Point:
    """The k-fold of a point."""
    out = (0, 1)
    while k:
        out = added(out, a) if k & 1 else out
        a, k = added(a, a), k >> 1
    return out


def x_of(y: int) -> int | None:
    """The even x with this y, None if there is none (RFC 8032 section 5.1.3)."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return None if (x * x - square) % P else min(x, P - x, key=lambda v: v & 1)


def encoded(a: Point) -> bytes:
    """32 bytes: y, and the sign of x on top."""
    return (a[1] | (a[0] & 1) << 255).to_bytes(32, "little")


def torsion() -> list[Point]:
    """The eight points whose order divides 8: L times any point, until one of order 8 is met."""
    for y in range(2, 100):
        if (x := x_of(y)) is not None:
            t = times(L, (x, y))
            if times(4, t) != (0, 1):
                return [times(k, t) for k in range(8)]
    raise AssertionError("no point of order 8")


TORSION = torsion()
SMALL_Y = {y for _, y in TORSION}
BASE_Y = 4 * pow(5, -1, P) % P
BASE = (x_of(BASE_Y) or 0, BASE_Y)


@pytest.fixture(scope="module")
def edge_ok(root: Path, tmp_path_factory: pytest.TempPathFactory) -> EdgeOk:
    """The C function, from the sources as they are now."""
    out = tmp_path_factory.mktemp("edge") / "edge.so"
    cmd = ["gcc", "-std=c11", "-O2", "-shared", "-fPIC", "-Icext/include", "cext/src/ed25519_edge.c", "-o", str(out)]
    subprocess.run(cmd, cwd=root, check=True)
    call = ctypes.CDLL(str(out)).qsafp_ed25519_edge_ok

    def ask(sig: bytes, pk: bytes) -> bool:
        assert (len(sig), len(pk)) == (64, 32)
        answer = call(sig, pk)
        assert answer in (0, 1)
        return bool(answer)

    return ask


@pytest.fixture(scope="module")
def sodium() -> Callable[[bytes, bytes, bytes], bool]:
    """libsodium's verification, as the guard calls it."""
    call = ctypes.CDLL(nacl._sodium.__file__).crypto_sign_ed25519_verify_detached
    call.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulonglong, ctypes.c_char_p]
    return lambda sig, pk, msg: call(sig, msg, len(msg), pk) == 0


def openssl(sig: bytes, pk: bytes, msg: bytes) -> bool:
    """OpenSSL's verification, as agent and validators call it."""
    try:
        Ed25519PublicKey.from_public_bytes(pk).verify(sig, msg)
    except (InvalidSignature, ValueError):
        return False
    return True


def wycheproof(vectors: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Key and case of every Wycheproof test; the file's own count is held."""
    data = json.loads((vectors / "wycheproof_ed25519_test.json").read_text())
    cases = [(bytes.fromhex(g["publicKey"]["pk"]), t) for g in data["testGroups"] for t in g["tests"]]
    assert len(cases) == data["numberOfTests"] > 0
    return cases


def test_wycheproof_edge_check_and_libsodium_accept_exactly_the_valid(
    edge_ok: EdgeOk, sodium: Callable[[bytes, bytes, bytes], bool], vectors: Path
) -> None:
    wrong, seen = [], {"valid": 0, "invalid": 0, "length": 0, "edge": 0}
    for pk, t in wycheproof(vectors):
        sig, msg = bytes.fromhex(t["sig"]), bytes.fromhex(t["msg"])
        fits = len(sig) == 64 and len(pk) == 32
        edge = fits and edge_ok(sig, pk)
        accepted = edge and sodium(sig, pk, msg)
        seen[t["result"]] += 1
        seen["length"] += not fits
        seen["edge"] += fits and not edge
        wrong += [t["tcId"]] if accepted != (t["result"] == "valid") else []
        wrong += [t["tcId"]] if fits and "SignatureMalleability" in t["flags"] and edge else []
    assert wrong == []
    assert seen["valid"] > 0
    assert seen["invalid"] > 0
    assert seen["length"] < seen["invalid"]
    assert seen["edge"] > 0


def test_there_are_eight_points_of_small_order() -> None:
    assert len(set(TORSION)) == 8
    assert len(SMALL_Y) == 5
    assert all(times(8, t) == (0, 1) for t in TORSION)
    assert times(L, BASE) == (0, 1)


def test_every_point_of_small_order_is_refused_under_both_signs(edge_ok: EdgeOk) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    sig, pk = key.sign(b"m"), key.public_key().public_bytes_raw()
    assert edge_ok(sig, pk)
    for y in SMALL_Y:
        for spelled in {y, y + P} if y + P < 2**255 else {y}:
            for sign in (0, 1):
                point = (spelled | sign << 255).to_bytes(32, "little")
                assert not edge_ok(sig, point)
                assert not edge_ok(point + sig[32:], pk)


def allowed_point(raw: bytes) -> bool:
    """The rule for A and R in Python integers."""
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    return y < P and y not in SMALL_Y


def spoilt_number(rng: random.Random, at: int) -> bytes:
    """A number near one where the rule changes, or any at all."""
    near = rng.choice([0, 1, P, L, 2 * L, 2**252, 2**255, *SMALL_Y]) + rng.randrange(-20, 21)
    value = rng.choice([near, near | 1 << 255, near ^ 1 << rng.randrange(256), rng.getrandbits(256)])
    return (value % 2**256).to_bytes(32, "little") if at % 4 else rng.randbytes(32)


def test_the_answer_is_the_rule_in_integers(edge_ok: EdgeOk) -> None:
    rng = random.Random(20260101)
    answers = {True: 0, False: 0}
    good_point = encoded(BASE)
    for n in range(6000):
        parts = [good_point, rng.randrange(L).to_bytes(32, "little"), good_point]
        parts[n % 3] = spoilt_number(rng, n)
        r, s, a = parts
        want = int.from_bytes(s, "little") < L and allowed_point(r) and allowed_point(a)
        assert edge_ok(r + s, a) == want, (r.hex(), s.hex(), a.hex())
        answers[want] += 1
    assert min(answers.values()) > 500


def test_libraries_agree_on_keys_and_commitments_with_a_torsion_part(
    edge_ok: EdgeOk, sodium: Callable[[bytes, bytes, bytes], bool]
) -> None:
    """A = aB + T, R = rB + U, h reduced modulo L: SB = R + hA without cofactor holds only if U + hT = 0."""
    a, r, msg = 0x1234567, 0x7654321, b"torsion"
    accepted = refused = 0
    for t in TORSION:
        for u in TORSION:
            pk, commitment = encoded(added(times(a, BASE), t)), encoded(added(times(r, BASE), u))
            h = int.from_bytes(hashlib.sha512(commitment + pk + msg).digest(), "little") % L
            sig = commitment + ((r + h * a) % L).to_bytes(32, "little")
            want = added(u, times(h % 8, t)) == (0, 1)
            assert edge_ok(sig, pk)
            assert sodium(sig, pk, msg) == want
            assert openssl(sig, pk, msg) == want
            accepted, refused = accepted + want, refused + (not want)
    assert accepted >= 1
    assert refused >= 1


def test_libraries_agree_once_the_edge_check_has_passed(edge_ok: EdgeOk, sodium: Callable[[bytes, bytes, bytes], bool]) -> None:
    rng = random.Random(20260102)
    valid = spoilt = 0
    for n in range(300):
        key = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))
        msg = rng.randbytes(rng.randrange(200))
        sig, pk = bytearray(key.sign(msg)), bytearray(key.public_key().public_bytes_raw())
        if n % 3:
            victim = pk if n % 3 == 1 else sig
            victim[rng.randrange(len(victim))] ^= 1 << rng.randrange(8)
        if not edge_ok(bytes(sig), bytes(pk)):
            assert n % 3
            continue
        answer = sodium(bytes(sig), bytes(pk), msg)
        assert answer == openssl(bytes(sig), bytes(pk), msg) == (n % 3 == 0)
        valid, spoilt = valid + answer, spoilt + (not answer)
    assert valid == 100
    assert spoilt > 100
