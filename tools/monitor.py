# SPDX-License-Identifier: Apache-2.0
"""Build the monitor of a board and a payload for it: ``python tools/monitor.py [BOARD]``; prints sizes.

Each monitor stands alone, with its own crypto and no boot stage; boards that have a boot stage get a second monitor that it verifies.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import monocypher
from firmware import ROOT, TARGETS, WARN, BuildError, Target, run

IN_BOOT_STAGE = {"sha256", "sha256_select", "sha256_armv8", "sha512", "keccak", "mldsa65", "ed25519_edge"}
FLASHES = {t.flash for t in TARGETS.values()}


def sources(t: Target, *, booted: bool = False) -> list[Path]:
    """What a monitor is made of."""
    core = [p for p in sorted((ROOT / "cext/src").glob("*.c")) if not booted or p.stem not in IN_BOOT_STAGE]
    others = {"boot_none" if booted else "boot_calls", *FLASHES - {t.flash}}
    own = sorted(p for p in (ROOT / "cext/monitor").glob("*.c") if not p.stem.startswith(tuple(others)))
    arch = sorted(p for a in t.archs for p in (ROOT / "cext/monitor/arch" / a).glob("*.[cS]"))
    alone = [] if booted else [ROOT / "cext/monitor/boot/ed25519.c", *(p for p in t.reset if p.stem != "booted")]
    if alone and t.family:
        alone.append(t.port("boot_board.c"))
    return [*arch, *core, *own, t.port("monitor_board.c"), *alone]


def compile_all(t: Target, files: list[Path], folder: Path, *flags: str) -> list[Path]:
    """Objects of the files, made anew where something is younger."""
    folder.mkdir(parents=True, exist_ok=True)
    folders = [*t.ports, *(ROOT / name for name in ("cext", "tests/monitor", "tools"))]
    newest = max(p.stat().st_mtime for f in folders for p in f.rglob("*.[hp]*"))
    objects = []
    tests = [f"-Itests/monitor/payload/{folder}" for folder in ("", *t.archs)]
    for src in files:
        obj = folder / f"{src.parent.name}-{src.stem}.o"
        if not obj.exists() or obj.stat().st_mtime < max(newest, src.stat().st_mtime):
            begun = time.time()
            run(*t.words, *tests, "-g", *flags, *(WARN if src.suffix == ".c" else []), "-c", src, "-o", obj)
            os.utime(obj, (begun, begun))  # what was changed meanwhile is younger
        objects.append(obj)
    return objects


def build_monitor(t: Target, *, booted: bool = False) -> Path:
    """The monitor as an ELF file that starts at the first byte of its memory: the boot stage's and its own if it stands alone."""
    files, at = sources(t, booted=booted), t.map
    if booted:  # optimised as one, but for what calls appear to only then
        whole = [p for p in files if p.stem != "mem"]
        objects = [*compile_all(t, whole, t.out / "booted", "-flto"), *compile_all(t, [ROOT / "cext/monitor/mem.c"], t.out / "monitor")]
    else:
        objects = compile_all(t, files, t.out / "monitor")
    base, size = at["MONITOR_BASE"], at["MONITOR_BYTES"]
    if not booted:
        base, size = at["BOOT_BASE"], at["BOOT_BYTES"] + size
    places = {"CODE_BASE": base, "CODE_BYTES": size, "RAM_AT": at["MONITOR_RAM"], "RAM_SIZE": at["MONITOR_RAM_BYTES"]}
    return t.link(t.port("monitor.ld"), t.out / ("booted.elf" if booted else "monitor.elf"), objects, places)


def build_payload(t: Target) -> Path:
    """The payload of the tests, as the bytes that lie at PAYLOAD_BASE."""
    common = ROOT / "tests/monitor/payload"
    folders = [common / arch for arch in t.archs]
    files = [*sorted(p for f in (common, *folders) for p in f.glob("*.[cS]")), ROOT / "cext/monitor/mem.c"]
    return t.link(folders[-1] / "payload.ld", t.out / "payload.elf", compile_all(t, files, t.out / "payload"))


def main(argv: list[str]) -> int:
    """Build both of each board that is named, or of all, and print the monitor's sections."""
    if unknown := set(argv) - set(TARGETS):
        print(f"no such board: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
        return 2
    try:
        for t in [TARGETS[name] for name in argv or TARGETS]:
            build_payload(t)
            for booted in (False, True) if t.boots else (False,):
                elf = build_monitor(t, booted=booted)
                print(elf.relative_to(ROOT), *(f"{name} {size}" for name, size in t.sections(elf).items()), sep="\n")
    except (BuildError, monocypher.FetchError) as no:
        print(no)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
