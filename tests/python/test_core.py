# SPDX-License-Identifier: Apache-2.0
"""The binding, and a guard inside this process, which says that it is self-policed."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from guard_kit import MODEL, Device, frame, short_dir, until
from hypothesis import given
from hypothesis import strategies as st
from validator_kit import Device as PlainDevice
from validator_kit import quorum

from qsafp_embedded import _core as core
from qsafp_embedded import errors
from qsafp_embedded._tables import CommandStatus, Error, Event, Opcode, Phase, Reason, Status
from qsafp_embedded.errors import AuditError, FormatError, LeaseDenied, LeaseExpired, LeaseUninitialized, QsafpError, WrongModel
from qsafp_embedded.guard.own import OwnGuard

# ---- a guard inside this process ----


class Inside(Device):
    """A device whose guard runs in this process."""

    own: OwnGuard | None = None

    def start(self, **_: object) -> Inside:  # type: ignore[override]
        self.own = OwnGuard(self.toml)
        return self

    def client(self):  # type: ignore[no-untyped-def]
        assert self.own is not None
        return self.own.client()

    def gate(self, **more):  # type: ignore[no-untyped-def]
        assert self.own is not None
        return self.own.gate(**{"model": MODEL, **more})

    def close(self) -> None:
        if self.own is not None:
            self.own.close()


@pytest.fixture
def device() -> Iterator[Inside]:
    with short_dir() as root:
        made = Inside(root)
        try:
            yield made.start()
        finally:
            made.close()


def test_it_says_self_policed_everywhere(device: Inside) -> None:
    gate = device.gate()
    assert device.own is not None
    assert device.own.policed == gate.policed == "self-policed"
    assert "self-policed" in repr(device.own)
    with pytest.raises(LeaseUninitialized, match=r"^self-policed: "):
        gate.require()
    device.lease()
    device.revoke()
    with pytest.raises(LeaseDenied, match=r"^self-policed: .*refused by validators 0, 1, 2") as no:
        gate.require()
    assert no.value.refused_by == (0, 1, 2)
    marks = [r["data"][:12] for r in device.records() if r["event"] == Event.CONFIG_CHANGE]
    assert marks[-1] == b"self-policed"
    with device.client() as client:
        payload = device.propose(client)[0]
    assert core.claims_decode(payload)["level"] == 0, "no isolation is claimed"
    second = None
    with pytest.raises(QsafpError, match=r"^self-policed guard: .*another guard holds this lease"):
        second = OwnGuard(device.toml)
    assert second is None


def test_its_gate_opens_and_closes_as_any_does(device: Inside) -> None:
    gate = device.gate()
    assert not gate
    device.lease()
    assert gate
    assert gate.check() is Status.VALID
    gate.require()
    assert gate.info().phase is Phase.ACTIVE
    with pytest.raises(WrongModel, match=r"^self-policed: "):
        device.gate(model=bytes(32)).require()
    with device.client() as client:
        client.failsafe(Reason.MANUAL)
    assert not gate
    device.lease()
    assert gate
    device.close()
    assert not gate
    with pytest.raises(LeaseExpired):
        gate.require()


def test_its_lease_ends_by_its_own_timer() -> None:
    with short_dir() as root:
        device = Inside(root, duration_ms=400, warning_ms=100, grace_ms=100)
        try:
            device.start().lease()
            gate = device.gate()
            assert gate
            until(lambda: not gate)
            until(lambda: gate.info().phase is Phase.FAILSAFE)
        finally:
            device.close()


def test_it_keeps_its_device_over_restarts_and_a_real_guard_goes_on_with_it(device: Inside) -> None:
    device.lease()
    device.close()
    device.start().lease()
    assert device.gate().info().serial == 2
    device.close()
    real = Device(device.root, q=device.q, enrol=False)
    real.enrolment = device.enrolment
    try:
        real.start().lease()
        assert real.gate().info().serial == 3
        with real.client() as client:
            core.audit_verify(b"".join(client.records()), bytes(32))
    finally:
        real.close()


def test_it_takes_no_workloads_and_answers_garbage(device: Inside) -> None:
    wire = device.client()._wire
    for packet, status in (
        (frame(Opcode.WORKLOAD, b"\0\1x"), CommandStatus.BAD_OPCODE),
        (b"\0", CommandStatus.BAD_LENGTH),
        (frame(Opcode.STATUS)[:-1] + b"\xff", CommandStatus.BAD_CRC),
    ):
        wire.send(packet)
        assert wire.receive(5.0)[2] == status


def test_threads_may_ask_while_it_works(device: Inside) -> None:
    device.lease()
    gate, bad, stop = device.gate(), [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            if not gate:
                bad.append(1)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for t in threads:
        t.start()
    for _ in range(30):
        device.lease()
    stop.set()
    for t in threads:
        t.join()
    assert not bad


def test_a_failed_start_leaves_this_process_whole() -> None:
    with short_dir() as root:
        device = Inside(root)
        device.set.write_bytes(b"nothing")
        open_before = set(Path("/proc/self/fd").iterdir())
        for _ in range(3):
            with pytest.raises(QsafpError, match=r"^self-policed guard: "):
                device.start()
        assert set(Path("/proc/self/fd").iterdir()) == open_before


# ---- what every error has ----


def test_every_core_status_has_a_name() -> None:
    for error in Error:
        assert core.error_name(-error) == error.name
    assert str(-99) in core.error_name(-99) or core.error_name(-99)


def test_every_error_is_one_of_ours_and_a_builtin() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.QsafpError)
        assert name in ("QsafpError", "AuditError") or len(kind.__mro__) > 4


# ---- bytes in, bytes out ----

ITEMS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.integers(-(2**63), 2**63 - 1), inner, max_size=5),
    max_leaves=20,
)


@given(ITEMS)
def test_cbor_comes_back_and_its_bytes_are_the_only_ones(item: object) -> None:
    data = core.cbor_dumps(item)
    back = core.cbor_loads(data)
    assert back == item
    assert core.cbor_dumps(back) == data
    with pytest.raises(FormatError):
        core.cbor_loads(data + b"\0")
    with pytest.raises(FormatError):
        core.cbor_loads(data[:-1])


NOT_CBOR = """
18 17|19 00ff|1a 0000ffff|1b 00000000ffffffff|5f 4161 ff|9f ff|bf ff|f9 3c00|fa 3f800000|f7|f8 20|e0|ff|1c|62 c328|61 80
a2 02 00 01 00|a2 01 00 01 00|a2 20 00 01 00|9b ffffffffffffffff|5b ffffffffffffffff|bb ffffffffffffffff
a1 f5 00|a2 01 00 f5 00|a1 f6 00|a1 80 00
81 c1 00|a1 01 c1 00|d2 d2 80
"""


@pytest.mark.parametrize("data", [b"", b"\x81" * 40 + b"\x00", *map(bytes.fromhex, re.split(r"[|\n]", NOT_CBOR.strip()))])
def test_cbor_that_is_not_the_one_deterministic_form_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        core.cbor_loads(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (core.cbor_loads, core.claims_decode, core.cobs_decode):
        try:
            back = read(data)
        except FormatError:
            continue
        assert {core.cbor_loads: core.cbor_dumps, core.claims_decode: core.claims_encode}.get(read, lambda _: data)(back) == data


def test_claims_refuse_every_changed_length_and_most_changed_bits() -> None:
    device = PlainDevice(quorum().members)
    payload = device.propose()
    same = core.claims_decode(payload)
    for n in range(len(payload)):
        with pytest.raises(FormatError):
            core.claims_decode(payload[:n])
    for bit in range(8 * len(payload)):
        changed = bytearray(payload)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert core.claims_decode(bytes(changed)) != same
        except FormatError:
            continue


@pytest.mark.parametrize("changed", [{"duration_ms": d} for d in (0, 2**63, 31 * 24 * 3600 * 1000 + 1)] + [{"ueid": bytes(33)}])
def test_claims_of_no_sense_are_refused(changed: dict[str, object]) -> None:
    claims = {**core.claims_decode(PlainDevice(quorum().members).propose()), **changed}
    with pytest.raises(FormatError, match="RANGE"):
        core.claims_decode(core.claims_encode(claims))


def test_wrong_lengths_never_reach_c() -> None:
    for call in (
        lambda: core.tree_leaf(bytes(31)),
        lambda: core.Tree().append(bytes(33)),
        lambda: core.record_hash(bytes(32), bytes(255)),
        lambda: core.record_decode(bytes(257)),
        lambda: core.seal(bytes(31), bytes(32)),
        lambda: core.Tree(3, [bytes(32)]),
        lambda: core.Tree().extend(0, 1, [bytes(32)] * 65),
    ):
        with pytest.raises((FormatError, ValueError)):
            call()


def test_records_of_zeros_or_ones_are_none() -> None:
    for filler in (b"\0", b"\xff"):
        with pytest.raises(FormatError):
            core.record_decode(filler * 256)
        with pytest.raises(AuditError) as no:
            core.audit_verify(filler * 512, bytes(32))
        assert no.value.index == 0


def chain(n: int) -> list[bytes]:
    """Records that follow each other."""
    prev, out = bytes(32), []
    for seq in range(n):
        event, sealed = Event.WORKLOAD_REPORT if seq else Event.LOG_CREATED, seq % 16 == 15
        head = struct.pack("<4sHHQQQIIQ", b"QAR1", event, 2 * sealed, seq, 0, 0, 1, 0, 0)
        body = head + bytes(208 - len(head))
        prev = hashlib.sha256(prev + body).digest()
        out.append(body + prev + bytes([7 * sealed]) * 16)
    return out


def test_a_chain_verifies_and_every_changed_bit_is_named() -> None:
    log = chain(20)
    assert core.audit_verify(b"".join(log), bytes(32)) == log[-1][208:240]
    for byte in range(0, 240, 7):
        changed = list(log)
        broken = bytearray(log[5])
        broken[byte] ^= 4
        changed[5] = bytes(broken)
        with pytest.raises(AuditError) as no:
            core.audit_verify(b"".join(changed), bytes(32))
        assert no.value.index in (5, 6)
    with pytest.raises(AuditError):
        core.audit_verify(b"".join(log[:4] + log[5:]), bytes(32))
    with pytest.raises(AuditError):
        core.audit_verify(b"".join(log)[:-1], bytes(32))


def leaves(n: int) -> list[bytes]:
    """The hashes of n leaves."""
    return [core.tree_leaf(bytes([i]) * 32) for i in range(n)]


def root_of(hashes: list[bytes]) -> bytes:
    """RFC 9162 2.1.1, by its definition."""
    if len(hashes) < 2:
        return hashes[0] if hashes else hashlib.sha256().digest()
    k = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root_of(hashes[:k]) + root_of(hashes[k:])).digest()


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_tree_is_rfc_9162s_however_it_grew(old: int, more: int) -> None:
    tree = core.Tree()
    for leaf in leaves(old):
        tree.append(leaf)
    again = core.Tree(tree.size, tree.peaks)
    for leaf in leaves(old + more)[old:]:
        again.append(leaf)
    assert tree.root() == root_of(leaves(old)), "the copy is its own"
    assert again.root() == root_of(leaves(old + more))
    with pytest.raises(FormatError):
        tree.extend(old + 1, old + more + 2, [])
    assert tree.root() == root_of(leaves(old))


def test_the_page_of_a_program_that_never_attached_is_closed(tmp_path: Path) -> None:
    page = core.GatePage()
    assert not page
    with pytest.raises(QsafpError):
        page.require()
    assert not page._fields()["attached"]
    file = os.open(tmp_path / "short", os.O_RDWR | os.O_CREAT)
    with pytest.raises((FormatError, OSError)):
        page._attach(file)
    os.close(file)
