# SPDX-License-Identifier: Apache-2.0
"""The tracked files, as the rules read them."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = {".c", ".h", ".py", ".pyx", ".pxd", ".pyi", ".sh", ".S"}


@cache
def tracked() -> dict[str, str]:
    """Path to text of every tracked text file; binary and deleted files are left out."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    out = {}
    for name in filter(None, listed):
        path = ROOT / name
        if path.is_file() and not path.is_symlink() and b"\0" not in (raw := path.read_bytes()):
            try:
                out[name] = raw.decode()
            except UnicodeDecodeError:
                continue
    return out


def code() -> dict[str, str]:
    """Those of them that are programs or headers."""
    return {name: text for name, text in tracked().items() if Path(name).suffix in CODE}


def package() -> dict[str, str]:
    """The Python modules of the package, by path."""
    return {name: text for name, text in tracked().items() if name.startswith("qsafp_embedded/") and name.endswith(".py")}
