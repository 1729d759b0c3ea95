# SPDX-License-Identifier: Apache-2.0
"""A guard's whole life: pins, phases, log, epochs, limits, evidence (HW-4, HW-8, HW-12, HW-13)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from guard_kit import LIMIT_S, PYTHON, Device, Wire, short_dir, until
from validator_kit import quorum

from qsafp_embedded import keys, sets
from qsafp_embedded._core import audit_verify, claims_decode, sha256
from qsafp_embedded._tables import CommandStatus, Error, Event, Opcode, Phase, Reason, Refusal
from qsafp_embedded.audit import Log
from qsafp_embedded.client import CommandRefused


def evidence(device: Device, name: str = "evidence.log") -> dict[bytes, bytes]:
    """The evidence store: bytes by their SHA-256, which must hold."""
    raw, out = (device.state / name).read_bytes(), {}
    while raw:
        magic, size, digest = struct.unpack_from("<4sI32s", raw)
        body = raw[40 : 40 + size]
        assert magic == b"QEV1"
        assert sha256(body) == digest
        out[digest] = body
        raw = raw[40 + size :]
    return out


def refused(device: Device, token: bytes) -> Error | None:
    """Put a token that the guard must refuse; returns its reason."""
    with device.client() as client, pytest.raises(CommandRefused) as caught:
        client.put(token)
    return caught.value.error


# ---- pins ----


def test_pins_through_a_whole_life(device: Device) -> None:
    device.stop()
    device.configure(duration_ms=1200, warning_ms=300, grace_ms=300)
    device.start()
    assert device.pin("LEASE_VALID") == device.pin("FAILSAFE") == 0
    device.lease()
    until(lambda: device.pin("LEASE_VALID") == 1)
    for _ in range(3):
        time.sleep(0.3)
        device.lease()
    with device.client() as client:
        until(lambda: client.status().phase == Phase.FAILSAFE)
    until(lambda: [v for _, v in device.trace("FAILSAFE")] == [1, 0, 1, 0])
    device.lease()
    until(lambda: device.pin("LEASE_VALID") == 1)
    ended = time.monotonic()
    assert device.stop() == 0
    assert device.pin("LEASE_VALID") == 0
    assert [v for _, v in device.trace("LEASE_VALID")] == [1, 0, 1, 0], "a level: four leases, no blink between them"
    (up, _), (down, _), (again, _) = device.trace("FAILSAFE")[:3]
    assert 200e6 <= down - up < 450e6, "a pulse of 200 ms"
    assert 2e9 <= again - up < 2.3e9, "every 2 s"
    assert device.pin("FAILSAFE") == 0, "acknowledged by the release"
    assert [v for _, v in device.trace("VALIDATOR_REQ")] == [1, 0, 1, 0, 1], "one edge for each of five requests"
    assert time.monotonic() - ended < LIMIT_S


def test_the_pin_falls_when_the_guard_is_killed_and_its_holder_goes_when_another_comes(device: Device) -> None:
    device.lease()
    until(lambda: device.pin("LEASE_VALID") == 1)
    device.stop(signal.SIGKILL)
    until(lambda: device.pin("LEASE_VALID") == 0)
    until(lambda: device.pin("FAILSAFE") == 1)
    device.start().lease()
    until(lambda: device.pin("LEASE_VALID") == 1)
    assert device.pin("FAILSAFE") == 0
    assert (device.run / "pins").read_bytes().startswith(b"SIMULATED PINS")


def test_lease_renew_asks_for_a_renewal_until_a_lease_comes_and_a_held_button_asks_once(device: Device) -> None:
    with device.client() as client:

        def wanted() -> bool:
            return client.status().renew_wanted

        device.lease()
        assert not wanted(), "less than half of the lease is over"
        device.renew_line("1\n")
        until(wanted)
        assert device.pin("LEASE_RENEW") == 1
        assert device.gate()
        assert device.pin("LEASE_VALID") == 1
        device.lease()
        assert not wanted(), "answered"
        time.sleep(1.2)
        assert not wanted(), "held down: no other edge"
        device.renew_line("0")
        until(lambda: device.pin("LEASE_RENEW") == 0)
        assert not wanted(), "let go"
        assert device.events().count(Event.LEASE_RENEWED) == 1


def test_lease_renew_opens_nothing(device: Device) -> None:
    with device.client() as client:
        device.lease()
        device.revoke()
        before = client.status()
        device.renew_line("1")
        until(lambda: device.pin("LEASE_RENEW") == 1)
        time.sleep(0.2)
        after = client.status()
    assert (after.phase, after.reason, after.generation) == (Phase.FAILSAFE, Reason.VALIDATOR_DENIED, before.generation)
    assert device.pin("LEASE_VALID") == 0
    assert not device.gate()
    assert device.events()[-1] == Event.FAILSAFE_TRIGGERED


def test_a_storm_on_lease_renew_neither_stops_the_guard_nor_keeps_the_line_high(device: Device) -> None:
    fd = os.open(device.run / "pins.renew", os.O_WRONLY | os.O_NONBLOCK)
    device.lease()
    until(lambda: device.pin("LEASE_VALID") == 1)
    stop = threading.Event()

    def storm() -> None:
        while not stop.is_set():
            with contextlib.suppress(BlockingIOError):
                os.write(fd, b"10" * 512 + b"\n" * 1024)
            time.sleep(0.001)

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        time.sleep(0.5)
        assert device.gate()
        assert device.pin("LEASE_VALID") == 1
        device.revoke()
        until(lambda: device.pin("LEASE_VALID") == 0)
        until(lambda: device.pin("FAILSAFE") == 1)
    finally:
        stop.set()
        thread.join(LIMIT_S)
        os.close(fd)
    assert device.events()[-1] == Event.FAILSAFE_TRIGGERED
    assert len(device.events()) < 20, "a storm writes no records"


def holder_of(device: Device) -> int:
    assert device.guard is not None
    children = Path(f"/proc/{device.guard.pid}/task/{device.guard.pid}/children").read_text().split()
    return next(int(p) for p in children if Path(f"/proc/{p}/comm").read_text().strip() == "qsafp-pins")


def test_a_pin_holder_that_hangs_is_a_fail_safe(device: Device) -> None:
    device.lease()
    until(lambda: device.pin("LEASE_VALID") == 1)
    holder = holder_of(device)
    os.kill(holder, signal.SIGSTOP)
    try:
        with device.client() as client:
            until(lambda: client.status().reason == Reason.ANOMALY)
        assert not device.gate()
    finally:
        os.kill(holder, signal.SIGCONT)
    until(lambda: device.pin("LEASE_VALID") == 0)


def test_a_guard_whose_pin_holder_died_ends_and_the_next_one_takes_the_lines(device: Device) -> None:
    device.lease()
    assert device.guard is not None
    holder = holder_of(device)
    gate = device.gate()
    assert gate
    os.kill(holder, signal.SIGKILL)
    _, said = device.guard.communicate(timeout=LIMIT_S)
    assert device.guard.returncode == 1
    assert "the pin holder is gone" in said
    assert not gate
    device.start()
    assert device.pin("LEASE_VALID") == 0
    device.lease()
    until(lambda: device.pin("LEASE_VALID") == 1)


# ---- restart, lock, enrolment ----


def test_a_second_guard_on_the_same_lease_is_refused_and_the_first_goes_on(device: Device) -> None:
    device.lease()
    second = device.call()
    assert second.returncode == 1
    assert second.stderr.strip() == f"guard: {device.state}: another guard holds this lease; stop it first"
    assert device.gate()
    assert device.pin("LEASE_VALID") == 1


def test_a_second_enrolment_is_refused_and_changes_nothing(device: Device) -> None:
    device.stop()
    before = {p.name: p.read_bytes() for p in device.state.iterdir()}
    again = device.call("--init")
    assert again.returncode == 1
    assert "enrolled already" in again.stderr
    assert {p.name: p.read_bytes() for p in device.state.iterdir()} == before


def test_secrets_are_for_the_guards_user_alone(device: Device) -> None:
    assert {oct(p.stat().st_mode & 0o777) for p in device.state.glob("*.key")} == {"0o600"}
    assert device.state.stat().st_mode & 0o777 == 0o700
    assert (device.state.parent / "k0").stat().st_mode & 0o777 == 0o600
    text = (device.state.parent / "enrolment.json").read_text()
    for secret in device.state.glob("*.key"):
        assert secret.read_text().split()[-1] not in text


def test_a_restart_keeps_log_serial_and_latch_and_ends_the_lease(device: Device) -> None:
    device.lease()
    device.revoke()
    with device.client() as client:
        before = client.status()
    device.stop()
    device.start()
    with device.client() as client:
        after = client.status()
    assert (after.phase, after.reason, after.generation) == (Phase.FAILSAFE, Reason.VALIDATOR_DENIED, before.generation)
    assert (after.latch_seq, after.latch_hash, after.log_id) == (before.latch_seq, before.latch_hash, before.log_id)
    assert after.boot == before.boot + 1
    assert not device.gate()
    device.lease()
    assert device.gate()
    assert device.events()[-2:] == [Event.FAILSAFE_RELEASED, Event.LEASE_ISSUED]


def test_status_tells_what_the_log_and_the_lease_say(device: Device) -> None:
    device.lease()
    with device.client() as client:
        s = client.status()
        assert client.version().frame_max == 1024
    assert (s.status_name, s.phase_name, s.reason_name) == ("VALID", "ACTIVE", "NONE")
    assert (s.approvals, s.total, s.serial, s.renewals, s.lab, s.contained) == (4, 6, 1, 0, True, False)
    assert s.ueid.hex() == device.enrolment["ueid"]
    assert s.log_id.hex() == device.enrolment["log_id"]
    assert s.log_head == device.records()[-1]["hash"]
    assert 0 < s.remaining_ns <= 60e9


# ---- the log ----


def test_the_log_of_a_life_verifies_and_names_what_happened(device: Device) -> None:
    device.lease()
    device.lease()
    device.revoke()
    device.lease()
    kinds = [Event.LOG_CREATED, Event.BOOT, Event.CONFIG_CHANGE, Event.VALIDATOR_QUERY, Event.LEASE_ISSUED, Event.VALIDATOR_QUERY]
    kinds += [Event.LEASE_RENEWED, *[Event.LEASE_DENIED] * 3, Event.FAILSAFE_TRIGGERED, Event.VALIDATOR_QUERY]
    assert sorted(device.events()) == sorted([*kinds, Event.FAILSAFE_RELEASED, Event.LEASE_ISSUED])
    with device.client() as client:
        raw = list(client.records())
        assert audit_verify(b"".join(raw), bytes(32)) == client.status().log_head
        assert [int.from_bytes(r[8:16], "little") for r in client.records(5)] == list(range(5, len(raw)))
    kept = evidence(device)
    for r in device.records():
        if r["flags"] & 4:
            assert r["evidence"] in kept


def test_the_log_outlives_kill_9_at_any_moment(device: Device) -> None:
    seen = 0
    for delay in (0.0, 0.004, 0.011):
        device.lease()
        wire = Wire(device.run / "ctl.sock")
        end = time.monotonic() + delay
        while time.monotonic() < end:
            wire.ask(Opcode.LOG_EVENT, struct.pack("<HI", Event.WORKLOAD_REPORT, 0))
        with device.client() as client:
            sure = client.status().log_size_at_lease
        wire.close()
        device.stop(signal.SIGKILL)
        device.start()
        with device.client() as client:
            raw = list(client.records())
        audit_verify(b"".join(raw), bytes(32))
        assert len(raw) >= sure >= seen, "what a lease covers is durable"
        seen = sure


def test_seals_follow_k0_over_restarts(device: Device) -> None:
    wire = Wire(device.run / "ctl.sock")
    for _ in range(40):
        wire.ask(Opcode.LOG_EVENT, struct.pack("<HI", Event.WORKLOAD_REPORT, 0))
    wire.close()
    device.stop()
    device.start()
    with device.client() as client:
        log = Log.of(list(client.records()), client.status().log_id)
    assert log.verify() == log.raw[-1][208:240]
    assert log.check_seals(keys.read_secret(device.state.parent / "k0", "seal")) == 2


# ---- stops ----


def test_a_manual_stop_needs_the_same_frame_twice(device: Device) -> None:
    device.lease()
    gate, wire = device.gate(), Wire(device.run / "ctl.sock")
    payload = struct.pack("<I", Reason.MANUAL)
    assert wire.ask(Opcode.FAILSAFE, payload, tag=9)[0] == CommandStatus.CONFIRM
    assert gate
    assert wire.ask(Opcode.FAILSAFE, payload, tag=10)[0] == CommandStatus.CONFIRM, "another tag is another frame"
    assert gate
    assert wire.ask(Opcode.FAILSAFE, payload, tag=10)[0] == CommandStatus.OK
    assert not gate
    assert wire.ask(Opcode.FAILSAFE, struct.pack("<I", Reason.TAMPER), tag=11)[0] == CommandStatus.BAD_ARGUMENT
    wire.close()
    assert Event.FAILSAFE_TRIGGERED in device.events()


def test_a_latch_is_released_only_by_a_lease_that_answers_it(device: Device) -> None:
    device.lease()
    with device.client() as client:
        early = device.q.lease(device.propose(client)[0])
        client.failsafe()
    assert refused(device, early) == Error.NO_REQUEST
    assert not device.gate()
    device.lease()
    assert device.gate()


# ---- the set document (opcode 0x05) ----


def successor(device: Device, **changed: object) -> tuple[list[keys.Ed25519Key], bytes]:
    """The next epoch: validator 5 has a new key."""
    fresh = keys.Ed25519Key.from_seed(os.urandom(32))
    old = device.q.members
    members = (*old.validators[:5], replace(old.validators[5], ed25519=fresh.public))
    s = replace(old, **{"epoch": old.epoch + 1, "validators": members, **changed})  # type: ignore[arg-type]
    return [*device.q.ed[:5], fresh], sets.encode(s, [device.q.set_key])


def test_a_new_epoch_is_installed_by_frames_and_outlives_a_restart(device: Device) -> None:
    device.lease()
    signers, document = successor(device)
    with device.client() as client:
        payload = device.propose(client)[0]
        client.install_set(document)
        assert client.set_document() == document
        assert device.gate(), "the lease runs on"
        with pytest.raises(CommandRefused) as caught:
            client.put(device.q.lease(payload))
        assert caught.value.error == Error.NO_REQUEST, "what was asked for under the old epoch is over"
    device.q = replace(device.q, ed=signers, members=sets.load(document, old=device.q.members), document=document)
    device.lease([0, 1, 2, 5])
    last = [r for r in device.records() if r["event"] == Event.CONFIG_CHANGE][-1]
    assert int.from_bytes(last["data"][:8], "little") == 2
    assert evidence(device)[last["evidence"]] == document
    device.stop()
    device.start()
    device.lease([0, 1, 2, 5])
    assert device.gate()
    (device.state / "set.cbor").unlink()
    device.stop()
    assert "this device has known epoch 2" in device.call().stderr, "never back to epoch 1"


FOREIGN = keys.Ed25519Key.from_seed(bytes(32))
EPOCHS = {
    "the same epoch": ({"epoch": 1}, Error.WRONG_EPOCH),
    "two further": ({"epoch": 3}, Error.WRONG_EPOCH),
    "another set": ({"set_id": bytes(16)}, Error.WRONG_EPOCH),
    "set keys that nobody knows": ({"set_keys": (FOREIGN.public,)}, Error.TOO_FEW),
}


@pytest.mark.parametrize("case", EPOCHS)
def test_a_document_that_is_no_successor_is_refused_and_nothing_changes(device: Device, case: str) -> None:
    changed, error = EPOCHS[case]
    device.lease()
    if "set_keys" in changed:
        old = device.q.members
        document = sets.encode(replace(old, epoch=2, set_keys=(FOREIGN.public,)), [FOREIGN])
    else:
        document = successor(device, **changed)[1]
    with device.client() as client:
        with pytest.raises(CommandRefused) as caught:
            client.install_set(document)
        assert caught.value.error == error
        assert client.set_document() == device.q.document
        for bad in (document[:-1], b"\xff" * 70, document + b"\0"):
            with pytest.raises(CommandRefused):
                client.install_set(bad)
    assert device.gate()
    device.lease()
    assert not (device.state / "set.cbor").exists()


def test_set_frames_out_of_order_are_refused(device: Device) -> None:
    wire, document = Wire(device.run / "ctl.sock"), successor(device)[1]
    total = len(document)

    def put(at: int, data: bytes, size: int = total) -> int:
        return wire.ask(Opcode.SET, struct.pack("<BII", 2, at, size) + data)[0]

    assert wire.ask(Opcode.SET, b"\3")[0] == CommandStatus.INCOMPLETE
    assert put(5, b"x") == CommandStatus.BAD_ARGUMENT
    assert put(0, b"x", 70_000) == CommandStatus.BAD_ARGUMENT
    assert put(0, b"x" * 9, 4) == CommandStatus.BAD_ARGUMENT
    assert put(0, document[:500]) == CommandStatus.OK
    assert put(600, document[600:700]) == CommandStatus.BAD_ARGUMENT
    assert wire.ask(Opcode.SET, b"\3")[0] == CommandStatus.INCOMPLETE
    assert wire.ask(Opcode.SET, b"")[0] == CommandStatus.BAD_LENGTH
    assert wire.ask(Opcode.SET, b"\7")[0] == CommandStatus.BAD_ARGUMENT
    wire.close()
    with device.client() as client:
        client.install_set(document)


# ---- limits, equivocation, isolation ----


def test_limits_make_the_guard_ask_for_less_under_a_new_serial(device: Device) -> None:
    with device.client() as client:
        payload, request = device.propose(client)
        assert claims_decode(payload)["duration_ms"] == 60_000
        client.put(device.refusal(request, 2, Refusal.LIMITS, {1: 5_000, 2: 90_000}))
        again = claims_decode(device.propose(client)[0])
    assert (again["serial"], again["duration_ms"]) == (2, 5_000)
    assert again["policy_ms"][2] + again["policy_ms"][3] == 90_000
    device.lease()
    with device.client() as client:
        assert client.status().duration_ms == 5_000
        _, request = device.propose(client)
        client.put(device.refusal(request, 2, Refusal.LIMITS, {1: 50_000}))
        assert claims_decode(device.propose(client)[0])["duration_ms"] == 5_000, "never more than before"


def test_limits_that_say_nothing_change_nothing(device: Device) -> None:
    for data in (None, {}, {1: 0}, {7: 1}, [1], "x", {1: "x"}):
        with device.client() as client:
            payload, request = device.propose(client)
            client.put(device.refusal(request, 0, Refusal.LIMITS, data))
            assert claims_decode(device.propose(client)[0])["duration_ms"] == 60_000, data
            assert payload


def test_yes_and_no_by_one_validator_counts_as_no_and_both_are_kept(device: Device) -> None:
    with device.client() as client:
        payload, request = device.propose(client)
        no = device.refusal(request, 1)
        client.put(no)
    yes = device.q.lease(payload)
    assert refused(device, yes) == Error.BAD_SIGNATURE
    assert refused(device, yes) == Error.BAD_SIGNATURE
    assert not device.gate()
    found = [r for r in device.records() if r["event"] == Event.ANOMALY]
    assert [(r["data"][:2], r["evidence"]) for r in found] == [(b"\2\0", sha256(yes))], "once, with the member's bit"
    kept = evidence(device)
    assert kept[sha256(yes)] == yes
    assert kept[sha256(no)] == no
    with device.client() as client:
        client.put(device.q.lease(payload, [0, 2, 3, 4]))
    assert device.gate(), "the others' votes count"


def test_too_few_polls_show_as_isolated(device: Device) -> None:
    with device.client() as client:
        assert client.status().isolated
        client.polls(3)
        assert not client.status().isolated
        client.polls(2)
        assert client.status().isolated
        client.polls(6)
    with device.client() as other:
        until(lambda: other.status().isolated, LIMIT_S)


# ---- evidence ----


def test_evidence_keeps_to_its_cap_and_says_what_it_dropped() -> None:
    with short_dir() as root:
        device = Device(root, q=quorum(m=9, n=16, suite="hybrid"), evidence_mb=1)
        try:
            device.start()
            with device.client() as client:
                for epoch in range(2, 50):  # documents of 33 KB
                    client.install_set(sets.encode(replace(device.q.members, epoch=epoch), [device.q.set_key]))
            sizes = [p.stat().st_size for p in device.state.glob("evidence.*")]
            assert len(sizes) == 2
            assert sum(sizes) <= 1 << 20
            pruned = [r for r in device.records() if r["event"] == Event.EVIDENCE_PRUNED]
            assert [int.from_bytes(r["data"][:8], "little") > 400_000 for r in pruned] == [True] * 2
            kept = evidence(device) | evidence(device, "evidence.old")
            assert sha256(sets.encode(replace(device.q.members, epoch=49), [device.q.set_key])) in kept
        finally:
            device.close()


def test_a_torn_entry_of_the_evidence_goes_before_the_next(device: Device) -> None:
    device.lease()
    whole = evidence(device)
    device.stop()
    with (device.state / "evidence.log").open("ab") as file:
        file.write(b"QEV1" + struct.pack("<I", 500) + bytes(100))
    device.start().lease()
    assert set(whole) < set(evidence(device))


# ---- service manager ----


def test_the_guard_tells_a_service_manager(tmp_path: Path) -> None:
    with short_dir() as root:
        device = Device(root)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind(str(root / "notify"))
            s.settimeout(LIMIT_S)
            env = {**os.environ, "NOTIFY_SOCKET": str(root / "notify"), "WATCHDOG_USEC": "200000"}
            try:
                device.start(env=env)
                assert [s.recv(100) for _ in range(4)] == [b"READY=1", *[b"WATCHDOG=1"] * 3]
                device.stop()
                until(lambda: s.recv(100) == b"STOPPING=1")
            finally:
                device.close()


def test_help_and_missing_configuration() -> None:
    ended = subprocess.run(
        [*PYTHON, "qsafp_embedded.guard", "--config", "/no/such.toml"], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (ended.returncode, ended.stderr) == (1, "guard: /no/such.toml: cannot read the configuration: No such file or directory\n")
