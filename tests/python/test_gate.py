# SPDX-License-Identifier: Apache-2.0
"""The gate as a workload sees it, behind a real guard process (HW-5)."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import pytest
from guard_kit import MODEL, Device, short_dir, until

from qsafp_embedded import Gate
from qsafp_embedded._core import now_ns
from qsafp_embedded._tables import Event, Phase, Reason, Status
from qsafp_embedded.errors import (
    FormatError,
    GuardUnavailable,
    LeaseDenied,
    LeaseExpired,
    LeasePending,
    LeaseRefused,
    LeaseUninitialized,
    WrongModel,
)


def refusal(gate: Gate) -> LeaseRefused:
    """What require() says now."""
    with pytest.raises(LeaseRefused) as caught:
        gate.require()
    return caught.value


def test_an_open_gate_says_yes_in_every_way(device: Device) -> None:
    device.lease()
    gate = device.gate()
    assert gate
    assert gate.check() is Status.VALID
    gate.require()
    assert gate.wait(0)
    with gate as same:
        assert same is gate
    assert gate(lambda x: x + 1)(1) == 2
    info = gate.info()
    assert (info.open, info.attached, info.status, info.phase, info.reason) == (True, True, Status.VALID, Phase.ACTIVE, Reason.NONE)
    assert (info.serial, info.generation, info.model) == (1, 0, MODEL)
    assert 0 < info.remaining_s <= 0.5
    assert info.lease_id != bytes(16)


def test_a_device_without_a_lease_is_refused_in_every_way(device: Device) -> None:
    gate = device.gate()
    assert not gate
    assert gate.check() is Status.UNINITIALIZED
    assert not gate.wait(0.02)
    ran: list[int] = []
    for use in (gate.require, gate.__enter__, gate(lambda: ran.append(1))):
        with pytest.raises(LeaseUninitialized):
            use()
    assert not ran
    no = refusal(gate)
    assert (no.reason, no.since, no.serial, no.refused_by) == ("NONE", None, 0, ())
    assert "next lease" in no.resume
    with device.client() as client:
        client.begin()
        until(lambda: gate.check() is Status.PENDING)
    assert type(refusal(gate)) is LeasePending


def test_wait_returns_once_a_lease_arrives(device: Device) -> None:
    gate = device.gate()
    later = threading.Timer(0.1, device.lease)
    later.start()
    assert gate.wait(10)
    later.join()


def test_a_lease_that_ends_is_refused_as_expired_and_says_since_when(device: Device) -> None:
    device.stop()
    device.configure(duration_ms=700, warning_ms=200)
    device.start().lease()
    gate = device.gate()
    assert gate
    until(lambda: gate.info().phase is Phase.WARNING)
    assert gate
    until(lambda: not gate)
    no = refusal(gate)
    assert type(no) is LeaseExpired
    assert (no.serial, no.refused_by) == (1, ())
    assert no.since is not None
    assert 0 <= no.since < 5
    assert "next lease" in no.resume
    until(lambda: gate.info().phase is Phase.FAILSAFE)
    assert refusal(gate).reason == "NETWORK_TIMEOUT"
    device.lease()
    assert gate


def test_a_denied_device_learns_who_refused_and_who_must_release(device: Device) -> None:
    device.lease()
    gate = device.gate()
    assert gate
    device.revoke((0, 2, 5))
    no = refusal(gate)
    assert type(no) is LeaseDenied
    assert (no.reason, no.refused_by, no.serial) == ("VALIDATOR_DENIED", (0, 2, 5), 1)
    assert "qsafp unlock" in no.resume
    assert no.since is not None
    assert "refused by validators 0, 2, 5" in str(no)
    assert gate.info().generation == 1


def test_another_model_never_opens(device: Device) -> None:
    device.lease()
    gate = device.gate(model=bytes(32))
    assert not gate
    no = refusal(gate)
    assert type(no) is WrongModel
    assert MODEL.hex()[:16] in str(no)
    assert gate.check() is not Status.VALID
    assert not gate.wait(0.05)


def test_a_model_file_is_hashed(device: Device) -> None:
    model = device.root / "model.bin"
    model.write_bytes(b"weights")
    device.stop()
    device.configure(model=str(model), model_hash=None)
    device.start().lease()
    assert device.gate(model=model)
    model.write_bytes(b"other weights")
    assert type(refusal(device.gate(model=model))) is WrongModel
    with pytest.raises(FormatError, match="not a SHA-256"):
        device.gate(model=b"short")


def test_threads_share_a_gate(device: Device) -> None:
    device.lease()
    gate, seen, stop = device.gate(), [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            seen.append(bool(gate))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    until(lambda: len(seen) > 20_000)
    assert all(seen)
    device.revoke()
    until(lambda: not gate)
    at = len(seen)
    until(lambda: len(seen) > at + 1000)
    stop.set()
    for t in threads:
        t.join()
    assert not any(seen[-500:])


def test_a_forked_child_sees_the_gate_close(device: Device) -> None:
    device.lease()
    gate = device.gate()
    assert gate
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(theirs, b"o" if gate else b"x")
        end = time.monotonic() + 15
        while gate and time.monotonic() < end:
            time.sleep(0.001)
        os.write(theirs, b"x" if gate else b"c")
        os._exit(0)
    assert os.read(ours, 1) == b"o"
    device.revoke()
    assert os.read(ours, 1) == b"c"
    os.waitpid(pid, 0)
    os.close(ours)
    os.close(theirs)


def test_a_gate_attaches_again_after_the_guard_came_back(device: Device) -> None:
    device.lease()
    gate = device.gate()
    assert gate
    device.stop()
    assert not gate
    assert "guard is gone" in refusal(gate).resume
    device.start()
    assert not gate, "a restart ends the lease"
    device.lease()
    assert gate.wait(5)
    assert gate.info().serial == 2


def test_a_gate_made_before_any_guard_attaches_later() -> None:
    with short_dir() as root:
        device = Device(root)
        gate = device.gate()
        no = refusal(gate)
        assert type(no) is LeaseUninitialized
        assert not gate.info().attached
        assert "qsafp_embedded.agent" in no.resume
        try:
            device.start().lease()
            assert gate.wait(5)
        finally:
            device.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_stopped_guard_closes_within_stale_after(device: Device, number: int) -> None:
    device.lease()
    gate = device.gate()
    assert gate
    begun = now_ns()
    device.send(number)
    until(lambda: not gate)
    last = gate._fields()["deadline_ns"]
    assert last - begun <= 500_000_000, "the deadline never lies further ahead than stale_after"
    assert type(refusal(gate)) is LeaseExpired
    assert gate.check() is Status.EXPIRED
    until(lambda: device.pin("LEASE_VALID") == 0)
    if number == signal.SIGSTOP:
        device.send(signal.SIGCONT)
        assert gate.wait(5), "a guard that was only stopped goes on"
        until(lambda: device.pin("LEASE_VALID") == 1)


def test_inference_counts_reach_the_log(device: Device) -> None:
    device.lease()
    with device.gate() as gate:
        for i in range(5):
            gate.record(bytes([i]))
    found = [r for r in device.records() if r["event"] == Event.INFERENCE_COMPLETED]
    assert [int.from_bytes(r["data"][:8], "little") for r in found] == [5]
    assert found[0]["flags"] & 8, "marked as a workload's own word"


def test_a_closed_gate_object_stays_usable(device: Device) -> None:
    device.lease()
    gate = device.gate()
    gate.close()
    assert gate.wait(5)


def serve_once(path: str, hello: bytes, fd: int) -> socket.socket:
    """A server that is no guard: sends a hello and a descriptor to everyone."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.bind(path)
    s.listen(8)

    def run() -> None:
        while True:
            try:
                c, _ = s.accept()
            except OSError:
                return
            with c:
                socket.send_fds(c, [hello], [fd])

    threading.Thread(target=run, daemon=True).start()
    return s


HELLO = b"QGP1\1\0\0\0"
SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0010
PAGES = {
    "another version": (b"QGP2\1\0\0\0", b"QGP1", True, "another version"),
    "another ABI": (b"QGP1\2\0\0\0", b"QGP1", True, "another version"),
    "cut hello": (b"QGP1", b"QGP1", True, "another version"),
    "another page": (HELLO, b"QGP2", True, "another version"),
    "unsealed": (HELLO, b"QGP1", False, "not sealed"),
}


@pytest.mark.parametrize("case", PAGES)
def test_a_page_of_another_version_never_opens(case: str) -> None:
    import fcntl

    hello, magic, sealed, says = PAGES[case]
    with short_dir() as root:
        (root / "main").mkdir()
        fd = os.memfd_create("page", os.MFD_ALLOW_SEALING)
        os.write(fd, magic + bytes(4092))
        if sealed:
            fcntl.fcntl(fd, 1033, SEALS)
        server = serve_once(str(root / "main/gate.sock"), hello, fd)
        gate = Gate(run_dir=root)
        no = refusal(gate)
        assert type(no) is LeaseUninitialized
        assert says in str(no)
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        os.close(fd)


def test_a_page_of_zeros_or_ones_is_closed() -> None:
    from qsafp_embedded._core import GatePage

    for filler in (b"\0", b"\xff"):
        fd = os.memfd_create("page")
        os.write(fd, b"QGP1" + filler * 4092)
        page = GatePage()
        page._attach(fd)
        assert not page._open()
        os.close(fd)


def test_errors_are_builtins_too() -> None:
    assert issubclass(LeaseExpired, PermissionError)
    assert issubclass(GuardUnavailable, ConnectionError)


def test_another_model_closes_the_page_for_good_and_makes_a_new_one(device: Device) -> None:
    device.lease()
    gate = device.gate()
    assert gate
    device.stop()
    device.configure(model_hash=bytes(32).hex())
    device.start().lease()
    assert type(refusal(gate)) is WrongModel
    assert not gate
    assert device.gate(model=bytes(32))
