# SPDX-License-Identifier: Apache-2.0
"""``qsafp init``: all or nothing, every option written down, the profiles, and the places where things go."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from qsafp_embedded import sets
from qsafp_embedded.agent import config as agent_config
from qsafp_embedded.cli import main, ports
from qsafp_embedded.cli.common import folders
from qsafp_embedded.cli.init import Plan, make
from qsafp_embedded.cli.templates import Folders
from qsafp_embedded.errors import ConfigError, QsafpError
from qsafp_embedded.guard import config as guard_config
from qsafp_embedded.validator import config as validator_config
from qsafp_embedded.validator.__main__ import identity_of, load_set
from qsafp_embedded.validator.config import Policy

OPTION = re.compile(r"^(?:# )?([a-z_]+) = [^\n]*?(#[^\n]*)?$", re.M)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet, laid out once for the tests that only look."""
    root = tmp_path_factory.mktemp("made") / "d"
    make(Plan(root, "fleet", suite="hybrid"))
    return root


def options(text: str) -> set[str]:
    """The options that a text names, in force or commented out."""
    return {m[1] for m in OPTION.finditer(text)}


@pytest.mark.parametrize(("profile", "m", "n"), [("lab", 3, 3), ("home", 2, 3), ("fleet", 4, 6)])
def test_a_profile_makes_its_quorum_marked_lab(profile: str, m: int, n: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--profile", profile, "--dir", str(tmp_path / "d")]) == 0
    said = capsys.readouterr().out
    s = sets.load((tmp_path / "d/set/set-1.cbor").read_bytes())
    assert (s.m, s.n, s.lab, s.epoch, s.set_k, len(s.set_keys)) == (m, n, True, 1, 1, 1)
    assert "LAB" in said
    assert f"{tmp_path}/d/set/set.key" in said
    assert ("take the set key offline now" in said) is (profile != "lab")
    for i in range(n):
        config = validator_config.load(tmp_path / f"d/validator-{i}/validator.toml")
        assert identity_of(config, load_set(config)).signers


def test_ports_are_none_that_the_kernel_lends_to_clients_nor_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    lent_from = int(ports.LENT.read_text().split()[0])
    assert max(ports.free_ports(6)) < max(lent_from, ports.FIRST + ports.LEAST)
    a, b, c = ports.free_ports(3)
    draws = iter([c, b, a])
    with socket.create_server(("127.0.0.1", c)):
        monkeypatch.setattr(random, "randrange", lambda *_range: next(draws))
        assert ports.free_ports(2) == [a, b]
        monkeypatch.setattr(random, "randrange", lambda *_range: c)
        with pytest.raises(QsafpError, match="no 2 free ports side by side"):
            ports.free_ports(2)


def test_every_option_of_the_guard_stands_in_its_file(made: Path) -> None:
    text = (made / "guard/guard.toml").read_text()
    assert options(text) == set(guard_config.DEFAULTS)
    given = tomllib.loads(text)
    own = {"run_dir", "state_dir", "set", "model_hash", "initial_ms"}
    assert {k: v for k, v in given.items() if k not in own} == {
        k: v for k, v in guard_config.DEFAULTS.items() if k in given and k not in own
    }


def test_every_option_of_the_agent_stands_in_its_file_with_its_default(made: Path) -> None:
    text = (made / "agent/agent.toml").read_text()
    assert options(text) == set(agent_config.DEFAULTS)
    given = tomllib.loads(text)
    plain = {k: v for k, v in agent_config.DEFAULTS.items() if not isinstance(v, type) and k not in ("guard_config", "stop_guard")}
    assert {k: given[k] for k in plain} == plain


def test_every_option_of_a_validator_stands_in_its_file_with_its_default(made: Path) -> None:
    text = (made / "validator-3/validator.toml").read_text()
    top = {*validator_config.TOP, *validator_config.POLICY} - {"relay", "device", "policy", "release"}
    assert top <= options(text)
    assert validator_config.load(made / "validator-3/validator.toml").policy == Policy()
    for reason in (*validator_config.RELEASABLE, *validator_config.NEED_PEOPLE):
        assert f"\n{reason} = " in text


def test_what_an_option_does_is_said_beside_it(made: Path) -> None:
    obvious = {"extension_ms", "set", "tls_cert", "relay_cert", "cert", "name", "ueid"}
    for path in ("guard/guard.toml", "agent/agent.toml", "validator-0/validator.toml"):
        bare = {m[1] for m in OPTION.finditer((made / path).read_text()) if not m[2]} - obvious
        assert bare <= {"model", "model_hash", "duration_ms", "signing_key"}, path


def test_secrets_are_the_owners_alone(made: Path) -> None:
    secret = [p for p in made.rglob("*") if p.suffix == ".key" or p.name == "k0"]
    assert len(secret) == 2 + 1 + 1 + 1 + 6 * 3  # device, nonce, relay, set, K_0, three of each validator
    assert {stat.S_IMODE(p.stat().st_mode) for p in secret} == {0o600}
    assert all(stat.S_IMODE((made / d).stat().st_mode) == 0o700 for d in ("guard", "agent", "set", "auditor", "validator-0"))


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/precious").write_text("x")
    cases = [
        (["--dir", str(tmp_path / "d")], "never overwrites"),
        (["--dir", str(tmp_path / "new"), "--model", str(tmp_path / "none.onnx")], "none.onnx: No such file"),
        (["--dir", str(tmp_path / "d/precious")], "never overwrites"),
        (["--dir", str(tmp_path / "d/precious/x")], "Not a directory"),
        (["--dir", str(tmp_path / ("x" * 110))], "choose a shorter --dir"),
    ]
    for words, text in cases:
        assert main(["init", "--profile", "lab", *words]) == 1
        got = capsys.readouterr()
        assert text in got.err
        assert got.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["precious"]


@pytest.mark.parametrize("value", ["0", "-1", str(2**63), "a minute", "2678400001"])
def test_a_duration_out_of_bounds_is_refused(value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["init", "--profile", "lab", "--dir", str(tmp_path / "d"), f"--duration-ms={value}"])
    assert end.value.code == 2
    assert "--duration-ms" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_the_model_is_named_by_its_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hashlib

    model = tmp_path / 'a "model".onnx'
    model.write_bytes(b"weights")
    assert main(["init", "--profile", "lab", "--model", str(model), "--dir", str(tmp_path / "d"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    digest = hashlib.sha256(b"weights").digest()
    assert guard_config.load(tmp_path / "d/guard/guard.toml").model == digest
    device = validator_config.load(tmp_path / "d/validator-2/validator.toml").devices[bytes.fromhex(answer["ueid"])]
    assert device.models == {digest}


def test_apart_configuration_and_state_name_each_other_absolutely(tmp_path: Path) -> None:
    places = Folders(tmp_path / "etc/qsafp", tmp_path / "var/qsafp", tmp_path / "run/qsafp")
    make(Plan(places.config, "home", places=places))
    g = guard_config.load(places.config / "guard/guard.toml")
    assert (g.state_dir, g.run_dir, g.set_path) == (places.state / "guard/state", places.run / "main", places.config / "set/set-1.cbor")
    assert (g.state_dir / "device.key").exists()
    a = agent_config.load(places.config / "agent/agent.toml")
    assert (a.evidence_dir, a.guard_config) == (places.state / "agent/evidence", places.config / "guard/guard.toml")
    v = validator_config.load(places.state / "validator-1/validator.toml")
    assert load_set(v).n == 3
    assert sorted(p.name for p in places.config.iterdir()) == ["agent", "guard", "set"]
    assert sorted(p.name for p in places.state.iterdir()) == ["auditor", "guard", "validator-0", "validator-1", "validator-2"]


def test_the_default_places_are_the_systems_for_root_and_the_xdg_ones_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QSAFP_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert folders(None) == Folders(Path("/etc/qsafp"), Path("/var/lib/qsafp"), Path("/run/qsafp"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/h")
    assert folders(None) == Folders(Path("/h/.config/qsafp"), Path("/h/.local/state/qsafp"), Path("/h/.local/state/qsafp/run"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert folders(None).run == Path("/run/user/1000/qsafp")
    monkeypatch.setenv("QSAFP_DIR", "/x")
    assert folders(None) == folders(Path("/x")) == Folders(Path("/x"), Path("/x"), Path("/x/run"))


WRONG: list[tuple[str, str, str, str]] = [
    ("agent/agent.toml", "timeout_s = 10.0", "timeout = 10", "'timeout'.*'timeout_s'"),
    ("agent/agent.toml", "timeout_s = 10.0", 'timeout_s = "10"', "'timeout_s' must be float"),
    ("agent/agent.toml", "timeout_s = 10.0", "timeout_s = nan", "'timeout_s' is not in"),
    ("agent/agent.toml", "backoff_max_s = 15.0", "backoff_max_s = 16", "'backoff_max_s' is not in 0.1..15"),
    ("agent/agent.toml", 'relay_key = "relay.key"', 'relay_key = ""', "'relay_key' is empty"),
    ("agent/agent.toml", "poll = true", "poll = 1", "'poll' must be bool"),
    ("agent/agent.toml", "poll = true", "poll = tru", "not TOML"),
    ("agent/agent.toml", "evidence_dir", "evidence_drr", "'evidence_drr'.*'evidence_dir'"),
    ("agent/agent.toml", 'relay_key = "relay.key"', 'relay_key = "\\u0000"', "'relay_key' has a NUL"),
    ("guard/guard.toml", "stale_after_ms", "stale_ms", "'stale_ms'.*'stale_after_ms'"),
    ("guard/guard.toml", "duration_ms = 60000", "duration_ms = 0", "duration_ms = 0 is outside"),
    ("guard/guard.toml", "duration_ms = 60000", f"duration_ms = {2**63}", "duration_ms = 9223372036854775808 is outside"),
]


@pytest.mark.parametrize(("path", "old", "new", "said"), WRONG)
def test_a_typo_is_named_with_the_nearest_valid_key(path: str, old: str, new: str, said: str, made: Path) -> None:

    text = (made / path).read_text()
    assert old in text
    wrong = made / path.replace(".toml", "-wrong.toml")
    wrong.write_text(text.replace(old, new, 1))
    loads: dict[str, Any] = {"agent": agent_config.load, "guard": guard_config.load}
    with pytest.raises(ConfigError, match=said):
        loads[path.partition("/")[0]](wrong)
    wrong.unlink()


@pytest.mark.parametrize("path", ["agent/agent.toml", "guard/guard.toml", "validator-0/validator.toml"])
def test_a_damaged_file_is_a_configuration_error_and_nothing_else(path: str, made: Path) -> None:
    loads: dict[str, Any] = {"agent": agent_config.load, "guard": guard_config.load, "validator-0": validator_config.load}
    raw, rng, accepted = (made / path).read_bytes(), random.Random(path), 0
    wrong = made / path.replace(".toml", "-fuzz.toml")
    values = [b"-1", b"0", b"true", b'""', b"[]", b"{}", b"nan", b"1e400", b"9223372036854775808", b'"\\u0000"', b"1979-05-27", b"[[[["]
    for _ in range(400):
        lines = raw.splitlines()
        at = rng.choice([i for i, line in enumerate(lines) if b" = " in line])
        key = lines[at].partition(b" = ")[0].removeprefix(b"# ")
        lines[at] = key + b" = " + rng.choice(values)
        data = bytearray(b"\n".join(lines))
        if rng.random() < 0.3:
            data[rng.randrange(len(data))] = rng.randrange(256)
        wrong.write_bytes(data)
        with contextlib.suppress(ConfigError):
            loads[path.partition("/")[0]](wrong)
            accepted += 1
    wrong.unlink()
    assert 0 < accepted < 200
