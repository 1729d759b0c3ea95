# SPDX-License-Identifier: Apache-2.0
"""Bad input to a guard: one clear error each, nothing lost, the gate unchanged or closed."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from guard_kit import LIMIT_S, Device, Wire, short_dir, until

from qsafp_embedded import cose, keys
from qsafp_embedded._core import audit_verify
from qsafp_embedded._tables import CommandStatus, Event, Opcode, Reason
from qsafp_embedded.client import CommandRefused
from qsafp_embedded.errors import GuardUnavailable

SLOT = 256


def start_error(device: Device) -> str:
    """What a guard that cannot start says: one line, exit status 1, no socket."""
    ended = device.call()
    assert ended.returncode == 1, ended
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("guard: ")
    with pytest.raises(GuardUnavailable):
        device.client()
    return lines[0]


def busy(device: Device, n: int) -> None:
    """Write n records."""
    wire = Wire(device.run / "ctl.sock")
    for _ in range(n):
        assert wire.ask(Opcode.LOG_EVENT, struct.pack("<HI", Event.WORKLOAD_REPORT, 0))[0] == CommandStatus.OK
    wire.close()


def last_slot(ring: bytes) -> int:
    """The slot of the newest record in a log that has not wrapped."""
    return max(i for i in range(len(ring) // SLOT) if ring[i * SLOT : i * SLOT + 4] == b"QAR1")


# ---- configuration ----

CONFIGS = {
    "a typo": ({"stale_afer_ms": 500}, "unknown key 'stale_afer_ms'; the nearest valid one is 'stale_after_ms'"),
    "another typo": ({"modle_hash": "00"}, "the nearest valid one is 'model_hash'"),
    "nothing like it": ({"zzz": 1}, "unknown key 'zzz'"),
    "text for a number": ({"duration_ms": "60"}, "'duration_ms' must be"),
    "truth for a number": ({"tick_ms": True}, "'tick_ms' must be"),
    "a lease of nothing": ({"duration_ms": 0}, "duration_ms = 0 is outside 1.."),
    "a lease of 2^63 ms": ({"duration_ms": 2**63 - 1}, "duration_ms = 9223372036854775807 is outside 1..2678400000"),
    "a warning longer than the lease": ({"warning_ms": 60_001}, "warning_ms = 60001 is outside 0..60000"),
    "stale before a tick": ({"stale_after_ms": 60}, "stale_after_ms = 60 is outside 100.."),
    "no model": ({"model_hash": None}, "give either model"),
    "two models": ({"model": "x"}, "give either model"),
    "half a hash": ({"model_hash": "00ff"}, "model_hash is not 64 hex digits"),
    "a model that is not there": ({"model_hash": None, "model": "/no/such"}, "/no/such"),
    "a policy nobody knows": ({"on_log_full": "ignore"}, "on_log_full = 'ignore'"),
    "a lease name with a slash": ({"lease": "a/b"}, "lease = 'a/b'"),
    "no run_dir": ({"run_dir": None}, "'run_dir' is missing"),
    "no set": ({"set": None}, "'set' is missing"),
    "a set that is not there": ({"set": "/no/such.cbor"}, "/no/such.cbor"),
    "a board that is not there": ({"board": "raspberry_pi_99"}, 'board "raspberry_pi_99"'),
    "no TOML": ("lease = ", "not TOML"),
}


@pytest.fixture(scope="module")
def configured() -> Iterator[Device]:
    with short_dir() as root:
        yield Device(root)


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_cannot_be_names_the_key(configured: Device, case: str) -> None:
    changed, says = CONFIGS[case]
    if isinstance(changed, str):
        configured.toml.write_text(changed)
    else:
        configured.configure(**changed)
    assert says in start_error(configured)


def test_lines_that_cannot_be_had_stop_the_start_and_nothing_else(enrolled: Device) -> None:
    board = enrolled.root / "board.toml"
    board.write_text('title = "t"\nproven = "never"\nchip = "nowhere"\n[lines]\nLEASE_VALID = { line = "A" }\n')
    enrolled.configure(board=str(board))
    said = start_error(enrolled)
    assert 'no GPIO chip is labelled "nowhere"; qsafp board check' in said or "permission denied; add the guard's user" in said
    enrolled.configure()
    assert enrolled.start().lease()


def test_a_socket_path_that_is_too_long_is_named(enrolled: Device) -> None:
    enrolled.configure(run_dir=str(enrolled.root / ("d" * 100)))
    assert "longer than the 107 bytes" in start_error(enrolled)


# ---- keys and set ----


def test_a_key_that_others_may_read_is_refused_with_the_remedy(enrolled: Device) -> None:
    for name in ("device.key", "nonce.key"):
        path = enrolled.state / name
        path.chmod(0o644)
        assert f"chmod 600 {path}" in start_error(enrolled)
        path.chmod(0o600)
    assert enrolled.start().lease()


@pytest.mark.parametrize("name", ["device.key", "nonce.key", "device.pub", "ueid", "state.bin", "seal.bin", "log.ring"])
def test_a_missing_file_is_named_and_never_made_anew(enrolled: Device, name: str) -> None:
    (enrolled.state / name).rename(enrolled.root / name)
    said = start_error(enrolled)
    assert name in said or "not enrolled" in said
    assert not (enrolled.state / name).exists()
    (enrolled.root / name).rename(enrolled.state / name)
    assert enrolled.start().lease()


def test_a_set_document_that_is_not_signed_by_its_keys_is_refused(enrolled: Device) -> None:
    good = enrolled.q
    other = keys.Ed25519Key.from_seed(bytes(32))
    stranger = cose.parse_sign(good.document).payload
    forged = cose.encode_sign(stranger, [cose.sign_payload(stranger, other, cose.AAD_SET)])
    for document in (forged, good.document[:-1], b"", b"\0" * 500, good.document + b"\0"):
        enrolled.set.write_bytes(document)
        assert "set document is not valid" in start_error(enrolled)
    enrolled.set.write_bytes(good.document)
    assert enrolled.start().lease()


# ---- a log that was cut, changed, or is another's ----


def test_a_torn_tail_is_dropped_and_the_log_goes_on(device: Device) -> None:
    device.lease()
    device.stop(signal.SIGKILL)
    ring = device.state / "log.ring"
    rng = random.Random(7)
    for cut in (1, 100, 255):
        whole = ring.read_bytes()
        at = last_slot(whole) + 1
        torn = bytearray(whole)
        torn[at * SLOT : at * SLOT + cut] = (b"QAR1" + bytes([7, 0]) + rng.randbytes(SLOT))[:cut]  # a record whose writing was cut
        ring.write_bytes(torn)
        device.start()
        device.lease()
        with device.client() as client:
            audit_verify(b"".join(client.records()), bytes(32))
        assert device.gate()
        device.stop(signal.SIGKILL)


def test_a_garbled_tail_page_is_named_when_it_holds_more_than_a_tail(device: Device) -> None:
    busy(device, 40)
    device.stop()
    ring = bytearray((device.state / "log.ring").read_bytes())
    newest = last_slot(ring)
    ring[(newest - 2) * SLOT + 60] ^= 1
    (device.state / "log.ring").write_bytes(ring)
    said = start_error(device)
    assert "log.ring" in said
    assert f"record {newest - 2} " in said or f"record {newest - 1} " in said


@pytest.mark.parametrize("offset", [0, 4, 8, 40, 60, 120, 210])
def test_a_changed_record_is_named_and_no_guard_runs_on_it(device: Device, offset: int) -> None:
    busy(device, 20)
    device.stop()
    ring = bytearray((device.state / "log.ring").read_bytes())
    ring[5 * SLOT + offset] ^= 0x10
    (device.state / "log.ring").write_bytes(ring)
    said = start_error(device)
    assert "record 5 " in said or "record 6 " in said
    assert "evidence" in said


def test_a_changed_seal_is_named(device: Device) -> None:
    busy(device, 20)
    device.stop()
    path = device.state / "seal.bin"
    assert path.exists()
    ring = bytearray((device.state / "log.ring").read_bytes())
    ring[15 * SLOT + 240] ^= 1
    (device.state / "log.ring").write_bytes(ring)
    # the key of that seal has gone, so that the guard cannot tell; the auditor, who has K_0, can
    device.start()
    from qsafp_embedded.audit import Log
    from qsafp_embedded.errors import AuditError

    with device.client() as client:
        log = Log.of(list(client.records()), client.status().log_id)
    with pytest.raises(AuditError, match="record 15: the seal"):
        log.check_seals(keys.read_secret(device.state.parent / "k0", "seal"))


def test_a_log_that_went_back_is_refused(device: Device) -> None:
    device.lease()
    device.stop()
    old = (device.state / "log.ring").read_bytes()
    device.start()
    busy(device, 600)  # the state's own tree grows past the old log
    device.lease()
    device.stop()
    (device.state / "log.ring").write_bytes(old)
    assert "log.ring" in start_error(device)


def test_another_devices_log_is_refused(device: Device) -> None:
    device.lease()
    device.stop()
    with short_dir() as root:
        other = Device(root)
        shutil.copy(other.state / "log.ring", device.state / "log.ring")
        assert "not the log that state.bin goes with" in start_error(device)
        try:
            other.start()
            busy(other, 5)
        finally:
            other.stop()
        shutil.copy(other.state / "log.ring", device.state / "log.ring")
        assert "log.ring: the log of another device" in start_error(device)


def test_a_blank_or_cut_ring_is_refused(device: Device) -> None:
    device.stop()
    ring = device.state / "log.ring"
    size = ring.stat().st_size
    for content in (b"\xff" * size, bytes(size), ring.read_bytes()[: size // 2], b""):
        ring.write_bytes(content)
        assert "log.ring" in start_error(device)


@pytest.mark.parametrize("keep", [0, 1, 4096, 8000])
def test_a_state_that_was_cut_is_named_or_its_older_half_serves(device: Device, keep: int) -> None:
    device.lease()
    device.stop()
    path = device.state / "state.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    ended = device.call() if keep < 4096 else None
    if ended is not None:
        assert "state.bin" in ended.stderr
    path.write_bytes(whole)
    device.start()
    device.lease()


# ---- disks ----


def limited() -> None:
    """No file may grow past the ring's own size: every append fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))


def test_a_full_disk_at_enrolment_leaves_nothing_behind() -> None:
    with short_dir() as root:
        device = Device(root, enrol=False)
        command = [*map(str, (os.sys.executable, "-m", "qsafp_embedded.guard", "--init", "--config", device.toml))]  # type: ignore[attr-defined]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, preexec_fn=limited)
        assert ended.returncode == 1
        assert ended.stderr.startswith("guard: ")
        assert len(ended.stderr.strip().splitlines()) == 1
        assert not device.state.exists()
        assert device.call("--init").returncode == 0, "and it works once there is room"


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 600 KB."""
    path = Path(tempfile.mkdtemp(prefix="qd", dir="/tmp"))
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(path)], capture_output=True, check=False)
    if done.returncode:
        path.rmdir()
        pytest.skip(f"cannot mount a small file system here: {done.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
        path.rmdir()


def fill(disk: Path) -> None:
    """Leave no byte free."""
    fd = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while os.write(fd, bytes(512)):
            continue
    os.close(fd)


def test_a_full_disk_closes_the_gate_and_loses_nothing(small_disk: Path) -> None:
    with short_dir() as root:
        device = Device(root, state_dir=str(small_disk / "state"))
        device.state = small_disk / "state"
        try:
            device.start().lease()
            gate = device.gate()
            fill(small_disk)
            with device.client() as client, contextlib.suppress(CommandRefused):
                for _ in range(50):
                    client.put(device.q.lease(device.propose(client)[0]))
            until(lambda: not gate)
            with device.client() as client:
                assert client.status().reason == Reason.LOG_FULL
                raw = b"".join(client.records())
            until(lambda: device.pin("LEASE_VALID") == 0)
            device.stop()
            (small_disk / "filler").unlink()
            device.start()
            with device.client() as client:
                again = b"".join(client.records())
            audit_verify(again, bytes(32))
            assert again.startswith(raw[: raw.rfind(b"QAR1")])
            device.lease()
            assert gate.wait(5)
        finally:
            device.close()


def test_degrade_goes_on_for_n_losses_counts_them_and_then_closes(small_disk: Path) -> None:
    with short_dir() as root:
        device = Device(root, state_dir=str(small_disk / "state"), on_log_full="degrade(3)")
        device.state = small_disk / "state"
        try:
            device.start().lease()
            gate = device.gate()
            fill(small_disk)
            losses = 0
            with device.client() as client:
                while gate and losses < 20:
                    try:
                        client.put(device.q.lease(device.propose(client)[0]))
                    except CommandRefused:
                        break
                    losses = sum(int.from_bytes(r["data"][8:16], "little") for r in device.records() if r["event"] == Event.EVIDENCE_PRUNED)
            assert losses == 3
            assert not gate
            with device.client() as client:
                assert client.status().reason == Reason.LOG_FULL
        finally:
            device.close()


def test_degrade_recovers_when_there_is_room_again(small_disk: Path) -> None:
    with short_dir() as root:
        device = Device(root, state_dir=str(small_disk / "state"), on_log_full="degrade(100)")
        device.state = small_disk / "state"
        try:
            device.start().lease()
            gate = device.gate()
            fill(small_disk)
            for _ in range(6):
                device.lease()
            assert gate
            (small_disk / "filler").unlink()
            for _ in range(3):
                device.lease()
            lost = [int.from_bytes(r["data"][8:16], "little") for r in device.records() if r["event"] == Event.EVIDENCE_PRUNED]
            assert lost
            assert gate
        finally:
            device.close()


def test_a_read_only_disk_is_one_clear_error(small_disk: Path) -> None:
    with short_dir() as root:
        device = Device(root, state_dir=str(small_disk / "state"))
        device.state = small_disk / "state"
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        assert "Read-only file system" in start_error(device)
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        try:
            assert device.start().lease()
        finally:
            device.close()


def test_a_run_directory_that_cannot_be_made_is_one_clear_error(enrolled: Device) -> None:
    (enrolled.root / "file").write_text("")
    enrolled.configure(run_dir=str(enrolled.root / "file" / "run"))
    assert str(enrolled.root / "file") in start_error(enrolled)
