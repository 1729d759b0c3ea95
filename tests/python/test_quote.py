# SPDX-License-Identifier: Apache-2.0
"""Quotes as validators judge them (CD-5, level 3), without a TPM: a key in memory signs what a TPM would, and each single lie in turn."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_esp256 import P256Key
from test_validator_config import BASE, DEVICE, DIRECTORY
from test_validator_decide import Bench
from validator_kit import MODEL

from qsafp_embedded import cose, credential, quote
from qsafp_embedded._core import cbor_dumps, cbor_loads, sha256
from qsafp_embedded._tables import Refusal
from qsafp_embedded.errors import ConfigError, FormatError
from qsafp_embedded.validator import config
from qsafp_embedded.validator.config import Attestation
from qsafp_embedded.validator.decide import Decision, State
from qsafp_embedded.validator.store import Store

PCRS = {0: bytes([1]) * 32, 7: bytes([2]) * 32}
AFTER = {0: bytes([3]) * 32, 7: bytes([2]) * 32}
HASH = bytes(range(32))


def attest(extra: bytes, values: dict[int, bytes], /, *, boots: tuple[int, int] = (1, 0), **changed: bytes) -> bytes:
    """A TPMS_ATTEST of type quote as part 2, 10.12.8 lays it out; ``changed`` overrides parts."""
    bits = sum(1 << n for n in values).to_bytes(3, "little")
    parts = {
        "magic": bytes.fromhex("ff544347"),
        "type": bytes.fromhex("8018"),
        "signer": bytes.fromhex("0022000b") + bytes(32),
        "extra": struct.pack(">H", len(extra)) + extra,
        "clock": struct.pack(">QIIB", 5, *boots, 1),
        "firmware": bytes(8),
        "selection": bytes.fromhex("00000001000b03") + bits,
        "digest": struct.pack(">H", 32) + sha256(b"".join(values[n] for n in sorted(values))),
    }
    return b"".join({**parts, **changed}.values())


class Tpm:
    """What quotes: an attestation key in memory."""

    def __init__(self) -> None:
        self.ak = P256Key()
        self.values, self.boots = dict(PCRS), (4, 1)

    def quote(self, request_hash: bytes, **changed: Any) -> bytes:
        """The quote of a request."""
        said = attest(request_hash, self.values, boots=self.boots, **changed)
        return quote.encode(said, self.ak.sign(said))


class Attested(Bench):
    """A validator at which the device is registered to attest."""

    def __init__(self, **policy: Any) -> None:
        super().__init__(**policy)
        self.tpm = Tpm()
        self.allow({1: PCRS})

    def allow(self, states: dict[int, dict[int, bytes]]) -> None:
        """Have these versions allowed, and no others."""
        allowed = tuple(quote.measured(version, values) for version, values in states.items())
        self.known = replace(self.known, attestation=Attestation(self.tpm.ak.public, "first-use", allowed))

    def request(self, **claims: Any) -> tuple[bytes, bytes]:
        """The next request, and the hash that its quote must carry."""
        request = self.device.request(self.device.propose(**{"level": 3, **claims}))
        return request, sha256(cose.parse_sign1(request, cose.REQUESTS).payload)

    def judge(self, request: bytes, quoted: bytes | None) -> Decision:
        """Decide on a request with this quote, and remember."""
        return self.put(self.device.envelope(request, old=self.state.size or 0, quote=quoted))

    def renew(self, **claims: Any) -> Decision:
        """A whole honest request."""
        request, digest = self.request(**claims)
        return self.judge(request, self.tpm.quote(digest))


@pytest.fixture
def bench() -> Attested:
    return Attested()


def refused(d: Decision, text: str) -> bool:
    """Whether it was denied for its measurement, in words that say so, and learnt nothing from it."""
    assert (d.code, d.deny, d.keep) == (Refusal.MEASUREMENT, True, True), (d.code, d.text)
    assert text in d.text, d.text
    return True


# ---- the decision ----


def test_a_quote_of_an_allowed_state_gives_a_lease_of_level_3(bench: Attested) -> None:
    for _ in range(3):
        d = bench.renew()
        assert (d.code, d.state.approved, d.state.measured) == (None, True, 1)
    assert bench.device.claims["level"] == 3


def test_a_missing_quote_is_refused_in_words(bench: Attested) -> None:
    request, _ = bench.request()
    assert refused(bench.judge(request, None), "the quote is missing")


@pytest.mark.parametrize("level", [0, 1, 2, 4, 6, 2**63])
def test_a_device_registered_to_attest_gets_no_other_level(bench: Attested, level: int) -> None:
    assert refused(bench.renew(level=level), f"level {level} is claimed")


@pytest.mark.parametrize("level", [3, 4, 6, 2**63])
def test_without_an_attestation_key_no_level_above_2_comes_out(level: int) -> None:
    plain = Bench()
    assert refused(plain.ask(level=level), "no attestation key is registered")


@pytest.mark.parametrize("level", [0, 1, 2])
def test_without_an_attestation_key_the_guards_word_stands_as_before(level: int) -> None:
    assert Bench().ask(level=level).code is None


def test_a_policy_may_ask_for_a_least_level() -> None:
    assert refused(Bench(min_level=2).ask(level=1), "2 is required here")
    assert refused(Bench(min_level=3).ask(level=2), "3 is required here")
    assert Bench(min_level=2).ask(level=2).code is None
    assert Attested(min_level=3).renew().code is None


def test_a_quote_of_another_request_is_refused(bench: Attested) -> None:
    request, digest = bench.request()
    first = bench.tpm.quote(digest)
    assert bench.judge(request, first).code is None
    request, _ = bench.request()
    assert refused(bench.judge(request, first), "another request")


def test_a_quote_of_another_key_is_refused(bench: Attested) -> None:
    request, digest = bench.request()
    assert refused(bench.judge(request, Tpm().quote(digest)), "not signed by the attestation key")


def test_a_quote_of_another_state_is_refused_and_its_digest_told(bench: Attested) -> None:
    bench.tpm.values[7] = bytes(32)
    d = bench.renew()
    assert refused(d, "PCRs 0, 7 are in no allowed state (versions 1)")
    assert quote.measured(1, bench.tpm.values).digest.hex() in d.text


@pytest.mark.parametrize("values", [{0: PCRS[0]}, {**PCRS, 8: bytes(32)}, {1: PCRS[0], 7: PCRS[7]}, {}])
def test_a_quote_of_other_pcrs_is_refused(bench: Attested, values: dict[int, bytes]) -> None:
    bench.tpm.values = values
    assert refused(bench.renew(), "were quoted, which no allowed version (1) names")


def test_the_same_digest_over_other_pcrs_is_refused(bench: Attested) -> None:
    bench.tpm.values = {2: PCRS[0], 3: PCRS[7]}
    assert quote.measured(1, bench.tpm.values).digest == quote.measured(1, PCRS).digest
    assert refused(bench.renew(), "PCRs 2, 3 were quoted")


def test_an_update_is_allowed_before_the_old_state_is_withdrawn(bench: Attested) -> None:
    assert bench.renew().state.measured == 1
    bench.allow({1: PCRS, 2: AFTER})
    assert bench.renew().state.measured == 1
    bench.tpm.values, bench.tpm.boots = dict(AFTER), (5, 0)
    assert bench.renew().state.measured == 2
    bench.allow({2: AFTER})
    assert bench.renew().code is None
    bench.tpm.values = dict(PCRS)
    assert refused(bench.renew(), "versions 2")


def test_boot_counts_may_rise_and_stay_but_never_fall(bench: Attested) -> None:
    for boots in ((4, 1), (4, 1), (4, 2), (5, 0), (2**32 - 1, 0)):
        bench.tpm.boots = boots
        assert bench.renew().code is None
    for boots in ((2**32 - 2, 9), (0, 0)):
        bench.tpm.boots = boots
        assert refused(bench.renew(), "boot counts went back")
    bench.tpm.boots = (2**32 - 1, 0)
    assert bench.renew().code is None


def test_a_refused_quote_moves_no_boot_count(bench: Attested) -> None:
    assert bench.renew().code is None
    bench.tpm.boots, bench.tpm.values = (9, 9), dict(AFTER)
    assert refused(bench.renew(), "no allowed state")
    bench.tpm.boots, bench.tpm.values = (4, 1), dict(PCRS)
    assert bench.renew().code is None


def test_every_changed_byte_of_a_quote_is_refused(bench: Attested) -> None:
    request, digest = bench.request()
    good = bench.tpm.quote(digest)
    before = bench.state
    for at in range(len(good)):
        for flip in (1, 0x80):
            bad = bytearray(good)
            bad[at] ^= flip
            bench.state = before
            assert refused(bench.judge(request, bytes(bad)), "quote"), at
    bench.state = before
    assert bench.judge(request, good).code is None


def test_every_cut_and_every_longer_quote_is_refused(bench: Attested) -> None:
    request, digest = bench.request()
    good, before = bench.tpm.quote(digest), bench.state
    for bad in [*(good[:n] for n in range(len(good))), good + b"\0", good + good]:
        bench.state = before
        d = bench.judge(request, bad)
        assert (d.code, d.deny) == (Refusal.MEASUREMENT, True)


def test_the_registered_reason_comes_before_the_quote(bench: Attested) -> None:
    bench.known = replace(bench.known, models=frozenset())
    assert bench.renew().code is Refusal.MODEL


def test_a_stored_answer_is_repeated_whatever_quote_comes_with_it(bench: Attested) -> None:
    request, digest = bench.request()
    assert bench.judge(request, bench.tpm.quote(digest)).code is None
    assert bench.judge(request, None).stored


# ---- the bytes ----


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"magic": b"\xff\x54\x43\x48"}, "no TPM 2.0 quote"),
        ({"type": b"\x80\x17"}, "no TPM 2.0 quote"),  # a certification
        ({"signer": bytes.fromhex("0022000c") + bytes(32)}, "no TPM 2.0 quote"),
        ({"signer": bytes.fromhex("00040000000b") + bytes(30)}, "no TPM 2.0 quote"),
        ({"extra": bytes.fromhex("0020") + HASH[:31]}, "bytes where"),
        ({"extra": b"\0\0", "firmware": bytes(40)}, "another hash"),
        ({"selection": bytes.fromhex("00000001000403810000")}, "another hash"),  # the SHA-1 bank
        ({"selection": bytes.fromhex("00000000000b03810000")}, "another hash"),
        ({"selection": bytes.fromhex("00000001000b04810000")}, "another hash"),
        ({"digest": b"\0\x14" + bytes(32)}, "another hash"),
        ({"firmware": bytes(9)}, "bytes where"),
    ],
)
def test_what_the_key_signed_but_is_no_such_quote_is_refused(changed: dict[str, bytes], text: str) -> None:
    tpm = Tpm()
    said = attest(HASH, PCRS, **changed)
    with pytest.raises(FormatError, match=text):
        quote.check(quote.encode(said, tpm.ak.sign(said)), tpm.ak.public, HASH, [quote.measured(1, PCRS)], b"")


def test_an_upper_s_is_refused() -> None:
    tpm = Tpm()
    tpm.ak = P256Key(low=False)
    with pytest.raises(FormatError, match="not signed"):
        quote.check(tpm.quote(HASH), tpm.ak.public, HASH, [quote.measured(1, PCRS)], b"")


@given(st.one_of(st.binary(max_size=600), st.tuples(st.binary(max_size=160), st.binary(max_size=80)).map(lambda p: cbor_dumps(list(p)))))
def test_bytes_from_anywhere_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(FormatError):
        quote.check(data, Tpm().ak.public, HASH, [quote.measured(1, PCRS)], b"")


@given(st.binary(min_size=24, max_size=24), st.dictionaries(st.integers(0, 23), st.binary(min_size=32, max_size=32), max_size=24))
def test_what_is_parsed_is_what_was_said(boots: bytes, values: dict[int, bytes]) -> None:
    counts = struct.unpack(">II", boots[:8])
    said = attest(HASH, values, boots=counts)
    q = quote.parse(quote.encode(said, bytes(64)))
    assert (q.extra, q.counts, q.pcrs) == (HASH, boots[:8], tuple(sorted(values)))
    assert q.digest == quote.measured(1, values).digest


@pytest.mark.parametrize("data", [b"", b"\xf6", cbor_dumps([b"", "x"]), cbor_dumps([b"", b"", b""]), cbor_dumps({0: b"", 1: b""})])
def test_another_shape_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        quote.parse(data)


# ---- configuration and store ----

AK = P256Key()
STATES = "".join(
    f'\n[[pcrs]]\nname = "pi"\nversion = {v}\nvalues = {{ {", ".join(f"{n} = {h.hex()!r}" for n, h in values.items())} }}\n'
    for v, values in ((1, PCRS), (2, AFTER))
)
ATTESTS = f'{DEVICE}\nak = "{AK.public.hex()}"\nek = "first-use"\npcrs = "pi"\n'


def test_a_device_that_attests_is_read_with_every_version_of_its_state() -> None:
    device = next(iter(config.parse(BASE + ATTESTS + STATES, DIRECTORY).devices.values()))
    allowed = (quote.measured(1, PCRS), quote.measured(2, AFTER))
    assert device.attestation == Attestation(AK.public, "first-use", allowed)
    assert next(iter(config.parse(BASE + DEVICE, DIRECTORY).devices.values())).attestation is None


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (AK.public.hex(), AK.public.hex()[:-2], "'ak' is 63 bytes"),
        (AK.public.hex(), "11" * 64, "'ak' is no point"),
        ('ek = "first-use"', 'ek = "trust me"', "'ek' is"),
        ('ek = "first-use"\n', "", "'ek' is missing"),
        ('pcrs = "pi"', 'pcrs = "pie"', "no .*is named 'pie'"),
        ('pcrs = "pi"\n', "", "'pcrs' is missing"),
        ("version = 2", "version = 1", "version 1 of 'pi' stands twice"),
        ("version = 2", "version = 0", "'version' is no number from 1"),
        ("{ 0 =", "{ 24 =", "PCRs 0 to 23"),
        ("{ 0 =", "{ 00 =", "PCRs 0 to 23"),
        ("{ 0 =", "{ x =", "PCRs 0 to 23"),
        (PCRS[0].hex(), "00", "'0' is 1 bytes"),
        ('name = "pi"', 'nam = "pi"', "unknown key 'nam'"),
    ],
)
def test_a_wrong_setting_is_named(old: str, new: str, text: str) -> None:
    whole = BASE + ATTESTS + STATES
    assert old in whole
    with pytest.raises(ConfigError, match=text):
        config.parse(whole.replace(old, new), DIRECTORY)


@pytest.mark.parametrize("level", ["-1", "4", '"3"', "true"])
def test_a_least_level_that_nothing_verifies_is_refused(level: str) -> None:
    with pytest.raises(ConfigError, match="'min_level'"):
        config.parse(f"{BASE}[policy]\nmin_level = {level}\n", DIRECTORY)


def test_an_application_brings_no_attestation_key() -> None:
    applied = {"ueid": "01" * 33, "key": "02" * 32, "log_id": "03" * 32, "models": [MODEL.hex()], "registered": 1}
    config.read_device(applied, "application")
    with pytest.raises(ConfigError, match="unknown key 'ak'"):
        config.read_device({**applied, "ak": AK.public.hex(), "ek": "certificate", "pcrs": "pi"}, "application")


def test_boot_counts_and_version_outlive_a_restart_and_an_older_store_is_taken_over(tmp_path: Path) -> None:
    ueid = b"\x01" * 33
    state = State(ueid, highest=4, counts=struct.pack(">II", 7, 2), measured=3)

    async def write(s: State) -> None:
        async with Store(tmp_path / "db") as store:
            await store.put(s)

    async def read() -> State:
        async with Store(tmp_path / "db") as store:
            return store.state(ueid)

    asyncio.run(write(state))
    assert asyncio.run(read()) == state
    with sqlite3.connect(tmp_path / "db") as db:  # as version 1 was
        db.executescript("ALTER TABLE state DROP COLUMN counts; ALTER TABLE state DROP COLUMN measured; PRAGMA user_version=1")
    db.close()
    assert asyncio.run(read()) == state._replace(counts=b"", measured=0)


# ---- the credential ----


def test_a_credential_is_made_anew_each_time_and_for_keys_on_the_curve_alone() -> None:
    ek, secret = P256Key().public, secrets.token_bytes(32)
    blobs = {credential.make(ek, AK.public, secret) for _ in range(4)}
    assert len(blobs) == 4
    assert {(len(a), len(b)) for a, b in blobs} == {(2 + 34 + 34, 2 + 34 + 34)}
    for bad in (bytes(64), ek[:63], b""):
        with pytest.raises(ConfigError, match="endorsement key is no point"):
            credential.make(bad, AK.public, secret)
        with pytest.raises(ConfigError, match="attestation key is no point"):
            credential.make(ek, bad, secret)


def test_a_tpm_without_certificate_is_trusted_on_first_use_and_never_for_a_certified_one() -> None:
    assert credential.ek_trust(AK.public, b"", []) == "first-use"
    with pytest.raises(ConfigError, match="no certificate"):
        credential.ek_trust(AK.public, b"", [b"x"])
    with pytest.raises(ConfigError, match="cannot be read"):
        credential.ek_trust(AK.public, b"\x30\x03x", [])


def test_the_quote_stands_in_the_envelope_as_the_device_sent_it(bench: Attested) -> None:
    request, digest = bench.request()
    quoted = bench.tpm.quote(digest)
    assert cbor_loads(bench.device.envelope(request, quote=quoted))[7] == quoted
    assert len(quoted) <= quote.QUOTE_MAX
