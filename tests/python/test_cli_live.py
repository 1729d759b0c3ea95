# SPDX-License-Identifier: Apache-2.0
"""The commands against what really runs: three validators, an agent and a guard, each its own process."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qsafp_embedded.cli import main
from qsafp_embedded.cli.init import Plan, make

SECONDS = 60.0
CLI = [sys.executable, "-m", "qsafp_embedded.cli"]


@dataclass
class Live:
    """A directory whose programs run, and the command line on it."""

    root: Path
    capsys: pytest.CaptureFixture[str] | None = None

    def run(self, words: str, *, code: int = 0) -> str:
        """Run one command; returns its standard output."""
        assert self.capsys is not None
        self.capsys.readouterr()
        got = main([*words.split(), "--dir", str(self.root)])
        said = self.capsys.readouterr()
        assert got == code, (words, said)
        return said.out or said.err

    def json(self, words: str, *, code: int = 0) -> Any:
        """Run one command with ``--json`` and read its answer."""
        return json.loads(self.run(f"{words} --json", code=code))


def until(check: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("live") / "d"
    make(Plan(root, "home"))
    toml = root / "agent" / "agent.toml"
    up = subprocess.Popen([*CLI, "validators", "up", "--dir", str(root)], stdout=subprocess.DEVNULL)
    agent = subprocess.Popen([sys.executable, "-m", "qsafp_embedded.agent", "--config", str(toml)], stdout=subprocess.DEVNULL)
    try:
        check = [*CLI, "gate", "check", "--dir", str(root)]
        until(lambda: subprocess.run(check, capture_output=True, check=False).returncode == 0)
        yield root
    finally:
        for program in (agent, up):
            program.send_signal(signal.SIGTERM)
        assert agent.wait(30) == 0
        assert up.wait(30) == 0


@pytest.fixture
def live(programs: Path, capsys: pytest.CaptureFixture[str]) -> Live:
    return Live(programs, capsys)


def test_status_shows_lease_guard_agent_and_every_validator(live: Live) -> None:
    until(lambda: live.json("status")["agent"]["polls"] == 3)
    said = live.json("status")
    assert (said["guard"]["phase"], said["guard"]["lab"], said["agent"]["isolated"]) == ("active", True, False)
    assert [v["index"] for v in said["agent"]["round"]] == [0, 1, 2]
    text = live.run("status")
    assert "LAB" in text
    assert all(f"validator {i}" in text for i in range(3))


def test_the_newest_lease_is_verified_and_marked_lab(live: Live) -> None:
    said = live.json("lease show")
    assert (said["m"], said["n"], len(said["signers"]), said["lab"]) == (2, 3, 2, True)
    assert "LAB" in live.run("lease show")


def test_the_gate_answers_for_its_model_only(live: Live, tmp_path: Path) -> None:
    assert live.json("gate check")["open"] is True
    other = tmp_path / "other.onnx"
    other.write_bytes(b"weights")
    said = live.json(f"gate check --model {other}", code=1)
    assert (said["open"], said["error"]) == (False, "WrongModel")


def test_the_log_lists_verifies_and_exports(live: Live, tmp_path: Path) -> None:
    rows = live.json("audit list --last 3")
    assert len(rows) == 3
    assert "LAB" in live.run("audit list").splitlines()[0]
    assert live.json(f"audit verify --k0 {live.root}/auditor/k0")["ok"] is True
    out = tmp_path / "log.jsonl"
    live.run(f"audit export --out {out}")
    assert [json.loads(line)["seq"] for line in out.read_text().splitlines()][:3] == [0, 1, 2]
    assert "never overwrites" in live.run(f"audit export --out {out}", code=1)


def test_operators_lists_name_the_device(live: Live) -> None:
    ueid = live.json("status")["guard"]["ueid"]
    assert {rows[0]["ueid"] for rows in live.json("validator devices").values()} == {ueid}
    decided = [rows[0]["decision"] for rows in live.json("validator decisions").values() if rows]
    assert len(decided) >= 2  # one may have missed the first lease
    assert set(decided) == {"APPROVED"}
    assert live.json("validator waiting") == {"0": [], "1": [], "2": []}
    assert "no validator 7 lives here" in live.run("validator devices --index 7", code=1)
    assert "--ueid is not hex" in live.run("validator revoke --all --ueid xyz", code=1)


def test_doctor_is_content_and_notes_what_lies_about(live: Live) -> None:
    findings = live.json("doctor")
    assert [f for f in findings if f["ok"] is False] == []
    noted = {f["what"] for f in findings if f["ok"] is None}
    assert noted == {"auditor", "set key", "LAB"}
    assert all(f["remedy"] for f in findings if f["ok"] is not True)


def test_doctor_names_a_key_that_others_can_read_and_what_helps(live: Live) -> None:
    key = live.root / "agent" / "relay.key"
    key.chmod(0o640)
    try:
        (bad,) = [f for f in live.json("doctor", code=1) if f["ok"] is False]
    finally:
        key.chmod(0o600)
    assert bad["remedy"] == f"chmod 600 {key}"


def test_doctor_goes_on_where_a_file_is_broken(live: Live) -> None:
    toml = live.root / "agent" / "agent.toml"
    text = toml.read_text()
    toml.write_text(text.replace("timeout_s", "timeout"))
    try:
        bad = [f for f in live.json("doctor", code=1) if f["ok"] is False]
    finally:
        toml.write_text(text)
    assert [f["what"] for f in bad] == ["configs"]
    assert "unknown key 'timeout'; the nearest valid one is 'timeout_s'" in bad[0]["seen"]


def typed(root: Path, words: str, answer: bytes) -> tuple[int, str]:
    """Run a command at a terminal of its own and type an answer once it asked."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*CLI, *words.split(), "--dir", str(root)])
    said, sent = b"", False
    while True:
        try:
            block = os.read(terminal, 4096)
        except OSError:
            break
        said += block
        if not block:
            break
        if b"Type yes: " in said and not sent:
            os.write(terminal, answer)
            sent = True
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode()


def test_a_person_stops_and_starts_the_device(live: Live) -> None:
    assert "nothing to unlock" in live.run("unlock")
    code, said = typed(live.root, "failsafe", b"no\n")
    assert (code, "nothing was stopped" in said) == (1, True)
    assert live.json("gate check")["open"] is True
    code, said = typed(live.root, "failsafe", b"yes\n")
    assert (code, "qsafp unlock" in said) == (0, True)
    assert live.json("gate check", code=1)["reason"] == "MANUAL"
    assert "qsafp unlock" in next(f for f in live.json("doctor", code=1) if f["what"] == "lease")["remedy"]
    until(lambda: all(rows for rows in live.json("validator waiting").values()))
    until(lambda: "PENDING_HUMAN" in live.json("status")["agent"]["error"])
    assert "qsafp unlock" in next(f for f in live.json("doctor", code=1) if f["what"] == "agent")["remedy"]
    assert {rows[0]["waits"] for rows in live.json("validator waiting").values()} == {"release"}
    code, said = typed(live.root, "unlock", b"maybe\n")
    assert (code, "nothing was released" in said) == (1, True)
    assert live.json("status")["guard"]["phase"] == "failsafe"
    code, said = typed(live.root, "unlock --wait 30", b"yes\n")
    assert (code, "phase active" in said) == (0, True), said
    assert live.json("gate check")["open"] is True


def test_a_revocation_stops_it_and_only_allow_and_unlock_together_start_it(live: Live) -> None:
    live.run("validator revoke --index 0 --text smoke")
    until(lambda: live.json("status")["guard"]["denied"] == [0])
    assert live.json("gate check")["open"] is True  # one of three is no denial
    live.run("validator revoke --index 1")
    until(lambda: live.json("status")["guard"]["phase"] == "failsafe")
    said = live.json("gate check", code=1)
    assert (said["error"], said["reason"]) == ("LeaseDenied", "VALIDATOR_DENIED")
    text = live.run("unlock --yes --wait 1", code=1)
    assert "qsafp validator allow --all" in text
    live.run("validator allow --all")
    assert live.json("unlock --yes --wait 30")["phase"] == "active"


def test_validators_up_names_the_one_that_cannot_start_and_keeps_the_rest(live: Live, tmp_path: Path) -> None:
    root = tmp_path / "d"
    make(Plan(root, "home"))
    (root / "validator-1" / "signing.key").unlink()
    up = subprocess.Popen([*CLI, "validators", "up", "--dir", str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert up.stdout is not None
    assert up.stderr is not None
    assert "signing.key: no such key file" in up.stderr.readline()
    assert up.stderr.readline() == "qsafp: validator-1 ended with exit code 1\n"
    listening = {up.stdout.readline().partition(" listening")[0] for _ in range(2)}
    assert listening == {"validator 0", "validator 2"}
    up.send_signal(signal.SIGTERM)
    assert up.wait(30) == 0
    up.stdout.close()
    up.stderr.close()


def test_status_keeps_showing_until_it_is_interrupted(live: Live) -> None:
    watch = subprocess.Popen([*CLI, "status", "--watch", "--json", "--dir", str(live.root)], stdout=subprocess.PIPE)
    assert watch.stdout is not None
    seen = [json.loads(watch.stdout.readline())["guard"]["remaining_ms"] for _ in range(3)]
    watch.send_signal(signal.SIGINT)
    assert watch.wait(20) == 130
    watch.stdout.close()
    assert seen[0] != seen[2]
