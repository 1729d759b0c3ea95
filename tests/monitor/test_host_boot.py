# SPDX-License-Identifier: Apache-2.0
"""The boot stage's own C under ASan and UBSan: flash that changes under it, flash that is damaged (HW-2)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import boot
import firmware
import pytest

from qsafp_embedded._tables import Board, ImageKind
from qsafp_embedded.image import Image, RootKey

KEY = RootKey.from_secret(b"\x08" * 32)
ROUNDS = 1500


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_flash_is_read_once_and_no_damage_boots(tmp_path: Path) -> None:
    (tmp_path / "root.c").write_text(f'#include "boot.h"\nconst uint8_t boot_root[32] = {{{", ".join(map(str, KEY.hash))}}};\n')
    for kind, base in ((ImageKind.MONITOR, 0x10008000), (ImageKind.PAYLOAD, 0x20400000)):
        fields = {"kind": kind, "board": Board.HIFIVE_UNLEASHED, "security_version": 1, "load": base}
        (tmp_path / kind.name).write_bytes(Image.sign(os.urandom(700), KEY, **fields).encode())
    stage = [p for p in sorted((firmware.ROOT / "cext/monitor/boot").glob("*.c")) if p.stem != "slots"]  # host_boot.c has its own
    sources = [*stage, *(firmware.ROOT / f"cext/src/{name}.c" for name in boot.CORE)]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wno-missing-prototypes"]
    exe = tmp_path / "host_boot"
    host = [firmware.ROOT / "tests/monitor/host_boot.c", tmp_path / "root.c"]
    folders = [f for f in firmware.TARGETS["hifive_unleashed"].includes if f != "tools/freestanding"]  # this machine's own libc
    folders.remove("-isystem")
    firmware.run("gcc", "-g", "-O1", *firmware.WARN, *sanitizers, *folders, *host, *sources, "-Wl,--wrap=qsafp_image_verify", "-o", exe)
    words = [exe, tmp_path / "MONITOR", tmp_path / "PAYLOAD", "1", str(ROUNDS)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    found = re.fullmatch(r"host_boot: (\d+) refused\n", done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found
    assert int(found[1]) > ROUNDS * 0.9
