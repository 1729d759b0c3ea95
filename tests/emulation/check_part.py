# SPDX-License-Identifier: Apache-2.0
"""The log on a flash or EEPROM, through the kernel's bus driver: written, cut, recovered, verified; then damaged and replaced (HW-8; I6).

Power goes between two instructions of the guest, wherever its log writer is at that moment: bytes, pages and erasures are under way.
"""

from __future__ import annotations

import json
import tomllib
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from figures import Figures
from fleet import DEVICE, Fleet
from machine import Machine, wait_for

from qsafp_embedded.audit import Log
from qsafp_embedded.keyfile import read_secret

SLOT, RING = 256, 65 * 4096
CUTS = (1, 2, 4)  # so many answers before the power goes
TOOL = "/run/part.py"
COUNTED = "counted by the kernel of the guest"
SCRIPT = (Path(__file__).parent / "guest/part.py").read_bytes()
GUARD = f"python3 -m qsafp_embedded.guard --config {DEVICE}/guard/guard.toml"


@dataclass(frozen=True)
class Part:
    """The device with its log on a part."""

    machine: Machine
    fleet: Fleet

    @property
    def ctl(self) -> str:
        """The guard's command socket."""
        toml = tomllib.loads((self.fleet.root / "guard/guard.toml").read_text())
        return f"{DEVICE}/guard/{toml['run_dir']}/ctl.sock"

    @property
    def kind(self) -> str:
        """Its bus."""
        return str(self.machine.board.log["log"]).partition(":")[0]

    def tool(self, what: str) -> dict[str, Any]:
        """Ask guest/part.py."""
        word = self.kind if what == "carried" else self.ctl
        found: dict[str, Any] = json.loads(self.machine.sh(f"python3 {TOOL} {what} {word}", timeout_s=120))
        return found

    def power_on(self) -> None:
        """Start the board again, its parts as they were left."""
        self.machine.start()
        self.ready()

    def ready(self) -> None:
        """Let the guest have the tool, and the kernel count what it does not by itself."""
        self.machine.put(TOOL, SCRIPT)
        if self.kind == "i2c":
            self.machine.sh("cd /sys/kernel/debug/tracing && echo 16384 > buffer_size_kb && echo 1 > events/i2c/enable")

    def guard(self) -> int:
        """Start the guard, alone; its process id."""
        pid = self.machine.spawn(GUARD, "/run/guard.log")
        self.machine.until("grep -q serving /run/guard.log", "the guard serves", pid=pid, timeout_s=120)
        return pid

    def told(self) -> list[dict[str, Any]]:
        """What the guest's console told since the last start of the guest."""
        text = (self.machine.out / "console.log").read_text(errors="replace").rpartition("Booting Linux")[2]
        return [json.loads(row[5:]) for row in text.splitlines() if row.startswith("TOLD {") and row.endswith("}")]

    def log(self, found: dict[str, Any]) -> Log:
        """The records that the guard gave."""
        raw = b64decode(found["records"])
        return Log.of([raw[i : i + SLOT] for i in range(0, len(raw), SLOT)], bytes.fromhex(found["log_id"]))


@pytest.fixture(scope="module")
def part(machine: Machine, fleet: Fleet) -> Part:
    """The device, its agent stopped."""
    if not fleet.agent_pid:  # this file alone: validators know a device by its first lease
        fleet.start_agent()
        fleet.phase("active")
    fleet.stop_agent()
    fleet.configure("watchdog", '""')
    machine.sh("sync")  # what the enrolment wrote
    return Part(machine, fleet)


def number(raw: bytes) -> int:
    """A record's sequence number."""
    return int.from_bytes(raw[8:16], "little")


def slots(image: bytes) -> dict[int, bytes]:
    """Records that a part holds, by sequence number."""
    found = [image[i : i + SLOT] for i in range(0, len(image), SLOT)]
    return {number(r): r for r in found if r[:4] == b"QAR1"}


def test_the_part_holds_every_record_and_no_file_does(machine: Machine, part: Part, figures: Figures) -> None:
    assert machine.run("test", "-e", f"{DEVICE}/guard/state/log.ring").code == 1
    part.ready()
    pid = part.guard()
    first, before = part.log(part.tool("read")).records, part.tool("carried")
    machine.sh(f"python3 {TOOL} events {part.ctl}", timeout_s=120)
    records = part.log(part.tool("read")).records
    machine.sh(f"kill {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.1; done")
    after = part.tool("carried")
    machine.cut()
    held = slots(machine.part.read_bytes())
    payload = (number(records[-1].raw) - number(first[-1].raw)) * SLOT
    assert payload >= 64 * SLOT
    assert all(held[number(r.raw)] == r.raw for r in records)
    figures.put(f"emulated.{part.kind}.append_bytes_per_payload", (after["bytes"] - before["bytes"]) / payload, "B/B", note=COUNTED)
    figures.put(f"emulated.{part.kind}.append_ioctls_per_mb", (after["calls"] - before["calls"]) / payload * 1e6, "1/MB", note=COUNTED)


@pytest.mark.parametrize("answers", CUTS)
def test_a_power_cut_loses_nothing_that_was_answered(machine: Machine, part: Part, answers: int) -> None:
    machine.power_off()
    part.power_on()
    part.guard()
    machine.spawn(f"python3 {TOOL} append {part.ctl}", "/run/append.log")
    wait_for(lambda: len(part.told()) >= answers, f"{answers} answers", 240)
    machine.cut()
    told = part.told()[-1]
    part.power_on()
    part.guard()
    found = part.tool("read")
    log = part.log(found)
    log.verify()
    log.check_seals(read_secret(part.fleet.root / "auditor/k0", "seal"))
    assert found["boot"] > told["boot"]
    assert found["serial"] > told["serial"], "a serial is never used twice"
    assert len(log.records) + log.first >= told["size"]
    if log.first == 0:
        assert log.root(told["size"]).hex() == told["root"], "the log that was signed for"
    print(f"cut after {told['size']} records were signed for: {len(log.records) + log.first} recovered")


def test_the_quorum_goes_on_with_the_recovered_log(machine: Machine, part: Part) -> None:
    machine.power_off()
    part.power_on()
    part.fleet.start_agent()
    part.fleet.phase("active")
    assert part.fleet.verify(part.fleet.fetch_log())["ok"]


def test_a_bit_that_changed_in_the_part_refuses_the_start_and_names_its_place(machine: Machine, part: Part, figures: Figures) -> None:
    machine.cut()
    image = bytearray(machine.part.read_bytes())
    place = next(i for i in range(0, len(image), SLOT) if image[i : i + 4] == b"QAR1" and number(bytes(image[i : i + SLOT])) > 16)
    image[place + 100] ^= 1
    machine.part.write_bytes(image)
    part.power_on()
    refused = machine.run("sh", "-c", GUARD, timeout_s=60)
    assert refused.code == 1
    assert f"record {number(bytes(image[place : place + SLOT]))} is damaged" in refused.err
    ring = min(machine.board.part_bytes, RING)
    carried = part.tool("carried")  # that start read the log once, and wrote nothing
    figures.put(f"emulated.{part.kind}.read_ioctls_per_mb", carried["calls"] / ring * 1e6, "1/MB", note=COUNTED)
    figures.put(f"emulated.{part.kind}.read_bytes_per_payload", carried["bytes"] / ring, "B/B", note=COUNTED)
    assert ring <= carried["bytes"] <= 1.05 * ring
    assert machine.part.read_bytes() == image


def test_another_part_in_its_place_refuses_the_start(machine: Machine, part: Part) -> None:
    machine.power_off()
    machine.part.write_bytes(b"\xff" * machine.board.part_bytes)
    part.power_on()
    refused = machine.run("sh", "-c", GUARD, timeout_s=60)
    assert refused.code == 1
    assert "not the log that state.bin goes with" in refused.err
