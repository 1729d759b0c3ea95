# SPDX-License-Identifier: Apache-2.0
"""QEMU's virt machine with a secure world and our monitor at EL3."""

from __future__ import annotations

import re
from collections.abc import Mapping

from unleashed import Board

FLASH_BYTES, BLOCK, USED_BLOCKS = 64 << 20, 256 << 10, 80
FUSES, ENTROPY, SET, PAYLOAD, ORDERS = 0x40000, 0x40800, 0x41000, 0x40400000, 0x407FF000


class VirtAarch64(Board):
    """The board: both of its cores are the payload's, and the monitor's whenever it wants them."""

    name = "virt_aarch64"
    emulator = "qemu-system-aarch64"
    cross = "aarch64-linux-gnu-"
    processor = "cortex-a53"
    pin_numbers: Mapping[str, int] = {"LEASE_VALID": 2, "FAILSAFE": 3, "VALIDATOR_REQ": 4}
    orders_at = ORDERS
    own_cores = 0
    code = range(0x0E1F0000, 0x0E200000)

    def _flash(self) -> None:
        path, image = self.folder / "flash.bin", (self.out / "monitor.bin").read_bytes()
        if not path.exists():
            path.write_bytes(b"\xff" * (USED_BLOCKS * BLOCK))
        with path.open("r+b") as flash:
            for at, data in ((0, image), (FUSES, self.device.fuses()), (ENTROPY, self._entropy), (SET, self.device.document)):
                flash.seek(at)
                flash.write(data)
            flash.truncate(FLASH_BYTES)

    def _words(self) -> list[str]:
        self._flash()
        words = [self.emulator, "-M", "virt,secure=on,gic-version=2,acpi=off", "-cpu", self.processor, "-smp", "2", "-m", "128"]
        words += ["-display", "none", "-net", "none", "-no-reboot"]
        words += ["-drive", f"if=pflash,unit=0,format=raw,file={self.folder / 'flash.bin'}"]
        words += self._blob("payload.bin", (self.out / "payload.bin").read_bytes(), PAYLOAD)
        words += self._blob("orders.bin", self._orders(), ORDERS)
        words += ["-serial", "null", *self._line(), *self._channels()]
        return [*words, *self._qemu]

    def pin_device(self) -> str:
        """The second of two, which QEMU makes after the payload's."""
        return self.qmp.find("pl061")[1]

    def counters(self) -> list[int]:
        """Where each core is."""
        return [int(pc, 16) for pc in re.findall(r"(?:PC|R15)=([0-9a-f]+)", self.hmp("info registers -a"))]
