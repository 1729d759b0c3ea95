# SPDX-License-Identifier: Apache-2.0
"""Power is cut at the writes that the guest's kernel handed to its disk: what the guard had answered is there again (HW-8; I6).

A guard in the guest keeps its state on ext4 on a disk of its own, while QEMU records all writes and flushes.  On the host each
disk that a cut could leave is built, its journal replayed and its files taken out by e2fsprogs, and the guard's own recovery run on them.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from debian import run
from figures import Figures
from fleet import DEVICE, Fleet
from machine import Machine
from recorded import FS_BYTES, Cut, Entry, RecordedDisk, cuts

from qsafp_embedded.audit import Log
from qsafp_embedded.errors import QsafpError
from qsafp_embedded.guard.own import OwnGuard
from qsafp_embedded.keyfile import read_secret
from qsafp_embedded.scenarios.power import Told, holds

ROUNDS = 40
MOST = 200  # disks to recover; 0.1 s each
AT = "/mnt"
SCRIPT = (Path(__file__).parent / "guest/power.py").read_bytes()
TOML = """\
run_dir = "{run}"
state_dir = "guard/state"
set = "{set}"
model_hash = "{model}"
board = "{board}"
duration_ms = {duration}
warning_ms = 10
"""


def toml(run_dir: str, set_path: str, board: str = "simulated", duration_ms: int = 400) -> bytes:
    """A guard.toml for the device on the recorded disk; a request of it is pending for half its duration."""
    return TOML.format(run=run_dir, set=set_path, model=bytes(32).hex(), board=board, duration=duration_ms).encode()


@pytest.fixture(scope="module")
def told(machine: Machine, fleet: Fleet) -> dict[str, object]:
    """A guard's life on the recorded disk; what it had answered at its end."""
    guard = f"python3 -m qsafp_embedded.guard --config {AT}/guard.toml"
    machine.sh(f"mount -t ext4 /dev/vdb {AT}")
    machine.put(f"{AT}/guard.toml", toml("/run/cut", f"{DEVICE}/set/set-1.cbor"))
    machine.put("/run/power.py", SCRIPT)
    machine.sh(f"{guard} --init --k0 /run/cut-k0; sync")
    pid = machine.spawn(guard, "/run/cut.log")
    machine.until("grep -q serving /run/cut.log", "the guard serves", pid=pid)
    said = machine.sh(f"python3 /run/power.py /run/cut/ctl.sock /dev/vdb {FS_BYTES} {ROUNDS}", timeout_s=120)
    machine.sh(f"kill -KILL {pid}")
    return dict(json.loads(said.removeprefix("told ")))


@pytest.fixture(scope="module")
def entries(machine: Machine, told: dict[str, object]) -> list[Entry]:
    """What was recorded meanwhile."""
    found = RecordedDisk(machine.out).entries()
    assert [e.note for e in found if e.note][-1] == told, "the record is complete"
    return found


class Bench:
    """Builds one disk after the other, and recovers it."""

    def __init__(self, machine: Machine, fleet: Fleet, entries: list[Entry]) -> None:
        self.entries, self.image, self.files = entries, machine.out / "cut.img", machine.out / "cut"
        k0 = machine.out / "cut-k0"
        k0.touch(0o600)
        k0.write_bytes(machine.get("/run/cut-k0"))
        self.k0 = read_secret(k0, "seal")
        self.set = fleet.root / "set/set-1.cbor"
        self._disk = bytearray(RecordedDisk(machine.out).base.read_bytes())
        self._sure = 0

    def build(self, cut: Cut) -> None:
        """Write the disk of a cut; ``sure`` must not fall from call to call."""
        for e in self.entries[self._sure : cut.sure]:
            self._disk[e.off : e.off + len(e.data)] = e.data
        self._sure = cut.sure
        with self.image.open("wb") as file:
            file.write(memoryview(self._disk)[:FS_BYTES])
            for i in cut.rest:
                e = self.entries[i]
                if e.off < FS_BYTES:
                    file.seek(e.off)
                    file.write(e.data[: cut.torn] if i == cut.rest[-1] else e.data)

    def recover(self, cut: Cut) -> None:
        """Mount it as the kernel would, start a guard on it, ask it.  Raises QsafpError."""
        shutil.rmtree(self.files, ignore_errors=True)
        self.files.mkdir()
        run(["e2fsck", "-y", "-E", "journal_only", self.image])
        run(["debugfs", "-R", f"rdump /guard {self.files}", self.image])
        (self.files / "guard.toml").write_bytes(toml("run", str(self.set)))
        with OwnGuard(self.files / "guard.toml") as guard, guard.client() as client:
            root = bytes.fromhex(str(cut.told["root"]))
            holds(client, Told(**{**cut.told, "root": root}))
            log = Log.of(client.records(), client.status().log_id)
            log.verify()
            log.check_seals(self.k0)


def test_the_record_has_what_a_cut_is_about(entries: list[Entry]) -> None:
    notes = [i for i, e in enumerate(entries) if e.note]
    flushes = [i for i, e in enumerate(entries) if e.flush and i > notes[0]]
    assert len(notes) >= 1 + 2 * ROUNDS + 1
    assert len({e.note["serial"] for e in entries if e.note}) > ROUNDS
    assert len(flushes) >= 2 * ROUNDS, "each answer about the log costs a flush, and each serial one"


def test_nothing_that_was_answered_is_lost_and_nothing_is_half(
    machine: Machine, fleet: Fleet, entries: list[Entry], figures: Figures
) -> None:
    every = list(cuts(entries))
    chosen = sorted(random.Random(3).sample(range(len(every)), min(MOST, len(every))))
    bench, bad = Bench(machine, fleet, entries), []
    for cut in (every[i] for i in chosen):
        bench.build(cut)
        try:
            bench.recover(cut)
        except QsafpError as why:
            bad.append(f"{cut.name}: {why}")
    writes = sum(not e.flush for e in entries)
    over = f"of {len(every)} possible ones over {writes} writes and {len(entries) - writes} flushes; {len(bad)} bad"
    figures.put("emulated.power_cuts", len(chosen), "count", note=over)
    assert not bad, "\n".join(bad[:10])
