# SPDX-License-Identifier: Apache-2.0
"""Emulated boards as they are shipped: a boot stage, and signed images in their flash."""

from __future__ import annotations

from pathlib import Path

import boot_kit
from boot_kit import MONITOR, PAYLOAD, Factory
from unleashed import Board, Device
from virt_aarch64 import VirtAarch64
from virt_armv7 import VirtArmv7

from qsafp_embedded._tables import ImageKind


class Shipped(Board):
    """A board as it is shipped: a boot stage, and two signed images in its flash."""

    store: boot_kit.Device

    def boot_from(self, factory: Factory, version: int = 1) -> Shipped:
        """Sign and write both images, and make the counters if there are none."""
        self.store = boot_kit.DEVICES[self.name](factory, self.folder)
        self.store.put(MONITOR, 0, factory.monitor(version))
        self.store.put(PAYLOAD, 0, factory.payload(version, (self.out / "payload.bin").read_bytes()))
        return self

    def blown(self, kind: ImageKind) -> int:
        """The counter of a kind, as programmed."""
        return self.store.blown(kind)

    def _words(self) -> list[str]:
        words = super()._words()
        at = next(i for i, word in enumerate(words) if "payload.bin" in word)
        return [*words[: at - 1], *words[at + 1 :], *self.store.media()]


class ShippedUnleashed(Shipped):
    """Its boot stage is where the emulator starts."""

    def _words(self) -> list[str]:
        words = super()._words()
        words[words.index("-kernel") + 1] = str(self.store.factory.elf)
        return words


class ShippedVirt(Shipped, VirtAarch64):
    """One flash holds all of it."""

    def _flash(self) -> None:
        super()._flash()
        assert isinstance(self.store, boot_kit.Virt)
        self.store.fill()


class ShippedArmv7(ShippedVirt, VirtArmv7):
    """The same with another processor."""


def shipped(factory: Factory, device: Device, folder: Path, version: int = 1) -> Shipped:
    """The board that a factory makes."""
    kind = {kind.name: kind for kind in (ShippedUnleashed, ShippedVirt, ShippedArmv7)}[factory.target.board]
    return kind(device, folder).boot_from(factory, version)
