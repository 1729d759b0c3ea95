# SPDX-License-Identifier: Apache-2.0
"""Key files: 0600 or nothing; signatures: what one library of ours signs, the other verifies."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

from qsafp_embedded import keys
from qsafp_embedded.errors import ConfigError

KINDS = ["ed25519", "ml-dsa-65"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_comes_back_from_its_file(kind: str, tmp_path: Path) -> None:
    made = keys.generate(tmp_path / "k", kind=kind)
    again = keys.load(tmp_path / "k")
    assert again.public == made.public
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "k").read_text().splitlines()[0] == f"qsafp-key-1 {kind}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_verifies_and_another_message_does_not(kind: str, tmp_path: Path) -> None:
    key = keys.generate(tmp_path / "k", kind=kind)
    signature = key.sign(b"message")
    assert keys.verify(key.alg, key.public, b"message", signature)
    assert not keys.verify(key.alg, key.public, b"massage", signature)
    assert not keys.verify(-7, key.public, b"message", signature)


def test_cryptography_accepts_what_we_sign(tmp_path: Path) -> None:
    ed, ml = keys.generate(tmp_path / "e"), keys.generate(tmp_path / "m", kind="ml-dsa-65")
    Ed25519PublicKey.from_public_bytes(ed.public).verify(ed.sign(b"m"), b"m")
    MLDSA65PublicKey.from_public_bytes(ml.public).verify(ml.sign(b"m"), b"m")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_key_that_others_may_touch_is_refused(mode: int, tmp_path: Path) -> None:
    keys.generate(tmp_path / "k")
    (tmp_path / "k").chmod(mode)
    with pytest.raises(ConfigError, match=rf"{mode:04o}.*chmod 600"):
        keys.load_ed25519(tmp_path / "k")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "qsafp-key-1 ed25519\n",
        "qsafp-key-1 ed25519\nzz\n",
        f"qsafp-key-1 ed25519\n{'00' * 31}\n",
        f"qsafp-key-2 ed25519\n{'00' * 32}\n",
        f"{'00' * 32}\n",
    ],
)
def test_a_file_that_holds_no_key_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "k"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(ConfigError, match=str(path)):
        keys.load(path)


def test_a_key_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    keys.generate(tmp_path / "k")
    with pytest.raises(ConfigError, match="ml-dsa-65"):
        keys.load_mldsa65(tmp_path / "k")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    for load in (keys.load, keys.load_ed25519, keys.load_mldsa65):
        with pytest.raises(ConfigError, match="nowhere"):
            load(tmp_path / "nowhere")


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    made = keys.generate(tmp_path / "k")
    with pytest.raises(ConfigError):
        keys.generate(tmp_path / "k")
    assert keys.load_ed25519(tmp_path / "k").public == made.public


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    for kind in KINDS:
        key = keys.generate(tmp_path / kind, kind=kind)
        assert (tmp_path / kind).read_text().splitlines()[1] not in repr(key)
        assert key.kid.hex() in repr(key)


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_blank_keys_and_signatures_never_verify(public: bytes) -> None:
    for signature in (bytes(64), b"\xff" * 64, b"\x01" + bytes(63), b""):
        assert not keys.verify(keys.ED25519, public, b"", signature)


def test_blank_post_quantum_keys_never_verify() -> None:
    for fill in (b"\x00", b"\xff"):
        assert not keys.verify(keys.ML_DSA_65, fill * 1952, b"", fill * 3309)
    assert not keys.verify(keys.ML_DSA_65, bytes(1951), b"", bytes(3309))
