# SPDX-License-Identifier: Apache-2.0
"""The monitor on an emulated board: a lease with signatures of both kinds comes over the line, opens the gate, and its end
stops every hart; a renewal in grace lets them go on, a release of a latch starts them anew (HW-4, HW-10, HW-12, HW-13)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import stacks
from kinds import KINDS
from test_attacks import parked, rolled_back
from unleashed import Board, Device, until

from qsafp_embedded._core import audit_verify
from qsafp_embedded._tables import Error, Event, Phase, Reason
from qsafp_embedded.client import CommandRefused, GuardClient

MLDSA_SIGNATURE = 3309  # bytes
MEASURE = 17  # a payload that begins it never ends; one that was started again does not begin it
EACH_ONCE, EACH_TWICE = 1 << 32 | 1, 2 << 32 | 2  # harts of the payload began
AS_DECLARED = b"\x11" * 4096  # the region that the payload has rolled back
GOES_ON_THEN_ANEW = re.compile(b"(\2\5)+\2\4\5(\2\5)*\2?")  # frozen and thawed; frozen, rolled back, thawed


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.board(name)) for name in KINDS])
def kind(request: pytest.FixtureRequest) -> type[Board]:
    """A board."""
    return KINDS[request.param]


def another_bit_in_the_last_signature(token: bytes) -> bytes:
    """Which is with ML-DSA-65."""
    return token[:-MLDSA_SIGNATURE] + bytes([token[-MLDSA_SIGNATURE] ^ 1]) + token[1 - MLDSA_SIGNATURE :]


def test_a_lease_opens_the_gate_and_its_end_stops_every_hart(
    kind: type[Board], folder: Path, record_property: Callable[[str, object], None]
) -> None:
    with kind(Device(duration_ms=6000, grace_ms=1500, suite="hybrid"), folder) as board, board.client() as client:
        assert until(lambda: board.orders()["refused"]) > 0
        with pytest.raises(CommandRefused) as refusal:
            board.lease(client, bend=another_bit_in_the_last_signature)
        assert refusal.value.error == Error.BAD_SIGNATURE
        assert board.pins("LEASE_VALID") == []
        assert board.orders()["batches"] == 0
        board.lease(client, [0, 1, 2, 4])  # that validator's vote is spent
        until(lambda: board.orders()["finished"])
        assert client.status().phase == Phase.ACTIVE
        assert board.pin("LEASE_VALID") == 1
        until(lambda: client.status().phase == Phase.FAILSAFE and client.status().contained)
        assert board.pin("LEASE_VALID") == 0
        assert 1 in board.pins("FAILSAFE")
        stopped = board.orders()
        events = [(Event(r["event"]), r["data"][0]) for r in until(lambda: told(board, client))]
        assert events[-3:] == [(Event.CONTAINMENT, 2), (Event.FAILSAFE_TRIGGERED, events[-2][1]), (Event.CONTAINMENT, 4)]
        assert board.orders() == stopped
        raw = list(client.records())
        audit_verify(b"".join(raw), bytes(32))
        assert stacks.used_up(board, record_property) == []


def told(board: Board, client: GuardClient) -> list[dict[str, object]]:
    """The log, once it ends with a rollback."""
    records = board.records(client)
    last = records[-1]
    return records if last["event"] == Event.CONTAINMENT and last["data"][0] == 4 else []


def test_a_fail_safe_before_the_first_lease_stops_every_hart_until_one_releases_it(kind: type[Board], folder: Path) -> None:
    with kind(Device(), folder) as board, board.client() as client:
        assert until(lambda: board.orders()["refused"]) > 0
        client.failsafe(Reason.MANUAL)
        until(lambda: told(board, client))
        stopped = board.orders()
        assert stopped["batches"] == 0
        assert board.orders() == stopped
        board.lease(client)
        until(lambda: board.orders()["batches"])
    no_entropy(kind, folder)


def no_entropy(kind: type[Board], folder: Path) -> None:
    """Without any the monitor halts before it starts a payload, with a log and without."""
    with kind(Device(), folder, entropy=bytes(32)) as board:
        until(lambda: b"halted: no entropy" in board.said())
        assert board.pin("LEASE_VALID") == 0
        assert board.pin("FAILSAFE") == 1
        assert board.orders()["started"] == 0


def test_a_board_without_entropy_starts_no_payload(kind: type[Board], folder: Path) -> None:
    no_entropy(kind, folder)


def led(board: Board, client: GuardClient, what: Callable[[], bool]) -> None:
    """Wait until something is so, with a lease whenever none is held: a busy host may miss the end of one."""

    def so() -> bool:
        if client.status().phase != Phase.ACTIVE:
            board.lease(client)
        return what()

    until(so)


def steps(board: Board, client: GuardClient) -> bytes:
    """What was done to the payload, in order."""
    return bytes(r["data"][0] for r in board.records(client) if r["event"] == Event.CONTAINMENT)


def test_a_renewal_in_grace_lets_the_payload_go_on_and_a_release_starts_it_anew(kind: type[Board], folder: Path) -> None:
    with kind(Device(duration_ms=1200, grace_ms=60_000), folder, attack=MEASURE) as board, board.client() as client:
        until(lambda: board.orders()["started"] == EACH_ONCE)
        board.lease(client)
        until(lambda: client.status().phase == Phase.GRACE and client.status().contained)
        assert board.pin("LEASE_VALID") == 0
        assert parked(board) == [True, True]
        still = board.orders()
        led(board, client, lambda: board.orders()["batches"] > still["batches"])
        assert board.pins("LEASE_VALID")[:3] == [1, 0, 1]
        assert board.pins("FAILSAFE") == []
        assert board.memory(board.region, 4096) != AS_DECLARED
        client.failsafe()
        until(lambda: rolled_back(board, client))
        assert board.memory(board.region, 4096) == AS_DECLARED
        still = board.orders()
        assert (still["started"], still["finished"]) == (EACH_ONCE, 0)
        led(board, client, lambda: board.orders()["finished"] > 0 and board.orders()["started"] == EACH_TWICE)
        assert board.orders()["batches"] > still["batches"]
        assert board.pin("FAILSAFE") == 0
        until(lambda: GOES_ON_THEN_ANEW.fullmatch(steps(board, client)))
