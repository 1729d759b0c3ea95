# SPDX-License-Identifier: Apache-2.0
"""What a TPM may do to a guard: each trouble has one clear line that says what helps, and none delays a stop."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guard_kit import LIMIT_S, Device, short_dir, until
from tpm_kit import (
    DEFINE,
    EXTEND,
    INCREMENT,
    LOAD,
    NV,
    NV_READ,
    NV_WRITE,
    PRIMARY,
    UNDEFINE,
    Wire,
    by_owner,
    enrolled,
    needs_tpm,
    refused,
    started,
    wired,
)

from qsafp_embedded._core import tpm_activate, tpm_anchor, tpm_attest, tpm_create, tpm_seal
from qsafp_embedded._tables import Reason
from qsafp_embedded.errors import QsafpError

pytestmark = needs_tpm


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A TPM that runs."""
    with wired() as made:
        yield made


@pytest.fixture
def device(wire: Wire) -> Iterator[Device]:
    """A device bound to it."""
    with enrolled(wire.key) as made:
        yield made


ANSWERS = {
    "locked out": (LOAD, 0x921, "locked out after wrong passwords", "tpm2_dictionarylockout -c"),
    "failure mode": (LOAD, 0x101, "in failure mode", "switch the board off and on"),
    "failure mode in NV": (NV_READ, 0x101, "in failure mode", "replace the TPM"),
    "full of objects": (PRIMARY, 0x902, "no room for another object", "/dev/tpmrm0"),
    "not started up": (PRIMARY, 0x100, "not started up", "tpm2_startup -c"),
    "another TPM": (LOAD, 0x1DF, "made by another TPM, or this one was cleared: replaced", "enrol again"),
    "a password": (PRIMARY, 0x9A2, "its owner hierarchy has a password", "tpm2_changeauth"),
    "spares its NV memory": (INCREMENT, 0x920, "takes no more NV writes for now", "tried again"),
    "an NV write that fails": (NV_WRITE, 0x126, "writing NV index 0x1815102 failed with code 0x126", "tpm2_rc_decode"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_of_a_sick_tpm_is_one_line_with_what_helps(name: str, wire: Wire, device: Device) -> None:
    command, answer, says, helps = ANSWERS[name]
    wire.watch(before=lambda code, _n: answer if code == command else None)
    said = refused(device)
    assert says in said
    assert helps in said
    wire.watch()
    device.start()  # nothing stayed behind
    device.lease()


def test_a_tpm_without_room_refuses_the_enrolment(wire: Wire) -> None:
    wire.watch(before=lambda code, _n: 0x14B if code == DEFINE else None)
    with short_dir() as root:
        device = Device(root, enrol=False, device_key=wire.key, tpm_nv=f"0x{NV:08x}")
        done = device.call("--init")
        assert done.returncode == 1
        assert "no room left in its NV memory; free some" in done.stderr
        assert not device.state.exists()
        wire.watch()
        assert device.call("--init").returncode == 0


def test_an_index_of_somebody_else_is_not_taken(wire: Wire) -> None:
    public = struct.pack(">IHIHH", NV + 2, 0x0B, 0x00020002, 0, 8)
    assert wire.tpm.owner(DEFINE, 0, struct.pack(">HH", 0, len(public)) + public) == 0
    with short_dir() as root:
        done = Device(root, enrol=False, device_key=wire.key, tpm_nv=f"0x{NV:08x}").call("--init")
        assert done.returncode == 1
        assert f"NV index 0x{NV + 2:x} (small store) is somebody else's; choose another tpm_nv" in done.stderr


def test_an_index_that_was_exchanged_refuses_the_start(wire: Wire, device: Device) -> None:
    device.start()
    device.stop()
    assert wire.tpm.owner(UNDEFINE, NV) == 0
    public = struct.pack(">IHIHH", NV, 0x0B, 0x00020002, 0, 8)
    assert wire.tpm.owner(DEFINE, 0, struct.pack(">HH", 0, len(public)) + public) == 0
    assert "(counter) is somebody else's" in refused(device)


def test_a_counter_that_somebody_else_raised_refuses_the_start(wire: Wire, device: Device) -> None:
    device.start()
    device.stop()
    assert wire.tpm.owner(INCREMENT, NV) == 0
    said = refused(device)
    assert "somebody else raised its counter" in said
    assert "enrol again" in said


def test_an_anchor_that_somebody_else_extended_refuses_the_start(wire: Wire, device: Device) -> None:
    device.start()
    device.stop()
    assert wire.tpm.owner(EXTEND, NV + 1, struct.pack(">H", 1) + b"x") == 0
    assert "not the log that the TPM's anchor stands for" in refused(device)


def test_an_anchor_that_somebody_else_extends_while_the_guard_runs_closes_the_gate(wire: Wire, device: Device) -> None:
    started(device, anchor_ms=60_000_000, anchor_min_ms=300)
    device.lease()
    gate = device.gate()
    assert gate
    other = by_owner(EXTEND, NV + 1, struct.pack(">H", 1) + b"x")
    wire.watch(before=lambda code, _n: other if code == EXTEND else None)
    until(lambda: not gate)
    with device.client() as client:
        assert client.status().reason == Reason.TAMPER
    assert device.guard is not None
    device.guard.terminate()
    said = device.guard.communicate(timeout=LIMIT_S)[1]
    assert "(log anchor) was written by somebody else" in said


def test_trouble_while_it_runs_is_told_once_and_once_when_it_is_over(wire: Wire, device: Device) -> None:
    started(device, anchor_ms=500, anchor_min_ms=300)
    wire.watch(before=lambda code, _n: 0x920 if code == EXTEND else None)
    until(lambda: wire.codes().count(EXTEND) >= 3)
    with device.client() as client:
        until(lambda: client.status().bound == 2)
        wire.watch()
        until(lambda: client.status().bound == 1 and client.status().anchor_seq)
    assert device.guard is not None
    device.guard.terminate()
    said = device.guard.communicate(timeout=LIMIT_S)[1].splitlines()
    assert len(said) == 2, said
    assert "not bound to the TPM for now" in said[0]
    assert "state and log are bound again" in said[1]


# ---- a TPM that hangs ----


def test_a_program_goes_on_while_a_tpm_works_for_it(wire: Wire) -> None:
    place = wire.key.removeprefix("tpm:")  # the wire is threads of this program: with all of it stopped no TPM would answer
    public, _ = tpm_create(place)
    attesting, endorsement, *_ = tpm_attest(place, 1)
    assert len({public, attesting, endorsement}) == 3
    assert tpm_seal(place, bytes(32), bytes(32))
    wire.watch()
    for refused_at_once in (lambda: tpm_anchor(place, NV), lambda: tpm_activate(place, b"not what attest.tpm holds", b"")):
        with pytest.raises(QsafpError) as said:
            refused_at_once()
        assert "does not answer" not in str(said.value)
    assert wire.codes()


def test_a_tpm_that_hangs_at_the_start_refuses_it_within_its_limit(wire: Wire, device: Device) -> None:
    held = threading.Event()
    wire.watch(before=lambda _code, _n: held.wait)
    begun = time.monotonic()
    try:
        said = refused(device)
    finally:
        held.set()
    assert "does not answer; if it stays so, switch the board off and on" in said
    assert 9 < time.monotonic() - begun < LIMIT_S


def test_an_anchor_that_hangs_delays_no_stop_and_no_command(wire: Wire, device: Device) -> None:
    started(device, anchor_ms=60_000_000, anchor_min_ms=300)
    device.lease()
    gate = device.gate()
    assert gate
    held = threading.Event()
    wire.watch(before=lambda code, _n: held.wait if code == EXTEND else None)
    try:
        until(lambda: EXTEND in wire.codes())
        begun = time.monotonic()
        with device.client() as client:
            client.failsafe(Reason.MANUAL)
            assert client.status().reason == Reason.MANUAL
        assert not gate
        assert time.monotonic() - begun < 1.5
        assert device.guard is not None
        device.guard.terminate()
        said = device.guard.communicate(timeout=LIMIT_S)[1]
    finally:
        held.set()
    assert "the log's last records are not anchored" in said
    wire.watch()
    wire.tpm.stop()
    wire.tpm.start()
    device.start()  # and nobody is locked out
    assert device.stop() == 0


# ---- not there ----


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to hide libtss2 in a mount namespace")
@pytest.mark.parametrize(
    ("library", "package"),
    [("libtss2-esys.so.0", "libtss2-esys-3.0.2-0"), ("libtss2-mu.so.0", "libtss2-mu0"), ("libtss2-tctildr.so.0", "libtss2-tctildr0")],
)
def test_each_missing_library_is_named_with_its_package(library: str, package: str, device: Device) -> None:
    found = next(Path("/usr/lib").glob(f"*/{library}"), None)
    if found is None or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    inner = f"mount --bind /dev/null {found.resolve()} && exec {sys.executable} -m qsafp_embedded.guard --config {device.toml}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", inner], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 1
    assert f"apt-get install {package}" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv to lose the right to open everything")
def test_a_device_that_may_not_be_opened_names_the_group(device: Device) -> None:
    node = device.root / "tpmrm0"
    node.touch(mode=0)
    device.configure(device_key=f"tpm:{node}", tpm_nv=f"0x{NV:08x}")
    words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", sys.executable, "-m", "qsafp_embedded.guard"]
    done = subprocess.run([*words, "--config", str(device.toml)], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 1
    assert "permission denied; put the guard's user into group tss" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_killed_guard_leaves_a_tpm_that_another_can_use(wire: Wire, device: Device) -> None:
    device.start()
    device.stop(signal.SIGKILL)
    device.close()
    device.start()
    device.lease()
