# SPDX-License-Identifier: Apache-2.0
"""What a change of a line costs: time from the guard's wish to the return of the ioctl (no goal: emulated), and instructions.

After check_power.py: its device drives the board's lines here, without a lease.
"""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from pathlib import Path

from check_hold import holder_pid
from check_power import AT, toml
from figures import Figures
from fleet import DEVICE, Fleet
from image import OUT
from machine import Machine

PINS = (Path(__file__).parent / "guest/pins.py").read_bytes()
ROUNDS = 300
SO = "/usr/local/lib/python3.11/dist-packages/qsafp_embedded/"


def probe(machine: Machine) -> tuple[str, int]:
    """The extension's file name, and where in it the guard's wish for VALIDATOR_REQ begins."""
    (wheel,) = OUT.glob(f"wheel-{machine.board.arch.machine}-*/*.whl")
    with zipfile.ZipFile(wheel) as z:
        (name,) = [n for n in z.namelist() if n.endswith(".so")]
        path = Path(z.extract(name, machine.out / "wheel"))
    words = [f"{machine.board.arch.triplet}-objdump", "-t", "-h", str(path)]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
    (symbol,) = re.findall(r"^([0-9a-f]+) .* pin_req$", said, re.MULTILINE)
    ((address, offset),) = re.findall(r" \.text +[0-9a-f]+ +([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+)", said)
    return path.name, int(symbol, 16) - int(address, 16) + int(offset, 16)


def start_guard(machine: Machine) -> int:
    """Start the device of check_power.py on the board's lines; its pin holder."""
    machine.sh(f"grep -q {AT} /proc/mounts || mount -t ext4 /dev/vdb {AT}")
    machine.put(f"{AT}/guard.toml", toml("/run/cut", f"{DEVICE}/set/set-1.cbor", machine.board.name, duration_ms=50))
    machine.put("/run/pins.py", PINS)
    pid = machine.spawn(f"python3 -m qsafp_embedded.guard --config {AT}/guard.toml", "/run/cut.log")
    machine.until("grep -q serving /run/cut.log", "the guard serves", pid=pid)
    return holder_pid(machine)


def test_the_time_from_a_wish_to_the_ioctl_is_reported(machine: Machine, fleet: Fleet, figures: Figures) -> None:
    fleet.stop_agent()
    name, offset = probe(machine)
    holder = start_guard(machine)
    found = json.loads(machine.sh(f"python3 /run/pins.py trace /run/cut/ctl.sock {holder} {SO}{name} {offset:#x} {ROUNDS}", timeout_s=120))
    assert len(found) >= ROUNDS * 9 // 10
    figures.put("emulated.wish_to_ioctl_us", sorted(found)[len(found) // 2], "us", samples=found, note="kernel tracer; emulated, no goal")


def test_the_instructions_of_a_change_are_reported(machine: Machine, figures: Figures) -> None:
    machine.power_off()
    machine.extra += ("-icount", "shift=1,sleep=off")  # without it this processor counts none
    machine.start()
    holder = start_guard(machine)
    found = json.loads(machine.sh(f"python3 /run/pins.py count /run/cut/ctl.sock {holder} {ROUNDS}", timeout_s=120))
    user, kernel = (round(n / ROUNDS) for n in found["busy"])
    assert user > 0
    assert kernel > 0
    note = f"{user} user and {kernel} kernel, the holder's wake-up included; an idle second: {sum(found['idle'])}"
    figures.put("emulated.pin_write_instructions", user + kernel, "count", note=note)
