# SPDX-License-Identifier: Apache-2.0
"""Attestation with a TPM 2.0 (CD-5, level 3), shown with swtpm: enrolment, quotes, and what validators make of them, end to end."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from guard_kit import LIMIT_S, MODEL, Device, short_dir, until
from test_esp256 import P256Key
from test_tpm import Tpm, needs_tpm, refused, tpm
from validator_live import Live, live

from qsafp_embedded import cose, credential, keys, quote
from qsafp_embedded._core import cbor_dumps, cbor_loads, claims_decode, sha256
from qsafp_embedded._tables import Event, Refusal
from qsafp_embedded.cli import attest, doctor, main
from qsafp_embedded.client import CommandRefused
from qsafp_embedded.errors import ConfigError
from qsafp_embedded.guard import config
from qsafp_embedded.validator.config import Attestation
from qsafp_embedded.validator.config import Device as Registered

__all__ = ["tpm"]
PCRS = [0, 7, 10]
QUOTES = 'device_key = "tpm:/dev/x"\nquote_pcrs = [0, 23]'
SIZE, PCR_EXTEND, NV_DEFINE, NV_WRITE, CLEAR = 10, 0x182, 0x12A, 0x137, 0x126
PLATFORM, EK_CERTIFICATE = 0x4000000C, 0x01C0000A
PASSWORD = bytes.fromhex("00000009 40000009 0000 00 0000")


def command(tpm: Tpm, code: int, *handles: int, body: bytes = b"") -> None:
    """One command to the TPM with the empty password, in the bytes of its specification, part 3."""
    rest = b"".join(struct.pack(">I", h) for h in handles) + PASSWORD + body
    with socket.create_connection(("127.0.0.1", tpm.port), timeout=LIMIT_S) as s:
        s.sendall(struct.pack(">HII", 0x8002, SIZE + len(rest), code) + rest)
        answer = s.recv(4096)
    assert struct.unpack(">I", answer[6:10]) == (0,), answer.hex()


def extend(tpm: Tpm, pcr: int) -> None:
    """What other firmware would do to a PCR."""
    command(tpm, PCR_EXTEND, pcr, body=struct.pack(">IH", 1, 0x0B) + bytes([pcr]) * 32)


def extended(*pcrs: int) -> dict[int, bytes]:
    """The values of PCRS after ``extend`` of these; the others as at start."""
    return {n: sha256(bytes(32) + bytes([n]) * 32) if n in pcrs else bytes(32) for n in PCRS}


@pytest.fixture
def device(tpm: Tpm) -> Iterator[Device]:
    """A device enrolled with device and attestation key in that TPM; its guard does not run yet."""
    with short_dir() as root:
        made = Device(root, device_key=tpm.key, quote_pcrs=PCRS)
        try:
            yield made
        finally:
            made.close()


def told(device: Device) -> dict[str, Any]:
    """What the device's enrolment says of its attestation."""
    found: dict[str, Any] = device.enrolment["attestation"]
    return found


def ak(device: Device) -> bytes:
    """Its attestation key."""
    return bytes.fromhex(told(device)["ak"])


def activate(device: Device, asked: dict[str, str]) -> dict[str, str]:
    """The device's answer to a challenge."""
    path = device.root / "challenge.json"
    path.write_text(json.dumps(asked))
    done = device.call("--activate", str(path))
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def registered(device: Device, *states: dict[int, bytes], key: bytes = b"") -> Registered:
    """How validators know the device, with these states allowed as versions 1, 2, …"""
    e = device.enrolment
    allowed = tuple(quote.measured(i + 1, s) for i, s in enumerate(states))
    plain = Registered(bytes.fromhex(e["ueid"]), bytes.fromhex(e["key"]), bytes.fromhex(e["log_id"]), frozenset({MODEL}), 1, keys.ESP256)
    return replace(plain, attestation=Attestation(key or ak(device), "first-use", allowed))


def envelope(device: Device, after: bytes = b"") -> bytes:
    """The envelope of the device's next request, for a validator that approved none, or the one ``after`` which it comes."""
    with device.client() as client:
        client.begin()
        return client.envelope(claims(after)["log_size"] if after else 0)


def claims(envelope: bytes) -> dict[str, Any]:
    """What an envelope proposes."""
    return claims_decode(cbor_loads(cose.parse_sign1(cbor_loads(envelope)[1], cose.REQUESTS).payload)[1])


def ask(device: Device, folder: Path, known: Registered, *envelopes: bytes) -> list[tuple[Refusal | None, str]]:
    """What a fresh validator says to these: its decision, signatures verified, and the text of a refusal."""

    async def says(v: Live, envelope: bytes) -> tuple[Refusal | None, str]:
        body = await v.renew(envelope)
        if body[:1] != b"\xd2":
            return await v.code(envelope), ""
        said = v.refusal(body)
        return Refusal(said[3]), said[4]

    async def story() -> list[tuple[Refusal | None, str]]:
        async with live(folder, device.q) as v:
            v.service.reload(replace(v.service.config, devices={known.ueid: known}), v.service.members)
            return [await says(v, e) for e in envelopes]

    return asyncio.run(story())


# ---- enrolment ----


@needs_tpm
def test_the_tpm_proves_that_the_attestation_key_is_its_own(device: Device) -> None:
    asked, ticket = attest.challenge(device.enrolment)
    answer = activate(device, asked)
    lines, state = attest.admit(ticket, answer, "pi")
    assert f'ak = "{ak(device).hex()}"' in lines
    assert 'ek = "first-use"' in lines
    assert f'7 = "{"00" * 32}"' in state
    with pytest.raises(ConfigError, match="the answer is wrong"):
        attest.admit(ticket, {**answer, "secret": "00" * 32})
    with pytest.raises(ConfigError, match="the answer is wrong"):
        attest.admit(ticket, {**answer, "ueid": "01" * 33})


@needs_tpm
def test_a_challenge_for_another_key_or_another_tpm_is_not_opened(tmp_path: Path, tpm: Tpm, device: Device) -> None:
    ours = bytes.fromhex(told(device)["ek"])
    asked = {"ueid": device.enrolment["ueid"]}
    path = tmp_path / "challenge.json"
    with short_dir() as root:
        other = Device(root, device_key=tpm.key, quote_pcrs=PCRS)  # the same TPM, another attestation key
        assert told(other)["ek"] == told(device)["ek"]
        assert told(other)["ak"] != told(device)["ak"]
        for ek, key in ((ours, ak(other)), (ak(device), ak(device))):
            path.write_text(json.dumps({**asked, "challenge": b"".join(credential.make(ek, key, bytes(32))).hex()}))
            done = device.call("--activate", str(path))
            assert done.returncode == 1
            assert "the challenge is of another TPM or key" in done.stderr
            assert not done.stdout


@needs_tpm
def test_what_is_no_challenge_is_named(tmp_path: Path, device: Device) -> None:
    good = b"".join(credential.make(bytes.fromhex(told(device)["ek"]), ak(device), bytes(32)))
    ueid, path = device.enrolment["ueid"], tmp_path / "challenge.json"
    for text, reason in (
        ("", "no challenge"),
        ("[]", "no challenge"),
        (json.dumps({"ueid": ueid}), "no challenge"),
        (json.dumps({"ueid": ueid, "challenge": "xy"}), "no challenge"),
        (json.dumps({"ueid": "01" * 33, "challenge": good.hex()}), "is for device 0101"),
        (json.dumps({"ueid": ueid, "challenge": good[:-1].hex()}), "damaged"),
        (json.dumps({"ueid": ueid, "challenge": (good + b"\0").hex()}), "damaged"),
        (json.dumps({"ueid": ueid, "challenge": (good * 9).hex()}), "longer than any"),
    ):
        path.write_text(text)
        done = device.call("--activate", str(path))
        assert done.returncode == 1
        assert reason in done.stderr, (text, done.stderr)
        assert done.stderr.count("\n") == 1


def certificate(key: ec.EllipticCurvePublicKey, by: ec.EllipticCurvePrivateKey, subject: str, issuer: str) -> x509.Certificate:
    """A certificate long out of date: dates decide nothing."""
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, n)]) for n in (subject, issuer)]
    start = datetime(2001, 1, 1, tzinfo=UTC)
    plain = x509.CertificateBuilder(names[1], names[0], key, 7, start, start + timedelta(days=1))
    return plain.sign(by, hashes.SHA256())


@needs_tpm
def test_a_makers_certificate_in_the_tpm_is_read_and_checked(tpm: Tpm, device: Device) -> None:
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + bytes.fromhex(told(device)["ek"]))
    maker, stranger = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    der = certificate(point, maker, "EK", "maker").public_bytes(serialization.Encoding.DER)
    attributes = 0x42070001  # the platform made it and writes it; platform, owner and anyone read it; no dictionary attack protection
    public = struct.pack(">IHIHH", EK_CERTIFICATE, 0x0B, attributes, 0, len(der))
    command(tpm, NV_DEFINE, PLATFORM, body=struct.pack(">HH", 0, len(public)) + public)
    for at in range(0, len(der), 512):
        part = der[at : at + 512]
        command(tpm, NV_WRITE, PLATFORM, EK_CERTIFICATE, body=struct.pack(">H", len(part)) + part + struct.pack(">H", at))
    with short_dir() as root:
        found = Device(root, device_key=tpm.key, quote_pcrs=PCRS).enrolment
    assert found["attestation"]["ek_certificate"] == der.hex()
    pem = certificate(maker.public_key(), maker, "maker", "maker").public_bytes(serialization.Encoding.PEM)
    other = certificate(stranger.public_key(), stranger, "maker", "maker").public_bytes(serialization.Encoding.DER)
    assert attest.challenge(found, [other, pem])[1]["ek"] == "certificate"
    assert attest.challenge(found)[1]["ek"] == "first-use"  # one that nobody checked says nothing
    with pytest.raises(ConfigError, match="none of --ek-ca signed"):
        attest.challenge(found, [other])
    swapped = {**found, "attestation": {**found["attestation"], "ek": found["attestation"]["ak"]}}
    with pytest.raises(ConfigError, match="not of its endorsement key"):
        attest.challenge(swapped, [pem])


# ---- quotes ----


@needs_tpm
def test_a_quoted_request_is_approved_and_the_lease_states_level_3(tmp_path: Path, device: Device) -> None:
    assert ", quotes" in device.start().said
    said = envelope(device)
    assert ask(device, tmp_path, registered(device, extended()), said) == [(None, "")]
    request = cose.parse_sign1(cbor_loads(said)[1], cose.REQUESTS)
    assert quote.parse(cbor_loads(said)[7]).extra == sha256(request.payload)
    device.lease()
    gate = device.gate()
    assert gate


@needs_tpm
def test_every_envelope_of_a_request_has_the_one_quote_and_every_request_its_own(device: Device) -> None:
    device.start()
    with device.client() as client, device.client() as second:
        client.begin()
        first = cbor_loads(client.envelope(0))
        assert first[7] == cbor_loads(client.envelope(1))[7] == cbor_loads(second.envelope(0))[7]
        client.put(device.q.lease(cbor_loads(cose.parse_sign1(first[1], cose.REQUESTS).payload)[1]))
        client.begin()
        later = cbor_loads(client.envelope(0))
        assert quote.parse(later[7]).extra == sha256(cose.parse_sign1(later[1], cose.REQUESTS).payload)
        assert later[7] != first[7]


@needs_tpm
def test_keys_quotes_and_nv_indices_share_a_tpm_of_three_slots_over_its_restarts(tpm: Tpm) -> None:
    with short_dir() as root:
        device = Device(root, device_key=tpm.key, quote_pcrs=PCRS, tpm_nv="0x01815100")
        try:
            for _ in range(2):
                device.start()
                for _ in range(2):
                    assert cbor_loads(envelope(device))[7] is not None
                    device.lease()
                tpm.stop()
                tpm.start()
                with device.client() as client:
                    assert [_quoted(client) for _ in range(2)][1]  # the first one finds out
                assert device.stop() == 0
        finally:
            device.close()


@needs_tpm
def test_another_state_another_key_and_a_stripped_or_replayed_quote_are_refused(tmp_path: Path, tpm: Tpm, device: Device) -> None:
    with short_dir() as root:
        other = Device(root, device_key=tpm.key, quote_pcrs=PCRS)
        device.start()
        first = envelope(device)
        device.lease()
        good = envelope(device, first)
        e = cbor_loads(good)
        state = registered(device, extended())
        for n, (known, said, reason) in enumerate(
            (
                (state, cbor_dumps({**e, 7: None}), "the quote is missing"),
                (state, cbor_dumps({**e, 7: cbor_loads(first)[7]}), "another request"),
                (registered(device, extended(7)), good, "no allowed state"),
                (registered(device, {0: bytes(32)}), good, "no allowed version (1) names"),
                (registered(device, extended(), key=ak(other)), good, "not signed by the attestation key"),
                (replace(state, attestation=None), good, "no attestation key is registered"),
            )
        ):
            code, text = ask(device, tmp_path / str(n), known, said)[0]
            assert code is Refusal.MEASUREMENT
            assert reason in text
    assert ask(device, tmp_path / "good", state, first, good) == [(None, "")] * 2


@needs_tpm
def test_a_changed_pcr_is_refused_until_its_state_is_allowed(tmp_path: Path, tpm: Tpm, device: Device) -> None:
    device.start()
    assert device.stop() == 0
    extend(tpm, 7)
    device.start()
    said = envelope(device)
    code, text = ask(device, tmp_path / "old", registered(device, extended()), said)[0]
    assert code is Refusal.MEASUREMENT
    assert quote.measured(0, extended(7)).digest.hex() in text
    assert ask(device, tmp_path / "both", registered(device, extended(), extended(7)), said) == [(None, "")]


@needs_tpm
def test_a_restarted_tpm_counts_up_and_one_that_counts_down_is_refused(tmp_path: Path, tpm: Tpm, device: Device) -> None:
    saved = {f.name: f.read_bytes() for f in tpm.state.iterdir()}
    seen: list[bytes] = []
    for _ in range(3):
        device.start()
        seen.append(envelope(device, *seen[-1:]))
        assert device.stop() == 0
        tpm.stop()
        tpm.start()
    counts = [quote.parse(cbor_loads(e)[7]).counts for e in seen]
    assert counts[0] < counts[1] < counts[2]
    tpm.stop()
    for name, data in saved.items():  # an old copy of the TPM's memory, as only a software TPM has one
        (tpm.state / name).write_bytes(data)
    tpm.start()
    device.start()
    seen.append(envelope(device, seen[-1]))
    said = ask(device, tmp_path, registered(device, extended()), *seen)
    assert [code for code, _ in said] == [None, None, None, Refusal.MEASUREMENT]
    assert "boot counts went back" in said[3][1]


@needs_tpm
def test_without_its_tpm_no_envelope_leaves_and_it_says_so_once(tpm: Tpm, device: Device) -> None:
    device.start()
    with device.client() as client:
        client.begin()
        tpm.stop()
        for _ in range(3):
            with pytest.raises(CommandRefused, match="KEY_FAILED"):
                client.envelope(0)
        tpm.start()
        assert cbor_loads(client.envelope(0))[7] is not None
    assert device.guard is not None
    device.guard.send_signal(signal.SIGTERM)
    said = device.guard.communicate(timeout=LIMIT_S)[1].splitlines()
    assert ["no request can be quoted" in s for s in said] == [True, False]
    assert "quotes again" in said[1]


@needs_tpm
def test_while_a_quote_takes_its_time_others_are_served(tpm: Tpm, device: Device) -> None:
    device.start()
    device.lease()
    assert tpm.process is not None
    with device.client() as client, device.client() as other:
        client.begin()
        tpm.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(CommandRefused, match="KEY_FAILED"):
                client.envelope(0)
            assert other.status().serial == 1
        finally:
            tpm.process.send_signal(signal.SIGCONT)
        until(lambda: _quoted(client))


def _quoted(client: Any) -> bool:
    try:
        client.begin()
        return cbor_loads(client.envelope(0))[7] is not None
    except CommandRefused:
        return False


@needs_tpm
def test_an_attestation_key_that_is_missing_changed_or_of_another_tpm_refuses_the_start(tmp_path: Path, tpm: Tpm, device: Device) -> None:
    file = device.state / "attest.tpm"
    good = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    for bad in (b"", good[:-1], good + b"\0", (device.state / "device.tpm").read_bytes()):
        file.write_bytes(bad)
        assert "attest.tpm in state_dir is missing or damaged" in refused(device)
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert "another TPM" in refused(device)
    file.unlink()
    assert "attest.tpm" in refused(device)
    file.write_bytes(good)
    device.start()


@needs_tpm
def test_init_with_a_tpm_makes_what_leases_at_level_3_until_a_pcr_changes(tpm: Tpm, capsys: pytest.CaptureFixture[str]) -> None:
    with short_dir() as root:
        at = root / "d"
        assert main(["init", "--profile", "lab", "--dir", str(at), "--device-key", tpm.key, "--quote-pcrs", "0,7"]) == 0
        assert "trusted on first use" in capsys.readouterr().out
        assert not (at / "guard/challenge.json").exists()
        with programs(at):
            assert json.loads(told_by(capsys, "lease show --json", at))["level"] == 3
            assert "level      3, quoted by its TPM; device key in tpm:swtpm" in told_by(capsys, "status", at)
            assert "level 3" in told_by(capsys, "lease show", at)
            rows = json.loads(told_by(capsys, "validator devices --json", at))
            assert [(d["attested_by"], d["measured"]) for listed in rows.values() for d in listed] == [("first-use", 1)] * 3
            assert told_by(capsys, "board check", at).count("3: the TPM quotes PCRs 0, 7") == 1
        extend(tpm, 7)
        with programs(at):
            until(lambda: "PCRs 0, 7 are in no allowed state (versions 1)" in told_by(capsys, "status", at))
            assert json.loads(told_by(capsys, "gate check --json", at))["open"] is False


def told_by(capsys: pytest.CaptureFixture[str], words: str, at: Path) -> str:
    """What a command prints."""
    capsys.readouterr()
    main([*words.split(), "--dir", str(at)])
    return capsys.readouterr().out


@contextmanager
def programs(at: Path) -> Iterator[None]:
    """Validators and an agent, which starts the guard, until it is clear what becomes of the first request."""
    cli = [sys.executable, "-m", "qsafp_embedded.cli"]
    up = subprocess.Popen([*cli, "validators", "up", "--dir", str(at)], stdout=subprocess.DEVNULL)
    words = [sys.executable, "-m", "qsafp_embedded.agent", "--config", str(at / "agent/agent.toml")]
    agent = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    status = [*cli, "status", "--json", "--dir", str(at)]

    def decided() -> bool:
        found = json.loads(subprocess.run(status, capture_output=True, text=True, timeout=LIMIT_S, check=False).stdout or "{}")
        return bool(found.get("guard")) and bool(found["agent"]) and found["guard"]["phase"] in ("active", "failsafe")

    try:
        until(decided)
        yield
    finally:
        for program in (agent, up):
            program.send_signal(signal.SIGTERM)
        for program in (agent, up):
            program.wait(LIMIT_S)


# ---- what is said of it ----


@pytest.mark.parametrize(
    ("text", "files", "seen"),
    [
        ("", [], [("device key", True, "in a file"), ("level", True, "1, on the guard's word")]),
        (
            'device_key = "tpm:/dev/x"',
            ["device.tpm"],
            [("device key", True, "in TPM device:/dev/x"), ("level", True, "on the guard's word")],
        ),
        ('device_key = "tpm:/dev/x"', [], [("device key", False, "not in the TPM"), ("level", True, "on the guard's word")]),
        ('device_key = "tpm-sealed:/dev/x"', [], [("device key", None, "sealed to TPM"), ("level", True, "on the guard's word")]),
        (QUOTES, ["device.tpm", "attest.tpm"], [("device key", True, "in TPM"), ("level", True, "3: the TPM quotes PCRs 0, 23")]),
        (QUOTES, ["device.tpm"], [("device key", True, "in TPM"), ("level", False, "there is no attestation key")]),
    ],
)
def test_where_the_key_is_and_what_leases_state_is_told(
    tmp_path: Path, text: str, files: list[str], seen: list[tuple[str, bool | None, str]]
) -> None:
    (tmp_path / "s").mkdir()
    for name in files:
        (tmp_path / "s" / name).touch()
    found = list(doctor.keys(settings(tmp_path, text)))
    assert [(f.what, f.ok) for f in found] == [(what, ok) for what, ok, _ in seen]
    assert all(words in f.seen for f, (_, _, words) in zip(found, seen, strict=True)), found


# ---- configuration ----


def settings(tmp_path: Path, text: str) -> config.GuardConfig:
    """guard.toml with these lines."""
    toml = tmp_path / "guard.toml"
    toml.write_text(f'run_dir = "r"\nstate_dir = "s"\nmodel_hash = "{"00" * 32}"\n{text}\n')
    return config.load(toml)


def test_quotes_make_it_level_3_and_nothing_else_does(tmp_path: Path) -> None:
    assert (quote.CLAIMED_MAX, quote.ATTESTED, quote.PCRS) == (config.CLAIMED_MAX, config.ATTESTED, config.PCRS)
    assert settings(tmp_path, QUOTES).options()["level"] == 3
    assert settings(tmp_path, QUOTES).options()["quote_pcrs"] == 1 | 1 << 23
    assert settings(tmp_path, "level = 2").options()["level"] == 2
    for level in (3, 4, 6):
        with pytest.raises(ConfigError, match="3 comes with quote_pcrs"):
            settings(tmp_path, f"level = {level}")


@pytest.mark.parametrize("pcrs", ["[24]", "[-1]", '["0"]', "[1.0]", "[true]", "[0, 0]", "[[0]]"])
def test_what_is_no_list_of_pcrs_is_refused(tmp_path: Path, pcrs: str) -> None:
    with pytest.raises(ConfigError, match="quote_pcrs"):
        settings(tmp_path, f'device_key = "tpm:/dev/tpmrm0"\nquote_pcrs = {pcrs}')


def test_quotes_need_a_tpm(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="quote_pcrs needs a TPM"):
        settings(tmp_path, "quote_pcrs = [0]")


def test_the_enrollers_commands_name_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, out, ticket = tmp_path / "enrolment.json", str(tmp_path / "c.json"), str(tmp_path / "t.json")
    words = ["attest", "challenge", str(plain), "--ticket", ticket, "--out", out]
    assert main(words) == 1
    assert "No such file" in capsys.readouterr().err
    for text, reason in (("x", "not JSON"), ("[]", "not a JSON object"), ('{"ueid": "01"}', "names no attestation key")):
        plain.write_text(text)
        assert main(words) == 1
        assert reason in capsys.readouterr().err
        assert not Path(out).exists()
        assert not Path(ticket).exists()
    key = P256Key().public.hex()
    said = {"ak": key, "ek": key, "ek_certificate": "", "pcrs": {"0": "00" * 32}}
    plain.write_text(json.dumps({"ueid": "01" * 33, "attestation": said}))
    assert main(words) == 0
    assert "TRUSTED ON FIRST USE" in capsys.readouterr().out
    assert Path(ticket).stat().st_mode & 0o777 == 0o600
    assert json.loads(Path(ticket).read_text())["secret"] not in Path(out).read_text()
    assert main(words) == 1
    assert "never overwrites" in capsys.readouterr().err
    answer = tmp_path / "a.json"
    answer.write_text(json.dumps({"ueid": "01" * 33, "secret": secrets.token_bytes(32).hex()}))
    assert main(["attest", "admit", str(answer), "--ticket", ticket]) == 1
    assert "the answer is wrong" in capsys.readouterr().err


@needs_tpm
def test_the_log_names_each_lease_whose_evidence_states_the_level(device: Device) -> None:
    device.start()
    token = device.lease()
    assert Event.LEASE_ISSUED in device.events()
    record = next(r for r in device.records() if r["event"] == Event.LEASE_ISSUED)
    assert record["evidence"] == sha256(token)
