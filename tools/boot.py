# SPDX-License-Identifier: Apache-2.0
"""Build the boot stage of a bare-metal board: ``python tools/boot.py ROOT [FILE]``.

ROOT is the hash that ``qsafp image keygen`` printed.  Prints the size.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import monocypher

ROOT = Path(__file__).resolve().parent.parent
BOARD = ROOT / "board_ports/hifive_unleashed"
CC = "riscv64-linux-gnu-gcc"
WARN = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wmissing-prototypes", "-Wundef", "-Werror"]
FLAGS = [
    "-march=rv64imac_zicsr_zifencei",
    "-mabi=lp64",
    "-mcmodel=medany",
    "-msmall-data-limit=0",
    "-Os",
    "-ffreestanding",
    "-fno-pic",
    "-fno-common",
]
FLAGS += ["-fno-tree-loop-distribute-patterns", "-ffunction-sections", "-fdata-sections", "-fno-asynchronous-unwind-tables"]
LINK = ["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments", "-Wl,--fatal-warnings"]
CORE = ("sha256", "sha256_select", "sha512", "keccak", "mldsa65", "ed25519_edge")


class BuildError(Exception):
    """A compiler said no; the message is what it said."""


def run(*words: str | Path) -> str:
    """Run a program from the root; raises BuildError with what it printed."""
    done = subprocess.run([str(w) for w in words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def includes() -> list[str]:
    """Folders of headers."""
    ours = ["cext/include", "cext/src", "cext/monitor", "cext/monitor/boot"]
    return [*(f"-I{f}" for f in ours), f"-I{BOARD}", "-isystem", "tools/freestanding", "-isystem", str(monocypher.fetch())]


def places() -> dict[str, int]:
    """The numbers of the board's map.h."""
    found = re.findall(r"^#define (\w+) (0x[0-9A-F]+|\d+)\b", (BOARD / "map.h").read_text(), re.M)
    return {name: int(value, 0) for name, value in found}


def sources() -> list[Path]:
    """What a boot stage is made of, beside the root key's hash."""
    core = [ROOT / f"cext/src/{name}.c" for name in CORE]
    boot = sorted((ROOT / "cext/monitor/boot").glob("*.c"))
    return [BOARD / "boot_start.S", BOARD / "boot_board.c", *boot, *core]


def build(root: bytes, elf: Path) -> Path:
    """Build a boot stage that takes images of one root key, named by its 32-byte hash; raises BuildError."""
    elf.parent.mkdir(parents=True, exist_ok=True)
    at = places()
    symbols = {"BOOT_AT": at["BOOT_BASE"], "BOOT_SIZE": at["BOOT_BYTES"], "TABLE_AT": at["BOOT_TABLE"]}
    link = [*LINK, *(f"-Wl,--defsym={k}={v:#x}" for k, v in symbols.items()), "-T", f"{BOARD}/boot.ld"]
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "root.c"
        key.write_text(f'#include "boot.h"\n\nconst uint8_t boot_root[32] = {{{", ".join(map(str, root))}}};\n')
        mem = Path(folder) / "mem.o"  # by itself: calls to it appear only after all else was optimised together
        run(CC, *FLAGS, *WARN, *includes(), "-c", ROOT / "cext/monitor/mem.c", "-o", mem)
        run(CC, *FLAGS, "-flto", *WARN, *includes(), *sources(), key, mem, *link, "-o", elf)
    return elf


def sections(elf: Path) -> dict[str, int]:
    """Bytes of each section that is loaded."""
    rows = [line.split() for line in run(CC.replace("gcc", "size"), "-A", elf).splitlines()[2:]]
    return {row[0]: int(row[1]) for row in rows if len(row) == 3 and int(row[1])}


def main(argv: list[str]) -> int:
    """Build one and print its sections."""
    if len(argv) not in (1, 2) or not re.fullmatch("[0-9a-f]{64}", argv[0]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        elf = build(bytes.fromhex(argv[0]), Path(argv[1]) if len(argv) == 2 else ROOT / "build/boot/hifive_unleashed.elf")
        found = sections(elf)
        print("\n".join(f"{name:<12} {size:>6} B" for name, size in [*found.items(), ("all", sum(found.values()))]))
    except (BuildError, monocypher.FetchError) as no:
        print(f"FAIL {no}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
