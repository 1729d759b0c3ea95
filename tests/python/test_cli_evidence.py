# SPDX-License-Identifier: Apache-2.0
"""``qsafp audit evidence``: what the guard kept, who signed it, and what a damaged store says (HW-8)."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from validator_kit import Device, Quorum, quorum

from qsafp_embedded import cose, evidence, sets
from qsafp_embedded._core import cbor_dumps, cbor_loads, sha256
from qsafp_embedded._tables import Phase, Refusal
from qsafp_embedded.cli import main
from qsafp_embedded.errors import AuditError, FormatError, StoreError
from qsafp_embedded.scenarios.stage import Stage

CDDL = Path(__file__).resolve().parents[2] / "docs/formats.cddl"


def entry(raw: bytes, digest: bytes | None = None) -> bytes:
    """An entry of the store, with its own hash or another."""
    return struct.pack("<4sI32s", b"QEV1", len(raw), digest or sha256(raw)) + raw


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A guard that got leases and was revoked; its agent is gone, so that nothing is added."""
    with Stage(profile="home") as s:
        s.start()
        s.renewed()
        s.revoke(0, 1, 2)
        s.phase(Phase.FAILSAFE)
        s.stop("agent")
        yield s


def said(stage: Stage, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """What the command prints; its exit status must be this one."""
    assert main(["audit", "evidence", *words, "--dir", str(stage.root)]) == status
    out, err = capsys.readouterr()
    return err if status and not out else out


def test_every_piece_is_listed_with_its_record_and_its_signers(stage: Stage, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = json.loads(said(stage, capsys, "--json", "--out", str(tmp_path / "all.cbor")))
    assert found["ok"]
    assert found["not_kept"] == []
    pieces = found["pieces"]
    assert [p["number"] for p in pieces] == list(range(len(pieces)))
    assert [p["kind"] for p in pieces[:3]] == ["set", "lease", "lease"]
    events = {"set": "CONFIG_CHANGE", "lease": "LEASE_", "refusal": "LEASE_DENIED", "revocation": "LEASE_DENIED"}
    members = sets.read(stage.root / "set/set-1.cbor")
    names = {s.kid.hex(): i for i in range(3) for s in [stage.signer(i)]}
    for p in pieces:
        assert p["good"]
        assert p["why"] == ""
        assert p["records"][0]["event"].startswith(events[p["kind"]])
        if p["kind"] != "set":
            assert p["signers"] == [names[k] for k in p["kids"]]
        if p["kind"] == "lease":
            assert len(p["signers"]) == members.m
    assert [p["serial"] for p in pieces if p["kind"] == "lease"][:2] == [1, 2]
    revoked = [p for p in pieces if p["kind"] == "revocation"]
    assert len({p["signers"][0] for p in revoked}) == len(revoked) >= 2
    assert [p["records"][0]["seq"] for p in pieces] == sorted(p["records"][0]["seq"] for p in pieces)
    export = cbor_loads((tmp_path / "all.cbor").read_bytes())
    assert export[1] == stage.status().log_id
    assert [sha256(raw).hex() for raw in export[2]] == [p["hash"] for p in pieces]
    zcbor = [str(Path(sys.executable).parent / "zcbor"), "validate", "-c", str(CDDL), "-t", "evidence-export", "--input-as", "cbor"]
    data = (tmp_path / "all.cbor").read_bytes()
    done = subprocess.run([*zcbor, "-i", "-"], input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-300:]
    assert "never overwrites" in said(stage, capsys, "--out", str(tmp_path / "all.cbor"), status=1)
    lines = said(stage, capsys, "--last", "1").splitlines()
    assert len(lines) == 3
    assert "good, by" in lines[1]
    assert lines[2].startswith("1 of ")


def test_a_copy_is_read_without_a_guard_and_both_halves_are_one(stage: Stage, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    copy = tmp_path / "state"
    shutil.copytree(stage.root / "guard/state", copy)
    pieces = evidence.read(copy)
    cut = pieces[2].offset
    whole = (copy / "evidence.log").read_bytes()
    (copy / "evidence.old").write_bytes(whole[:cut])
    (copy / "evidence.log").write_bytes(whole[cut:])
    halves = json.loads(said(stage, capsys, "--json", "--state", str(copy)))["pieces"]
    assert [(p["hash"], p["number"]) for p in halves] == [(p.hash.hex(), p.number) for p in pieces]
    assert [p["file"] for p in halves[:3]] == ["evidence.old", "evidence.old", "evidence.log"]
    (copy / "evidence.old").unlink()
    pruned = json.loads(said(stage, capsys, "--json", "--state", str(copy)))
    assert len(pruned["not_kept"]) == 2
    assert pruned["ok"]


DAMAGE = {
    "a byte of a piece": (
        lambda b, at: b[: at + 60] + bytes([b[at + 60] ^ 1]) + b[at + 61 :],
        "entry 1 at byte {at} does not have its hash",
    ),
    "a byte of its hash": (
        lambda b, at: b[: at + 9] + bytes([b[at + 9] ^ 1]) + b[at + 10 :],
        "entry 1 at byte {at} does not have its hash",
    ),
    "a byte of its magic": (lambda b, at: b[:at] + b"X" + b[at + 1 :], "entry 1 at byte {at} does not begin as one"),
    "a length": (lambda b, at: b[: at + 7] + b"\x7f" + b[at + 8 :], "entry 1 at byte {at} is cut"),
    "a cut in a piece": (lambda b, at: b[: at + 100], "entry 1 at byte {at} is cut: 60 of "),
    "a cut in a head": (lambda b, at: b[: at + 5], "entry 1 at byte {at} is cut: 5 bytes are no head"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_store_is_one_error_that_names_the_entry(
    name: str, stage: Stage, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    copy = tmp_path / "state"
    shutil.copytree(stage.root / "guard/state", copy)
    at = evidence.read(copy)[1].offset
    spoil, text = DAMAGE[name]
    (copy / "evidence.log").write_bytes(spoil((copy / "evidence.log").read_bytes(), at))
    words = said(stage, capsys, "--state", str(copy), status=1)
    assert words.startswith(f"qsafp: {copy / 'evidence.log'}: " + text.format(at=at))
    assert len(words.splitlines()) == 1
    with pytest.raises(AuditError) as caught:
        evidence.read(copy)
    assert caught.value.index == 1


def test_what_was_forged_with_a_fitting_hash_is_listed_as_bad(stage: Stage, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    copy = tmp_path / "state"
    shutil.copytree(stage.root / "guard/state", copy)
    lease = next(p for p in evidence.read(copy) if p.kind == "lease").raw
    forged = lease[:-1] + bytes([lease[-1] ^ 1])
    with (copy / "evidence.log").open("ab") as file:
        file.write(entry(forged) + entry(b"\x00junk") + entry(b""))
    found = json.loads(said(stage, capsys, "--json", "--state", str(copy), status=1))
    bad = [p for p in found["pieces"] if not p["good"]]
    assert [p["kind"] for p in bad] == ["lease", "unknown", "unknown"]
    assert bad[0]["why"].startswith("a bad signature of validator")
    assert bad[0]["records"] == []
    text = said(stage, capsys, "--state", str(copy), status=1)
    assert "BAD: a bad signature" in text
    assert "no record of it" in text


def test_no_store_is_one_clear_error(stage: Stage, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copy(stage.root / "guard/state/log.ring", tmp_path)
    assert "no evidence store there" in said(stage, capsys, "--state", str(tmp_path), status=1)
    with pytest.raises(StoreError):
        evidence.read(tmp_path)


def test_a_guard_that_is_stopped_left_all_of_it(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads(said(stage, capsys, "--json"))
    stage.stop("guard")
    assert json.loads(said(stage, capsys, "--json")) == before


# ---- epochs ----


def epochs(count: int) -> tuple[list[sets.ValidatorSet], Quorum]:
    """A chain of set documents from one quorum."""
    q = quorum()
    chain = [q.members]
    for _ in range(count - 1):
        fresh = dataclasses.replace(chain[-1], epoch=chain[-1].epoch + 1, max_duration_ms=chain[-1].max_duration_ms - 1)
        chain.append(sets.load(sets.encode(fresh, [q.set_key]), old=chain[-1]))
    return chain, q


def piece(raw: bytes, number: int = 0) -> evidence.Piece:
    """A piece as the store would give it."""
    return evidence.Piece(number, "evidence.log", 0, sha256(raw), raw)


@pytest.mark.parametrize("trusted", [0, 1, 3])
def test_set_documents_are_trusted_as_far_as_signatures_tie_them_to_the_installed_one(trusted: int) -> None:
    chain, _ = epochs(4)
    pieces = [piece(s.document) for s in chain]
    assert sorted(evidence.known_sets(chain[trusted], pieces)) == [1, 2, 3, 4]
    gap = [p for p in pieces if p.epoch != 3]
    assert sorted(evidence.known_sets(chain[trusted], gap)) == ([4] if trusted == 3 else [1, 2])


def test_a_strangers_set_document_and_what_its_members_signed_is_bad() -> None:
    chain, q = epochs(2)
    other = quorum(epoch=3)
    known = evidence.known_sets(chain[1], [piece(other.document), piece(chain[0].document)])
    assert sorted(known) == [1, 2]
    with pytest.raises(FormatError, match="no trusted set document of epoch 3"):
        piece(other.document).verify(known)
    again = dataclasses.replace(chain[0], max_duration_ms=7)
    with pytest.raises(FormatError, match="not the trusted set document of epoch 1"):
        piece(sets.encode(again, [q.set_key])).verify(known)
    said = cbor_dumps({1: bytes(32), 2: 1, 3: int(Refusal.POLICY), 4: "no", 5: None})
    refusal = piece(cose.encode_sign1(said, q.ed[1], cose.AAD_REFUSAL))
    assert (refusal.kind, refusal.verify(known)) == ("refusal", (1,))
    with pytest.raises(FormatError, match="a key of nobody"):
        piece(cose.encode_sign1(said, other.ed[1], cose.AAD_REFUSAL)).verify(known)
    with pytest.raises(FormatError, match="a bad signature of validator 1"):
        piece(cose.encode_sign1(said, q.ed[1], cose.AAD_REVOCATION)).verify(known)


@pytest.mark.parametrize("suite", ["ed25519", "ml-dsa-65", "hybrid"])
def test_a_lease_of_every_suite_names_its_signers(suite: str) -> None:
    q = quorum(suite=suite, m=3, n=4)
    lease = piece(q.lease(Device(q.members).propose(), [0, 2, 3]))
    assert (lease.kind, lease.verify({1: q.members}), lease.serial, lease.epoch) == ("lease", (0, 2, 3), 1, 1)
