# SPDX-License-Identifier: Apache-2.0
"""The bare-metal boards, and how anything is compiled for one: what tools/boot.py and tools/monitor.py share."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import monocypher

ROOT = Path(__file__).resolve().parent.parent
WARN = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wmissing-prototypes", "-Wundef", "-Werror"]
FLAGS = ["-Os", "-ffreestanding", "-fno-pic", "-fno-common", "-fno-builtin-memcpy", "-fno-tree-loop-distribute-patterns"]
FLAGS += ["-ffunction-sections", "-fdata-sections", "-fno-asynchronous-unwind-tables"]
LINK = ["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments", "-Wl,--fatal-warnings"]


class BuildError(Exception):
    """A compiler said no; the message is what it said."""


def run(*words: str | Path) -> str:
    """Run a program from the root; raises BuildError with what it printed."""
    done = subprocess.run([str(w) for w in words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass(frozen=True)
class Target:
    """A board: its architecture, its compiler, the file that drives its flash.  Where things lie is in its map.h."""

    board: str
    arch: str
    cross: str
    flags: tuple[str, ...]
    flash: str
    family: str = ""  # folder of what architectures share
    machine: str = ""  # folder of what boards share
    library: tuple[str, ...] = ()  # what the compiler calls for what the processor lacks

    @property
    def out(self) -> Path:
        """Where what is built lies."""
        return ROOT / "build/monitor" / self.board

    @property
    def archs(self) -> list[str]:
        """Folders of the architecture."""
        return [name for name in (self.arch, self.family) if name]

    @property
    def ports(self) -> list[Path]:
        """Folders of the board's files, its own first."""
        return [ROOT / "board_ports" / name for name in (self.board, self.machine) if name]

    def port(self, name: str) -> Path:
        """A file of the board."""
        return next((p / name for p in self.ports if (p / name).exists()), self.ports[0] / name)

    @property
    def reset(self) -> list[Path]:
        """What architectures run first: in the boot stage, or in a monitor that stands alone."""
        return sorted(p for a in self.archs for p in (ROOT / "cext/monitor/arch" / a / "reset").glob("*.[cS]"))

    @property
    def boots(self) -> bool:
        """Whether there is a boot stage for it."""
        return self.port("boot_start.S").exists() or any(p.stem == "booted" for p in self.reset)

    @property
    def map(self) -> dict[str, int]:
        """The numbers of the board's map.h and of what it shares."""
        texts = [path.read_text() for name in ("map.h", "virt.h") if (path := self.port(name)).exists()]
        found = re.findall(r"^#define (\w+) (0x[0-9A-F]+|\d+)\b", "".join(texts), re.M)
        return {name: int(value, 0) for name, value in found}

    @property
    def includes(self) -> list[str]:
        """Folders of headers."""
        ours = [
            "cext/include",
            "cext/src",
            "cext/monitor",
            "cext/monitor/boot",
            *(f"cext/monitor/arch/{arch}" for arch in self.archs),
            *self.ports,
        ]
        return [*(f"-I{f}" for f in ours), "-isystem", "tools/freestanding", "-isystem", str(monocypher.fetch())]

    @property
    def words(self) -> list[str | Path]:
        """The compiler's command, headers included."""
        return [self.cross + "gcc", *self.flags, *FLAGS, *self.includes]

    def link(self, script: str | Path, elf: Path, objects: list[Path], symbols: dict[str, int] | None = None, *more: str) -> Path:
        """An ELF file, and beside it its bytes alone."""
        places = [f"-Wl,--defsym={name}={value:#x}" for name, value in (symbols or {}).items()]
        run(*self.words, *more, *objects, *LINK, *places, "-T", script, *self.library, "-o", elf)
        run(self.cross + "objcopy", "-O", "binary", elf, elf.with_suffix(".bin"))
        return elf

    def sections(self, elf: Path) -> dict[str, int]:
        """Bytes of each section that takes memory."""
        rows = [line.split() for line in run(self.cross + "size", "-A", elf).splitlines()[2:]]
        return {row[0]: int(row[1]) for row in rows if len(row) == 3 and int(row[1]) and not row[0].startswith(".debug")}


RV64 = ("-march=rv64imac_zicsr_zifencei", "-mabi=lp64", "-mcmodel=medany", "-msmall-data-limit=0")
A64 = ("-march=armv8-a", "-mgeneral-regs-only", "-mno-outline-atomics", "-fomit-frame-pointer")
A64_SMALL = (  # by trial
    *("-mcmodel=tiny", "-fmerge-all-constants", "-fno-guess-branch-probability", "-fno-shrink-wrap", "-fno-move-loop-invariants"),
    *("-fno-tree-loop-im", "-fno-thread-jumps", "-fno-tree-tail-merge", "-fno-tree-sra", "-fno-ipa-sra", "-fno-caller-saves"),
    "-fno-tree-dominator-opts",
)
T32 = ("-march=armv7ve", "-mthumb", "-mfloat-abi=soft", "-fomit-frame-pointer")
TARGETS = {
    t.board: t
    for t in (
        Target("hifive_unleashed", "riscv64", "riscv64-linux-gnu-", RV64, "nor"),
        Target("virt_aarch64", "aarch64", "aarch64-linux-gnu-", (*A64, *A64_SMALL), "cfi", "arm", "virt_arm"),
        Target("virt_armv7", "armv7", "arm-none-eabi-", T32, "cfi", "arm", "virt_arm", ("-lgcc",)),
    )
}
