# SPDX-License-Identifier: Apache-2.0
"""QEMU's virt machine with a secure world, a Cortex-A15 and our monitor in Monitor mode."""

from __future__ import annotations

from virt_aarch64 import VirtAarch64


class VirtArmv7(VirtAarch64):
    """The same machine with another processor."""

    name = "virt_armv7"
    emulator = "qemu-system-arm"
    cross = "arm-none-eabi-"
    processor = "cortex-a15"
