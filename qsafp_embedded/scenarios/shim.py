# SPDX-License-Identifier: Apache-2.0
"""Compiles what is preloaded into processes of a scenario."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .stage import CannotRun, check

__all__ = ["build"]


def build(name: str, where: Path) -> Path:
    """Compile ``<name>.c`` of this package into a shared object below ``where``; raises CannotRun without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise CannotRun("no C compiler here; install gcc")
    out = where / f"{name}.so"
    command = [compiler, "-std=c11", "-O1", "-shared", "-fPIC", str(Path(__file__).with_name(f"{name}.c")), "-o", str(out), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    check(done.returncode == 0, f"{name}.c: {done.stderr.strip()[:300]}")
    return out
