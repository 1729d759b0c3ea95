# SPDX-License-Identifier: Apache-2.0
"""The outside verifier accepts what a real run left and names what was changed in a copy, one kind of change at a time."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import cbor2
import pytest

from qsafp_embedded._tables import Event
from qsafp_embedded.audit import Log
from qsafp_embedded.scenarios.stage import Stage

PINS = """103000000000 LEASE_VALID 1
103000000001 VALIDATOR_REQ 1
114000000100 LEASE_VALID 0
117000000000 LEASE_VALID 1
176000000500 LEASE_VALID 0
"""


def verify(folder: Path, root: Path) -> tuple[int, str]:
    """Exit status and words of the verifier."""
    command = [sys.executable, str(root / "examples/verify_outside.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def story(vectors: Path, tmp_path: Path) -> Path:
    """The folder that the device of the vectors would leave."""
    folder, wire = tmp_path / "story", vectors / "wire"
    (folder / "leases").mkdir(parents=True)
    shutil.copy(wire / "log.bin", folder)
    shutil.copy(wire / "set_ed25519.cbor", folder / "set.cbor")
    for serial, name in enumerate(("lease_ed25519", "lease_renewed", "lease_released"), 1):
        shutil.copy(wire / f"{name}.cbor", folder / "leases" / f"{serial}.cbor")
    (folder / "pins.trace").write_text(PINS)
    return folder


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def drop(path: Path, number: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: 256 * number] + data[256 * number + 256 :])


def relog(folder: Path, old: bytes, new: bytes) -> None:
    """Let a log of our own making name another lease: as a thief of the device would, who has no validator's key."""
    prev, out = bytes(32), b""
    for r in Log.open(folder / "log.bin").raw:
        body = r[:208].replace(sha256(old).digest(), sha256(new).digest())
        prev = sha256(prev + body).digest()
        out += body + prev + r[240:]
    (folder / "log.bin").write_bytes(out)


def swap(folder: Path) -> None:
    """Give the signature of one validator to another."""
    path = folder / "leases/3.cbor"
    old = path.read_bytes()
    item = cbor2.loads(old)
    signatures = item.value[3]
    signatures[0][0] = signatures[1][0]
    new = cbor2.dumps(item)
    path.write_bytes(new)
    relog(folder, old, new)


def twice(folder: Path) -> None:
    """Let one validator vote twice."""
    path = folder / "leases/3.cbor"
    old = path.read_bytes()
    item = cbor2.loads(old)
    item.value[3][0] = item.value[3][1]
    new = cbor2.dumps(item)
    path.write_bytes(new)
    relog(folder, old, new)


def raised(folder: Path, line: str) -> None:
    (folder / "pins.trace").write_text(PINS + line)


def rewrite(folder: Path) -> None:
    """Change a covered record and mend the chain after it."""
    data = bytearray((folder / "log.bin").read_bytes())
    data[256 + 120] ^= 1  # in BOOT
    (folder / "log.bin").write_bytes(data)
    relog(folder, b"", b"x")


TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a byte of a record": (lambda f: flip(f / "log.bin", 256 * 20 + 130), "record 20"),
    "a dropped record": (lambda f: drop(f / "log.bin", 33), "record 33"),
    "a record cut short": (lambda f: (f / "log.bin").write_bytes((f / "log.bin").read_bytes()[:-100]), "record 70"),
    "a byte of a lease": (lambda f: flip(f / "leases/2.cbor", 60), "2.cbor: not in the log"),
    "a missing lease": (lambda f: (f / "leases/2.cbor").unlink(), "serial [2]"),
    "a swapped signer": (swap, "3.cbor: 3 valid signers of 4"),
    "a signer twice": (twice, "3.cbor: 3 valid signers of 4"),
    "a log rewritten under its leases": (rewrite, "1.cbor: the root"),
    "a byte of the set": (lambda f: flip(f / "set.cbor", 400), "set.cbor"),
    "a pin raised before any lease": (lambda f: (f / "pins.trace").write_text("50 LEASE_VALID 1\n" + PINS), "high at 50 ns"),
    "a pin raised after the last lease": (lambda f: raised(f, "290000000000 LEASE_VALID 1\n291000000000 LEASE_VALID 0\n"), "high at 290"),
    "a pin that did not fall": (lambda f: (f / "pins.trace").write_text(PINS.replace("176000000500", "177000000000")), "outside every"),
    "a pin that stayed through a fail-safe": (
        lambda f: (f / "pins.trace").write_text(PINS.replace("114000000100", "115900000000")),
        "outside",
    ),
}


def test_what_the_vectors_device_left_is_accepted(story: Path, root: Path) -> None:
    status, said = verify(story, root)
    assert (status, said) == (0, "verified: 71 records, 3 leases by 4 of 6 validators, 4 edges of LEASE_VALID\n")


def test_a_log_in_json_lines_is_accepted(story: Path, root: Path) -> None:
    (story / "log.jsonl").write_text(Log.open(story / "log.bin").jsonl())
    (story / "log.bin").unlink()
    assert verify(story, root)[0] == 0


@pytest.mark.parametrize("kind", list(TAMPERED))
def test_a_tampered_copy_is_refused_and_the_culprit_named(kind: str, story: Path, root: Path) -> None:
    change, culprit = TAMPERED[kind]
    change(story)
    status, said = verify(story, root)
    assert status == 1
    assert said.startswith("NOT VERIFIED: ")
    assert culprit in said


def real(stage: Stage, folder: Path) -> None:
    """Copy what a running fleet has."""
    (folder / "leases").mkdir(parents=True)
    with stage.client() as guard:
        raw = list(guard.records())
    (folder / "log.bin").write_bytes(b"".join(raw))
    shutil.copy(stage.root / "set/set-1.cbor", folder / "set.cbor")
    shutil.copy(stage.root / "run/main/pins.trace", folder / "pins.trace")
    leases = {r.evidence: r.serial for r in Log.of(raw).records if r.event in (Event.LEASE_ISSUED, Event.LEASE_RENEWED)}
    evidence, at = (stage.root / "guard/state/evidence.log").read_bytes(), 0
    while at < len(evidence):
        size, name = int.from_bytes(evidence[at + 4 : at + 8], "little"), evidence[at + 8 : at + 40]
        if name in leases:
            (folder / "leases" / f"{leases[name]}.cbor").write_bytes(evidence[at + 40 : at + 40 + size])
        at += 40 + size


@pytest.mark.parametrize("suite", ["ed25519", "hybrid"])
def test_what_a_real_run_left_is_accepted_and_a_tampered_copy_is_not(suite: str, tmp_path: Path, root: Path) -> None:
    with Stage(profile="home", suite=suite) as stage:
        stage.validators()
        stage.guard()
        stage.agent()
        stage.wait("a renewed lease", lambda: stage.status().serial >= 3)
        real(stage, tmp_path / "left")
    status, said = verify(tmp_path / "left", root)
    assert (status, said[:9]) == (0, "verified:"), said
    flip(tmp_path / "left/log.bin", 256 * 3 + 100)
    assert verify(tmp_path / "left", root) == (1, "NOT VERIFIED: log.bin: record 3\n")


def test_the_verifier_is_short_and_shares_no_code_with_us(root: Path) -> None:
    text = (root / "examples/verify_outside.py").read_text()
    names = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    modules = {getattr(n, "module", None) or n.names[0].name for n in names}
    assert not any(m.startswith("qsafp") for m in modules)
    assert len(text.splitlines()) <= 80
