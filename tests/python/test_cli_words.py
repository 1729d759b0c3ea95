# SPDX-License-Identifier: Apache-2.0
"""The command line as such: it teaches, it completes, and whatever is typed or broken gets one line, never a traceback."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsafp_embedded.cli import main, parser
from qsafp_embedded.cli.init import Plan, make


def leaves(top: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every parser with the words that lead to it."""
    yield path, top
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from leaves(child, (*path, name))


COMMANDS = dict(leaves(parser()))
ENDS = [path for path, p in COMMANDS.items() if not any(isinstance(a, argparse._SubParsersAction) for a in p._actions)]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example_that_parses(path: tuple[str, ...]) -> None:
    p = COMMANDS[path]
    assert p.description
    assert p.epilog
    assert "qsafp " in p.epilog
    for action in p._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action.dest
    for line in p.epilog.splitlines():
        if line.startswith("  qsafp "):
            parser().parse_args(example(line))


def example(line: str) -> list[str]:
    """The words of an example line, up to what belongs to the shell."""
    import shlex

    said = shlex.split(line.strip(), comments=True)[1:]
    return said[: next((i for i, w in enumerate(said) if w in ("&&", "|")), len(said))]


@pytest.mark.parametrize("path", ENDS, ids=" ".join)
def test_every_command_answers_in_json_and_takes_a_directory(path: tuple[str, ...]) -> None:
    known = {s for a in COMMANDS[path]._actions for s in a.option_strings}
    assert {"--json", "--dir"} <= known


def test_a_typo_names_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    for said, meant in (("statsu", "status"), ("inti", "init"), ("audit verfy", "verify"), ("validator revok", "revoke")):
        with pytest.raises(SystemExit):
            main(said.split())
        err = capsys.readouterr().err
        assert f"did you mean '{meant}'" in err
        assert err.count("\n") == 1


def test_without_a_word_the_first_steps_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "start here" in capsys.readouterr().out


NEEDS_NONE = {("init",), ("keygen",), ("completion",), ("test",), ("run",), ("board", "list"), ("board", "show")}
NEEDS_NONE |= {("attest", "challenge"), ("attest", "admit")}
NEEDS_NONE |= {("image", act) for act in ("keygen", "sign", "verify", "inspect")}


@pytest.mark.parametrize("path", [p for p in ENDS if p not in NEEDS_NONE], ids=" ".join)
def test_a_directory_where_nothing_is_says_how_to_begin(path: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--all"] if path[-1] in ("revoke", "allow", "release") else []
    assert main([*path, *more, "--dir", str(tmp_path), "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": err.removeprefix("qsafp: ").strip(), "kind": "ConfigError"}
    assert f"run: qsafp init --profile lab --dir {tmp_path}" in err
    assert err.count("\n") == 1


# ---- completion ----

SCRIPTS = {
    "bash": 'eval "$(cat)"; COMP_WORDS=(qsafp {words} ""); COMP_CWORD={n}; _qsafp; printf "%s\\n" "${{COMPREPLY[@]}}"',
    "zsh": 'compdef() {{ }}; compadd() {{ shift; print -l -- $@ }}; eval "$(cat)"; words=(qsafp {words} ""); CURRENT={m}; _qsafp',
    "fish": 'cat | source; complete -C "qsafp {words} "; complete -C "qsafp {words} -"',
}


@pytest.mark.parametrize("shell", SCRIPTS)
@pytest.mark.parametrize(
    ("typed", "offered"), [("audit", "verify"), ("validator revoke", "--all"), ("--dir x status", "--watch"), ("", "doctor")]
)
def test_a_shell_completes(shell: str, typed: str, offered: str, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    n = len(typed.split()) + 1
    flags = {"bash": ["--norc", "-c"], "zsh": ["-fc"], "fish": ["--no-config", "-c"]}[shell]
    run = [shell, *flags, SCRIPTS[shell].format(words=typed, n=n, m=n + 1)]
    done = subprocess.run(run, input=script, capture_output=True, text=True, timeout=20, check=False)
    assert done.stderr == ""
    assert offered in done.stdout.split()


# ---- never a traceback ----

HOSTILE = ["", "-", "--", "--json", "--dir", "é", "-1", "9" * 400, "--index", "--all", "--last", "nan", "../..", "--ueid", "zz", "[" * 99]


def test_whatever_is_typed_gets_one_line_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(1)
    safe = [p for p in ENDS if p[0] not in ("run", "test", "keygen") and p != ("image", "keygen")]
    seen = 0
    for _ in range(400):
        said = [*rng.choice(safe), *rng.choices(HOSTILE, k=rng.randrange(4)), "--dir", str(tmp_path)]
        try:
            code = main(said)
        except SystemExit as end:
            code = int(end.code or 0)
        err = capsys.readouterr().err
        assert code in (0, 1, 2), said
        assert code == 0 or err.count("\n") == 1, (said, err)
        seen += code != 0
    assert seen > 300


def spoil(path: Path, rng: random.Random) -> None:
    """Damage a file as an editor or a disk would."""
    raw = bytearray(path.read_bytes())
    how = rng.randrange(5)
    if how == 0:
        raw = raw[: rng.randrange(len(raw) + 1)]
    elif how == 1 and raw:
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    elif how == 2:
        raw = bytearray(rng.randbytes(200))
    elif how == 3:
        raw = bytearray(b"[" * 5000)
    else:
        path.unlink()
        return
    path.write_bytes(raw)


READERS = [
    "status",
    "doctor",
    "lease show",
    "gate check",
    "audit list",
    "audit verify",
    "validator devices",
    "unlock --yes",
    "failsafe --yes",
]


def test_damaged_files_get_one_line_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(Plan(tmp_path / "good", "lab"))
    rng = random.Random(2)
    for n in range(80):
        root = tmp_path / f"d{n}"
        shutil.copytree(tmp_path / "good", root)
        target = rng.choice([p for p in root.rglob("*") if p.is_file() and p.suffix in (".toml", ".cbor", ".json", ".key")])
        spoil(target, rng)
        said = READERS[n % len(READERS)]
        code = main([*said.split(), "--dir", str(root)])
        err = capsys.readouterr().err
        assert code in (0, 1), (said, target)
        assert err.count("\n") <= 1, (said, target, err)
        shutil.rmtree(root)


PROGRAMS = [("guard", "guard/guard.toml"), ("agent", "agent/agent.toml"), ("validator", "validator-0/validator.toml")]


@pytest.mark.parametrize(("program", "toml"), PROGRAMS)
def test_a_program_whose_files_are_wrong_ends_with_one_line(program: str, toml: str, tmp_path: Path) -> None:
    make(Plan(tmp_path / "d", "lab"))
    path = tmp_path / "d" / toml
    text = path.read_text()
    key = tmp_path / "d" / {"guard": "guard/state/device.key", "agent": "agent/relay.key", "validator": "validator-0/tls.key"}[program]

    def ends(said: str) -> None:
        words = [sys.executable, "-m", f"qsafp_embedded.{program}", "--config", str(path)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode in (1, 2)
        assert said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr

    path.write_text("surprise = 1\n" + text)
    ends("unknown key 'surprise'; the nearest valid one is")
    path.write_text(text.replace("guard_config", "# guard_config").replace("set-1.cbor", "set-2.cbor"))
    ends("set-2.cbor")
    path.write_text(text.replace('guard_config = "../guard/guard.toml"', 'guard_config = ""'))
    key.chmod(0o644)
    ends(f"chmod 600 {key}")
    key.unlink()
    ends("no such key file")


def test_a_stop_without_a_guard_says_that_the_gate_is_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(Plan(tmp_path / "d", "lab"))
    assert main(["failsafe", "--yes", "--dir", str(tmp_path / "d")]) == 1
    assert "the gate is closed" in capsys.readouterr().err


def test_a_path_may_be_any_bytes(tmp_path: Path) -> None:
    where = os.fsencode(tmp_path) + b"/\xff"
    for words in (["init", "--profile", "lab"], ["doctor"], ["validator", "\udcff"]):
        run = [sys.executable, "-m", "qsafp_embedded.cli", *words, "--dir", where]
        done = subprocess.run(run, capture_output=True, timeout=30, check=False)
        assert b"Traceback" not in done.stderr
        assert b"\\udcff" in done.stdout + done.stderr


def test_a_closed_pipe_is_no_error_of_ours(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m qsafp_embedded.cli completion bash | true",
        shell=True,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""


def test_keygen_writes_a_key_once_and_shows_its_public_half(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "k"
    assert main(["keygen", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(bytes.fromhex(shown["public"])) == 32
    assert path.read_text().split()[-1] not in json.dumps(shown)
    assert path.stat().st_mode & 0o777 == 0o600
    assert main(["keygen", str(path)]) == 1
    assert "File exists" in capsys.readouterr().err
