# SPDX-License-Identifier: Apache-2.0
"""Boot stage, monitor and payload together: what the boot stage verified is what the lease request says (HW-2, HW-T1)."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import boot_kit
import firmware
import pytest
import stacks
from boot_kit import MONITOR, PAYLOAD, Factory
from figures import RAM_MAX, memory
from shipped import shipped
from unleashed import Device, until

from qsafp_embedded import cose
from qsafp_embedded._core import cbor_loads
from qsafp_embedded._tables import Phase, Refusal
from qsafp_embedded.image import Image
from qsafp_embedded.validator.config import Device as Registered
from qsafp_embedded.validator.config import Policy
from qsafp_embedded.validator.decide import State, Terms, decide, parse

# All sections that are loaded: spec 47 KB; ours 44, Thumb-2 42.
BUDGET = {"hifive_unleashed": 44 * 1024, "virt_aarch64": 44 * 1024, "virt_armv7": 42 * 1024}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.board(name)) for name in boot_kit.DEVICES])
def factory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Factory:
    target = firmware.TARGETS[request.param]
    program = (target.out / "booted.bin").read_bytes()
    return Factory(target, tmp_path_factory.mktemp("factory"), program=program)


def test_a_lease_request_carries_the_hash_of_the_image_that_was_verified(factory: Factory, folder: Path) -> None:
    with shipped(factory, Device(duration_ms=5000), folder) as board, board.client() as client:
        client.begin()
        request = cose.parse_sign1(cbor_loads(client.envelope())[1], cose.REQUESTS)
        assert cbor_loads(request.payload)[4] == [1, hashlib.sha256(factory.program).digest()]
        assert Image.decode(factory.monitor()).sha256 == hashlib.sha256(factory.program).digest()


def test_validators_grant_level_4_to_the_images_they_know(factory: Factory, folder: Path) -> None:
    with shipped(factory, Device(), folder) as board, board.client() as client:
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
    with shipped(factory, Device(), folder, version=3) as board, board.client() as client:
        client.begin()
        assert (board.blown(MONITOR), board.blown(PAYLOAD)) == (0, 0)
        board.lease(client)
        until(lambda: client.status().phase == Phase.ACTIVE)
        until(lambda: (board.blown(MONITOR), board.blown(PAYLOAD)) == (3, 3))


def test_a_lease_opens_the_gate_of_a_booted_board_and_its_end_stops_every_hart(
    factory: Factory, folder: Path, record_property: Callable[[str, object], None]
) -> None:
    with shipped(factory, Device(duration_ms=5000, suite="hybrid"), folder) as board, board.client() as client:
        assert until(lambda: board.orders()["refused"]) > 0
        board.lease(client)
        until(lambda: board.orders()["finished"])
        assert board.pin("LEASE_VALID") == 1
        until(lambda: client.status().phase == Phase.FAILSAFE and client.status().contained)
        assert board.pin("LEASE_VALID") == 0
        assert stacks.used_up(board, record_property, "booted") == []


INSIDE = re.compile(r" (qsafp_sha256_k|qsafp_sha256_blocks|permute|ntt|fe_mul|crypto_\w+)$", re.M)


def test_the_monitor_links_no_second_copy_of_what_the_boot_stage_exports(factory: Factory) -> None:
    t = factory.target
    exported = re.findall(r"\(\*(\w+)\)", (boot_kit.ROOT / "cext/monitor/boot_table.h").read_text())
    assert len(exported) == 15
    nm = firmware.run(t.cross + "nm", "-S", t.out / "booted.elf")
    sizes = {name: int(size, 16) for size, name in re.findall(r"^\w+ (\w+) [tT] (\w+)$", nm, re.M)}
    assert all(sizes.get(f"qsafp_{name}", 0) <= 20 for name in exported)  # a load and a jump, if it was not inlined
    assert not INSIDE.search(nm)
    assert {"permute", "fe_mul"} <= set(INSIDE.findall(firmware.run(t.cross + "nm", t.out / "monitor.elf")))  # it would be seen


def test_boot_stage_and_monitor_keep_their_budget(factory: Factory) -> None:
    t = factory.target
    booted = t.sections(t.out / "booted.elf")
    assert sum(t.sections(factory.elf).values()) + booted[".text"] <= BUDGET[t.board]
    assert memory(t) <= RAM_MAX
