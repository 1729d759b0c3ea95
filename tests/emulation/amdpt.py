# SPDX-License-Identifier: Apache-2.0
"""The registers of AMD's Promontory GPIO unit, in memory that QEMU shares with the host, and the ACPI table that tells Linux of them.

QEMU has no such unit.  Its driver in Debian's kernel (gpio-amdpt) finds it by ACPI and writes plain registers, which the host sees.
"""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ["BASE", "DIRECTION", "INPUT", "OUTPUT", "power_on", "registers", "table"]

BASE = 1 << 32  # of QEMU's device memory; outside.py compares
SIZE = 4096
DIRECTION, INPUT, OUTPUT = 0x00, 0x04, 0x08  # linux: drivers/gpio/gpio-amdpt.c


def _sized(op: bytes, body: bytes) -> bytes:
    """An AML object whose length follows its opcode (ACPI 6.4, 20.2.4)."""
    n = len(body) + 1
    length = bytes([n]) if n < 64 else struct.pack("<BB", 0x40 | (n + 1) & 15, n + 1 >> 4)
    return op + length + body


def table() -> bytes:
    """An SSDT with one device: hardware id AMDF030, registers at ``BASE``."""
    place = struct.pack("<BHBBB5Q", 0x8A, 43, 0, 0x0D, 1, 0, BASE, BASE + SIZE - 1, 0, SIZE)  # QWordMemory: fixed, read and write
    resources = place + b"\x79\0"
    crs = b"\x08_CRS" + _sized(b"\x11", bytes([0x0A, len(resources)]) + resources)
    device = _sized(b"\x5b\x82", b"GPT0" + b"\x08_HID\x0dAMDF030\0" + crs)
    body = _sized(b"\x10", b"\\_SB_" + device)
    head = struct.pack("<4sIBB6s8sI4sI", b"SSDT", 36 + len(body), 2, 0, b"QSAFP ", b"GPIO    ", 1, b"QSFP", 1)
    whole = bytearray(head + body)
    whole[9] = -sum(whole) & 0xFF
    return bytes(whole)


def registers(out: Path) -> Path:
    """The file that is the unit's registers."""
    return out / "gpio.bin"


def power_on(out: Path) -> None:
    """All registers zero: every line is an input."""
    registers(out).write_bytes(bytes(2 << 20))  # of a memory module's least size
    (out / "gpio.aml").write_bytes(table())
