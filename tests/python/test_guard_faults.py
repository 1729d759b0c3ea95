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
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guard_kit import LIMIT_S, MODEL, Device, Wire, frame, short_dir, until
from validator_kit import quorum

from qsafp_embedded import cose, keys, sets
from qsafp_embedded._core import Tag, audit_verify, cbor_dumps, cbor_loads, claims_decode, claims_encode, crc16
from qsafp_embedded._tables import CommandStatus, Error, Event, Opcode, Reason, Refusal
from qsafp_embedded.client import CommandRefused, GuardClient
from qsafp_embedded.errors import GuardUnavailable

SLOT = 256


@pytest.fixture
def device() -> Iterator[Device]:
    with short_dir() as root:
        made = Device(root)
        try:
            yield made.start()
        finally:
            made.close()


@pytest.fixture
def enrolled() -> Iterator[Device]:
    with short_dir() as root:
        made = Device(root)
        try:
            yield made
        finally:
            made.close()


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


# ---- frames ----


def test_frames_that_are_cut_garbled_or_overlong_are_answered_and_change_nothing(device: Device) -> None:
    device.lease()
    gate, wire = device.gate(), Wire(device.run / "ctl.sock")
    good = frame(Opcode.STATUS, tag=5)
    assert wire.raw(good)[:2] == (5, CommandStatus.OK)
    for n in range(1, len(good)):
        assert wire.raw(good[:n])[1] == CommandStatus.BAD_LENGTH, n
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert wire.raw(bytes(bad))[1] in (CommandStatus.BAD_CRC, CommandStatus.BAD_LENGTH), bit
    for packet in (good + b"\0", frame(Opcode.STATUS, b"x" * 1025), frame(Opcode.RENEW, b"x" * 4000), b"\xff" * 60_000):
        assert wire.raw(packet)[1] == CommandStatus.BAD_LENGTH
    rng = random.Random(1)
    for _ in range(300):
        assert wire.raw(rng.randbytes(rng.randrange(1, 1200)))[1] in (CommandStatus.BAD_CRC, CommandStatus.BAD_LENGTH)
    assert wire.raw(good)[1] == CommandStatus.OK
    wire.close()
    assert gate
    device.lease()


def test_unknown_opcodes_subs_and_lengths_are_named(device: Device) -> None:
    wire = Wire(device.run / "ctl.sock")
    bad = {CommandStatus.BAD_OPCODE, CommandStatus.BAD_ARGUMENT, CommandStatus.BAD_LENGTH, CommandStatus.NO_REQUEST}
    bad |= {CommandStatus.NOT_ALLOWED, CommandStatus.INCOMPLETE}
    for opcode in range(8, 256):
        assert wire.ask(opcode)[0] == CommandStatus.BAD_OPCODE
    for opcode, payload in (
        (Opcode.VERSION, b"x"),
        (Opcode.STATUS, b"x"),
        (Opcode.RENEW, b""),
        (Opcode.RENEW, b"\x09"),
        (Opcode.RENEW, b"\0\0"),
        (Opcode.RENEW, b"\1" + bytes(12)),
        (Opcode.RENEW, b"\1" + bytes(3)),
        (Opcode.RENEW, b"\2" + bytes(3)),
        (Opcode.RENEW, b"\3"),
        (Opcode.RENEW, b"\4"),
        (Opcode.READ_LOG, b""),
        (Opcode.READ_LOG, bytes(11)),
        (Opcode.FAILSAFE, b""),
        (Opcode.FAILSAFE, bytes(4)),
        (Opcode.LOG_EVENT, b""),
        (Opcode.LOG_EVENT, struct.pack("<HI", Event.LEASE_ISSUED, 0)),
        (Opcode.LOG_EVENT, struct.pack("<HI", Event.WORKLOAD_REPORT, 0) + bytes(97)),
        (Opcode.WORKLOAD, b""),
        (Opcode.WORKLOAD, b"\1"),
        (Opcode.WORKLOAD, b"\0\1x"),
    ):
        assert wire.ask(opcode, payload)[0] in bad, (opcode, payload)
    wire.close()
    assert Event.LEASE_ISSUED not in device.events()


def test_interleaved_connections_do_not_mix(device: Device) -> None:
    with device.client() as client:
        token = device.q.lease(device.propose(client)[0])
    a, b = Wire(device.run / "ctl.sock"), Wire(device.run / "ctl.sock")
    for at in range(0, len(token), 100):
        assert a.ask(Opcode.RENEW, struct.pack("<BII", 2, at, len(token)) + token[at : at + 100])[0] == CommandStatus.OK
        assert b.ask(Opcode.RENEW, struct.pack("<BII", 2, at, len(token)) + bytes(len(token[at : at + 100])))[0] == CommandStatus.OK
    assert b.ask(Opcode.RENEW, b"\3")[0] == CommandStatus.REFUSED
    assert a.ask(Opcode.RENEW, b"\3")[0] == CommandStatus.OK
    a.close()
    b.close()
    assert device.gate()


def test_a_repeated_frame_has_no_second_effect(device: Device) -> None:
    wire = Wire(device.run / "ctl.sock")
    again = frame(Opcode.LOG_EVENT, struct.pack("<HI", Event.WORKLOAD_REPORT, 0), tag=3)
    assert wire.raw(again) == wire.raw(again)
    wire.close()
    assert device.events().count(Event.WORKLOAD_REPORT) == 1


def test_gate_sock_takes_only_what_workloads_may_say_and_ten_records_a_second(device: Device) -> None:
    device.lease()
    wire = Wire(device.run / "gate.sock")
    wire.wire.receive(5.0)
    assert wire.ask(Opcode.VERSION)[0] == wire.ask(Opcode.STATUS)[0] == CommandStatus.OK
    refused = {CommandStatus.NOT_ALLOWED, CommandStatus.RATE_LIMITED}
    for opcode in (Opcode.RENEW, Opcode.READ_LOG, Opcode.FAILSAFE, Opcode.SET):
        for payload in (b"", b"\0", b"\3", struct.pack("<I", Reason.MANUAL)):
            assert wire.ask(opcode, payload, tag=1)[0] in refused
    time.sleep(1.0 - time.clock_gettime(time.CLOCK_BOOTTIME) % 1.0)  # the guard counts by whole seconds
    event = struct.pack("<HI", Event.WORKLOAD_REPORT, 0)
    got = [wire.ask(Opcode.LOG_EVENT, event)[0] for _ in range(100)]
    assert CommandStatus.OK in got[:1]
    assert got.count(CommandStatus.OK) <= 20, "ten a second, in at most two seconds"
    assert CommandStatus.RATE_LIMITED in got
    wire.close()
    assert device.gate()


def test_many_connections_of_workloads_do_not_keep_the_agent_out(device: Device) -> None:
    wires = []
    for _ in range(80):
        wire = Wire(device.run / "gate.sock")
        wires.append(wire)
    assert device.lease()
    for wire in wires:
        wire.close()


def test_a_client_that_never_reads_is_let_go(device: Device) -> None:
    wire = Wire(device.run / "ctl.sock")
    wire.wire._socket.setblocking(False)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(100_000):
            with contextlib.suppress(BlockingIOError):
                wire.wire._socket.send(frame(Opcode.STATUS))
        pytest.fail("never let go")
    wire.close()
    assert device.lease()


# ---- tokens ----


def refused(device: Device, token: bytes) -> Error | None:
    """Put a token that must be refused, and see that the gate stays as it was; returns the reason."""
    gate = device.gate()
    was = bool(gate)
    with device.client() as client, pytest.raises(CommandRefused) as caught:
        client.put(token)
    assert bool(gate) == was
    return caught.value.error


def claim(payload: bytes, **changed: object) -> bytes:
    """The payload with other claims."""
    return claims_encode({**claims_decode(payload), **changed})


def by(device: Device, payload: bytes, indexes: list[int], **changed: object) -> bytes:
    """A lease over other claims than were proposed, honestly signed."""
    return device.q.lease(claim(payload, **changed), indexes)


STRANGER = quorum(m=4, n=6)
FOUR = [0, 1, 2, 3]


def swap(token: bytes, edit: Callable[[list], object]) -> bytes:
    """The token with its COSE parts edited."""
    tag = cbor_loads(token)
    parts = list(tag.value)
    edit(parts)
    return cbor_dumps(Tag(tag.number, parts))


def resign(payload: bytes, header: dict[int, object], key: keys.Ed25519Key) -> list[object]:
    """One signature under any protected header."""
    protected = cbor_dumps(header)
    return [protected, {}, key.sign(cbor_dumps(["Signature", b"", protected, cose.AAD_LEASE, payload]))]


def one_other(d: Device, p: bytes, entry: list[object]) -> bytes:
    """A good lease but for its last signature."""
    return swap(d.q.lease(p), lambda parts: parts[3].__setitem__(3, entry))


TOKENS: dict[str, tuple[Callable[[Device, bytes], bytes], set[Error]]] = {
    "one byte": (lambda d, p: b"\xd8", {Error.MALFORMED}),
    "noise": (lambda d, p: b"\xff" * 600, {Error.MALFORMED, Error.NOT_CANONICAL}),
    "another tag": (lambda d, p: cbor_dumps(Tag(97, [b"", {}, p, []])), {Error.MALFORMED}),
    "cut": (lambda d, p: d.q.lease(p)[:-1], {Error.MALFORMED}),
    "one byte more": (lambda d, p: d.q.lease(p) + b"\0", {Error.TRAILING, Error.MALFORMED}),
    "a long form": (lambda d, p: b"\xd9\x00\x62" + d.q.lease(p)[2:], {Error.NOT_CANONICAL, Error.MALFORMED}),
    "unprotected headers": (lambda d, p: swap(d.q.lease(p), lambda x: x.__setitem__(1, {1: 1})), {Error.MALFORMED}),
    "three votes": (lambda d, p: d.q.lease(p, [0, 1, 2]), {Error.TOO_FEW}),
    "no votes": (lambda d, p: d.q.lease(p, []), {Error.TOO_FEW, Error.MALFORMED}),
    "five votes": (lambda d, p: d.q.lease(p, [0, 1, 2, 3, 4]), {Error.NOT_CANONICAL}),
    "one voter twice": (lambda d, p: d.q.lease(p, [0, 1, 1, 2]), {Error.DUPLICATE_SIGNER}),
    "out of order": (lambda d, p: d.q.lease(p, [1, 0, 2, 3]), {Error.DUPLICATE_SIGNER, Error.NOT_CANONICAL}),
    "strangers": (lambda d, p: STRANGER.lease(p), {Error.UNKNOWN_SIGNER}),
    "a stranger's vote": (
        lambda d, p: one_other(d, p, cose.sign_payload(p, STRANGER.ed[3], cose.AAD_LEASE).as_list()),
        {Error.UNKNOWN_SIGNER},
    ),
    "an unknown algorithm": (
        lambda d, p: one_other(d, p, resign(p, {1: -7, 4: d.q.ed[3].kid}, d.q.ed[3])),
        {Error.UNKNOWN_ALGORITHM, Error.UNKNOWN_SIGNER, Error.MALFORMED},
    ),
    "an algorithm of another suite": (
        lambda d, p: one_other(d, p, resign(p, {1: -49, 4: d.q.ed[3].kid}, d.q.ed[3])),
        {Error.UNKNOWN_SIGNER},
    ),
    "a header nobody knows": (
        lambda d, p: one_other(d, p, resign(p, {1: -19, 2: [9], 4: d.q.ed[3].kid}, d.q.ed[3])),
        {Error.MALFORMED, Error.NOT_CANONICAL},
    ),
    "signed as a refusal": (
        lambda d, p: one_other(d, p, cose.sign_payload(p, d.q.ed[3], cose.AAD_REFUSAL).as_list()),
        {Error.BAD_SIGNATURE},
    ),
    "another device": (lambda d, p: by(d, p, FOUR, ueid=b"\x01" + bytes(32)), {Error.MISMATCH}),
    "another model": (lambda d, p: by(d, p, FOUR, model=bytes(32)), {Error.MISMATCH}),
    "another nonce": (lambda d, p: by(d, p, FOUR, nonce=bytes(16)), {Error.MISMATCH}),
    "another serial": (lambda d, p: by(d, p, FOUR, serial=9), {Error.MISMATCH}),
    "another epoch": (lambda d, p: by(d, p, FOUR, epoch=2), {Error.MISMATCH}),
    "another set": (lambda d, p: by(d, p, FOUR, set_id=bytes(16)), {Error.MISMATCH}),
    "a longer lease": (lambda d, p: by(d, p, FOUR, duration_ms=60_001), {Error.MISMATCH}),
    "a lease of one ms": (lambda d, p: by(d, p, FOUR, duration_ms=1), {Error.MISMATCH}),
    "no claims": (lambda d, p: d.q.lease(b""), {Error.MISMATCH}),
    "too long": (lambda d, p: b"\xd8\x62" + bytes(16_382), {Error.MALFORMED}),
}


@pytest.mark.parametrize("state", ["closed", "open"])
def test_a_token_that_is_none_is_named_and_leaves_the_gate_as_it_was(device: Device, state: str) -> None:
    if state == "open":
        device.lease()
    for case, (make, errors) in TOKENS.items():
        with device.client() as client:
            payload = device.propose(client)[0]
        got = refused(device, make(device, payload))
        assert got in errors, (case, got)
        if Error.BAD_SIGNATURE in errors:  # that request's votes are spent; the next has them all
            device.stop()
            device.start()
            if state == "open":
                device.lease()
    assert bool(device.gate()) == (state == "open")
    device.lease()
    assert device.gate()


def test_durations_of_nothing_and_2_63_are_no_claims() -> None:
    with short_dir() as root:
        device = Device(root)
        try:
            device.start()
            with device.client() as client:
                payload = device.propose(client)[0]
            for duration in (0, 2**63):
                item = cbor_loads(payload)
                item[-65537] = duration
                assert refused(device, device.q.lease(cbor_dumps(item))) == Error.MISMATCH
            assert claims_decode(payload)["model"] == MODEL
        finally:
            device.close()


def test_a_lease_that_was_used_or_abandoned_is_no_lease_again(device: Device) -> None:
    token = device.lease()
    assert refused(device, token) == Error.NO_REQUEST
    with device.client() as client:
        old = device.q.lease(device.propose(client)[0])
    device.stop()
    device.start()
    assert refused(device, old) == Error.NO_REQUEST
    with device.client() as client:
        device.propose(client)
    assert refused(device, old) == Error.MISMATCH


def test_refusals_that_are_none_do_not_count(device: Device) -> None:
    device.lease()
    with device.client() as client:
        serial = client.status().serial
        _, request = device.propose(client)
    cases = {
        "of another request": (device.refusal(bytes(32), 0), Error.STALE),
        "an unknown code": (
            cose.encode_sign1(cbor_dumps({1: request, 2: 2, 3: 99, 4: "no", 5: None}), device.q.ed[0], cose.AAD_REFUSAL),
            Error.MALFORMED,
        ),
        "a stranger's": (
            cose.encode_sign1(cbor_dumps({1: request, 2: 1, 3: 1, 4: "no", 5: None}), STRANGER.ed[0], cose.AAD_REFUSAL),
            Error.UNKNOWN_SIGNER,
        ),
        "a revocation of another device": (device.revocation(0, serial, ueid=b"\x01" + bytes(32)), Error.WRONG_DEVICE),
        "a revocation of another epoch": (device.revocation(0, serial, epoch=2), Error.WRONG_EPOCH),
        "a revocation of an older serial": (device.revocation(0, serial - 1), Error.STALE),
    }
    for case, (token, error) in cases.items():
        got = refused(device, token)
        assert got == error, (case, got)
    assert device.gate()
    with device.client() as client:
        for index in (0, 0, 0):
            client.put(device.refusal(request, index))
    assert device.gate(), "one voice said three times is one"
    device.revoke((1, 2))
    assert not device.gate()


def test_forged_answers_leave_a_record_and_spend_only_that_vote(device: Device) -> None:
    with device.client() as client:
        payload, _ = device.propose(client)
    bad = swap(device.q.lease(payload), lambda parts: parts[3][1].__setitem__(2, bytes(64)))
    assert refused(device, bad) == Error.BAD_SIGNATURE
    with device.client() as client:
        client.put(device.q.lease(payload, [0, 2, 3, 4]))
    assert device.gate()
    found = [r for r in device.records() if r["event"] == Event.ANOMALY]
    assert [(r["data"][0], r["reason"]) for r in found] == [(1, Reason.INVALID_SIGNATURES)]


def test_three_good_and_three_forged_votes_latch(device: Device) -> None:
    with device.client() as client:
        payload, _ = device.propose(client)
    for bad in (3, 4, 5):
        token = swap(device.q.lease(payload, [0, 1, 2, bad]), lambda parts: parts[3][3].__setitem__(2, bytes(64)))
        with device.client() as client, pytest.raises(CommandRefused):
            client.put(token)
    with device.client() as client:
        assert client.status().reason == Reason.INVALID_SIGNATURES


def test_chunks_of_a_token_out_of_order_are_refused(device: Device) -> None:
    wire = Wire(device.run / "ctl.sock")

    def put(at: int, total: int, data: bytes) -> int:
        return wire.ask(Opcode.RENEW, struct.pack("<BII", 2, at, total) + data)[0]

    assert put(3, 10, b"x") == CommandStatus.BAD_ARGUMENT
    assert put(0, 10, b"x" * 11) == CommandStatus.BAD_ARGUMENT
    assert put(0, 0, b"x") == CommandStatus.BAD_ARGUMENT
    assert put(0, 2**32 - 1, b"x") == CommandStatus.BAD_ARGUMENT
    assert put(0, 10, b"xxxxx") == CommandStatus.OK
    assert put(5, 11, b"x") == CommandStatus.BAD_ARGUMENT
    assert put(4, 10, b"x") == CommandStatus.BAD_ARGUMENT
    assert wire.ask(Opcode.RENEW, b"\3")[0] == CommandStatus.INCOMPLETE
    wire.close()


def test_a_wire_that_garbles_is_one_clear_error(device: Device) -> None:
    class Bad:
        peer = "test"

        def send(self, packet: bytes) -> None:
            self.packet = packet

        def receive(self, timeout: float) -> bytes:
            return b"\xa5" + self.packet[:1] + bytes(6)

        def close(self) -> None:
            pass

    with pytest.raises(GuardUnavailable, match="garbled twice"):
        GuardClient(Bad()).status()


def test_the_check_sum_is_the_tables_own() -> None:
    assert crc16(b"123456789") == 0x29B1


def test_a_refusal_code_of_the_wrong_class_is_malformed(device: Device) -> None:
    with device.client() as client:
        _, request = device.propose(client)
    body = cbor_dumps({1: request, 2: 2, 3: int(Refusal.POLICY), 4: "no", 5: None})
    assert refused(device, cose.encode_sign1(body, device.q.ed[0], cose.AAD_REFUSAL)) == Error.MALFORMED


def test_sets_agree_between_c_and_python(enrolled: Device) -> None:
    assert sets.load(enrolled.q.document).set_id == enrolled.q.members.set_id
