# SPDX-License-Identifier: Apache-2.0
"""What a factory, six validators and an auditor do for a board, as keywords: the same under Renode and under QEMU.

It makes the files that a board is loaded with, signs with the keys of a test quorum and speaks over the board's line, a
pseudo-terminal.  While it waits for an answer it lets virtual time pass, by the emulator's own command.
"""

from __future__ import annotations

import contextlib
import itertools
import select
from collections.abc import Iterator
from typing import Any

from robot.libraries.BuiltIn import BuiltIn
from stepped import Stepped, built
from unleashed import Device, ran_out, short_dir

from qsafp_embedded import cose
from qsafp_embedded._core import Tree, audit_verify, cbor_dumps, cbor_loads, claims_decode, record_decode, sha256, tree_leaf
from qsafp_embedded._tables import Error, Event, Reason, Refusal, RefusalClass
from qsafp_embedded.client import CommandRefused, GuardClient
from qsafp_embedded.errors import AuditError
from qsafp_embedded.wire import StreamWire

STEP_S, ANSWER_S = 0.01, 2.5  # of virtual time
TRIES = 4
MS = 1_000_000
SIGNATURE_AT = 2060  # in an image (docs/formats.md)
QUORUM = "0123"  # of six
ROLLBACK, FREEZE = 4, 2


class SteppedWire(StreamWire):
    """A line whose other end moves only while virtual time passes.  What stays unanswered is said again, as a frame may be lost."""

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        self._sent = frame
        super().send(frame)

    def _fill(self, timeout: float) -> None:
        for _ in range(TRIES):
            for _ in range(round(ANSWER_S / STEP_S)):
                if select.select([self._fd], [], [], 0)[0]:
                    return super()._fill(1.0)
                BuiltIn().run_keyword("Execute Command", f'emulation RunFor "{STEP_S}"')
            super().send(self._sent)
        raise TimeoutError("no answer")


class RanOut(Exception):
    """The time of a request is over."""


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """What is done with a request.  Raises RanOut if there is none any more."""
    try:
        yield
    except CommandRefused as no:
        if ran_out(no):
            raise RanOut(str(no)) from no
        raise


def flipped(data: bytes, at: int) -> bytes:
    """The same with one bit changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def first_bad(log: list[bytes]) -> int | None:
    """The first record that breaks the chain."""
    try:
        audit_verify(b"".join(log), bytes(32))
    except AuditError as no:
        return no.index
    return None


class Operator:
    """Keywords; one device at a time."""

    ROBOT_LIBRARY_SCOPE = "GLOBAL"

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._client: GuardClient | None = None

    # ---- the factory ----

    def new_device(self, board: str, duration_ms: int = 6000, grace_ms: int = 300) -> str:
        """Keys, set document and entropy of a device that was never switched on, and what its flash holds; returns their folder."""
        self.forget_device()
        self.folder = self._open.enter_context(short_dir())
        self.device = Device(duration_ms=duration_ms, grace_ms=grace_ms)
        for name, data in built(board)(self.device, self.folder).files().items():
            (self.folder / name).write_bytes(data)
        return str(self.folder)

    def device_files(self) -> list[str]:
        """Names of what the board is loaded with."""
        return sorted(path.name for path in self.folder.iterdir())

    def forget_device(self) -> None:
        """Throw the device away."""
        self.hang_up()
        self._open.close()
        self._open = contextlib.ExitStack()

    def spoil_the_image(self) -> None:
        """Change one bit of the Ed25519 signature of the monitor's image."""
        path = self.folder / "images.bin"
        path.write_bytes(flipped(path.read_bytes(), SIGNATURE_AT))

    def equip(self, kind: type[Stepped]) -> Stepped:
        """The board with this device in it, for the library that runs it."""
        return kind(self.device, self.folder)

    # ---- the line ----

    def answer(self, path: str) -> None:
        """Take up the line at a path."""
        self.hang_up()
        self._client = GuardClient(SteppedWire.open(path))

    def hang_up(self) -> None:
        """Give it up."""
        if self._client is not None:
            self._client.close()
        self._client = None

    @property
    def client(self) -> GuardClient:
        """The client on the line."""
        assert self._client is not None, "nobody took up the line"
        return self._client

    def status(self, name: str) -> Any:
        """One field of the status; phases and reasons by name."""
        status = self.client.status()
        named = {"phase": status.phase_name, "reason": status.reason_name}
        return named[name] if name in named else getattr(status, name)

    # ---- validators ----

    def ask(self) -> None:
        """Let the device begin a request, and hold it against the device's key."""
        with in_time():
            self.client.begin()
            self._request = cose.parse_sign1(cbor_loads(self.client.envelope())[1], cose.REQUESTS)
        assert self._request.verify(self.device.public, cose.AAD_REQUEST)
        self.payload: bytes = cbor_loads(self._request.payload)[1]

    def obtain_lease(self, signers: str = QUORUM, spoiled: bool = False) -> None:
        """Ask, or ask the same again; let these validators sign, hand it in.  Once more if the request ran out, on a host that is busy.

        ``spoiled``: one bit of the last signature is wrong.
        """
        for _ in range(3):
            with contextlib.suppress(RanOut):
                self.ask()
                return self._grant(signers, spoiled)
        raise AssertionError("three requests ran out")

    def _grant(self, signers: str = QUORUM, spoiled: bool = False) -> None:
        """Hand a lease in for what was asked."""
        token = self.device.q.lease(self.payload, [int(i) for i in signers])
        with in_time():
            self.client.put(flipped(token, len(token) - 1) if spoiled else token)
        status = self.client.status()
        self.end_ns = status.now_ns + status.remaining_ns

    def must_not_count(self, error: str, signers: str = QUORUM, spoiled: bool = False) -> None:
        """A lease that is refused for this reason."""
        found: Error | None = None
        try:
            self.obtain_lease(signers, spoiled)
        except CommandRefused as no:
            found = no.error
        assert found == Error[error], f"refused for {found}" if found else "it counted"

    def deny(self, signers: str = "012") -> None:
        """Ask, and let these validators say no."""
        self.ask()
        body = {1: sha256(self._request.payload), 2: int(RefusalClass.DENY), 3: int(Refusal.POLICY), 4: "no", 5: None}
        for i in map(int, signers):
            self.client.put(cose.encode_sign1(cbor_dumps(body), self.device.q.ed[i], cose.AAD_REFUSAL))

    def stop_by_hand(self) -> None:
        """Trigger a fail-safe over the line."""
        self.client.failsafe(Reason.MANUAL)

    # ---- the auditor ----

    def read_log(self) -> list[bytes]:
        """All records, as they come over the line."""
        return list(self.client.records())

    def log_must_be_whole(self, log: list[bytes]) -> None:
        """Every record there is, each behind the one before, with the chain unbroken, as the status says."""
        status = self.client.status()
        assert [record_decode(r)["seq"] for r in log] == list(range(status.log_next)), "records are missing"
        assert audit_verify(b"".join(log), bytes(32)) == status.log_head, "another log"

    def log_must_name(self, log: list[bytes], *events: str) -> None:
        """Events of these kinds are in it, in this order."""
        found = iter(record_decode(r)["event"] for r in log)
        for name in events:
            assert any(e == Event[name] for e in found), f"{name} is not in the log, or not there"

    def log_must_grow(self, before: list[bytes], after: list[bytes]) -> None:
        """What was in it still is, and there is more."""
        assert after[: len(before)] == before, "records changed"
        assert len(after) > len(before), "nothing was added"

    def tampering_must_show(self, log: list[bytes]) -> None:
        """A bit changed in any record breaks the chain there, and the root that the device signs holds for the true log alone."""
        for n, record in enumerate(log):
            for at in (9, 40, 100, 210):
                blamed = first_bad([*log[:n], flipped(record, at), *log[n + 1 :]])
                assert blamed == n, f"byte {at} of record {n}: {blamed} is blamed"
        self.ask()
        claims, log = claims_decode(self.payload), self.read_log()
        size = claims["log_size"]
        assert self._root(log[:size]) == claims["log_root"], "the device signs another log"
        assert self._root([*log[: size - 1], flipped(log[size - 1], 210)]) != claims["log_root"]

    @staticmethod
    def _root(log: list[bytes]) -> bytes:
        tree = Tree()
        for record in log:
            tree.append(tree_leaf(record_decode(record)["hash"]))
        return tree.root()

    def periods_must_be(self, deadlines: list[int], hz: int, period_s: float, elapsed_s: float) -> None:
        """The timer wrote deadlines that lie a period apart, to 5 %, as often as the emulator's own time wants it."""
        values = list(dict.fromkeys(deadlines))
        periods = [(b - a) / hz / period_s for a, b in itertools.pairwise(values)]
        whole = [round(p) for p in periods]  # more than one where two looks lay further apart
        assert all(n and abs(p - n) <= 0.05 for n, p in zip(whole, periods, strict=True)), periods
        assert 2 * whole.count(1) > len(whole), periods
        assert abs(sum(whole) * period_s - elapsed_s) <= 0.05 * elapsed_s + 2 * period_s, (sum(whole), elapsed_s)

    def expiry_must_be_seen_within(self, limit_ms: float) -> float:
        """The record of the lease's end is at most so late; returns how late, in ms."""
        record = self._last(Event.LEASE_EXPIRED)
        late: float = (record["boot_ns"] - self.end_ns) / MS
        assert 0 <= late <= limit_ms, f"{late} ms"
        return late

    def payload_must_stop_within(self, limit_ms: float) -> float:
        """Every core stood still so soon after containment began; returns when, in ms."""
        took = int.from_bytes(self._contained(FREEZE)["data"][2:10], "little") / MS
        assert took <= limit_ms, f"{took} ms"
        return took

    def rollback_must_be_done(self) -> None:
        """The log says that the declared region was put back."""
        assert self._contained(ROLLBACK)["data"][10] == 0

    def _contained(self, step: int) -> dict[str, Any]:
        return self._last(Event.CONTAINMENT, step)

    def _last(self, event: Event, step: int | None = None) -> dict[str, Any]:
        found = [r for r in map(record_decode, self.client.records()) if r["event"] == event and step in (None, r["data"][0])]
        assert found, f"no {event.name} in the log"
        return found[-1]
