# SPDX-License-Identifier: Apache-2.0
"""Frames and tokens that are none, at a guard's sockets: one clear status each, nothing lost, the gate as it was or closed."""

from __future__ import annotations

import contextlib
import random
import struct
import time
from collections.abc import Callable

import pytest
from guard_kit import MODEL, Device, Wire, frame, short_dir
from validator_kit import quorum

from qsafp_embedded import cose, keys
from qsafp_embedded._core import Tag, cbor_dumps, cbor_loads, claims_decode, claims_encode, crc16
from qsafp_embedded._tables import CommandStatus, Error, Event, Opcode, Reason, Refusal
from qsafp_embedded.client import CommandRefused, GuardClient
from qsafp_embedded.errors import GuardUnavailable

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
    wires = [Wire(device.run / "gate.sock") for _ in range(80)]
    served = 0
    for wire in wires:
        with contextlib.suppress(OSError):
            served += wire.wire.receive(5.0)[:4] == b"QGP1"
    assert 0 < served < 80, "there are not places for all"
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
