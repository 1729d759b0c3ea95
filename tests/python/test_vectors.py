# SPDX-License-Identifier: Apache-2.0
"""The wire vectors from Python: they are what the script makes, the CDDL and the decoders accept them, and no flipped byte passes."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import zcbor
from hypothesis import given
from hypothesis import strategies as st

from qsafp_embedded import cose, keys, quote, sets
from qsafp_embedded._core import GatePage, cbor_dumps, cbor_loads, claims_decode, claims_encode, cobs_decode, cobs_encode, crc16
from qsafp_embedded._tables import Error, Event, Opcode, Phase, Reason, Refusal, RefusalClass, Status
from qsafp_embedded.agent.quorum import Refused, parse_answer, parse_sign1_answer, request_of
from qsafp_embedded.audit import Log, Record
from qsafp_embedded.client import GuardClient
from qsafp_embedded.errors import AuditError, FormatError
from qsafp_embedded.lease import Lease
from qsafp_embedded.validator.config import Attestation, Device, Policy
from qsafp_embedded.validator.decide import State, Terms, decide, parse
from qsafp_embedded.validator.service import Identity

ROOT = Path(__file__).resolve().parents[2]
WIRE = ROOT / "tests/vectors/wire"
INDEX: list[dict[str, Any]] = json.loads((WIRE.parent / "index.json").read_text())["vectors"]
ROWS = {str(v["file"]).removeprefix("wire/"): v for v in INDEX if str(v["file"]).endswith(".cbor")}
CBOR = {name: v for name, v in ROWS.items() if v["kind"] != "refused-set"}
REFUSED = {name: v for name, v in ROWS.items() if v["kind"] == "refused-set"}
LABELS = {"lease": cose.AAD_LEASE, "request": cose.AAD_REQUEST, "refusal": cose.AAD_REFUSAL, "revocation": cose.AAD_REVOCATION}


@cache
def read(name: str) -> bytes:
    return (WIRE / name).read_bytes()


@cache
def script() -> Any:
    """tools/vectors.py as a module."""
    spec = importlib.util.spec_from_file_location("vectors_script", ROOT / "tools/vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@cache
def folder() -> Path:
    """A place for files, gone when the tests are."""
    place = tempfile.TemporaryDirectory(prefix="qsafp-vectors-")
    atexit.register(place.cleanup)
    return Path(place.name)


@cache
def rules() -> dict[str, Any]:
    """The rules of docs/formats.cddl, as zcbor reads them."""
    prelude = next(Path(zcbor.__file__).parent.rglob("prelude.cddl")).read_text()
    found: dict[str, Any] = zcbor.DataTranslator.from_cddl(f"{prelude}\n{(ROOT / 'docs/formats.cddl').read_text()}", 100_000).my_types
    return found


def fits(rule: str, data: bytes) -> bool:
    """Whether zcbor accepts the bytes under a rule."""
    try:
        rules()[rule].validate_str(data)
    except Exception:  # noqa: BLE001  (cbor2 and zcbor raise many kinds)
        return False
    return True


@cache
def members(suite: str = "ed25519") -> sets.ValidatorSet:
    return sets.load(read(f"set_{suite}.cbor"))


def signer_key(by: cose.CoseSignature) -> bytes:
    """The public key that this header names, of the device or of a validator; FormatError if it is nobody's."""
    for device in (script().DEVICE, script().TPM_DEVICE):
        if by.kid == device.kid:
            return bytes(device.public)
    member = members("hybrid").member(by.alg, by.kid)
    if member is None:
        raise FormatError("a stranger")
    return members("hybrid").public(member, by.alg) or b""


def signed(kind: str, data: bytes) -> Any:
    """Payload of a COSE_Sign1 whose signature holds; raises FormatError."""
    whole = cose.parse_sign1(data, cose.REQUESTS if kind == "request" else cose.VOTES)
    if not whole.verify(signer_key(whole.by), LABELS[kind]):
        raise FormatError("a bad signature")
    return cbor_loads(whole.payload)


def taken(name: str, data: bytes) -> Any:
    """What the decoders that this object is for make of it; raises FormatError or AuditError."""
    row = CBOR[name]
    kind = row["kind"]
    if kind == "lease":
        return sets.verify_lease(data, members(row["suite"]))
    if kind == "set-document":
        return sets.load(data, old=members() if row["epoch"] == 2 else None)
    if kind == "lease-claims":
        return claims_decode(data)
    if kind == "envelope":
        r = parse(data)
        if not r.cose.verify(signer_key(r.cose.by), cose.AAD_REQUEST):
            raise FormatError("a bad signature")
        return r
    if kind == "attestation":
        request = cose.parse_sign1(read("request_esp256.cbor"), cose.REQUESTS)
        allowed = [quote.measured(4, script().PCRS)]
        return quote.check(data, script().TPM_AK.public, sha256(request.payload).digest(), allowed, b"")
    if kind == "log-export":
        path = folder() / name
        path.write_bytes(data)
        return Log.open(path).verify()
    return signed(kind, data)


# ---- the script, the CDDL, the encoders ----


def test_the_vectors_are_what_the_script_makes() -> None:
    made = script().build()
    have = {f"wire/{p.name}": p.read_bytes() for p in WIRE.iterdir()} | {"index.json": (WIRE.parent / "index.json").read_bytes()}
    assert sorted(made) == sorted(have)
    assert [n for n in made if made[n] != have[n]] == []


def test_every_kind_code_event_and_opcode_has_a_vector() -> None:
    assert {v["kind"] for v in CBOR.values()} == {*LABELS, "lease-claims", "envelope", "attestation", "set-document", "log-export"}
    assert {v["code"] for v in INDEX if v["kind"] == "refusal"} == set(Refusal)
    assert {v["event"] for v in INDEX if v["kind"] == "record"} == set(Event)
    assert {v["suite"] for v in INDEX if v["kind"] == "lease"} == set(sets.SUITES)
    assert {f[0][1] for f in frames().values()} == set(Opcode)


@pytest.mark.parametrize("name", CBOR)
def test_the_cddl_and_the_decoders_accept(name: str) -> None:
    assert fits(CBOR[name]["kind"], read(name))
    assert taken(name, read(name))


@pytest.mark.parametrize("name", CBOR)
def test_decoded_and_encoded_again_it_is_the_same(name: str) -> None:
    data = read(name)
    assert cbor_dumps(cbor_loads(data)) == data
    if CBOR[name]["kind"] == "lease-claims":
        assert claims_encode(claims_decode(data)) == data
    if CBOR[name]["kind"] == "set-document":
        s = cose.parse_sign(data)
        assert cose.encode_sign(s.payload, s.by) == data


def test_zcbor_validate_says_the_same_on_the_command_line() -> None:
    good = read("lease_ed25519.cbor")
    bad = good.replace(b"\x01\x32\x04", b"\x01\x33\x04")  # algorithm -20
    assert bad != good
    command = [str(Path(sys.executable).parent / "zcbor"), "validate", "-c", str(ROOT / "docs/formats.cddl"), "-t", "lease"]
    for data, accepted in ((good, True), (bad, False)):
        done = subprocess.run([*command, "--input-as", "cbor", "-i", "-"], input=data, capture_output=True, timeout=60, check=False)
        assert (done.returncode == 0) == accepted, done.stderr[-300:]


def test_the_cddl_accepts_what_the_validator_answers() -> None:
    me = Identity((keys.Ed25519Key.from_seed(bytes(32)), keys.MLDSA65Key.from_seed(bytes(32))))
    assert fits("approval", me.approve(read("claims_1.cbor")))
    assert fits("approval", Identity(me.signers[:1]).approve(b"x"))
    assert fits("revocation", me.revoke(members(), script().UEID, 0, ""))
    for code in Refusal:
        refused = cose.parse_sign1(read(f"refusal_{code.name.lower()}.cbor")).payload
        assert fits("refusal", me.refuse(bytes(32), code, "", cbor_loads(refused)[5]))
    assert fits("refusal", me.refuse(bytes(32), Refusal.EPOCH, "", None))
    assert fits("refusal", Identity(me.signers[1:]).refuse(bytes(32), Refusal.LIMITS, "", {1: 5}))


U64 = st.integers(0, 2**64 - 1)
CLAIMS = st.fixed_dictionaries(
    {
        "iat": U64,
        "duration_ms": st.integers(1, 31 * 24 * 3600 * 1000),
        "serial": st.integers(1, 2**64 - 1),
        "log_size": st.integers(0, 2**32 - 1),
        "policy_ms": st.lists(U64, min_size=4, max_size=4),
        "has_failsafe": st.booleans(),
        "failsafe_seq": U64,
        "level": U64,
        "lab": st.booleans(),
        "epoch": st.integers(1, 2**63 - 1),
        "ueid": st.binary(min_size=32, max_size=32).map(lambda b: b"\x01" + b),
        **{k: st.binary(min_size=16, max_size=16) for k in ("lease_id", "nonce", "set_id")},
        **{k: st.binary(min_size=32, max_size=32) for k in ("model", "log_id", "log_root", "failsafe_hash")},
    }
)


@given(CLAIMS)
def test_the_cddl_accepts_whatever_claims_are_encoded(claims: dict[str, Any]) -> None:
    data = claims_encode(claims)
    assert fits("lease-claims", data)
    if not claims["has_failsafe"]:
        claims = {**claims, "failsafe_seq": 0, "failsafe_hash": bytes(32)}
    assert claims_decode(data) == claims
    assert len(data) <= 448


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("lease-claims", {-65537: 0}),
        ("lease-claims", {-65537: 2678400001}),
        ("lease-claims", {-65538: 0}),
        ("lease-claims", {7: bytes(15)}),
        ("lease-claims", {256: bytes(32)}),
        ("lease-claims", {-65546: 0}),
        ("lease-claims", {-65543: {1: 1, 2: {}, 3: True}}),
        ("validator-set", {2: 0}),
        ("validator-set", {2: 2**63}),
        ("validator-set", {3: 17}),
        ("validator-set", {5: 4}),
        ("validator-set", {6: 1}),
        ("validator-set", {8: {1: 0}}),
        ("validator-set", {8: {1: 2678400001}}),
        ("validator-set", {9: 0}),
    ],
)
def test_the_cddl_refuses_what_the_decoders_refuse(rule: str, change: dict[int, Any]) -> None:
    data = read("claims_1.cbor") if rule == "lease-claims" else cose.parse_sign(read("set_ed25519.cbor")).payload
    assert fits(rule, data)
    assert not fits(rule, cbor_dumps({**cbor_loads(data), **change}))


@pytest.mark.parametrize("name", REFUSED)
def test_a_set_document_that_breaks_a_rule_is_refused_as_the_core_does(name: str) -> None:
    with pytest.raises(FormatError):
        sets.load(read(name))
    _, _, payload, by = cbor_loads(read(name)).value
    good = bool(by) and cose.verify_payload(payload, cose.decode_signature(*by[0]), script().SET_KEYS[0].public, cose.AAD_SET)
    assert good == (REFUSED[name]["error"] != Error.TOO_FEW)  # signed as it must be: refused for its own rule


# ---- flipped bytes ----


@pytest.mark.parametrize("name", [n for n in CBOR if not n.endswith(("ml-dsa-65.cbor", "hybrid.cbor"))])
def test_any_flipped_byte_is_refused_or_says_something_else(name: str) -> None:
    data = bytearray(read(name))
    meant, passed = taken(name, bytes(data)), []
    loose = CBOR[name]["kind"] in ("lease-claims", "envelope")  # not signed as a whole: another value is all one can ask
    for at in range(len(data)):
        data[at] ^= 1 << at % 8
        try:
            got = taken(name, bytes(data))
            if not loose or got == meant:
                passed.append(at)
        except (FormatError, AuditError):
            pass
        data[at] ^= 1 << at % 8
    assert passed == seals(name)


def seals(name: str) -> list[int]:
    """Bytes that only the auditor's key protects: the seals of a log export."""
    if CBOR[name]["kind"] != "log-export":
        return []
    data = read(name)
    found = (data.find(r.raw) for r in Log.open(WIRE / "log.bin").records if r.seq % 16 == 15)
    return [at + i for at in found for i in range(240, 256)]


@pytest.mark.parametrize("name", [n for n in CBOR if n.endswith(("ml-dsa-65.cbor", "hybrid.cbor"))])
def test_any_flipped_byte_of_the_large_ones_is_refused(name: str) -> None:
    data = bytearray(read(name))
    step = 1 if CBOR[name]["kind"] != "lease" else 5  # an ML-DSA-65 verification for each
    for at in range(0, len(data), step):
        data[at] ^= 1 << at % 8
        with pytest.raises(FormatError):
            taken(name, bytes(data))
        data[at] ^= 1 << at % 8


# ---- requests, answers ----


def envelope_terms() -> tuple[Device, Terms]:
    s = script()
    device = Device(s.UEID, s.DEVICE.public, Log.open(WIRE / "log.bin").log_id, frozenset((s.MODEL,)), 0)
    return device, Terms(members(), Policy(), 0, lambda _: True)


def tree_at(size: int) -> tuple[bytes, ...]:
    return tuple(script_log().subtree(0, size).peaks)


@cache
def script_log() -> Any:
    log = script().Log()
    log.records = list(Log.open(WIRE / "log.bin").raw)
    return log


def test_a_validator_approves_each_envelope() -> None:
    device, terms = envelope_terms()
    for n, size in ((1, 0), (2, 3), (3, 7)):
        r = parse(read(f"envelope_{n}.cbor"))
        known = State(device.ueid, size=size, peaks=tree_at(size))
        assert decide(r, device, known, terms).code is None
        assert r.lease == request_of(read(f"envelope_{n}.cbor")) == read(f"claims_{n}.cbor")
        assert r.raw == read(f"request_{n}.cbor")
        assert r.claims["log_root"] == read("roots.bin")[32 * r.claims["log_size"] :][:32]


def test_a_validator_approves_what_a_tpm_signed_and_quoted() -> None:
    s, (device, terms) = script(), envelope_terms()
    attestation = Attestation(s.TPM_AK.public, "certificate", (quote.measured(4, s.PCRS),))
    known = replace(device, key=s.TPM_DEVICE.public, alg=keys.ESP256, attestation=attestation)
    r = parse(read("envelope_quoted.cbor"))
    d = decide(r, known, State(device.ueid, size=0), terms)
    assert (d.code, d.state.measured, d.state.counts) == (None, 4, bytes.fromhex("0000000300000001"))
    assert (r.raw, r.quote, r.claims["level"]) == (read("request_esp256.cbor"), read("quote.cbor"), 3)
    assert decide(r._replace(quote=None), known, State(device.ueid, size=0), terms).code == Refusal.MEASUREMENT


def test_a_validator_that_is_behind_learns_from_the_previous_lease() -> None:
    device, terms = envelope_terms()
    r = parse(read("envelope_2.cbor"))
    assert decide(r, device, State(device.ueid, size=0), terms).code is None
    assert decide(r._replace(previous=None), device, State(device.ueid, size=0), terms).code == Refusal.STATE_BEHIND


def test_the_agent_reads_each_refusal_and_revocation() -> None:
    member = members().validators[5]
    for code in Refusal:
        answer = parse_answer(read(f"refusal_{code.name.lower()}.cbor"), member, members())
        assert isinstance(answer, Refused)
        assert (answer.code, answer.deny, answer.text) == (code, code < Refusal.STALE, f"because of {code.name}")
        payload = cose.parse_sign1(read("request_2.cbor")).payload
        named = cbor_loads(cose.parse_sign1(answer.token).payload)
        assert named[1] == sha256(payload).digest()
        assert named[2] == (RefusalClass.DENY if answer.deny else RefusalClass.RETRY)
    told = parse_sign1_answer(read("revocation_1.cbor"), members().validators[1], members())
    assert not isinstance(told, Refused)
    assert told.serial == 2


def test_the_table_of_signatures_is_all_of_them_and_each_holds() -> None:
    table = {read("ed25519.bin")[at : at + 128] for at in range(0, len(read("ed25519.bin")), 128)}
    assert table
    found = set()
    for name, row in ROWS.items():
        label = {"set-document": cose.AAD_SET, "refused-set": cose.AAD_SET, **LABELS}.get(row["kind"])
        if label is None or row.get("error") == Error.UNKNOWN_ALGORITHM:
            continue  # of that one the good signature is the one of another vector
        whole = cose.parse_sign(read(name)) if read(name)[0] == 0xD8 else cose.parse_sign1(read(name), (*cose.VOTES, keys.ESP256))
        votes = whole.by if isinstance(whole, cose.Sign) else (whole.by,)
        for by in votes:
            head: list[Any] = ["Signature", b"", by.protected] if isinstance(whole, cose.Sign) else ["Signature1", by.protected]
            tbs = cbor_dumps([*head, label, whole.payload])
            public = next((k.public for k in script().SET_KEYS if k.kid == by.kid), None) or signer_key(by)
            forged = row.get("error") == Error.BAD_SIGNATURE and by == votes[-1]
            assert keys.verify(by.alg, public, tbs, by.signature) != forged
            if by.alg == keys.ED25519 and not forged:
                found.add(public + by.signature + sha256(tbs).digest())
    assert found == table


# ---- log, page, frames ----


def plain_root(leaves: list[bytes]) -> bytes:
    """RFC 9162 2.1.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1" + plain_root(leaves[:k]) + plain_root(leaves[k:])).digest()


def test_the_log_has_each_event_and_its_roots_are_those_of_the_rfc() -> None:
    log = Log.open(WIRE / "log.bin")
    log.verify()
    log.check_seals(script().seed("seal"))
    for row in (v for v in INDEX if v["kind"] == "record"):
        assert Record.decode(read("log.bin")[row["offset"] :][:256]).event == row["event"] == Event[row["what"]]
    hashes = [r.hash for r in log.records]
    assert read("roots.bin") == b"".join(plain_root(hashes[:n]) for n in range(len(hashes) + 1))
    for n in (1, 2, 3):
        lease = Lease.decode(read({1: "lease_ed25519.cbor", 2: "lease_renewed.cbor", 3: "lease_released.cbor"}[n]))
        log.covers(lease)
        stored = next(r for r in log.records if r.evidence == sha256(lease.token).digest())
        assert stored.serial == lease.serial == n


def test_a_page_is_read_as_it_was_written() -> None:
    want: dict[str, dict[str, Any]] = {
        "page_open.bin": {"armed": True, "generation": 0, "serial": 1, "status": Status.VALID, "phase": Phase.ACTIVE, "reason": 0},
        "page_failsafe.bin": {"armed": False, "generation": 1, "status": Status.DENIED, "reason": Reason.VALIDATOR_DENIED, "serial": 2},
    }
    for name, fields in want.items():
        fd = os.memfd_create("page")
        os.write(fd, read(name).ljust(4096, b"\0"))
        page = GatePage()
        page._attach(fd)
        os.close(fd)
        got = page._fields()
        assert {k: got[k] for k in fields} == fields
        assert (got["model"], got["counter_hz"], got["window_ns"]) == (script().MODEL, 3 * 10**9, 2 * 10**9)
        assert got["deadline_ns"] == struct.unpack_from("<Q", read(name), 16)[0]


def frames() -> dict[str, tuple[bytes, bytes]]:
    """Command and answer by name; the COBS forms are checked here."""
    out = {}
    for line in read("frames.txt").decode().splitlines():
        if line.startswith("#"):
            continue
        name, *words = line.split()
        ask, ask_cobs, told, told_cobs = map(bytes.fromhex, words)
        for plain, stuffed in ((ask, ask_cobs), (told, told_cobs)):
            assert cobs_encode(plain) == stuffed
            assert cobs_decode(stuffed) == plain
            assert 0 not in stuffed
        out[name] = (ask, told)
    return out


UNASKED = ("bad_crc", "cut", "failsafe_again", "set_unsupported")


class Replay:
    """A wire that answers from the vectors."""

    peer = "vectors"

    def __init__(self) -> None:
        self.known = {ask[1:-2]: told for name, (ask, told) in frames().items() if name not in UNASKED}
        self.stops = [frames()["failsafe_first"][1], frames()["failsafe_again"][1]]
        self.last = b""

    def send(self, frame: bytes) -> None:
        assert crc16(frame[:-2]).to_bytes(2, "little") == frame[-2:]
        told = self.stops.pop(0) if frame[1] == Opcode.FAILSAFE else self.known[frame[1:-2]]
        body = told[:1] + frame[:1] + told[2:-2]
        self.last = body + crc16(body).to_bytes(2, "little")

    def receive(self, timeout: float) -> bytes:
        return self.last

    def close(self) -> None:
        """Nothing is open."""


def test_the_client_speaks_the_frames_of_the_vectors() -> None:
    with GuardClient(Replay()) as guard:
        assert (guard.version().abi, guard.version().suite, guard.version().frame_max) == (1, 1, 1024)
        assert guard.begin() == (len(read("request_1.cbor")), 1)
        assert guard.envelope() == read("envelope_1.cbor")
        guard.put(read("lease_ed25519.cbor"))
        status = guard.status()
        assert (status.remaining_ns, status.serial, status.status, status.approvals, status.total) == (59 * 10**9, 1, Status.VALID, 4, 6)
        assert (status.log_next, status.log_size_at_lease, status.lab, status.denied, status.now_ns) == (4, 3, True, 0, 103 * 10**9)
        guard.log_event(Event.INFERENCE_STARTED, 0, b"batch 1")
        assert guard.workload(b"\0\1camera") == b"\0"
        guard.polls(6)
        assert guard.set_document() == read("set_ed25519.cbor")
        guard.install_set(read("set_epoch2.cbor"))
        guard.failsafe(Reason.MANUAL)


@pytest.mark.parametrize("of", [0, 1])
def test_any_flipped_byte_of_a_frame_breaks_its_check(of: int) -> None:
    good: Callable[[bytes], bool] = lambda f: crc16(f[:-2]) == int.from_bytes(f[-2:], "little")  # noqa: E731
    for name, pair in frames().items():
        if of == 0 and name in ("bad_crc", "cut"):
            continue
        frame = bytearray(pair[of])
        assert good(bytes(frame))
        for at in range(len(frame)):
            frame[at] ^= 1 << at % 8
            assert not good(bytes(frame))
            frame[at] ^= 1 << at % 8


# ---- docs/formats.md ----


def layouts() -> dict[str, list[tuple[int, int]]]:
    """Offset and size of every row of the tables of bytes, by the name of the third column."""
    out: dict[str, list[tuple[int, int]]] = {}
    name = ""
    for line in (ROOT / "docs/formats.md").read_text().splitlines():
        cells = [c.strip() for c in line.split("|")[1:-1]]
        if cells[:2] == ["off", "size"]:
            name = f"{cells[2]} {len(out)}"
            out[name] = []
        elif len(cells) == 3 and cells[0].isdecimal() and name:
            out[name].append((int(cells[0]), int(cells[1])))
        elif not cells:
            name = ""
    return out


def test_the_tables_of_bytes_have_neither_gap_nor_overlap() -> None:
    ends = []
    for rows in layouts().values():
        at = 0
        for off, size in rows:
            assert off == at
            at = off + size
        ends.append(at)
    assert ends == [256, 3232 + 8, 128, struct.calcsize("<QQQIHIIBBI32s16sBQQ33s32s32sQ32sIQHBBQQ")]


def test_the_document_names_every_claim_rule_and_frame() -> None:
    text = (ROOT / "docs/formats.md").read_text()
    for key in cbor_loads(read("claims_3.cbor")):
        assert f"| {key} |" in text
    for label in (*LABELS.values(), cose.AAD_SET):
        assert f"`{label.decode()}`" in text
    for opcode in Opcode:
        assert f"| 0x{opcode:02x}" in text
    assert [e.name for e in Event if f"{e.name}" not in text.partition("## State")[0]] == []
