# SPDX-License-Identifier: Apache-2.0
"""The emulated boards as data: processor, kernel package, QEMU words, kernel modules and ports."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["ARCHES", "BOARDS", "Arch", "Board"]

# Checks that reset the board are among them: QEMU 7.2 now and then leaves a core stuck in the kernel's start after a reset.
HEAVY = ("check_watchdog.py", "check_watchdog_boots.py", "check_power.py", "check_pins_cost.py")
COMMON = ("check_boot.py", "check_lines.py", "check_edges.py", "check_lease.py", "check_hold.py")


@dataclass(frozen=True)
class Arch:
    """A processor: Debian's name, the wheel's, the compiler's triplet, QEMU's program, and what the guest's Python gets from Debian.

    ``from_debian`` names Python packages without a wheel for this processor, with Debian's package of each;
    ``packages`` are more of Debian's.
    """

    debian: str
    machine: str
    triplet: str
    qemu: str
    from_debian: dict[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Board:
    """One emulated board.

    ``modules`` are loaded by the initramfs in this order, each after what it needs; ``carried`` only lie on the disk for modprobe.
    In ``qemu``, ``disk`` is the id of the drive, ``net`` of the user network, ``cmd`` of the command channel, whose file in the guest
    is ``channel`` (a pattern); ``{out}`` is the board's folder on the host.  A board whose network or channel is on the chip gives
    ``nic`` or ``second_serial`` instead.  ``dtb`` is a device tree of the kernel package, ``dtb_changes`` are nodes, properties and
    their new strings.  ``trace`` are events of QEMU to record, ``outside`` the class of outside.py that sees and drives the lines.
    ``heavy`` are the checks that a quick run leaves out.  With ``recorded`` it has a second disk, whose writes are
    recorded; with ``tpm`` the device key lies in a TPM that the guest's
    kernel reaches over the network, with ``chip_tpm`` in one on the machine's bus.
    ``log`` are settings of guard.toml that put the log on a part of ``part_bytes``, whose content is ``{out}/part.img``;
    ``watchdog`` is the module of its watchdog, if that is one.
    """

    name: str
    arch: Arch
    kernel: str
    qemu: tuple[str, ...]
    console: str
    channel: str
    root: str
    modules: tuple[str, ...]
    carried: tuple[str, ...] = ()
    dtb: str | None = None
    dtb_changes: tuple[tuple[str, str, str], ...] = ()
    drive: str = "if=none,id=disk"
    nic: str = ""
    second_serial: bool = False
    interface: str = "eth0"
    trace: tuple[str, ...] = ()
    outside: str = "pl061"
    checks: tuple[str, ...] = COMMON
    heavy: tuple[str, ...] = ()
    recorded: bool = False
    tpm: bool = False
    chip_tpm: bool = False
    log: dict[str, str | int] = field(default_factory=dict)
    part_bytes: int = 0
    watchdog: str = ""
    boot_s: float = 180.0


TSS = ("libtss2-esys-3.0.2-0", "libtss2-tctildr0", "libtss2-mu0", "libtss2-tcti-device0")

ARCHES = {
    a.debian: a
    for a in (
        Arch("arm64", "aarch64", "aarch64-linux-gnu", "qemu-system-aarch64", packages=TSS),
        Arch(
            "armhf",
            "armv7l",
            "arm-linux-gnueabihf",
            "qemu-system-arm",
            {"pynacl": "python3-nacl", "cffi": "python3-cffi-backend", "pycparser": "python3-pycparser"},
        ),
        Arch("amd64", "x86_64", "x86_64-linux-gnu", "qemu-system-x86_64", packages=TSS),
    )
}

ECSPI1 = "/soc/bus@2000000/spba-bus@2000000/spi@2008000"
VIRTIO = ("virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "ext4")

BOARDS = {
    b.name: b
    for b in (
        Board(
            "virt_aarch64_linux",
            ARCHES["arm64"],
            "linux-image-arm64",
            (
                *("-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "512"),
                *("-device", "virtio-blk-pci,drive=disk", "-device", "virtio-net-pci,netdev=net,romfile="),
                *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=cmd,nr=1"),
                *("-device", "virtserialport,chardev=beat,nr=2", "-chardev", "file,id=beat,path={out}/beat.txt"),
                *("-device", "i6300esb"),
            ),
            console="ttyAMA0",
            channel="/dev/vport*p1",
            root="/dev/vda",
            modules=VIRTIO,
            carried=("i6300esb", "tpm_vtpm_proxy", "9pnet_virtio", "9p"),
            trace=("pl061_set_output",),
            checks=("check_wire.py", *COMMON, "check_memory.py", "check_contain.py", *HEAVY),
            heavy=("check_wire.py", "check_contain.py", *HEAVY),
            watchdog="i6300esb",
            recorded=True,
            tpm=True,
        ),
        Board(
            "ast2600_evb",
            ARCHES["armhf"],
            "linux-image-armmp",
            (
                *("-M", "ast2600-evb", "-drive", "if=none,id=part,format=raw,file={out}/part.img"),
                *("-device", "at24c-eeprom,drive=part,rom-size=65536,address=0x51,bus=aspeed.i2c.bus.3"),
            ),
            console="ttyS4,115200n8",
            channel="/dev/ttyS0",
            root="/dev/mmcblk0",
            modules=("sdhci_of_aspeed", "ext4", "mdio_aspeed", "ftgmac100", "gpio_aspeed", "i2c_aspeed", "i2c_dev"),
            carried=("at24", "rtc_aspeed"),
            dtb="aspeed-ast2600-evb.dtb",
            dtb_changes=(("/ahb/apb/serial@1e783000", "status", "okay"),),
            drive="if=sd,index=2",
            nic="user,model=ftgmac100",
            second_serial=True,
            outside="aspeed",
            checks=(*COMMON, "check_renew.py", "check_watchdog.py", "check_part.py"),
            log={"log": "i2c:/dev/i2c-3@0x51,65536", "log_live_min": 224},
            part_bytes=1 << 16,
        ),
        Board(
            "sabrelite",
            ARCHES["armhf"],
            "linux-image-armmp",
            (
                *("-M", "sabrelite", "-m", "512", "-device", "sd-card,drive=disk,bus=sd-bus"),
                *("-drive", "if=mtd,format=raw,file={out}/part.img"),
            ),
            console="ttymxc0,115200n8",
            channel="/dev/ttymxc1",
            root="/dev/mmcblk3",
            modules=("gpio_mxc", "fixed", "sdhci_esdhc_imx", "ext4", "fec", "spi_imx", "imx2_wdt"),
            dtb="imx6q-sabrelite.dtb",
            dtb_changes=(
                ("/soc/timer@a00600", "status", "disabled"),  # QEMU's runs slow, and sleeps would last longer
                ("/soc/bus@2100000/mmc@2198000", "status", "disabled"),  # the disk is in the other slot
                (f"{ECSPI1}/flash@0", "compatible", "rohm,dh2228fv"),  # to spidev
                *((unit, "dma-names", "none") for unit in (ECSPI1, "/soc/bus@2100000/serial@21e8000")),  # QEMU has no SDMA
            ),
            nic="user,model=imx.enet",
            second_serial=True,
            outside="imx",
            checks=(*COMMON, "check_renew.py", "check_part.py"),
            log={"log": "spi:/dev/spidev0.0"},
            part_bytes=1 << 21,
        ),
        Board(
            "virt_amd64_linux",
            ARCHES["amd64"],
            "linux-image-amd64",
            (
                *("-M", "q35,nvdimm=on", "-cpu", "max", "-smp", "2", "-m", "512,slots=1,maxmem=1G", "-acpitable", "file={out}/gpio.aml"),
                *("-device", "virtio-blk-pci,drive=disk", "-device", "virtio-net-pci,netdev=net,romfile="),
                *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=cmd,nr=1"),
                *("-object", "memory-backend-file,id=gpio,size=2M,share=on,mem-path={out}/gpio.bin"),
                *("-device", "nvdimm,memdev=gpio"),
            ),
            console="ttyS0",
            channel="/dev/vport*p1",
            root="/dev/vda",
            modules=(*VIRTIO[1:], "gpio_amdpt"),
            outside="amdpt",
            chip_tpm=True,
            checks=tuple(c for c in COMMON if c != "check_edges.py"),
        ),
    )
}
