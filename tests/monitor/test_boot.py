# SPDX-License-Identifier: Apache-2.0
"""The boot stage on emulated boards: what is signed boots, else it says why not (HW-2, HW-T1, HW-T2, HW-T3)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from boot_kit import DEVICES, MONITOR, PAYLOAD, Device, Factory, Said, target_of

from qsafp_embedded import keys
from qsafp_embedded._tables import Board
from qsafp_embedded.image import FRONT_BYTES, RootKey

OTHER_CORES = {"hifive_unleashed": 2, "virt_aarch64": 1, "virt_armv7": 1}
# Bytes of code: part of what boot stage and monitor share.
SIZES = {"hifive_unleashed": 14_900, "virt_aarch64": 15_500, "virt_armv7": 18_900}


@pytest.fixture(scope="session", params=[pytest.param(name, marks=pytest.mark.board(name)) for name in DEVICES])
def factory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(target_of(DEVICES[request.param]), tmp_path_factory.mktemp("factory"))


def bare(factory: Factory, folder: Path) -> Device:
    """A board whose flash is erased."""
    return DEVICES[factory.target.board](factory, folder)


@pytest.fixture
def device(factory: Factory, tmp_path: Path) -> Device:
    """A board as it is shipped: both slots 0 good, both slots 1 erased."""
    made = bare(factory, tmp_path)
    made.put(MONITOR, 0, factory.monitor())
    made.put(PAYLOAD, 0, factory.payload())
    return made


def halts(device: Device, *reasons: str) -> None:
    """It stops, FAILSAFE is high, LEASE_VALID never was, and each reason was said."""
    said = device.boot()
    assert said.halted, said.lines
    assert said.level("FAILSAFE") == [0, 1]
    assert said.level("LEASE_VALID") == [0]
    for reason in reasons:
        assert f"boot: {reason}" in said.lines, said.lines


def boots(device: Device) -> Said:
    """It ends with the last word of the program in the monitor's place, and no pin told of a fail-safe."""
    said = device.boot()
    assert said.lines[-1] == "end", said.lines
    assert said.level("FAILSAFE") == said.level("LEASE_VALID") == [0]
    return said


def test_a_signed_image_boots_and_is_handed_what_was_verified(device: Device) -> None:
    said = boots(device)
    assert said.value("hart") == "0"
    assert said.value("table") == "1"
    for name, body in (("monitor", device.factory.program), ("payload", b"payload")):
        assert said.value(name) == hashlib.sha256(body).hexdigest()
        assert [said.value(f" {what}", name) for what in ("slot", "security_version", "counter", "size")] == ["0", "1", "0", str(len(body))]
    assert said.value("payload in memory") == "1"


def test_boot_stage_and_monitor_are_read_only_for_every_hart_before_anything_else_runs(device: Device) -> None:
    assert boots(device).lines.count("locked=1") == 1 + OTHER_CORES[device.name]


def test_the_table_signs_and_verifies_as_the_host_does(device: Device) -> None:
    said = boots(device)
    key = keys.Ed25519Key.from_seed(b"\1\2\3".ljust(32, b"\0"))
    assert said.value("signature") == key.sign(b"boot").hex()
    assert (said.value("verified"), said.value("forged")) == ("1", "0")


@pytest.mark.parametrize("fill", [0x00, 0xFF])
def test_blank_flash_boots_nothing(factory: Factory, tmp_path: Path, fill: int) -> None:
    device = bare(factory, tmp_path)
    device.flash[:] = bytes([fill]) * len(device.flash)
    halts(device, "monitor slot 0: MAGIC", "monitor slot 1: MAGIC")


def test_a_payload_in_the_monitors_slot_does_not_boot(device: Device) -> None:
    device.put(MONITOR, 0, device.factory.payload())
    device.put(MONITOR, 1, device.factory.sign(b"\0" * 64, kind=PAYLOAD, load=device.factory.at["MONITOR_BASE"], security_version=1))
    halts(device, "monitor slot 0: KIND", "monitor slot 1: KIND")


def test_a_monitor_in_the_payloads_slot_does_not_boot(device: Device) -> None:
    device.put(PAYLOAD, 0, device.factory.sign(b"\0" * 64, kind=MONITOR, load=device.factory.at["PAYLOAD_BASE"], security_version=1))
    halts(device, "monitor slot 0: GOOD", "payload slot 0: KIND", "payload slot 1: MAGIC")


def test_what_was_signed_for_something_else_does_not_boot(device: Device) -> None:
    f, other = device.factory, RootKey.from_secret(b"\7" * 32)
    device.put(MONITOR, 0, f.monitor(board=Board.VIRT_ARMV7 if f.target.board == "hifive_unleashed" else Board.HIFIVE_UNLEASHED))
    device.put(MONITOR, 1, f.monitor(key=other))
    halts(device, "monitor slot 0: BOARD", "monitor slot 1: ROOT_KEY")
    device.put(MONITOR, 0, f.sign(f.program, kind=MONITOR, load=device.factory.at["MONITOR_RAM"], security_version=1))
    device.put(
        MONITOR,
        1,
        f.sign(bytes(device.factory.at["MONITOR_BYTES"] + 4), kind=MONITOR, load=device.factory.at["MONITOR_BASE"], security_version=1),
    )
    halts(device, "monitor slot 0: LOAD", "monitor slot 1: SIZE")


@pytest.mark.parametrize("left", [0, 64, FRONT_BYTES - 1, FRONT_BYTES, FRONT_BYTES + 700])
def test_truncated_flash_does_not_boot(device: Device, left: int) -> None:
    size = FRONT_BYTES + len(device.factory.program)
    device.flash[left:size] = b"\xff" * (size - left)
    halts(device, "monitor slot 1: MAGIC")


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        *((45, "HASH"), (80, "ROOT_KEY"), (1000, "ROOT_KEY"), (2060, "ED25519"), (2119, "ED25519"), (2130, "ML_DSA_65")),
        *((5428, "ML_DSA_65"), (5430, "RESERVED"), (FRONT_BYTES, "HASH"), (-1, "HASH")),
    ],
)
def test_a_flipped_bit_does_not_boot(device: Device, at: int, reason: str) -> None:
    image = bytearray(device.factory.monitor())
    image[at] ^= 1 << abs(at) % 8
    device.put(MONITOR, 0, bytes(image))
    halts(device, f"monitor slot 0: {reason}", "monitor slot 1: MAGIC")


def test_the_other_slot_boots_when_one_is_bad(device: Device) -> None:
    device.put(MONITOR, 1, device.factory.monitor())
    device.put(PAYLOAD, 1, device.factory.payload())
    device.flash[FRONT_BYTES + 9] ^= 4
    device.flash[device.slot_of(PAYLOAD, 0) + 2100] ^= 4
    said = boots(device)
    assert (said.value(" slot", "monitor="), said.value(" slot", "payload=")) == ("1", "1")
    assert {"boot: monitor slot 0: HASH", "boot: payload slot 0: ED25519"} <= set(said.lines)


def test_the_higher_security_version_is_tried_first(device: Device) -> None:
    device.put(MONITOR, 1, device.factory.monitor(2))
    said = boots(device)
    assert (said.value(" slot"), said.value(" security_version")) == ("1", "2")


def test_an_older_version_boots_until_a_lease_raised_the_counter_and_never_again(device: Device) -> None:
    f = device.factory
    device.put(MONITOR, 1, f.monitor(2))
    device.put(PAYLOAD, 0, f.payload(3))
    assert "raised=1" not in boots(device).lines
    device.flash[device.slot_of(MONITOR, 1)] ^= 1
    assert boots(device).value(" security_version") == "1"  # no lease was obtained: the old one still boots
    device.flash[device.slot_of(MONITOR, 1)] ^= 1
    device.put(PAYLOAD, 0, f.payload(3, b"R"))
    assert boots(device).value("raised") == "1"
    said = boots(device)
    assert (said.value(" counter", "monitor="), said.value(" counter", "payload=")) == ("2", "3")
    device.flash[device.slot_of(MONITOR, 1)] ^= 1
    halts(device, "monitor slot 0: OLD", "monitor slot 1: MAGIC")
    device.flash[device.slot_of(MONITOR, 1)] ^= 1
    device.put(PAYLOAD, 0, f.payload(2))
    halts(device, "payload slot 0: OLD")


def test_the_counter_is_its_highest_fuse_whatever_is_below(device: Device) -> None:
    device.blow(MONITOR, 1 << 4)
    halts(device, "monitor slot 0: OLD")
    device.put(MONITOR, 0, device.factory.monitor(5))
    assert boots(device).value(" counter") == "5"
    device.blow(MONITOR, 1 << 255)
    halts(device, "monitor slot 0: OLD")


def test_a_version_past_the_last_fuse_says_that_it_cannot_be_kept(device: Device) -> None:
    device.put(MONITOR, 0, device.factory.monitor(257))
    device.put(PAYLOAD, 0, device.factory.payload(1, b"R"))
    assert boots(device).value("raised") == "0"


def test_a_monitor_that_faults_at_its_first_instruction_stops_with_failsafe(device: Device) -> None:
    device.put(MONITOR, 0, device.factory.sign(bytes(8), kind=MONITOR, load=device.factory.at["MONITOR_BASE"], security_version=1))
    halts(device, "monitor slot 0: GOOD", "trap; halted")


def test_the_boot_stage_keeps_its_size(factory: Factory) -> None:
    sections = factory.target.sections(factory.elf)
    assert set(sections) == {".text", ".boot_table"}
    assert sections[".boot_table"] <= 272
    assert sections[".text"] <= SIZES[factory.target.board]
