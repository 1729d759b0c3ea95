# SPDX-License-Identifier: Apache-2.0
"""The boot stage's verifier and its Ed25519, built for this machine and asked about everything that can be wrong (HW-2, HW-10)."""

from __future__ import annotations

import ctypes
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import boot
import pytest
from firmware import TARGETS, WARN, run

from qsafp_embedded import keys
from qsafp_embedded._tables import Board, ImageKind, ImageVerdict
from qsafp_embedded.image import FRONT_BYTES, Image, Place, RootKey, verdict

ROOT = Path(__file__).resolve().parents[2]
LOAD, CAPACITY, BODY = 0x80008000, 0x8000, bytes(range(48))
KEY = RootKey.from_secret(b"\x05" * 32)
GOOD = ImageVerdict.GOOD

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


class CPlace(ctypes.Structure):
    """qsafp_image_place_t."""

    _fields_ = (
        ("base", ctypes.c_uint64),
        *((name, ctypes.c_uint32) for name in ("capacity", "board", "kind", "counter")),
        ("root", ctypes.c_uint8 * 32),
    )


PLACE = CPlace(LOAD, CAPACITY, Board.HIFIVE_UNLEASHED, ImageKind.MONITOR, 4, (ctypes.c_uint8 * 32)(*KEY.hash))
SAME = Place(KEY.hash, Board.HIFIVE_UNLEASHED, ImageKind.MONITOR, 4, LOAD, CAPACITY)


@pytest.fixture(scope="session")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Verifier and crypto of the boot stage as a library of this machine."""
    out = tmp_path_factory.mktemp("firmware") / "boot.so"
    own = [ROOT / f"cext/monitor/boot/{name}.c" for name in ("image", "ed25519")]
    core = [ROOT / f"cext/src/{name}.c" for name in boot.CORE]
    run("gcc", "-O2", "-shared", "-fPIC", *WARN, *TARGETS["hifive_unleashed"].includes, *own, *core, "-o", out)
    return ctypes.CDLL(str(out))


def ask(firmware: ctypes.CDLL, raw: bytes, place: CPlace = PLACE) -> ImageVerdict:
    """The boot stage's verdict on an image; what is not there is erased flash."""
    whole = raw.ljust(FRONT_BYTES + CAPACITY, b"\xff")
    out = ctypes.create_string_buffer(64)
    return ImageVerdict(firmware.qsafp_image_verify(out, ctypes.byref(place), whole[:FRONT_BYTES], whole[FRONT_BYTES:]))


def signed(body: bytes = BODY, **other: int) -> bytes:
    """A good image, or one that differs in some fields and is signed all the same."""
    fields = {"kind": ImageKind.MONITOR, "board": Board.HIFIVE_UNLEASHED, "security_version": 4, "load": LOAD, **other}
    return Image.sign(body, KEY, **fields).encode()


def resigned(raw: bytes, at: int, field: bytes) -> bytes:
    """An image whose header was changed and then signed by the manufacturer, who is not to be trusted with nonsense either."""
    head = raw[:at] + field + raw[at + len(field) : 72]
    message = b"qsafp/1/image" + head
    return head + raw[72:2056] + KEY.ed25519.sign(message) + KEY.mldsa65.sign(message) + raw[5429:]


def flipped(raw: bytes, bit: int) -> bytes:
    """One bit turned over."""
    return raw[: bit // 8] + bytes([raw[bit // 8] ^ 1 << bit % 8]) + raw[bit // 8 + 1 :]


def test_a_good_image_is_good(firmware: ctypes.CDLL) -> None:
    assert ask(firmware, signed()) == GOOD
    assert ask(firmware, signed(security_version=5, entry=LOAD + 44)) == GOOD
    assert ask(firmware, signed(bytes(CAPACITY))) == GOOD


@pytest.mark.parametrize(
    ("at", "field", "reason"),
    [
        (0, b"QIM2", "MAGIC"),
        (0, bytes(4), "MAGIC"),
        (4, b"\0\0", "FORMAT"),
        (4, b"\2\0", "FORMAT"),
        (6, b"\2\0", "KIND"),
        (6, b"\0\0", "KIND"),
        (8, b"\0\0\0\0", "BOARD"),
        (8, b"\2\0\0\0", "BOARD"),
        (12, b"\3\0\0\0", "OLD"),
        (12, b"\0\0\0\0", "OLD"),
        (16, (LOAD + 4).to_bytes(8, "little"), "LOAD"),
        (16, (LOAD + 2**32).to_bytes(8, "little"), "LOAD"),
        (16, bytes(8), "LOAD"),
        (24, (LOAD - 4).to_bytes(8, "little"), "ENTRY"),
        (24, (LOAD + 48).to_bytes(8, "little"), "ENTRY"),
        (24, (LOAD + 2).to_bytes(8, "little"), "ENTRY"),
        (24, (LOAD + 2**32).to_bytes(8, "little"), "ENTRY"),
        (24, b"\xfc" + b"\xff" * 7, "ENTRY"),
        (32, bytes(4), "SIZE"),
        (32, (CAPACITY + 1).to_bytes(4, "little"), "SIZE"),
        (32, b"\xff" * 4, "SIZE"),
        (32, (49).to_bytes(4, "little"), "HASH"),
        (32, (47).to_bytes(4, "little"), "HASH"),
        (36, b"\1", "RESERVED"),
        (39, b"\x80", "RESERVED"),
        (40, bytes(32), "HASH"),
    ],
)
def test_each_wrong_field_is_refused_by_its_name_though_signed(firmware: ctypes.CDLL, at: int, field: bytes, reason: str) -> None:
    raw = resigned(signed(), at, field)
    assert ask(firmware, raw).name == reason
    assert verdict(raw, SAME).name == reason


def test_a_payload_is_entered_at_its_first_byte_alone(firmware: ctypes.CDLL) -> None:
    place = CPlace.from_buffer_copy(PLACE)
    place.kind = ImageKind.PAYLOAD
    raw = signed(kind=ImageKind.PAYLOAD)
    assert ask(firmware, raw, place) == GOOD
    later = resigned(raw, 24, (LOAD + 4).to_bytes(8, "little"))
    assert ask(firmware, later, place) == verdict(later, replace(SAME, kind=ImageKind.PAYLOAD)) == ImageVerdict.ENTRY


def reason_at(byte: int) -> str:
    """What a flipped bit of a key, signature, filler or body is called."""
    ends = ((2056, "ROOT_KEY"), (2120, "ED25519"), (5429, "ML_DSA_65"), (FRONT_BYTES, "RESERVED"))
    return next((name for end, name in ends if byte < end), "HASH")


def test_no_image_with_one_flipped_bit_is_good(firmware: ctypes.CDLL) -> None:
    raw = signed(entry=LOAD + 8)
    for bit in range(8 * len(raw)):
        found = ask(firmware, flipped(raw, bit))
        assert found != GOOD
        assert bit < 8 * 72 or found.name == reason_at(bit // 8), bit


def test_the_command_line_gives_the_same_reason_for_each_flipped_bit(firmware: ctypes.CDLL) -> None:
    raw, rng = signed(entry=LOAD + 8), random.Random(4)
    for bit in [*range(8 * 72), *rng.sample(range(8 * 72, 8 * len(raw)), 500)]:
        assert verdict(flipped(raw, bit), SAME) == ask(firmware, flipped(raw, bit)), bit


def test_noise_is_never_good(firmware: ctypes.CDLL) -> None:
    raw, rng = signed(), random.Random(5)
    for _ in range(3000):
        made = bytearray(raw)
        for _ in range(rng.randrange(1, 6)):
            at, n = rng.randrange(len(raw)), rng.randrange(1, 40)
            made[at : at + n] = rng.choice((bytes(n), b"\xff" * n, rng.randbytes(n), raw[rng.randrange(len(raw)) :][:n]))
        made = made[: len(raw)]
        assert bytes(made) == raw or ask(firmware, bytes(made)) != GOOD


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_blank_flash_is_refused(firmware: ctypes.CDLL, fill: bytes) -> None:
    assert ask(firmware, fill * (FRONT_BYTES + CAPACITY)) == ImageVerdict.MAGIC


def test_every_truncation_is_refused(firmware: ctypes.CDLL) -> None:
    raw = signed()
    for left in range(0, len(raw), 7):
        assert ask(firmware, raw[:left]) != GOOD


def test_signatures_of_another_image_are_refused(firmware: ctypes.CDLL) -> None:
    one, two = signed(), signed(security_version=5)
    assert ask(firmware, two[:72] + one[72:]) == ImageVerdict.ED25519
    assert ask(firmware, two[:72] + one[72:2056] + two[2056:2120] + one[2120:]) == ImageVerdict.ML_DSA_65
    assert ask(firmware, two[:2120] + one[2120:]) == ImageVerdict.ML_DSA_65


def test_another_manufacturer_is_refused(firmware: ctypes.CDLL) -> None:
    stranger = RootKey.from_secret(b"\6" * 32)
    fields = {"kind": ImageKind.MONITOR, "board": Board.HIFIVE_UNLEASHED, "security_version": 4, "load": LOAD}
    assert ask(firmware, Image.sign(BODY, stranger, **fields).encode()) == ImageVerdict.ROOT_KEY


# ---- Ed25519 ----

Verify = Callable[[bytes, bytes, bytes], bool]


@pytest.fixture(scope="session")
def verify(firmware: ctypes.CDLL) -> Verify:
    """The firmware's verdict on (public key, message, signature)."""
    return lambda pk, msg, sig: firmware.qsafp_ed25519_verify(sig, pk, msg, ctypes.c_size_t(len(msg))) == 0


def sign(firmware: ctypes.CDLL, seed: bytes, msg: bytes) -> tuple[bytes, bytes]:
    """Public key and signature as the firmware makes them."""
    pk, sig = ctypes.create_string_buffer(32), ctypes.create_string_buffer(64)
    firmware.qsafp_ed25519_public(pk, seed)
    firmware.qsafp_ed25519_sign(sig, seed + pk.raw, msg, ctypes.c_size_t(len(msg)))
    return pk.raw, sig.raw


# RFC 8032 section 7.1: secret key, public key, message, signature.
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), [tuple(map(bytes.fromhex, row)) for row in RFC8032])
def test_the_vectors_of_rfc_8032_hold(
    firmware: ctypes.CDLL, verify: Verify, seed: bytes, public: bytes, message: bytes, signature: bytes
) -> None:
    assert sign(firmware, seed, message) == (public, signature)
    assert verify(public, message, signature)


def test_wycheproof_agrees_with_the_host(verify: Verify) -> None:
    groups = json.loads((ROOT / "tests/vectors/wycheproof_ed25519_test.json").read_text())["testGroups"]
    counted = {"valid": 0, "invalid": 0}
    for group in groups:
        pk = bytes.fromhex(group["publicKey"]["pk"])
        for t in group["tests"]:
            msg, sig = bytes.fromhex(t["msg"]), bytes.fromhex(t["sig"])
            if len(sig) != 64:
                continue  # the caller of the firmware checks the length
            assert verify(pk, msg, sig) == (t["result"] == "valid") == keys.verify(keys.ED25519, pk, msg, sig), t["tcId"]
            counted[t["result"]] += 1
    assert counted["valid"] > 50
    assert counted["invalid"] > 40


def test_random_messages_and_forgeries_agree_with_the_host(firmware: ctypes.CDLL, verify: Verify) -> None:
    rng = random.Random(6)
    for n in range(300):
        key, msg = keys.Ed25519Key.from_seed(rng.randbytes(32)), rng.randbytes(n)
        sig = key.sign(msg)
        assert sign(firmware, key.secret[:32], msg) == (key.public, sig)
        bad = flipped(sig, rng.randrange(512))
        assert verify(key.public, msg, sig)
        assert not verify(key.public, msg, bad)
        assert not keys.verify(keys.ED25519, key.public, msg, bad)


# ---- points of mixed order: where a check that multiplies by the cofactor says yes and libsodium says no ----


def test_a_signature_that_holds_only_up_to_the_cofactor_is_refused_as_on_the_host(verify: Verify) -> None:
    from test_ed25519_edge import L, added, encoded, times, torsion

    base = (
        15112221349535400772501151409588531511454012693041857206046113283949847762202,
        46316835694926478169428394003475163141307993866256225615783033603165251855960,
    )
    low = next(p for p in torsion() if times(4, p) != (0, 1))
    refused = 0
    for n in range(1, 17):
        a, r = 1234567 + n, 7654321 * n
        for pk, first in (
            (encoded(added(times(a, base), low)), encoded(times(r, base))),
            (encoded(times(a, base)), encoded(added(times(r, base), low))),
        ):
            h = int.from_bytes(hashlib.sha512(first + pk + b"m").digest(), "little") % L
            sig = first + ((r + h * a) % L).to_bytes(32, "little")
            assert verify(pk, b"m", sig) == keys.verify(keys.ED25519, pk, b"m", sig)
            refused += not verify(pk, b"m", sig)
    assert 16 < refused < 32  # with the torsion in R always, with it in A unless it meets a multiple of 8
