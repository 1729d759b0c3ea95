# SPDX-License-Identifier: Apache-2.0
"""Build the monitor of a board and a payload for it: ``python tools/monitor.py``; prints sizes.

This monitor stands alone: it holds its own crypto and is started without a boot stage.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build/monitor/hifive_unleashed"
CROSS = "riscv64-linux-gnu-"
WARN = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wmissing-prototypes", "-Wundef", "-Werror"]
FLAGS = [
    "-march=rv64imac_zicsr_zifencei",
    "-mabi=lp64",
    "-mcmodel=medany",
    "-Os",
    "-g",
    "-ffreestanding",
    "-fno-pic",
    "-fno-common",
    "-fno-builtin-memcpy",
]
FLAGS += [
    "-fno-tree-loop-distribute-patterns",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-asynchronous-unwind-tables",
    "-msmall-data-limit=0",
]
CODE, CODE_BYTES, RAM, RAM_BYTES = 0x80000000, 0x10000, 0x80010000, 0x30000


class BuildError(Exception):
    """A compiler said no; the message is what it said."""


def run(*words: str | Path) -> str:
    """Run a program from the root; raises BuildError with what it printed."""
    done = subprocess.run([str(w) for w in words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def sources() -> list[Path]:
    """What a monitor is made of."""
    core = sorted((ROOT / "cext/src").glob("*.c"))
    own = sorted(p for p in (ROOT / "cext/monitor").glob("*.c") if p.stem != "boot_calls")
    arch = sorted([*(ROOT / "cext/monitor/arch/riscv64").glob("*.[cS]")])
    board = [ROOT / "board_ports/hifive_unleashed/monitor_board.c"]
    return [*arch, *core, *own, *board, ROOT / "cext/monitor/boot/ed25519.c"]


def monocypher_folder() -> str:
    """Where the curve arithmetic lies."""
    return run(sys.executable, "tools/monocypher.py").strip()


def includes() -> list[str]:
    """Folders of headers."""
    ours = ["cext/include", "cext/src", "cext/monitor", "cext/monitor/boot", "cext/monitor/arch/riscv64", "board_ports/hifive_unleashed"]
    return [*(f"-I{f}" for f in ours), "-isystem", "tools/freestanding", "-isystem", monocypher_folder()]


def compile_all(files: list[Path], folder: Path, extra: list[str]) -> list[Path]:
    """Objects of the files, made anew where something is younger."""
    folder.mkdir(parents=True, exist_ok=True)
    newest = max(
        p.stat().st_mtime for d in ("cext", "board_ports/hifive_unleashed", "tests/monitor", "tools") for p in (ROOT / d).rglob("*.[hp]*")
    )
    objects = []
    for src in files:
        obj = folder / f"{src.parent.name}-{src.stem}.o"
        if not obj.exists() or obj.stat().st_mtime < max(newest, src.stat().st_mtime):
            run(CROSS + "gcc", *FLAGS, *(WARN if src.suffix == ".c" else []), *extra, "-c", src, "-o", obj)
        objects.append(obj)
    return objects


def build_monitor() -> Path:
    """The monitor as an ELF file that starts at the first byte of memory."""
    objects = compile_all(sources(), OUT / "monitor", includes())
    elf = OUT / "monitor.elf"
    places = {"CODE_BASE": CODE, "CODE_BYTES": CODE_BYTES, "RAM_AT": RAM, "RAM_SIZE": RAM_BYTES}
    link = ["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments"]
    link += [f"-Wl,--defsym={k}={v:#x}" for k, v in places.items()]
    run(CROSS + "gcc", *FLAGS, *link, "-T", "board_ports/hifive_unleashed/monitor.ld", *objects, "-o", elf)
    return elf


def build_payload() -> Path:
    """The payload of the tests, as the bytes that lie at PAYLOAD_BASE."""
    files = [*sorted((ROOT / "tests/monitor/payload").glob("*.[cS]")), ROOT / "cext/monitor/mem.c"]
    objects = compile_all(files, OUT / "payload", includes())
    elf = OUT / "payload.elf"
    link = ["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments"]
    run(CROSS + "gcc", *FLAGS, *link, "-T", "tests/monitor/payload/payload.ld", *objects, "-o", elf)
    run(CROSS + "objcopy", "-O", "binary", elf, elf.with_suffix(".bin"))
    return elf


def main() -> int:
    """Build both and print the monitor's sections."""
    try:
        elf = build_monitor()
        build_payload()
    except BuildError as no:
        print(no)
        return 1
    print(run(CROSS + "size", "-A", elf))
    return 0


if __name__ == "__main__":
    sys.exit(main())
