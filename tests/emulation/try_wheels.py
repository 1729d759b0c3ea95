# SPDX-License-Identifier: Apache-2.0
"""``make wheels``: our wheel for three processors, cross-built, and imported by Debian's Python of each under QEMU's user mode.

Debian 12 has no riscv64: its Python is trixie's, and so is the wheel's.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from boards import ARCHES, Arch
from debian import CACHE, ImageError, Packages, alone, run, unpack
from figures import Figures
from image import OUT
from wheels import build, digest

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TRIXIE = f"deb [signed-by={KEYRING}] http://deb.debian.org/debian trixie main\n"
RISCV64 = Arch("riscv64", "riscv64", "riscv64-linux-gnu", "qemu-system-riscv64")
TARGETS = ((ARCHES["arm64"], "3.11", "", "aarch64"), (ARCHES["armhf"], "3.11", "", "arm"), (RISCV64, "3.13", TRIXIE, "riscv64"))
SAY = """
import platform, sys
import qsafp_embedded
from qsafp_embedded import Gate, LeaseRefused, _core
from qsafp_embedded.hardware import board
assert Gate and LeaseRefused and "raspberry_pi_5" in board.names()
print(platform.machine(), _core.sha256(b"abc").hex(), _core.cobs_decode(_core.cobs_encode(bytes(9))).hex(), _core.__file__)
"""


def _python(arch: Arch, packages: Packages, python: str) -> Path:
    """A root with the processor's Python, unpacked once."""
    root = CACHE / "pythons" / f"{arch.debian}-{digest([Path(__file__)], python)}"
    if not (root / "done").exists():
        unpack(packages.fetch([f"python{python}"]), root)
        (root / "done").touch()
    return root


def _try(arch: Arch, python: str, sources: str, user: str, say: Callable[[str], None]) -> tuple[int, str]:
    """Build and import; bytes of the wheel, and how it was imported.  Raises ImageError."""
    packages = Packages(arch.debian, say, sources=sources)
    wheel = build(arch, packages, OUT, python)
    root = _python(arch, packages, python)
    site = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as z:
        z.extractall(site)
        unpacked = sum(i.file_size for i in z.infolist())
    words = [f"qemu-{user}", "-L", root, "-E", f"PYTHONPATH={site}", root / f"usr/bin/python{python}", "-P", "-S", "-c", SAY]
    machine, hashed, decoded, module = run(words).split()
    if (hashed, decoded) != (hashlib.sha256(b"abc").hexdigest(), bytes(9).hex()) or not module.startswith(str(site)):
        raise ImageError(f"{wheel.name}: imported, but its answers are wrong: {hashed} {decoded} {module}")
    return wheel.stat().st_size, f"{wheel.name}, {unpacked} bytes unpacked; imported by Python {python} on {machine}"


def main() -> int:
    """Try all three; returns 1 if one fails."""
    bad = 0
    OUT.mkdir(parents=True, exist_ok=True)
    figures = Figures(OUT / "wheels.figures.json", "wheels", lambda key, row: None)
    for arch, python, sources, user in TARGETS:
        try:
            with alone(CACHE / f"{arch.debian}.lock", wait=True):
                size, note = _try(arch, python, sources, user, partial(print, file=sys.stderr))
            figures.put(f"emulated.wheel_bytes.{arch.machine}", size, "B", note=note)
        except ImageError as why:
            bad = 1
            print(f"{arch.machine}: {why}", file=sys.stderr)
    return bad


if __name__ == "__main__":
    sys.exit(main())
