# SPDX-License-Identifier: Apache-2.0
"""Code blocks of README.md and docs/*.md run.

Python blocks run whole; C blocks compile against cext/include; TOML and JSON blocks parse.  In shell blocks ``make X`` becomes
``make -n X`` (the target must exist), and the lines that fetch and enter a clone are left out; the rest runs as written.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from repo import ROOT, tracked

FENCE = re.compile(r"^```[ \t]*(\w*)[^\n]*\n(.*?)^```[ \t]*$", re.M | re.S)
PROSE = {"", "text", "mermaid", "cddl"}


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and body of each fenced block."""
    return FENCE.findall(text)


def shell_of(body: str) -> str:
    """The block as it can be run inside the clone."""
    lines = [line.removeprefix("$ ") for line in body.splitlines()]
    kept = [re.sub(r"^make\b", "make -n", line) for line in lines if not re.match(r"(?:git clone|cd)\b", line)]
    return "\n".join(kept)


def session(number: int) -> list[int]:
    """Ids of the live processes of a session, whatever group or parent they have by now."""
    out = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
            out += [int(stat.parent.name)] if int(of) == number and state != "Z" else []
    return out


def run_shell(body: str, env: dict[str, str]) -> None:
    """Run a shell block in a session of its own; nothing that it started outlives it."""
    with subprocess.Popen(["bash", "-euo", "pipefail", "-c", body], cwd=ROOT, env=env, start_new_session=True) as shell:
        try:
            if code := shell.wait(timeout=120):
                raise subprocess.CalledProcessError(code, body)
        finally:
            while left := session(shell.pid):
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.01)


def run_block(language: str, body: str, folder: Path) -> None:
    """Run or parse one block; raise on any refusal, and on a language that nothing here can run."""
    env = {**os.environ, "HOME": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env.pop("MAKEFLAGS", None)
    if language in {"sh", "bash", "console"}:
        run_shell(shell_of(body), env)
    elif language == "python":
        subprocess.run([sys.executable, "-c", body], cwd=folder, env={**env, "PYTHONPATH": str(ROOT)}, check=True, timeout=120)
    elif language == "c":
        cmd = ["gcc", "-std=c11", "-Wall", "-Werror", f"-I{ROOT}/cext/include", "-fsyntax-only", "-xc", "-"]
        subprocess.run(cmd, input=body, text=True, check=True, timeout=60)
    elif language == "toml":
        tomllib.loads(body)
    elif language == "json":
        json.loads(body)
    elif language not in PROSE:
        raise ValueError(f"no way to run a {language} block")


def documents() -> list[tuple[str, int, str, str]]:
    """Every block of every document, with where it stands."""
    names = [n for n in tracked() if n == "README.md" or re.fullmatch(r"docs/[^/]+\.md", n)]
    return [(n, i, lang, body) for n in names for i, (lang, body) in enumerate(blocks(tracked()[n]))]


def test_code_blocks_run(tmp_path: Path) -> None:
    for name, number, language, body in documents():
        try:
            run_block(language, body, tmp_path)
        except (subprocess.SubprocessError, ValueError) as no:
            pytest.fail(f"{name}, block {number} ({language}): {no}")


def test_readme_has_blocks_that_run() -> None:
    if "README.md" not in tracked():
        pytest.skip("README.md does not exist yet")
    assert any(lang not in PROSE for name, _, lang, _ in documents() if name == "README.md")


@pytest.mark.parametrize(
    ("language", "body"),
    [("python", "raise SystemExit(3)"), ("sh", "false"), ("sh", "make no-such-target"), ("c", "int x = ;"), ("toml", "a ="), ("perl", "1")],
)
def test_the_rule_sees_a_block_that_does_not_run(language: str, body: str, tmp_path: Path) -> None:
    with pytest.raises((subprocess.SubprocessError, ValueError)):
        run_block(language, body, tmp_path)


def test_what_a_shell_block_leaves_running_is_ended(tmp_path: Path) -> None:
    run_block("sh", "set -m; sleep 600 & echo $$ > ~/sid", tmp_path)
    assert session(int((tmp_path / "sid").read_text())) == []


def test_blocks_are_found() -> None:
    assert blocks("a\n```python\nx = 1\n```\nb\n```\nart\n```\n") == [("python", "x = 1\n"), ("", "art\n")]
