# SPDX-License-Identifier: Apache-2.0
"""State and log bound to a TPM's NV memory (docs/design.md), shown with swtpm: what is put back, cut or rewritten is refused at the
start, and no cut of the power locks a healthy device out."""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from guard_kit import LIMIT_S, Device, short_dir, until
from tpm_kit import EXTEND, INCREMENT, NV, NV_READ, NV_WRITE, SIGN, UNDEFINE, Wire, enrolled, needs_tpm, refused, started, wired

from qsafp_embedded import sets
from qsafp_embedded._core import sha256, tpm_anchor
from qsafp_embedded._tables import Event, Reason
from qsafp_embedded.audit import Log
from qsafp_embedded.client import CommandRefused
from qsafp_embedded.errors import AuditError, ConfigError
from qsafp_embedded.guard import config

pytestmark = needs_tpm
STATE_BYTES, SLOT = 3232, 4096


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


def kept(device: Device, name: str = "copy") -> Path:
    """A copy of all that the guard keeps."""
    to = device.root / name
    shutil.copytree(device.state, to)
    return to


def put_back(device: Device, copy: Path) -> None:
    """The copy in the place of what is there."""
    shutil.rmtree(device.state)
    shutil.copytree(copy, device.state)


def counter(device: Device) -> int:
    """The count that state.bin ends in: of the younger slot."""
    raw = (device.state / "state.bin").read_bytes()
    heads = [(struct.unpack_from("<QQ", raw, at)[1], at) for at in (0, SLOT)]
    return int(struct.unpack_from("<Q", raw, max(heads)[1] + 48 + STATE_BYTES)[0])


def forge_counter(device: Device, count: int) -> None:
    """Write another count into both slots, with the checksum that goes with it."""
    raw = bytearray((device.state / "state.bin").read_bytes())
    for at in (0, SLOT):
        body = bytes(raw[at + 48 : at + 48 + STATE_BYTES]) + struct.pack("<Q", count)
        raw[at + 48 : at + 48 + len(body)] = body
        raw[at + 16 : at + 48] = sha256(bytes(raw[at + 8 : at + 16]) + body)
    (device.state / "state.bin").write_bytes(raw)


def stop_by_hand(device: Device) -> None:
    """Someone orders the fail-safe."""
    with device.client() as client:
        client.failsafe(Reason.MANUAL)


def phase(device: Device) -> tuple[int, int]:
    """What the guard says: reason, generation."""
    with device.client() as client:
        s = client.status()
    return s.reason, s.generation


# ---- a state that was put back ----


def test_an_older_copy_of_the_state_directory_is_refused_and_the_newest_starts(device: Device) -> None:
    device.start()
    device.lease()
    device.stop()
    old = kept(device)
    device.start()
    device.lease()
    device.stop()
    new = kept(device, "newest")
    put_back(device, old)
    said = refused(device)
    assert "an older state than the TPM knows was put back" in said
    assert "put the newest back" in said
    put_back(device, new)
    device.start()
    device.lease()


def test_a_copy_of_the_same_run_from_before_a_fail_safe_is_refused(wire: Wire, device: Device) -> None:
    device.start()
    device.lease()
    old = kept(device)
    wire.watch()
    stop_by_hand(device)
    until(lambda: NV_WRITE in wire.codes())  # the last step of what a fail-safe does there
    assert wire.codes().count(INCREMENT) == 1
    device.stop(signal.SIGKILL)
    new = kept(device, "newest")
    put_back(device, old)
    assert "an older state than the TPM knows" in refused(device)
    put_back(device, new)
    device.start()
    assert phase(device)[0] == Reason.MANUAL


def test_the_counter_rises_at_a_start_and_at_a_fail_safe_and_not_with_leases(wire: Wire, device: Device) -> None:
    wire.watch()
    device.start()
    assert wire.codes().count(INCREMENT) == 1
    wire.watch()
    for _ in range(5):
        device.lease()
    assert not {INCREMENT, EXTEND, NV_WRITE} & set(wire.codes())
    count = counter(device)
    stop_by_hand(device)
    until(lambda: INCREMENT in wire.codes())
    assert counter(device) == count + 1


def test_a_state_ahead_of_the_counter_is_of_another_tpm(device: Device) -> None:
    device.start()
    device.stop()
    forge_counter(device, counter(device) + 2)
    assert "another TPM" in refused(device)


def test_binding_cannot_be_turned_off_or_on_afterwards(wire: Wire, device: Device) -> None:
    device.configure(device_key=wire.key)
    assert "enrolled with tpm_nv" in refused(device)
    with short_dir() as root:
        plain = Device(root, device_key=wire.key)
        plain.configure(device_key=wire.key, tpm_nv="0x01815200")
        assert "enrolled without tpm_nv" in refused(plain)


# ---- power cuts ----


def start_story(device: Device) -> None:
    """A start, and its end in good order."""
    device.start()
    device.stop()


def failsafe_story(device: Device) -> None:
    """A start, a fail-safe, the end."""
    device.start()
    stop_by_hand(device)
    device.stop()


def told(device: Device, wire: Wire, story: Callable[[Device], None]) -> list[int]:
    """The NV commands of a story that nothing cuts: the places where one may."""
    wire.watch()
    story(device)
    return [n for n, code in enumerate(wire.codes()) if code in (NV_READ, INCREMENT, NV_WRITE, EXTEND)]


def cut(device: Device, wire: Wire, story: Callable[[Device], None], at: int, late: bool) -> None:
    """Kill the guard before the TPM sees command ``at``, or after it did it and before the guard hears so."""

    def kill(_code: int, n: int) -> Callable[[], None] | None:
        def now() -> None:
            assert device.guard is not None
            device.guard.kill()
            device.guard.wait(LIMIT_S)

        return now if n == at else None

    wire.watch(**{"after" if late else "before": kill})
    device.guard = None
    try:
        story(device)
    except (AssertionError, OSError, CommandRefused):
        pass  # the guard is gone
    finally:
        wire.watch()
        device.close()
        wire.tpm.stop()  # the power is cut for the TPM, too
        wire.tpm.start()


@pytest.mark.parametrize(("story", "known"), [(start_story, 0), (failsafe_story, 8)], ids=["start", "failsafe"])
def test_no_cut_between_two_steps_locks_the_device_out(wire: Wire, device: Device, story: Callable[[Device], None], known: int) -> None:
    start_story(device)  # the first start writes the set's epoch, too
    steps = told(device, wire, story)[known:]  # those of the start are cut by the first of both
    assert len(steps) >= 9, wire.codes()
    for at in steps:
        for late in (False, True):
            cut(device, wire, story, at, late)
            device.start()  # healthy: it must serve
            assert device.stop() == 0


def test_a_latch_that_a_cut_left_in_the_tpm_alone_is_in_force(wire: Wire, device: Device) -> None:
    """The order of a release is state, then TPM: a cut between latches again, and people release again."""
    device.start()
    stop_by_hand(device)
    until(lambda: NV_WRITE in wire.codes())
    device.stop()
    raw = bytearray((device.state / "state.bin").read_bytes())
    for at in (0, SLOT):  # whoever edits the state cannot edit the TPM's memory
        state = raw[at + 48 : at + 48 + STATE_BYTES]
        state[64:68] = bytes(4)
        state[3200:] = sha256(bytes(state[:3200]))
        raw[at + 48 : at + 48 + STATE_BYTES] = state
        raw[at + 16 : at + 48] = sha256(bytes(raw[at + 8 : at + 16]) + bytes(raw[at + 48 : at + 56 + STATE_BYTES]))
    (device.state / "state.bin").write_bytes(raw)
    device.start()
    until(lambda: phase(device)[0] == Reason.MANUAL)


# ---- the small store ----


def test_a_latch_survives_a_removed_state_and_a_new_enrolment(wire: Wire, device: Device) -> None:
    device.start()
    device.lease()
    wire.watch()
    stop_by_hand(device)
    until(lambda: NV_WRITE in wire.codes())
    device.stop()
    shutil.rmtree(device.state)
    (device.root / "guard" / "k0").unlink()
    assert device.call("--init").returncode == 0
    device.start()
    until(lambda: phase(device)[0] == Reason.MANUAL)
    assert device.records()[-1]["event"] == Event.FAILSAFE_TRIGGERED


def test_an_older_epoch_is_refused_after_a_new_enrolment_too(wire: Wire, device: Device) -> None:
    first = device.q.document
    device.start()
    with device.client() as client:
        wire.watch()
        client.install_set(sets.encode(replace(device.q.members, epoch=2), [device.q.set_key]))
        client.begin()  # the epoch is durable before a request of it leaves
        until(lambda: NV_WRITE in wire.codes())
    device.stop()
    shutil.rmtree(device.state)
    (device.root / "guard" / "k0").unlink()
    assert device.call("--init").returncode == 0
    assert device.set.read_bytes() == first
    assert "the TPM has known epoch 2" in refused(device)


def test_indices_of_another_lease_name_are_refused(wire: Wire, device: Device) -> None:
    with short_dir() as root:
        other = Device(root, enrol=False, device_key=wire.key, tpm_nv=f"0x{NV:08x}", lease="second")
        done = other.call("--init")
        assert done.returncode == 1
        assert "belongs to a lease of another name; choose another tpm_nv" in done.stderr
    device.start()


# ---- the log's anchor ----


def test_the_log_is_anchored_at_a_clean_end_and_the_tpm_tells_a_cut_log(wire: Wire, device: Device) -> None:
    device.start()
    device.lease()
    device.stop()
    log = Log.open(device.state / "log.ring", bytes.fromhex(device.enrolment["log_id"]))
    value = tpm_anchor(wire.tpm.key[4:], NV)
    assert log.records[-1].event == Event.LOG_ANCHORED
    assert log.anchored(value) == log.records[-1].seq
    with pytest.raises(AuditError, match="cut or rewritten"):
        Log(log.log_id, log.raw[:-1]).anchored(value)


def qsafp(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "qsafp_embedded.cli", *words], capture_output=True, text=True, timeout=LIMIT_S * 3, check=False
    )


def test_the_command_line_binds_a_device_and_verifies_its_log_against_the_tpm(wire: Wire) -> None:
    with short_dir() as root:
        words = ("--dir", str(root / "d"))
        made = qsafp("init", "--profile", "lab", "--device-key", wire.key, "--tpm-nv", hex(NV).replace("x", "x0"), *words)
        assert made.returncode == 0, made.stderr
        command = [sys.executable, "-m", "qsafp_embedded.guard", "--config", str(root / "d/guard/guard.toml")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as guard:
            assert guard.stdout is not None
            assert "serving" in guard.stdout.readline()
            shown = qsafp("status", *words)
            assert "anchor     none yet" in shown.stdout, shown
            guard.terminate()
        ring = root / "d/guard/state/log.ring"
        good = qsafp("audit", "verify", "--tpm", "--file", str(ring), *words)
        assert good.returncode == 0, good.stderr
        assert "the TPM stands for record 3" in good.stdout
        raw = ring.read_bytes()
        ring.write_bytes(raw[:768] + b"\xff" * 256 + raw[1024:])
        bad = qsafp("audit", "verify", "--tpm", "--file", str(ring), *words)
        assert bad.returncode == 1
        assert "the TPM's anchor stands for another log" in bad.stderr


def test_a_log_that_was_rewritten_with_hashes_that_chain_is_told(wire: Wire, device: Device) -> None:
    device.start()
    device.lease()
    device.stop()
    log = Log.open(device.state / "log.ring", bytes.fromhex(device.enrolment["log_id"]))
    head, raw = log.raw[0][208:240], [log.raw[0]]
    for r in log.raw[1:]:
        body = r[:36] + struct.pack("<I", 9) + r[40:208] if r[4] == Event.LEASE_ISSUED else r[:208]
        head = sha256(head + body)
        raw.append(body + head + r[240:])
    forged = Log(log.log_id, tuple(raw))
    forged.verify()
    with pytest.raises(AuditError, match="cut or rewritten"):
        forged.anchored(tpm_anchor(wire.tpm.key[4:], NV))


def test_an_older_log_with_its_state_and_a_forged_count_is_refused_by_the_anchor(device: Device) -> None:
    device.start()
    device.stop()
    old = kept(device)
    device.start()
    device.lease()
    device.stop()
    count = counter(device)
    put_back(device, old)
    forge_counter(device, count)
    said = refused(device)
    assert "not the log that the TPM's anchor stands for" in said
    assert "enrol again" in said


def test_a_record_that_was_cut_before_it_went_in_is_none(wire: Wire, device: Device) -> None:
    device.start()
    assert device.guard is not None
    kill = device.guard.kill
    wire.watch(before=lambda code, _n: kill if code == EXTEND else None)
    device.guard.terminate()
    device.guard.wait(LIMIT_S)
    wire.watch()
    log = Log.open(device.state / "log.ring", bytes.fromhex(device.enrolment["log_id"]))
    assert log.records[-1].event == Event.LOG_ANCHORED
    assert log.anchored(tpm_anchor(wire.tpm.key[4:], NV)) == 0
    device.start()
    device.stop()


def test_anchors_keep_their_distance_and_the_status_tells_the_last(wire: Wire, device: Device) -> None:
    started(device, anchor_ms=400, anchor_min_ms=200)
    wire.watch()
    until(lambda: wire.codes().count(EXTEND) >= 4)
    at = [t for code, t in wire.seen if code == EXTEND]
    assert at[-1] - at[0] >= 0.4 * (len(at) - 1) * 0.9  # the guard's clock is another
    with device.client() as client:
        s = client.status()
    assert (s.key_place, s.bound) == ("tpm", 1)
    anchored = [r["seq"] for r in device.records() if r["event"] == Event.LOG_ANCHORED]
    assert s.anchor_seq in anchored[-2:]
    assert device.stop() == 0


def test_half_a_ring_of_records_does_not_hasten_an_anchor_below_the_least_distance(wire: Wire, device: Device) -> None:
    started(device, anchor_ms=86_400_000, anchor_min_ms=2_000)
    wire.watch()
    begun = time.monotonic()
    with device.client() as client:
        for i in range(600):
            client.log_event(Event.WORKLOAD_REPORT, data=struct.pack("<I", i))
        until(lambda: client.status().anchor_seq >= 500)
    first = next(t for code, t in wire.seen if code == EXTEND)
    assert first - begun >= 1.5  # two seconds after the start, which was before
    assert device.stop() == 0


@pytest.mark.parametrize(
    ("key", "value"), [("anchor_s", 59), ("anchor_s", 86_401), ("tpm_nv", "0x01000000"), ("tpm_nv", "1815100"), ("tpm_nv", "0x01bffffe")]
)
def test_settings_out_of_their_range_are_refused(tmp_path: Path, key: str, value: object) -> None:
    toml = tmp_path / "guard.toml"
    toml.write_text(
        f'run_dir = "r"\nstate_dir = "s"\nmodel_hash = "{"00" * 32}"\ndevice_key = "tpm:/dev/tpmrm0"\n{key} = {value!r}\n'.replace("'", '"')
    )
    with pytest.raises(ConfigError, match=key):
        config.load(toml)


# ---- a TPM that is slow ----


def test_a_tpm_that_hangs_delays_no_stop_and_no_other_client(wire: Wire, device: Device) -> None:
    device.start()
    device.lease()
    gate = device.gate()
    assert gate
    held = threading.Event()
    wire.watch(before=lambda code, _n: held.wait if code == SIGN else None)
    asked: list[BaseException | None] = []

    def ask() -> None:
        try:
            with device.client() as client:
                client.begin()
            asked.append(None)
        except CommandRefused as no:
            asked.append(no)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        until(lambda: SIGN in wire.codes())
        begun = time.monotonic()
        with device.client() as client:
            assert client.status().phase_name == "ACTIVE"
            with pytest.raises(CommandRefused, match="BUSY"):
                client.begin()
            client.failsafe(Reason.MANUAL)
            assert client.status().reason == Reason.MANUAL
        assert not gate
        assert time.monotonic() - begun < 1.5  # the signature takes three seconds and does not come
        assert not asked
    finally:
        held.set()
        asking.join(LIMIT_S)
    assert asked
    assert asked[0] is not None
    wire.watch()
    device.stop()


# ---- a sealed seed ----


def sealed(wire: Wire) -> str:
    """What guard.toml says."""
    return wire.key.replace("tpm:", "tpm-sealed:", 1)


def test_a_sealed_seed_signs_and_is_named_as_such(wire: Wire) -> None:
    with enrolled(sealed(wire)) as device:
        assert device.enrolment["key_type"] == "ed25519"
        assert not (device.state / "device.key").exists()
        assert (device.state / "device.sealed").stat().st_mode & 0o777 == 0o600
        device.start()
        assert "device key in memory, sealed by TPM" in device.said
        device.lease()
        assert device.gate()
        with device.client() as client:
            assert client.status().key_place == "tpm-sealed"
        device.stop()
        device.start()
        device.lease()


def test_a_seed_that_was_sealed_without_binding_needs_the_tpm_at_the_start_alone(wire: Wire) -> None:
    with enrolled(sealed(wire), tpm_nv=None) as device:
        device.start()
        wire.tpm.stop()
        device.lease()
        device.stop()
        assert "nothing answers there" in refused(device)


def test_another_tpm_does_not_open_the_seed(tmp_path: Path, wire: Wire) -> None:
    with enrolled(sealed(wire)) as device:
        (tmp_path / "other").mkdir()
        wire.tpm.stop()
        wire.tpm.start(tmp_path / "other")
        assert "made by another TPM" in refused(device)
        wire.tpm.stop()
        wire.tpm.start()
        device.start()


def test_a_changed_blob_nonce_key_or_public_key_refuses_the_start(wire: Wire) -> None:
    with enrolled(sealed(wire)) as device, enrolled(sealed(wire), tpm_nv=None) as other:
        for name, said in (("device.sealed", "device.sealed"), ("nonce.key", "nonce.key"), ("device.pub", "not the key in device.pub")):
            path = device.state / name
            good = path.read_bytes()
            path.write_bytes(good[:-2] if name == "device.sealed" else (other.state / name).read_bytes())
            assert said in refused(device)
            path.write_bytes(good)
        device.configure(device_key=wire.key, tpm_nv=f"0x{NV:08x}")
        assert "enrolled with the device key sealed by a TPM" in refused(device)


def test_an_index_that_was_removed_is_named(wire: Wire, device: Device) -> None:
    device.start()
    device.stop()
    for which, name in ((2, "small store"), (1, "log anchor"), (0, "counter")):
        assert wire.tpm.owner(UNDEFINE, NV + which) == 0
        said = refused(device)
        assert f"NV index 0x{NV + which:x} ({name}) is not there" in said
        assert "enrol again" in said
