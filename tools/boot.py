# SPDX-License-Identifier: Apache-2.0
"""Build the boot stage of a bare-metal board: ``python tools/boot.py ROOT [BOARD [FILE]]``.

ROOT is the hash that ``qsafp image keygen`` printed.  Prints the size.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import monocypher
from firmware import ROOT, TARGETS, WARN, BuildError, Target, run

CORE = ("sha256", "sha256_select", "sha512", "keccak", "mldsa65", "ed25519_edge")


def sources(t: Target) -> list[Path]:
    """What a boot stage is made of, beside the root key's hash."""
    core = [ROOT / f"cext/src/{name}.c" for name in CORE]
    boot = sorted((ROOT / "cext/monitor/boot").glob("*.c"))
    start = [p for p in t.reset if p.stem != "alone"] or [t.port("boot_start.S")]
    return [*start, t.port("boot_board.c"), *boot, *core]


def build(t: Target, root: bytes, elf: Path) -> Path:
    """Build a boot stage that takes images of one root key, named by its 32-byte hash; raises BuildError."""
    elf.parent.mkdir(parents=True, exist_ok=True)
    symbols = {"BOOT_AT": t.map["BOOT_BASE"], "BOOT_SIZE": t.map["BOOT_BYTES"], "TABLE_AT": t.map["BOOT_TABLE"]}
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "root.c"
        key.write_text(f'#include "boot.h"\n\nconst uint8_t boot_root[32] = {{{", ".join(map(str, root))}}};\n')
        mem = Path(folder) / "mem.o"  # by itself: calls to it appear only after all else was optimised together
        run(*t.words, *WARN, "-c", ROOT / "cext/monitor/mem.c", "-o", mem)
        return t.link(t.port("boot.ld"), elf, [*sources(t), key, mem], symbols, "-flto", *WARN)


def main(argv: list[str]) -> int:
    """Build one and print its sections."""
    board = argv[1] if len(argv) > 1 else "hifive_unleashed"
    if len(argv) not in (1, 2, 3) or not re.fullmatch("[0-9a-f]{64}", argv[0]) or board not in TARGETS:
        print(__doc__, file=sys.stderr)
        return 2
    t = TARGETS[board]
    try:
        elf = build(t, bytes.fromhex(argv[0]), Path(argv[2]) if len(argv) == 3 else ROOT / f"build/boot/{board}.elf")
        found = t.sections(elf)
        print("\n".join(f"{name:<12} {size:>6} B" for name, size in [*found.items(), ("all", sum(found.values()))]))
    except (BuildError, monocypher.FetchError) as no:
        print(f"FAIL {no}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
