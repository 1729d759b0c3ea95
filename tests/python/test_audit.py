# SPDX-License-Identifier: Apache-2.0
"""The log as a value: opened from every form, verified, exported; each change is named."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from qsafp_embedded._core import cbor_dumps
from qsafp_embedded._tables import Event, Reason
from qsafp_embedded.audit import Log, Record
from qsafp_embedded.errors import AuditError, StoreError
from qsafp_embedded.lease import Lease

K0 = sha256(b"qsafp test key seal").digest()


@pytest.fixture
def log(vectors: Path) -> Log:
    return Log.open(vectors / "wire/log.bin")


def changed(log: Log, at: int, record: bytes) -> Log:
    return Log(log.log_id, (*log.raw[:at], record, *log.raw[at + 1 :]))


def test_a_log_verifies_and_its_last_hash_is_its_head(log: Log) -> None:
    assert log.verify() == log.records[-1].hash
    assert log.first == 0
    assert log.check_seals(K0) == len(log.raw) // 16


def test_every_form_gives_the_same_log(log: Log, vectors: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(log.jsonl())
    (tmp_path / "a.cbor").write_bytes(log.cbor())
    assert log.cbor() == (vectors / "wire/log.cbor").read_bytes()
    for name in ("a.jsonl", "a.cbor"):
        assert Log.open(tmp_path / name) == log


def test_a_ring_that_began_anew_is_put_in_order(log: Log, tmp_path: Path) -> None:
    slots = [b"\xff" * 256] * 64
    for r in log.records[32:]:  # as the ring of 64 slots holds them once two sectors were pruned
        slots[r.seq % 64] = r.raw
    (tmp_path / "log.ring").write_bytes(b"".join(slots))
    with pytest.raises(AuditError, match="pruned"):
        Log.open(tmp_path / "log.ring")
    ring = Log.open(tmp_path / "log.ring", log.log_id)
    assert ring.raw == log.raw[32:]
    assert ring.verify() == log.verify()
    assert ring.check_seals(K0) == 2
    with pytest.raises(AuditError, match="pruned"):
        ring.root(40)


def test_a_changed_dropped_or_moved_record_is_named(log: Log) -> None:
    bad = bytearray(log.raw[20])
    bad[120] ^= 1
    cases = {20: changed(log, 20, bytes(bad)), 9: Log(log.log_id, (*log.raw[:9], *log.raw[10:])), 0: Log(bytes(32), log.raw)}
    for index, tampered in cases.items():
        with pytest.raises(AuditError) as no:
            tampered.verify()
        assert no.value.index == index


def test_a_log_sealed_with_another_key_is_named(log: Log) -> None:
    with pytest.raises(AuditError) as no:
        log.check_seals(bytes(32))
    assert no.value.index == 15
    with pytest.raises(AuditError) as no:
        changed(log, 31, log.raw[31][:240] + bytes(16)).check_seals(K0)
    assert no.value.index == 31


def test_a_log_that_was_cut_or_rewritten_is_not_what_the_lease_covers(log: Log, vectors: Path) -> None:
    lease = Lease.decode((vectors / "wire/lease_released.cbor").read_bytes())
    log.covers(lease)
    with pytest.raises(AuditError, match="cut"):
        Log(log.log_id, log.raw[:10]).covers(lease)
    with pytest.raises(AuditError, match="lease 3"):
        changed(log, 5, log.raw[4]).covers(lease)
    with pytest.raises(AuditError, match="another log"):
        Log(bytes(32), log.raw).covers(lease)


def test_a_record_says_what_it_is(log: Log) -> None:
    stop = next(r for r in log.records if r.event == Event.FAILSAFE_TRIGGERED)
    assert (stop.reason, stop.serial, stop.boot, stop.data[0]) == (Reason.VALIDATOR_DENIED, 2, 1, 1)
    row = json.loads(log.jsonl().splitlines()[stop.seq])
    assert (row["event"], row["reason"], row["hash"], row["raw"]) == (
        "FAILSAFE_TRIGGERED",
        "VALIDATOR_DENIED",
        stop.hash.hex(),
        stop.raw.hex(),
    )
    assert Record.decode(stop.raw) == stop


@pytest.mark.parametrize("data", [b"", b"{}\n", b"nonsense", b"QAR1" + bytes(100), b"\xa0", b"\xff" * 256])
def test_what_is_no_log_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(data)
    with pytest.raises(AuditError):
        Log.open(tmp_path / "log")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing"):
        Log.open(tmp_path / "missing")


def test_an_empty_log_verifies_nothing() -> None:
    with pytest.raises(AuditError, match="empty"):
        Log(bytes(32), ()).verify()


def test_an_export_that_hides_a_record_or_its_beginning_is_refused(log: Log, tmp_path: Path) -> None:
    raw = list(log.raw)
    for first, records in ((0, raw[1:]), (1, raw), (0, [*raw[:5], *raw[6:]])):
        (tmp_path / "a.cbor").write_bytes(cbor_dumps({1: log.log_id, 2: first, 3: records}))
        with pytest.raises(AuditError):
            Log.open(tmp_path / "a.cbor")
    with pytest.raises(AuditError) as no:
        Log(log.log_id, tuple(raw[3:4] + raw[5:])).verify()
    assert no.value.index == 3
