# SPDX-License-Identifier: Apache-2.0
"""ESP256, the device key of a TPM: validators take its requests, and nothing near them (HW-11)."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from test_validator_config import BASE, DEVICE, DIRECTORY
from test_validator_messages import application, say
from validator_kit import Device, quorum
from validator_live import live, new_key

from qsafp_embedded import cose, keys
from qsafp_embedded.errors import ConfigError, FormatError
from qsafp_embedded.validator import admin_client, config

N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

# RFC 6979, A.2.5, with SHA-256
SECRET = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
PUBLIC = bytes.fromhex(
    "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb67903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
)
SAMPLE = (
    0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
    0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
)
TEST = (
    0xF1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367,
    0x019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083,
)


def raw(r: int, s: int) -> bytes:
    """r || s."""
    return r.to_bytes(32) + s.to_bytes(32)


class P256Key:
    """What a TPM does, with a key in memory: signs, and keeps s in the lower half as the guard does."""

    alg = keys.ESP256

    def __init__(self, *, low: bool = True) -> None:
        self._private, self._low = ec.generate_private_key(ec.SECP256R1()), low
        p = self._private.public_key().public_numbers()
        self.public = raw(p.x, p.y)
        self.kid = keys.kid(self.public)

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes over a message: the lower half of s, or the upper."""
        r, s = decode_dss_signature(self._private.sign(message, ec.ECDSA(hashes.SHA256())))
        return raw(r, s if (s <= N // 2) == self._low else N - s)


def good(signature: bytes, public: bytes = PUBLIC, message: bytes = b"test") -> bool:
    return keys.verify(keys.ESP256, public, message, signature)


def test_the_vectors_of_rfc_6979_verify_with_s_in_the_lower_half() -> None:
    r, s = SAMPLE
    assert good(raw(*TEST))
    assert good(raw(r, N - s), message=b"sample")


def test_the_vectors_are_of_the_key_they_name() -> None:
    p = ec.derive_private_key(SECRET, ec.SECP256R1()).public_key().public_numbers()
    assert raw(p.x, p.y) == PUBLIC


def test_the_other_half_is_refused_although_it_verifies_elsewhere() -> None:
    assert not good(raw(*SAMPLE), message=b"sample")
    assert not good(raw(TEST[0], N - TEST[1]))


@pytest.mark.parametrize("r", [0, N, TEST[0] + 1, 2**256 - 1])
def test_r_out_of_range_or_changed_is_refused(r: int) -> None:
    assert not good(raw(r, TEST[1]))


@pytest.mark.parametrize("s", [0, N // 2 + 1, N - 1, N, N + 1, 2**256 - 1, TEST[1] + 1])
def test_s_out_of_range_or_changed_is_refused(s: int) -> None:
    assert not good(raw(TEST[0], s))


@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 70, 72])
def test_another_length_is_refused(length: int) -> None:
    assert not good((raw(*TEST) + bytes(8))[:length])


def test_every_changed_byte_is_refused() -> None:
    for at in range(64):
        bad = bytearray(raw(*TEST))
        bad[at] ^= 0x10
        assert not good(bytes(bad)), at


OFF = [PUBLIC[:63], b"\x04" + PUBLIC, b"\x02" + PUBLIC[:32], bytes(64), PUBLIC[:63] + b"\x98", b"\xff" * 64, PUBLIC[:32]]


@pytest.mark.parametrize("public", OFF)
def test_a_key_off_the_curve_or_of_another_form_verifies_nothing_and_registers_nowhere(public: bytes) -> None:
    assert not good(raw(*TEST), public)
    assert not keys.device_key_ok(keys.ESP256, public)
    text = BASE + DEVICE.replace("02" * 32, public.hex()) + 'key_type = "esp256"\n'
    with pytest.raises(ConfigError, match="'key' is"):
        config.parse(text, DIRECTORY)


def test_a_registration_names_the_type_of_its_key() -> None:
    text = BASE + DEVICE.replace("02" * 32, PUBLIC.hex())
    d = config.parse(text + 'key_type = "esp256"\n', DIRECTORY).devices[b"\x01" * 33]
    assert (d.alg, d.key) == (keys.ESP256, PUBLIC)
    with pytest.raises(ConfigError, match="64 bytes where 32 belong"):
        config.parse(text, DIRECTORY)
    with pytest.raises(ConfigError, match="'key_type' is 'rsa'"):
        config.parse(text + 'key_type = "rsa"\n', DIRECTORY)
    with pytest.raises(ConfigError, match="key_type"):
        config.parse(text + "key_type = 7\n", DIRECTORY)


def test_validators_take_a_device_with_such_a_key(tmp_path: Path) -> None:
    q = quorum()
    device = Device(q.members, key=P256Key())

    async def story() -> None:
        async with live(tmp_path, q, device=device) as v:
            assert await v.code(device.ask()) is None
            envelope = device.ask(old=3)
            assert await v.code(envelope) is None
            assert await v.code(envelope) is None  # again: the stored answer

    asyncio.run(story())


def test_such_a_device_may_apply_and_be_admitted(tmp_path: Path) -> None:
    q = quorum()
    new = Device(q.members, key=P256Key())

    async def story() -> None:
        async with live(tmp_path, q) as v:
            words = {**application(new), "key_type": "esp256"}
            assert await say(v, "register", words) == (200, {"status": "pending"})
            await asyncio.to_thread(admin_client.allow, v.service.config.admin_socket, new.ueid)
            assert await v.code(new.ask()) is None
            assert (await say(v, "register", {**words, "ueid": "01" + "77" * 32, "key": "00" * 64}))[0] == 400

    asyncio.run(story())


class Posing:
    """Signs with one key under the header of another algorithm, or another key's id."""

    def __init__(self, inner: keys.Signer, *, alg: int | None = None, kid: bytes | None = None, size: int = 64) -> None:
        self.inner, self.alg, self.kid, self.size = inner, inner.alg if alg is None else alg, kid or inner.kid, size
        self.public = inner.public

    def sign(self, message: bytes) -> bytes:
        """The inner key's signature, cut to ``size``."""
        return self.inner.sign(message)[: self.size]


def test_no_other_signature_passes_for_the_devices(tmp_path: Path) -> None:
    q = quorum()
    p256, ed = P256Key(), keys.Ed25519Key.from_seed(secrets.token_bytes(32))
    tpm, file = Device(q.members, key=p256), Device(q.members, key=ed)
    thief = P256Key()
    cases: list[tuple[Device, keys.Signer]] = [
        (tpm, Posing(p256, alg=keys.ED25519)),
        (tpm, Posing(p256, size=63)),
        (tpm, Posing(thief, kid=p256.kid)),
        (tpm, thief),
        (tpm, ed),
        (tpm, Posing(ed, alg=keys.ESP256, kid=p256.kid)),
        (tpm, Posing(p256, alg=keys.ML_DSA_65)),
        (file, Posing(ed, alg=keys.ESP256)),
        (file, p256),
        (file, Posing(p256, alg=keys.ED25519, kid=ed.kid)),
    ]

    async def story(device: Device, signer: keys.Signer, at: int) -> None:
        async with live(tmp_path / str(at), q, device=device, relay=new_key()) as v:
            mine, device.key = device.key, signer
            want = 400 if signer.alg == keys.ML_DSA_65 else 403  # no algorithm of a request; or not this device's
            assert (await v.post("/v1/renew", device.ask()))[0] == want, at
            device.key, device.serial, device.leaves = mine, 0, []
            assert await v.code(device.ask()) is None, at

    for at, (device, signer) in enumerate(cases):
        device.serial, device.leaves = 0, []
        asyncio.run(story(device, signer, at))


def test_a_request_with_s_of_the_upper_half_is_refused(tmp_path: Path) -> None:
    q = quorum()
    device = Device(q.members, key=P256Key(low=False))

    async def story() -> None:
        async with live(tmp_path, q, device=device) as v:
            assert (await v.post("/v1/renew", device.ask()))[0] == 403

    asyncio.run(story())


def test_no_vote_is_of_this_algorithm() -> None:
    """A validator's id under -9 finds no key: ESP256 signs requests alone."""
    members = quorum().members
    public = members.validators[0].ed25519
    assert public is not None
    assert members.member(keys.ESP256, keys.kid(public)) is None
    with pytest.raises(FormatError, match="unknown algorithm -9"):
        cose.decode_signature(*cose.sign_payload(b"", P256Key(), cose.AAD_LEASE).as_list())
