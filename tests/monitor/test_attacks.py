# SPDX-License-Identifier: Apache-2.0
"""A payload that turns hostile: after every attack the lease ends on time, the pins are right, every hart stands still, and the log
names what the hardware reported (HW-12, HW-15)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from figures import ISAS, offset_of
from unleashed import Board, Device, short_dir, until

from qsafp_embedded._core import audit_verify
from qsafp_embedded._tables import CommandStatus, Event, Opcode, Phase, Reason, Status
from qsafp_embedded.client import GuardClient

pytestmark = pytest.mark.board(Board.name)
S = 1_000_000_000
B = TypeVar("B", bound=Board)
LEASES_MS = (1500, 5000, 20_000)  # an attack takes 50 ms; the longer ones are for a host so busy that the first is over before
LATE_NS = 2 * S  # of the end of any lease: the board's clock goes on while the host has no time for it
PERIOD_NS = S // 10  # of the timer, within which an end of lease is seen (HW-T8)
TICKS_LATE = 0.25  # of the timer's, at most: what a busy host may cost
ILLEGAL, LOAD, STORE, FETCH = 2, 5, 7, 1
AT_LEAST = {9: 1, 13: 1}  # answers that show that the attack took place: frames bent on their way, calls
ENDLESS = {9, 13, 14, 15}
BY_EACH = range(1, 9)  # what each hart reaches for, one after the other
TOLD = 1 << 32  # beside what a service call said
# number: name, causes the log must name, addresses it must name
ATTACKS: dict[int, tuple[str, set[int], set[int]]] = {
    1: ("masks its interrupts", {ILLEGAL}, set()),
    2: ("reprograms timer and interrupt controller", {LOAD, STORE}, {0x02004000, 0x0C002000, 0x0200BFF0, 0x0200BFF8, 0x0200C000}),
    3: ("writes monitor memory", {LOAD, STORE}, {0x803E0030, 0x80010004, 0x80000000}),
    4: ("drives the pins", {LOAD, STORE}, {0x1006000C}),
    5: ("writes the flash", {LOAD, STORE}, {0x10040018, 0x20C10000}),
    6: ("changes protection and privileged registers", {ILLEGAL}, set()),
    7: ("programs bus masters", {LOAD, STORE}, {0x03000000, 0x10090000}),
    8: ("jumps into the monitor", {ILLEGAL, FETCH}, {0x80011000 + 0x8000}),
    9: ("races arguments from the other hart", set(), set()),
    10: ("passes bad pointers", set(), set()),
    11: ("calls begin in a loop", set(), set()),
    13: ("floods calls", set(), set()),
    14: ("never yields", set(), set()),
    15: ("faults without end", {STORE}, {0x1006000C}),
    16: ("shows itself an open gate", set(), set()),
}


class Seen(NamedTuple):
    """How an end of lease was seen: after how many ns, and how many ticks of that life of the board came a period late."""

    late_ns: int
    ticks_late: int
    ticks: int


def fail_safe(client: GuardClient) -> bool:
    status = client.status()
    return status.phase == Phase.FAILSAFE and status.contained


def parked(board: Board) -> list[bool]:
    """Whether each hart of the payload is inside the monitor's code."""
    return [pc in board.code for pc in board.counters()]


def reports(records: list[dict[str, Any]]) -> list[tuple[int, int, int, int]]:
    """Hart, cause, instruction, address of what the hardware reported."""
    mine = [r["data"] for r in records if r["event"] == Event.ANOMALY and r["reason"] == Reason.TAMPER]
    return [(data[0], *struct.unpack_from("<QQQ", data, 8)) for data in mine]


def rolled_back(board: Board, client: GuardClient) -> list[dict[str, Any]]:
    records = [r for r in board.records(client) if r["boot"] == client.status().boot]
    return records if any(r["event"] == Event.CONTAINMENT and r["data"][0] == 4 for r in records) else []


def quiet(board: Board, client: GuardClient) -> bool:
    """Whether every report is told: nothing was added for a second."""
    last = board.records(client)[-1]
    until(lambda: client.status().now_ns > last["boot_ns"] + S)
    return board.records(client)[-1] == last


def noted(board: Board, which: str, size: int = 4) -> int:
    """What the monitor notes of this life of the board: its ``ticks``, those that came a whole period ``late``, ``contain_ns``."""
    at = ISAS[board.name].at["m"] + offset_of(which, board.name)
    return int.from_bytes(board.seen_by_first(at, size), "little")


def check_the_end(board: Board, client: GuardClient, end_ns: int) -> tuple[list[dict[str, Any]], Seen]:
    """All that must hold after any attack; returns the log, and how the end of the lease was seen."""
    until(lambda: fail_safe(client))
    records = until(lambda: rolled_back(board, client))
    expired = [r for r in records if r["event"] == Event.LEASE_EXPIRED][-1]
    assert end_ns <= noted(board, "contain_ns", 8) <= expired["boot_ns"] < end_ns + LATE_NS
    assert parked(board) == [True, True]
    stopped = board.orders()
    assert board.pins("LEASE_VALID") == [1, 0]
    assert 1 in board.pins("FAILSAFE")
    until(lambda: quiet(board, client))
    assert board.orders() == stopped
    assert (stopped["leaked"], stopped["moved"], stopped["odd"]) == (0, 0, 0)
    assert board.memory(board.region, 4096) == b"\x11" * 4096
    audit_verify(b"".join(client.records()), bytes(32))
    return board.records(client), Seen(expired["boot_ns"] - end_ns, noted(board, "late"), noted(board, "ticks"))


def attack(board: Board, client: GuardClient) -> int:
    """Obtain a lease and renew it, then the payload attacks; returns when it ends, in ns, or 0 if it did before the attack was over.

    Until there is one the service call says so to the payload; after its end there is nobody to ask.
    """
    assert until(lambda: board.orders()["early"]) == TOLD | Status.UNINITIALIZED
    board.lease(client)
    until(lambda: board.orders()["under"] or fail_safe(client))
    board.lease(client)
    status = client.status()
    endless = board.attack in ENDLESS
    until(lambda: endless or board.orders()["finished"] or fail_safe(client))
    in_time = board.pins("LEASE_VALID") in ([1], [1, 0]) and status.phase == Phase.ACTIVE and (endless or board.orders()["finished"])
    assert not in_time or board.orders()["under"] == TOLD | Status.VALID
    return status.now_ns + status.remaining_ns if in_time else 0


def one_in_time(tries: Iterable[Seen]) -> None:
    """Fail unless in one of several tries the end was seen within one period, and not by luck: the timer came in time.

    The board's clock goes on while the host has no time for the board, so that some ticks, and one try, may be late; an attack
    that holds the timer off makes most of them late, in each try.
    """
    seen = []
    for one in tries:
        seen.append(one)
        if one.late_ns < PERIOD_NS and one.ticks_late < one.ticks * TICKS_LATE:
            return
    raise AssertionError(f"not in time: {seen}; or no attack ends within its lease, or the host is too busy")


def attacks(kind: type[B], number: int, check: Callable[[B, list[dict[str, Any]]], None]) -> Iterator[Seen]:
    """Boards whose payload attacked under a lease; yields how each end was seen, once ``check`` has got board and log."""
    for duration_ms in LEASES_MS:
        device = Device(duration_ms=duration_ms)
        with short_dir() as folder, kind(device, folder, attack=number, renews=True) as board, board.client() as client:
            if not (end_ns := attack(board, client)):
                continue
            records, seen = check_the_end(board, client, end_ns)
            check(board, records)
        yield seen


@pytest.mark.parametrize("number", ATTACKS, ids=lambda n: ATTACKS[n][0].replace(" ", "-"))
def test_after_an_attack_the_lease_ends_on_time(number: int) -> None:
    _, causes, addresses = ATTACKS[number]

    def check(board: Board, records: list[dict[str, Any]]) -> None:
        found = reports(records)
        assert AT_LEAST.get(number, 0) <= board.orders()["answers"]
        for hart in (1, 2) if number in BY_EACH else (1,):
            assert causes <= {cause for at, cause, _, _ in found if at == hart}
            assert addresses <= {address for at, _, _, address in found if at == hart}

    one_in_time(attacks(Board, number, check))


def use_an_old_approval(kind: type[Board], device: Device, folder: Path, address: int) -> Seen:
    """A payload that was handed the last life's lease at ``address`` calls with it, and nothing opens.

    Returns how the end of the lease that it had was seen.
    """
    with kind(device, folder) as board, board.client() as client:
        token = board.lease(client)
        until(lambda: fail_safe(client))
        until(lambda: rolled_back(board, client))
    blob = folder / "old.bin"
    blob.write_bytes(len(token).to_bytes(4, "little") + token)
    device.duration_ms = LEASES_MS[1]
    more = ("-device", f"loader,file={blob},addr={address:#x},force-raw=on")
    with kind(device, folder, attack=12, qemu=more) as board, board.client() as client:
        until(lambda: client.status().contained)  # the latch outlived the reset: no core has run
        assert board.orders()["started"] == 0
        board.lease(client)
        status = client.status()
        until(lambda: board.orders()["finished"])
        _, seen = check_the_end(board, client, status.now_ns + status.remaining_ns)
        assert board.orders()["answers"] > 0
        return seen


def old_approvals(kind: type[Board], address: int) -> Iterator[Seen]:
    """As above, time and again."""
    for _ in LEASES_MS:
        with short_dir() as folder:
            yield use_an_old_approval(kind, Device(duration_ms=LEASES_MS[0]), folder, address)


def test_an_old_approval_opens_nothing() -> None:
    one_in_time(old_approvals(Board, 0x80800000))


def stop_by_hand(kind: type[Board], folder: Path) -> None:
    """A fail-safe of a host comes through whatever the payload says between its two frames."""
    with kind(Device(), folder, attack=18) as board, board.client() as client:
        board.lease(client)

        def once_more() -> bool:
            answers = board.orders()["answers"]
            until(lambda: board.orders()["answers"] > answers)
            return client._exchange(7, Opcode.FAILSAFE, struct.pack("<I", Reason.MANUAL))[0] == CommandStatus.OK

        assert not once_more()
        assert any(once_more() for _ in range(10))  # the second, unless the host was so busy that the first ran out
        until(lambda: rolled_back(board, client))


def test_a_fail_safe_by_hand_comes_through(folder: Path) -> None:
    stop_by_hand(Board, folder)
