# SPDX-License-Identifier: Apache-2.0
"""What is released builds by itself: the sdist holds all sources, and a wheel made of it imports and computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import qsafp_embedded._core as c
from qsafp_embedded.hardware import board
print(c.__file__, c.sha256(b'abc').hex(), board.load('raspberry_pi_5').lines[0].name)
"""


def run(*command: str, cwd: Path) -> str:
    """Run a command; its output is the failure's text."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_a_wheel_of_the_sdist_imports_and_computes(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout: the sdist is made of the tracked files")
    source, unpacked = tmp_path / "source", tmp_path / "installed"
    run("git", "clone", "-q", str(ROOT), str(source), cwd=tmp_path)
    run(sys.executable, "setup.py", "-q", "sdist", "-d", str(tmp_path), cwd=source)
    (sdist,) = tmp_path.glob("*.tar.gz")
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    run(*wheel, "-w", str(tmp_path), str(sdist), cwd=tmp_path)
    (made,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "zipfile", "-e", str(made), str(unpacked), cwd=tmp_path)
    where, digest, line = run(sys.executable, "-c", f"import sys; sys.path.insert(0, {str(unpacked)!r})\n{PROBE}", cwd=tmp_path).split()
    assert Path(where).is_relative_to(unpacked)
    assert line == "GPIO17"
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
