# SPDX-License-Identifier: Apache-2.0
"""``qsafp image``: keys, signatures, and a named reason for every refusal (HW-2)."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qsafp_embedded import image
from qsafp_embedded._tables import Board, ImageKind, ImageVerdict
from qsafp_embedded.cli import main
from qsafp_embedded.errors import FormatError

LOAD = 0x80008000


@dataclass
class Shop:
    """A manufacturer: a folder, a root key, one signed monitor."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    root: str = ""

    def run(self, *words: object, code: int = 0) -> dict[str, Any]:
        """One ``qsafp image`` command and its answer."""
        assert main(["image", *map(str, words), "--json"]) == code
        return dict(json.loads(self.capsys.readouterr().out))

    def sign(self, name: str = "m.img", *, code: int = 0, key: str = "root.key", version: object = 3, **more: object) -> dict[str, Any]:
        """Sign m.bin."""
        words = [w for k, v in more.items() for w in (f"--{k}", v)]
        place = ["--kind", "monitor", "--board", "hifive_unleashed", "--load", hex(LOAD)]
        paths = [self.folder / "m.bin", self.folder / name, "--key", self.folder / key]
        return self.run("sign", *paths, *place, "--security-version", version, *words, code=code)

    def verify(self, *words: object, code: int = 1) -> str:
        """The verdict on m.img."""
        return str(self.run("verify", self.folder / "m.img", "--root", self.root, *words, code=code)["verdict"])


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    (tmp_path / "m.bin").write_bytes(bytes(range(256)) * 5)
    made = Shop(tmp_path, capsys)
    made.root = made.run("keygen", tmp_path / "root.key")["root"]
    made.sign()
    return made


def test_what_was_signed_verifies(shop: Shop) -> None:
    assert shop.verify("--kind", "monitor", "--board", "hifive_unleashed", "--counter", 3, "--load", LOAD, code=0) == "GOOD"


def test_inspect_shows_the_header_and_verifies_nothing(shop: Shop) -> None:
    path = shop.folder / "m.img"
    path.write_bytes(path.read_bytes()[:-1])
    found = shop.run("inspect", path)
    assert (found["kind"], found["board"], found["security_version"], found["size"]) == ("monitor", "hifive_unleashed", 3, 1280)
    assert (found["load"], found["entry"], found["root"], found["verified"]) == (hex(LOAD), hex(LOAD), shop.root, False)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (("--kind", "payload"), "KIND"),
        (("--board", "virt_armv7"), "BOARD"),
        (("--counter", 4), "OLD"),
        (("--load", LOAD + 4), "LOAD"),
    ],
)
def test_an_image_for_something_else_is_refused(shop: Shop, asked: tuple[object, ...], reason: str) -> None:
    assert shop.verify(*asked) == reason


def test_another_root_key_is_refused(shop: Shop) -> None:
    shop.root = shop.run("keygen", shop.folder / "other.key")["root"]
    assert shop.verify() == "ROOT_KEY"


@pytest.mark.parametrize("cut", [0, 3, 100, image.FRONT_BYTES - 1, image.FRONT_BYTES, image.FRONT_BYTES + 1279])
def test_a_truncated_image_is_refused(shop: Shop, cut: int) -> None:
    path = shop.folder / "m.img"
    path.write_bytes(path.read_bytes()[:cut])
    assert shop.verify() == ("MAGIC" if cut < 4 else "SIZE" if cut < image.FRONT_BYTES else "HASH")


def test_an_image_that_goes_on_is_refused(shop: Shop) -> None:
    with (shop.folder / "m.img").open("ab") as file:
        file.write(b"\0")
    assert shop.verify() == "HASH"


def test_one_good_signature_is_not_enough(shop: Shop) -> None:
    path = shop.folder / "m.img"
    good = path.read_bytes()
    for at, reason in ((2056, "ED25519"), (2120, "ML_DSA_65")):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert shop.verify() == reason


def test_a_signature_over_a_bare_header_is_refused() -> None:
    key = image.RootKey.from_secret(b"\1" * 32)
    made = image.Image.sign(b"body", key, kind=ImageKind.PAYLOAD, board=Board.VIRT_ARMV7, security_version=0, load=0)
    bare = made.signed[len(image.LABEL) :]
    raw = bare + image.PARTS.pack(made.ed25519, made.mldsa65, key.ed25519.sign(bare), key.mldsa65.sign(bare)) + b"body"
    assert image.verdict(made.encode(), image.Place(key.hash)) == ImageVerdict.GOOD
    assert image.verdict(raw, image.Place(key.hash)) == ImageVerdict.ED25519


@pytest.mark.parametrize(
    ("option", "value"),
    [("entry", LOAD + 1280), ("entry", LOAD - 4), ("entry", LOAD + 2), ("load", 2**64 - 4), ("security-version", 2**32)],
)
def test_what_no_boot_stage_takes_is_not_signed(shop: Shop, option: str, value: int) -> None:
    said = shop.sign("n.img", code=1, **{option: value})
    assert "m.bin" in said["error"]
    assert not (shop.folder / "n.img").exists()


def test_a_payload_is_entered_at_its_first_byte() -> None:
    key = image.RootKey.from_secret(b"\1" * 32)
    fields = {"kind": ImageKind.PAYLOAD, "board": Board.VIRT_ARMV7, "security_version": 0, "load": LOAD}
    with pytest.raises(FormatError, match="first byte"):
        image.Image.sign(bytes(64), key, entry=LOAD + 4, **fields)


def test_an_empty_body_is_not_signed(shop: Shop) -> None:
    (shop.folder / "m.bin").write_bytes(b"")
    assert "1 byte" in shop.sign("n.img", code=1)["error"]


def test_nothing_is_overwritten(shop: Shop) -> None:
    before = (shop.folder / "m.img").read_bytes(), (shop.folder / "root.key").read_bytes()
    assert "there already" in shop.sign(code=1)["error"]
    assert "cannot make a key file" in shop.run("keygen", shop.folder / "root.key", code=1)["error"]
    assert ((shop.folder / "m.img").read_bytes(), (shop.folder / "root.key").read_bytes()) == before


def test_the_key_is_secret(shop: Shop) -> None:
    path = shop.folder / "root.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    assert "chmod 600" in shop.sign("n.img", code=1)["error"]
    assert not (shop.folder / "n.img").exists()


def test_a_key_of_another_kind_signs_nothing(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", str(shop.folder / "v.key")]) == 0
    capsys.readouterr()
    assert "qsafp-key-1 root" in shop.sign("n.img", code=1, key="v.key")["error"]


@pytest.mark.parametrize("act", ["inspect", "verify"])
def test_a_file_that_is_no_image_is_named(shop: Shop, act: str) -> None:
    path = shop.folder / "m.bin"
    more = ["--root", shop.root] if act == "verify" else []
    found = shop.run(act, path, *more, code=1)
    assert found.get("verdict", found.get("error", "")).find("MAGIC" if act == "verify" else "m.bin") >= 0


def test_a_missing_file_is_named(shop: Shop) -> None:
    assert "none.img" in shop.run("inspect", shop.folder / "none.img", code=1)["error"]


def test_every_verdict_has_words() -> None:
    from qsafp_embedded.cli.image import MEANS

    assert set(MEANS) == set(ImageVerdict)
