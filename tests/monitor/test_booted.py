# SPDX-License-Identifier: Apache-2.0
"""Boot stage, monitor and payload together: what the boot stage verified is what the lease request says (HW-2, HW-T1)."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import replace
from pathlib import Path

import boot_kit
import firmware
import pytest
import unleashed
from boot_kit import AT, Factory, slot_of
from unleashed import Board, Device, until

from qsafp_embedded import cose
from qsafp_embedded._core import cbor_loads
from qsafp_embedded._tables import ImageKind, Phase, Refusal
from qsafp_embedded.image import Image
from qsafp_embedded.validator.config import Device as Registered
from qsafp_embedded.validator.config import Policy
from qsafp_embedded.validator.decide import State, Terms, decide, parse

MONITOR, PAYLOAD = ImageKind.MONITOR, ImageKind.PAYLOAD
BOOTED = unleashed.OUT / "booted.elf"

pytestmark = pytest.mark.board(unleashed.Board.name)


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("factory"), program=BOOTED.with_suffix(".bin").read_bytes())


class Booted(Board):
    """The board as it is shipped: a boot stage, and two signed images in its flash."""

    def boot_from(self, factory: Factory, version: int = 1) -> Booted:
        """Sign and write both images, and make the fuses if there are none."""
        self.factory = factory
        self.images = bytearray(b"\xff" * boot_kit.FLASH_BYTES)
        body = (unleashed.OUT / "payload.bin").read_bytes()
        for kind, image in ((MONITOR, factory.monitor(version)), (PAYLOAD, factory.payload(version, body))):
            self.images[slot_of(kind, 0) : slot_of(kind, 0) + len(image)] = image
        if not (otp := self.folder / "otp.bin").exists():
            otp.write_bytes(b"\xff" * boot_kit.OTP_BYTES)
        return self

    def _words(self) -> list[str]:
        words = super()._words()
        words[words.index("-kernel") + 1] = str(self.factory.elf)
        at = next(i for i, word in enumerate(words) if "payload.bin" in word)
        del words[at - 1 : at + 1]
        words += self._blob("images.bin", bytes(self.images).rstrip(b"\xff") + b"\xff", AT["FLASH_BASE"])
        return [*words, "-drive", f"if=pflash,format=raw,file={self.folder / 'otp.bin'}"]

    def fuses_blown(self, kind: ImageKind) -> int:
        """The counter of a kind, as programmed."""
        raw = (self.folder / "otp.bin").read_bytes()
        return sum(8 - byte.bit_count() for byte in raw[4 * boot_kit.OTP_WORD[kind] :][:32])


def test_a_lease_request_carries_the_hash_of_the_image_that_was_verified(factory: Factory, folder: Path) -> None:
    with Booted(Device(duration_ms=5000), folder).boot_from(factory) as board, board.client() as client:
        client.begin()
        request = cose.parse_sign1(cbor_loads(client.envelope())[1], cose.REQUESTS)
        assert cbor_loads(request.payload)[4] == [1, hashlib.sha256(factory.program).digest()]
        assert Image.decode(factory.monitor()).sha256 == hashlib.sha256(factory.program).digest()


def test_validators_grant_level_4_to_the_images_they_know(factory: Factory, folder: Path) -> None:
    with Booted(Device(), folder).boot_from(factory) as board, board.client() as client:
        client.begin()
        request, log_id = parse(client.envelope()), client.status().log_id
    device = board.device
    known = Registered(device.ueid, device.public, log_id, None, int(time.time()))
    terms = Terms(device.q.members, Policy(), int(time.time() * 1000), lambda _: False)
    hash_ = hashlib.sha256(factory.program).digest()
    for images, code in ((None, Refusal.MEASUREMENT), ({bytes(32)}, Refusal.MEASUREMENT), ({bytes(32), hash_}, None)):
        registered = replace(known, images=frozenset(images) if images else None)
        assert decide(request, registered, State(device.ueid), terms).code is code
    assert request.claims["level"] == 4


def test_the_counters_rise_with_the_first_lease_and_not_before(factory: Factory, folder: Path) -> None:
    with Booted(Device(), folder).boot_from(factory, version=3) as board, board.client() as client:
        client.begin()
        assert (board.fuses_blown(MONITOR), board.fuses_blown(PAYLOAD)) == (0, 0)
        board.lease(client)
        until(lambda: client.status().phase == Phase.ACTIVE)
        until(lambda: (board.fuses_blown(MONITOR), board.fuses_blown(PAYLOAD)) == (3, 3))


def test_a_lease_opens_the_gate_of_a_booted_board_and_its_end_stops_every_hart(factory: Factory, folder: Path) -> None:
    with Booted(Device(duration_ms=5000), folder).boot_from(factory) as board, board.client() as client:
        assert until(lambda: board.orders()["refused"]) > 0
        board.lease(client)
        until(lambda: board.orders()["finished"])
        assert board.pin("LEASE_VALID") == 1
        until(lambda: client.status().phase == Phase.FAILSAFE and client.status().contained)
        assert board.pin("LEASE_VALID") == 0


INSIDE = re.compile(r" (qsafp_sha256_k|qsafp_sha256_blocks|permute|ntt|fe_mul|b_comb_low|crypto_\w+)$", re.M)


def test_the_monitor_links_no_second_copy_of_what_the_boot_stage_exports(factory: Factory) -> None:
    exported = re.findall(r"\(\*(\w+)\)", (boot_kit.ROOT / "cext/monitor/boot_table.h").read_text())
    assert len(exported) == 15
    nm = firmware.run("riscv64-linux-gnu-nm", "-S", BOOTED)
    sizes = {name: int(size, 16) for size, name in re.findall(r"^\w+ (\w+) [tT] (\w+)$", nm, re.M)}
    assert all(sizes.get(f"qsafp_{name}", 0) <= 16 for name in exported)  # a load and a jump, if it was not inlined
    assert not INSIDE.search(nm)
    assert {"permute", "fe_mul"} <= set(
        INSIDE.findall(firmware.run("riscv64-linux-gnu-nm", unleashed.OUT / "monitor.elf"))
    )  # it would be seen


def test_boot_stage_and_monitor_keep_their_budget(factory: Factory) -> None:
    """Spec 47 KB, ours 44, all sections that are loaded; RAM with stacks 112 KB."""
    loaded = sum(boot_kit.TARGET.sections(factory.elf).values()) + boot_kit.TARGET.sections(BOOTED)[".text"]
    assert loaded <= 44 * 1024
    assert boot_kit.TARGET.sections(BOOTED)[".bss"] <= 112 * 1024
