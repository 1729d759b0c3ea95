# SPDX-License-Identifier: Apache-2.0
"""Build the monitor of a board and a payload for it: ``python tools/monitor.py [BOARD]``; prints sizes.

Each monitor stands alone, with its own crypto and no boot stage; BOOTED boards get a second that a boot stage verifies.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from boot import BuildError, run

ROOT = Path(__file__).resolve().parent.parent
WARN = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wmissing-prototypes", "-Wundef", "-Werror"]
FLAGS = ["-Os", "-g", "-ffreestanding", "-fno-pic", "-fno-common", "-fno-builtin-memcpy", "-fno-tree-loop-distribute-patterns"]
FLAGS += ["-ffunction-sections", "-fdata-sections", "-fno-asynchronous-unwind-tables"]


@dataclass(frozen=True)
class Target:
    """A board: its architecture, its compiler, where code and RAM lie, and the file that drives its flash."""

    board: str
    arch: str
    cross: str
    flags: tuple[str, ...]
    code: int
    ram: int
    flash: str

    @property
    def out(self) -> Path:
        """Where what is built lies."""
        return ROOT / "build/monitor" / self.board


RV64 = ("-march=rv64imac_zicsr_zifencei", "-mabi=lp64", "-mcmodel=medany", "-msmall-data-limit=0")
A64 = ("-march=armv8-a", "-mgeneral-regs-only", "-mno-outline-atomics", "-fomit-frame-pointer")
TARGETS = {
    t.board: t
    for t in (
        Target("hifive_unleashed", "riscv64", "riscv64-linux-gnu-", RV64, 0x80000000, 0x80010000, "nor"),
        Target("virt_aarch64", "aarch64", "aarch64-linux-gnu-", A64, 0x0E000000, 0x0E200000, "cfi"),
    )
}
BOOTED = {"hifive_unleashed": (0x80008000, 0x8000)}  # MONITOR_BASE and MONITOR_BYTES of map.h
IN_BOOT_STAGE = {"sha256", "sha256_select", "sha256_armv8", "sha512", "keccak", "mldsa65", "ed25519_edge"}
FLASHES = {t.flash for t in TARGETS.values()}
CODE_BYTES, RAM_BYTES = 0x10000, 0x30000


def sources(t: Target, *, booted: bool = False) -> list[Path]:
    """What a monitor is made of."""
    core = [p for p in sorted((ROOT / "cext/src").glob("*.c")) if not booted or p.stem not in IN_BOOT_STAGE]
    others = {"boot_none" if booted else "boot_calls", *FLASHES - {t.flash}}
    own = sorted(p for p in (ROOT / "cext/monitor").glob("*.c") if p.stem not in others)
    arch = sorted((ROOT / "cext/monitor/arch" / t.arch).glob("*.[cS]"))
    board = [ROOT / "board_ports" / t.board / "monitor_board.c"]
    curve = [] if booted else [ROOT / "cext/monitor/boot/ed25519.c"]
    return [*arch, *core, *own, *board, *curve]


def monocypher_folder() -> str:
    """Where the curve arithmetic lies."""
    return run(sys.executable, "tools/monocypher.py").strip()


def includes(t: Target) -> list[str]:
    """Folders of headers."""
    ours = ["cext/include", "cext/src", "cext/monitor", "cext/monitor/boot", f"cext/monitor/arch/{t.arch}", f"board_ports/{t.board}"]
    return [
        *(f"-I{f}" for f in ours),
        "-Itests/monitor/payload",
        f"-Itests/monitor/payload/{t.arch}",
        "-isystem",
        "tools/freestanding",
        "-isystem",
        monocypher_folder(),
    ]


def compile_all(t: Target, files: list[Path], folder: Path, *flags: str) -> list[Path]:
    """Objects of the files, made anew where something is younger."""
    folder.mkdir(parents=True, exist_ok=True)
    newest = max(
        p.stat().st_mtime for d in ("cext", f"board_ports/{t.board}", "tests/monitor", "tools") for p in (ROOT / d).rglob("*.[hp]*")
    )
    objects = []
    extra = includes(t)
    for src in files:
        obj = folder / f"{src.parent.name}-{src.stem}.o"
        if not obj.exists() or obj.stat().st_mtime < max(newest, src.stat().st_mtime):
            begun = time.time()
            run(t.cross + "gcc", *t.flags, *FLAGS, *flags, *(WARN if src.suffix == ".c" else []), *extra, "-c", src, "-o", obj)
            os.utime(obj, (begun, begun))  # what was changed meanwhile is younger
        objects.append(obj)
    return objects


def link(t: Target, script: str | Path, elf: Path, objects: list[Path], *more: str) -> Path:
    """An ELF file, and beside it its bytes alone."""
    words = ["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments", *more]
    run(t.cross + "gcc", *t.flags, *FLAGS, *words, "-T", script, *objects, "-o", elf)
    run(t.cross + "objcopy", "-O", "binary", elf, elf.with_suffix(".bin"))
    return elf


def build_monitor(t: Target, *, booted: bool = False) -> Path:
    """The monitor as an ELF file that starts at the first byte of its memory."""
    files = sources(t, booted=booted)
    if booted:  # optimised as one, but for what calls appear to only then
        whole = [p for p in files if p.stem != "mem"]
        objects = [*compile_all(t, whole, t.out / "booted", "-flto"), *compile_all(t, [ROOT / "cext/monitor/mem.c"], t.out / "monitor")]
    else:
        objects = compile_all(t, files, t.out / "monitor")
    code, size = BOOTED[t.board] if booted else (t.code, CODE_BYTES)
    places = {"CODE_BASE": code, "CODE_BYTES": size, "RAM_AT": t.ram, "RAM_SIZE": RAM_BYTES}
    more = ["-Wl,--gc-sections", *(f"-Wl,--defsym={k}={v:#x}" for k, v in places.items())]
    return link(t, f"board_ports/{t.board}/monitor.ld", t.out / ("booted.elf" if booted else "monitor.elf"), objects, *more)


def build_payload(t: Target) -> Path:
    """The payload of the tests, as the bytes that lie at PAYLOAD_BASE."""
    common = ROOT / "tests/monitor/payload"
    files = [*sorted(common.glob("*.c")), *sorted((common / t.arch).glob("*.[cS]")), ROOT / "cext/monitor/mem.c"]
    return link(t, common / t.arch / "payload.ld", t.out / "payload.elf", compile_all(t, files, t.out / "payload"))


def main(argv: list[str]) -> int:
    """Build both of each board that is named, or of all, and print the monitor's sections."""
    if unknown := set(argv) - set(TARGETS):
        print(f"no such board: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
        return 2
    try:
        for t in [TARGETS[name] for name in argv or TARGETS]:
            build_payload(t)
            for booted in (False, *([True] if t.board in BOOTED else [])):
                print(run(t.cross + "size", "-A", build_monitor(t, booted=booted)))
    except BuildError as no:
        print(no)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
