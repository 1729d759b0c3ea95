# SPDX-License-Identifier: Apache-2.0
"""A boot stage on an emulated board: build it, fill its flash and fuses, switch it on, hear what it says, see its pins."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import boot as tool
from firmware import TARGETS, WARN, Target
from unleashed import die_with_parent, finish

from qsafp_embedded import _tables
from qsafp_embedded._tables import ImageKind
from qsafp_embedded.image import Image, RootKey

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
LIMIT_S = 120.0  # on a host that is busy; the board itself takes a second
MONITOR, PAYLOAD = ImageKind.MONITOR, ImageKind.PAYLOAD


def build_handover(t: Target, folder: Path) -> bytes:
    """The program that stands in the monitor's place and says what it was handed."""
    own = HERE / "handover"
    sources = [own / t.arch / "start.S", own / "handover.c", ROOT / "cext/monitor/mem.c"]
    at = {"MONITOR_AT": t.map["MONITOR_BASE"]}
    elf = t.link(own / "handover.ld", folder / "handover.elf", sources, at, *WARN, *(f"-I{own / arch}" for arch in t.archs))
    return elf.with_suffix(".bin").read_bytes()


@dataclass
class Factory:
    """For one board: a root key, the boot stage that knows it, and a program to sign as monitor."""

    target: Target
    folder: Path
    key: RootKey = field(default_factory=lambda: RootKey.from_secret(os.urandom(32)))
    program: bytes = b""  # default: one that says what it was handed

    def __post_init__(self) -> None:
        """Build all of it."""
        self.at = self.target.map
        self.elf = tool.build(self.target, self.key.hash, self.folder / "boot.elf")
        self.program = self.program or build_handover(self.target, self.folder)

    def monitor(self, version: int = 1, **more: object) -> bytes:
        """A monitor image."""
        return self.sign(self.program, kind=MONITOR, load=self.at["MONITOR_BASE"], security_version=version, **more)

    def payload(self, version: int = 1, body: bytes = b"payload", **more: object) -> bytes:
        """A payload image; one that begins with R makes the program raise the counters."""
        return self.sign(body, kind=PAYLOAD, load=self.at["PAYLOAD_BASE"], security_version=version, **more)

    def sign(self, body: bytes, **fields: object) -> bytes:
        """Any image."""
        given = {"key": self.key, "board": _tables.Board[self.target.board.upper()], **fields}
        return Image.sign(body, **given).encode()  # type: ignore[arg-type]


@dataclass
class Said:
    """What a board said from reset until it halted or reset itself, and the levels that each pin was driven to, in order."""

    lines: list[str]
    levels: Callable[[int], list[int]]
    pins: dict[str, int]

    @property
    def halted(self) -> bool:
        """Whether it stopped for ever."""
        return bool(self.lines) and self.lines[-1].endswith("; halted")

    def level(self, pin: str) -> list[int]:
        """The levels that a pin was driven to, from the first time that it was driven."""
        levels = self.levels(self.pins[f"PIN_{pin}"])
        return [level for i, level in enumerate(levels) if not i or level != levels[i - 1]]

    def value(self, name: str, after: str = "") -> str:
        """The first ``name=value`` behind the line that begins with ``after``."""
        start = next(i for i, line in enumerate(self.lines) if line.startswith(after))
        return next(line.partition("=")[2] for line in self.lines[start:] if line.partition("=")[0] == name)


class Device:
    """One board: flash and counters that outlive a reset."""

    name: str
    slots_at: int  # where the flash that ``flash`` holds begins
    slot_step: tuple[int, int, int]  # between monitors, to the first payload, between payloads
    counter_at: tuple[int, int]  # bytes of the monitors' and the payloads' bits in ``counters``
    trace: str

    def __init__(self, factory: Factory, folder: Path) -> None:
        """A board whose flash is erased and whose counters are 0."""
        self.factory, self.folder = factory, folder
        self.flash, self.counters = bytearray(b"\xff" * 0xE00000), folder / "counters.bin"

    @classmethod
    def slot_of(cls, kind: ImageKind, n: int) -> int:
        """Offset of a slot in ``flash``, as map.h computes it."""
        monitors, payloads, between = cls.slot_step
        return monitors * n if kind == MONITOR else payloads + between * n

    def put(self, kind: ImageKind, n: int, image: bytes) -> None:
        """Write an image into a slot."""
        at = self.slot_of(kind, n)
        self.flash[at : at + len(image)] = image

    def blow(self, kind: ImageKind, bits: int) -> None:
        """Program bits of a counter: each set bit of ``bits``, lowest first."""
        with self.counters.open("r+b") as file:
            file.seek(self.counter_at[kind == PAYLOAD])
            file.write((~bits & (2**256 - 1)).to_bytes(32, "little"))

    def blown(self, kind: ImageKind) -> int:
        """How many bits of a counter are programmed."""
        raw = self.counters.read_bytes()[self.counter_at[kind == PAYLOAD] :][:32]
        return sum(8 - byte.bit_count() for byte in raw)

    def words(self) -> list[str]:
        """The command that starts it."""
        raise NotImplementedError

    def media(self) -> list[str]:
        """What holds flash and counters, where they are not one file: words of that command."""
        return []

    def levels(self, log: str, pin: int) -> list[int]:
        """What ``pin`` was driven to, as QEMU's trace tells."""
        raise NotImplementedError

    def boot(self) -> Said:
        """Switch on; return once it halted or reset itself.  Fails if it does neither."""
        log = self.folder / "qemu.log"
        words = [*self.words(), "-d", f"trace:{self.trace}", "-D", str(log)]
        qemu = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent
        )
        late = threading.Timer(LIMIT_S, qemu.kill)
        late.start()
        lines: list[str] = []
        try:
            assert qemu.stdout is not None
            for raw in qemu.stdout:
                lines.append(raw.decode(errors="replace").rstrip())
                if lines[-1].endswith("; halted"):
                    break
            assert late.is_alive(), f"neither halted nor reset: {lines}"
        finally:
            late.cancel()
            finish(qemu, LIMIT_S)  # it writes its trace
            if qemu.stdout:
                qemu.stdout.close()
        text = log.read_text(errors="replace")
        return Said(lines, lambda pin: self.levels(text, pin), self.factory.at)


class Unleashed(Device):
    """The HiFive Unleashed: mapped flash, fuses in a file of their own."""

    name = "hifive_unleashed"
    slots_at = 0x20000000
    slot_step = 0x10000, 0x100000, 0x500000
    counter_at = 4 * 0x100, 4 * 0x108
    trace = "sifive_gpio_write"

    def __init__(self, factory: Factory, folder: Path) -> None:
        super().__init__(factory, folder)
        if not self.counters.exists():
            self.counters.write_bytes(b"\xff" * 0x4000)

    def words(self) -> list[str]:
        words = ["qemu-system-riscv64", "-M", "sifive_u", "-smp", "3", "-m", "128", "-display", "none", "-serial", "stdio"]
        words += ["-monitor", "none", "-net", "none", "-bios", "none", "-no-reboot", "-kernel", str(self.factory.elf)]
        return [*words, *self.media()]

    def media(self) -> list[str]:
        flash = self.folder / "slots.bin"
        flash.write_bytes(bytes(self.flash).rstrip(b"\xff") + b"\xff")
        words = ["-device", f"loader,file={flash},addr={self.slots_at:#x},force-raw=on"]
        return [*words, "-drive", f"if=pflash,format=raw,file={self.counters}"]

    def levels(self, log: str, pin: int) -> list[int]:
        enabled = value = 0
        out = []
        for at, word in re.findall(r"sifive_gpio_write offset 0x([0-9a-f]+) value 0x([0-9a-f]+)", log):
            enabled = int(word, 16) if int(at, 16) == 0x08 else enabled
            value = int(word, 16) if int(at, 16) == 0x0C else value
            out += [value >> pin & 1] if enabled >> pin & 1 else []
        return out


class Virt(Device):
    """QEMU's virt machine: boot stage, counters and slots in one flash."""

    name, emulator, processor = "virt_aarch64", "aarch64", "cortex-a53"
    slots_at = 0x2000000
    slot_step = 0x40000, 0x400000, 0x500000
    counter_at = 0x1FC0000, 0x1FC0020
    trace = "pl061_write"

    def __init__(self, factory: Factory, folder: Path) -> None:
        super().__init__(factory, folder)
        self.counters = folder / "flash.bin"
        if not self.counters.exists():
            self._make()

    def _make(self) -> None:
        """A flash as it is bought, as far as anything reads it before it is written."""
        with self.counters.open("wb") as flash:
            flash.write(b"\xff" * 0x1400000)  # boot stage, fuses, state, ring
            flash.seek(self.counter_at[0])
            flash.write(b"\xff" * 0x40000)
            flash.truncate(64 << 20)

    def fill(self) -> None:
        """Put boot stage and images where they belong."""
        with self.counters.open("r+b") as flash:
            flash.write(self.factory.elf.with_suffix(".bin").read_bytes())
            flash.seek(self.slots_at)
            flash.write(self.flash)

    def words(self) -> list[str]:
        self.fill()
        words = [f"qemu-system-{self.emulator}", "-M", "virt,secure=on,gic-version=2,acpi=off", "-cpu", self.processor]
        words += ["-smp", "2", "-m", "128", "-display", "none", "-monitor", "none", "-net", "none", "-no-reboot"]
        words += ["-serial", "null", "-serial", "stdio"]
        return [*words, "-drive", f"if=pflash,unit=0,format=raw,file={self.counters}"]

    def levels(self, log: str, pin: int) -> list[int]:
        enabled = value = 0
        out = []
        for at, word in re.findall(r"pl061_write \S+ offset (?:0x)?([0-9a-f]+) \S* ?(?:data |value )?(?:0x)?([0-9a-f]+)", log):
            mask = int(at, 16) >> 2
            if mask == 0x100:
                enabled = int(word, 16)
            elif mask < 0x100:
                value = (value & ~mask) | (int(word, 16) & mask)
            out += [value >> pin & 1] if enabled >> pin & 1 else []
        return out


class VirtArmv7(Virt):
    """The same with another processor."""

    name, emulator, processor = "virt_armv7", "arm", "cortex-a15"


DEVICES: dict[str, type[Device]] = {device.name: device for device in (Unleashed, Virt, VirtArmv7)}


def target_of(device: type[Device]) -> Target:
    """The board that a device is one of."""
    return TARGETS[device.name]
