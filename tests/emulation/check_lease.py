# SPDX-License-Identifier: Apache-2.0
"""One story, in this order: a lease over mutual TLS, its line high outside; revoked, low at once; the log fetched and verified."""

from __future__ import annotations

import time

import pytest
from channels import BoardError
from fleet import DEVICE, Fleet
from machine import Machine, wait_for
from outside import Lines

from qsafp_embedded.hardware.board import Board

STOP_S = 30.0  # generous: the guest may be ten times slower than a device, the host busy


def test_no_lease_no_line(machine: Machine, fleet: Fleet, lines: Lines, wiring: Board) -> None:
    assert fleet.enrolment["ueid"]
    assert lines.level(wiring.lines[0].offset) == 0
    assert machine.run("qsafp", "gate", "check", "--dir", DEVICE).code == 1


def test_a_quorum_over_mutual_tls_opens_the_gate_and_raises_the_line(fleet: Fleet, lines: Lines, wiring: Board) -> None:
    fleet.start_agent()
    guard = fleet.phase("active")
    assert guard["approvals"] >= 4
    assert guard["validators"] == 6
    assert fleet.level() == (3 if fleet.attests else 1)
    wait_for(lambda: lines.level(wiring.lines[0].offset) == 1, "LEASE_VALID high outside", 30)
    fleet.qsafp("gate", "check")


def test_a_renewal_keeps_the_line_high(fleet: Fleet, lines: Lines, wiring: Board) -> None:
    fleet.phase("active", after=fleet.status()["guard"]["serial"])
    assert lines.level(wiring.lines[0].offset) == 1


def test_three_revocations_drop_the_line_and_pulse_failsafe(machine: Machine, fleet: Fleet, lines: Lines, wiring: Board) -> None:
    fleet.revoke(0, 1)
    fleet.qsafp("gate", "check")  # two are too few
    assert lines.level(wiring.lines[0].offset) == 1
    began = time.monotonic()
    fleet.revoke(2)
    wait_for(lambda: lines.level(wiring.lines[0].offset) == 0, "LEASE_VALID low outside", STOP_S, pause_s=0.01)
    print(f"third revocation to LEASE_VALID low: {time.monotonic() - began:.3f} s of host time")
    wait_for(lambda: lines.rises(wiring.lines[1].offset) >= 1, "FAILSAFE pulses outside", STOP_S)
    assert machine.run("qsafp", "gate", "check", "--dir", DEVICE).code == 1
    assert fleet.phase("failsafe")["reason"] == "VALIDATOR_DENIED"


def test_the_log_verifies_on_the_host_and_a_changed_one_does_not(fleet: Fleet) -> None:
    log = fleet.fetch_log()
    found = fleet.verify(log)
    assert found["ok"]
    assert found["records"] >= 5
    assert "root holds" in found["lease"]
    assert found["seals"] >= 1
    raw = bytearray(log.read_bytes())
    raw[len(raw) // 2] ^= 1
    log.write_bytes(raw)
    with pytest.raises(BoardError, match="exit"):
        fleet.verify(log)
