# SPDX-License-Identifier: Apache-2.0
"""A boot stage on an emulated board: build it, fill its flash and fuses, switch it on, hear what it says, see its pins."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

import boot as tool
import firmware
from unleashed import die_with_parent

from qsafp_embedded._tables import Board, ImageKind
from qsafp_embedded.image import Image, RootKey

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
QEMU = "qemu-system-riscv64"
LIMIT_S = 120.0  # on a host that is busy; the board itself takes a second
TARGET = firmware.TARGETS["hifive_unleashed"]
AT = TARGET.map
FLASH_BYTES, OTP_BYTES = 0xC00000, 0x4000
OTP_WORD = {ImageKind.MONITOR: 0x100, ImageKind.PAYLOAD: 0x108}
LEASE_VALID, FAILSAFE = AT["PIN_LEASE_VALID"], AT["PIN_FAILSAFE"]
OUTPUT_EN, OUTPUT_VAL = 0x08, 0x0C


def slot_of(kind: ImageKind, n: int) -> int:
    """Offset of a slot in flash, as map.h computes it."""
    return 0x10000 * n if kind == ImageKind.MONITOR else 0x100000 + 0x500000 * n


def build_handover(folder: Path) -> bytes:
    """The program that stands in the monitor's place and says what it was handed."""
    sources = [HERE / "handover/start.S", HERE / "handover/handover.c", ROOT / "cext/monitor/mem.c"]
    elf = TARGET.link(HERE / "handover/handover.ld", folder / "handover.elf", sources, None, *firmware.WARN)
    return elf.with_suffix(".bin").read_bytes()


@dataclass
class Factory:
    """A root key, the boot stage that knows it, and a program to sign as monitor."""

    folder: Path
    key: RootKey = field(default_factory=lambda: RootKey.from_secret(os.urandom(32)))
    program: bytes = b""  # default: one that says what it was handed

    def __post_init__(self) -> None:
        """Build all of it."""
        self.elf = tool.build(TARGET, self.key.hash, self.folder / "boot.elf")
        self.program = self.program or build_handover(self.folder)

    def monitor(self, version: int = 1, **more: object) -> bytes:
        """A monitor image."""
        return self.sign(self.program, kind=ImageKind.MONITOR, load=AT["MONITOR_BASE"], security_version=version, **more)

    def payload(self, version: int = 1, body: bytes = b"payload", **more: object) -> bytes:
        """A payload image; one that begins with R makes the program raise the counters."""
        return self.sign(body, kind=ImageKind.PAYLOAD, load=AT["PAYLOAD_BASE"], security_version=version, **more)

    def sign(self, body: bytes, **fields: object) -> bytes:
        """Any image."""
        given = {"key": self.key, "board": Board.HIFIVE_UNLEASHED, **fields}
        return Image.sign(body, **given).encode()  # type: ignore[arg-type]


@dataclass
class Said:
    """What a board said from reset until it halted or reset itself, and what was written to its GPIO: offset, word."""

    lines: list[str]
    writes: list[tuple[int, int]]

    @property
    def halted(self) -> bool:
        """Whether it stopped for ever."""
        return bool(self.lines) and self.lines[-1].endswith("; halted")

    def level(self, pin: int) -> list[int]:
        """The levels that a pin was driven to, from the first time that it was driven."""
        enabled = value = 0
        levels: list[int] = []
        for at, word in self.writes:
            enabled, value = (word, value) if at == OUTPUT_EN else (enabled, word) if at == OUTPUT_VAL else (enabled, value)
            level = value >> pin & 1
            if enabled >> pin & 1 and levels[-1:] != [level]:
                levels.append(level)
        return levels

    def value(self, name: str, after: str = "") -> str:
        """The first ``name=value`` behind the line that begins with ``after``."""
        start = next(i for i, line in enumerate(self.lines) if line.startswith(after))
        return next(line.partition("=")[2] for line in self.lines[start:] if line.partition("=")[0] == name)


class Device:
    """One board: flash and fuses that outlive a reset."""

    def __init__(self, factory: Factory, folder: Path) -> None:
        """A board whose flash is erased and whose fuses are whole."""
        self.factory, self.folder = factory, folder
        self.flash, self.otp = bytearray(b"\xff" * FLASH_BYTES), folder / "otp.bin"
        self.otp.write_bytes(b"\xff" * OTP_BYTES)

    def put(self, kind: ImageKind, n: int, image: bytes) -> None:
        """Write an image into a slot."""
        at = slot_of(kind, n)
        self.flash[at : at + len(image)] = image

    def blow(self, kind: ImageKind, bits: int) -> None:
        """Program fuses of a counter: each set bit of ``bits``, lowest first."""
        raw, at = bytearray(self.otp.read_bytes()), 4 * OTP_WORD[kind]
        raw[at : at + 32] = (~bits & (2**256 - 1)).to_bytes(32, "little")
        self.otp.write_bytes(raw)

    def words(self) -> list[str]:
        """The command that starts it."""
        flash, log = self.folder / "flash.bin", self.folder / "qemu.log"
        flash.write_bytes(bytes(self.flash).rstrip(b"\xff") + b"\xff")
        words = [
            QEMU,
            "-M",
            "sifive_u",
            "-smp",
            "3",
            "-m",
            "128",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-monitor",
            "none",
            "-net",
            "none",
        ]
        words += ["-bios", "none", "-no-reboot", "-kernel", str(self.factory.elf)]
        words += ["-device", f"loader,file={flash},addr={AT['FLASH_BASE']:#x},force-raw=on"]
        words += ["-drive", f"if=pflash,format=raw,file={self.otp}"]
        return [*words, "-d", "trace:sifive_gpio_write", "-D", str(log)]

    def boot(self) -> Said:
        """Switch on; return once it halted or reset itself.  Fails if it does neither."""
        qemu = subprocess.Popen(
            self.words(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent
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
            qemu.terminate()  # it writes its trace
            with contextlib.suppress(subprocess.TimeoutExpired):
                qemu.wait(LIMIT_S)
            qemu.kill()
            qemu.wait()
            if qemu.stdout:
                qemu.stdout.close()
        text = (self.folder / "qemu.log").read_text(errors="replace")
        writes = re.findall(r"sifive_gpio_write offset 0x([0-9a-f]+) value 0x([0-9a-f]+)", text)
        return Said(lines, [(int(at, 16), int(value, 16)) for at, value in writes])
