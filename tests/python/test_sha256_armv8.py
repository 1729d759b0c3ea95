# SPDX-License-Identifier: Apache-2.0
"""SHA-256 by the ARMv8 instructions: the same digests as the portable code, and chosen where the processor has them.

Runs under QEMU's user mode; a machine without it or without the cross compiler skips, and pytest names the skip.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CC = "aarch64-linux-gnu-gcc"
QEMU = next((q for q in ("qemu-aarch64-static", "qemu-aarch64") if shutil.which(q)), None)
CFLAGS = ("-std=c11", "-D_DEFAULT_SOURCE", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-Icext/include", "-Icext/src")

pytestmark = pytest.mark.skipif(not QEMU or not shutil.which(CC), reason=f"needs {CC} and qemu-aarch64 (qemu-user)")


def run(root: Path, folder: Path, sources: list[str], cpu: str = "max") -> str:
    """Build the sources for 64-bit ARM and run them on an emulated processor; return what they printed."""
    exe = folder / "program"
    subprocess.run([CC, *CFLAGS, *sources, "-o", str(exe)], cwd=root, check=True)
    return subprocess.run([str(QEMU), "-cpu", cpu, str(exe)], cwd=root, check=True, capture_output=True, text=True).stdout


def core(root: Path) -> list[str]:
    """The core's C files but for the ARMv8 one."""
    return [str(p.relative_to(root)) for p in sorted((root / "cext/src").glob("*.c")) if p.name != "sha256_armv8.c"]


def test_the_instructions_give_the_portable_result(root: Path, tmp_path: Path) -> None:
    out = run(root, tmp_path, ["tests/c/armv8_sha256.c", "cext/src/sha256_armv8.c", *core(root)])
    assert out == "armv8_sha256: 164 passed, 0 failed\n"


@pytest.mark.parametrize("cpu", ["max", "cortex-a72"])
def test_the_published_digests_hold_with_what_the_loader_chose(root: Path, tmp_path: Path, cpu: str) -> None:
    out = run(root, tmp_path, ["tests/c/test_sha256.c", "cext/src/sha256_armv8.c", *core(root)], cpu)
    assert out.endswith(" passed, 0 failed\n")


def test_the_loader_chooses_the_instructions(root: Path, tmp_path: Path) -> None:
    out = run(root, tmp_path, ["tests/c/armv8_sha256_select.c", *core(root)])
    assert out == "chosen 1\narmv8_sha256_select: 2 passed, 0 failed\n"
