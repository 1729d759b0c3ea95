# SPDX-License-Identifier: Apache-2.0
"""A real guard process on the simulated board, and the keys of the validators that sign for it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from validator_kit import Quorum, quorum

from qsafp_embedded import Gate, cose
from qsafp_embedded._core import Tag, cbor_dumps, cbor_loads, crc16, now_ns, record_decode, sha256
from qsafp_embedded._tables import Event, Refusal, RefusalClass
from qsafp_embedded.client import GuardClient
from qsafp_embedded.wire import PacketWire

MODEL = bytes(range(32))
LIMIT_S = 20.0
FAST = {"duration_ms": 60_000, "warning_ms": 300, "grace_ms": 300, "stale_after_ms": 500, "tick_ms": 50, "drain_ms": 100}
PINS = ("LEASE_VALID", "FAILSAFE", "VALIDATOR_REQ", "LEASE_RENEW")
PYTHON = [sys.executable, "-m"]


def until(what: Callable[[], Any], limit: float = LIMIT_S) -> Any:
    """Wait for something to become true; fails after ``limit`` seconds."""
    end = time.monotonic() + limit
    while not (got := what()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.002)
    return got


@contextmanager
def short_dir() -> Iterator[Path]:
    """A directory whose path leaves room in the 108 bytes of a socket's."""
    path = Path(tempfile.mkdtemp(prefix="qg", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Device:
    """One enrolled device in a directory: its guard, its quorum, what its agent would do."""

    def __init__(self, root: Path, *, q: Quorum | None = None, enrol: bool = True, **settings: Any) -> None:
        self.root, self.q = root, q or quorum(m=4, n=6, lab=True)
        self.run, self.state = root / "run" / "main", root / "guard" / "state"
        self.toml = root / "guard" / "guard.toml"
        self.guard: subprocess.Popen[str] | None = None
        self.said = ""
        self.toml.parent.mkdir(parents=True, exist_ok=True)
        self.set = root / "set.cbor"
        self.set.write_bytes(self.q.document)
        self.configure(**settings)
        if enrol:
            done = self.call("--init")
            assert done.returncode == 0, done.stderr
            self.enrolment = json.loads(done.stdout)

    def configure(self, **settings: Any) -> None:
        """Write guard.toml: the fast settings, overlaid."""
        plain = {"run_dir": str(self.run), "state_dir": "state", "set": str(self.set), "model_hash": MODEL.hex(), **FAST, **settings}
        self.toml.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in plain.items() if v is not None))

    def call(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run the guard's program to its end."""
        command = [*PYTHON, "qsafp_embedded.guard", "--config", str(self.toml), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)

    def start(self, *, python: list[str] | None = None, **more: Any) -> Device:
        """Start the guard, under another interpreter if one is given, and wait until it serves."""
        command = [*(python or [sys.executable]), "-m", "qsafp_embedded.guard", "--config", str(self.toml)]
        self.guard = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **more)
        assert self.guard.stdout is not None
        self.said = self.guard.stdout.readline()
        if "serving" not in self.said:
            out, err = self.guard.communicate(timeout=LIMIT_S)
            raise AssertionError(f"no guard: {self.said}{out}{err}")
        return self

    def send(self, number: int) -> None:
        """Send the guard process a signal, not its pin holder."""
        assert self.guard is not None
        self.guard.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the guard; returns its exit status."""
        assert self.guard is not None
        self.guard.send_signal(signal.SIGCONT)
        self.guard.send_signal(number)
        self.guard.communicate(timeout=LIMIT_S)
        return self.guard.returncode

    def close(self) -> None:
        """End everything that was started here."""
        if self.guard is not None and self.guard.poll() is None:
            self.stop(signal.SIGKILL)
        if self.guard is not None:  # the pin holder stays behind a killed guard
            try:
                os.killpg(self.guard.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    # ---- the agent's part ----

    def client(self) -> GuardClient:
        """A client of ctl.sock."""
        return GuardClient.connect(self.run / "ctl.sock")

    def gate(self, **more: Any) -> Gate:
        """A gate for our model."""
        return Gate(**{"model": MODEL, "run_dir": self.root / "run", **more})

    def propose(self, client: GuardClient) -> tuple[bytes, bytes]:
        """Begin a request; returns the lease payload to sign and the hash that a refusal names."""
        client.begin()
        request = cose.parse_sign1(cbor_loads(client.envelope())[1], cose.REQUESTS)
        assert request.verify(bytes.fromhex(self.enrolment["key"]), cose.AAD_REQUEST)
        return cbor_loads(request.payload)[1], sha256(request.payload)

    def lease(self, indexes: list[int] | None = None) -> bytes:
        """Obtain a lease signed by the first m or by ``indexes``; returns the token."""
        with self.client() as client:
            token = self.q.lease(self.propose(client)[0], indexes)
            client.put(token)
        gate = self.gate()
        gate.wait(1.0)  # the deadline's thread opens it, woken before the answer; tests/c/test_lease.c checks that it is
        gate.close()
        return token

    def refusal(self, request: bytes, index: int, code: Refusal = Refusal.POLICY, data: object = None) -> bytes:
        """A signed refusal of the request with this hash."""
        kind = RefusalClass.DENY if code < Refusal.STALE else RefusalClass.RETRY
        return cose.encode_sign1(cbor_dumps({1: request, 2: int(kind), 3: int(code), 4: "no", 5: data}), self.q.ed[index], cose.AAD_REFUSAL)

    def revocation(self, index: int, serial: int, **changed: Any) -> bytes:
        """A signed revocation of every serial up to this one; ``ueid`` and ``epoch`` may be others."""
        m = self.q.members
        ueid = changed.get("ueid", bytes.fromhex(self.enrolment["ueid"]))
        body = {1: ueid, 2: m.set_id, 3: changed.get("epoch", m.epoch), 4: serial, 5: int(Refusal.REVOKED), 6: "no"}
        return cose.encode_sign1(cbor_dumps(body), self.q.ed[index], cose.AAD_REVOCATION)

    def revoke(self, indexes: tuple[int, ...] = (0, 1, 2)) -> None:
        """Enough validators revoke the running lease: it is denied."""
        with self.client() as client:
            serial = client.status().serial
            for i in indexes:
                client.put(self.revocation(i, serial))

    def renew_line(self, levels: str) -> None:
        """Move LEASE_RENEW: `1` is high, `0` is low."""
        fd = os.open(self.run / "pins.renew", os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(fd, levels.encode())
        finally:
            os.close(fd)

    # ---- looking ----

    def pin(self, name: str) -> int:
        """The level of a simulated line."""
        level: int = struct.unpack_from("<I", (self.run / "pins").read_bytes(), 16 + 4 * PINS.index(name))[0]
        return level

    def trace(self, name: str) -> list[tuple[int, int]]:
        """The edges of a line: boot time in ns, level."""
        rows = [line.split() for line in (self.run / "pins.trace").read_text().splitlines()]
        return [(int(at), int(level)) for at, pin, level in rows if pin == name]

    def records(self) -> list[dict[str, Any]]:
        """The log, through the guard."""
        with self.client() as client:
            return [record_decode(r) for r in client.records()]

    def events(self) -> list[Event]:
        """The log's events in order."""
        return [Event(r["event"]) for r in self.records()]


class Wire:
    """Raw packets to a guard's socket."""

    def __init__(self, path: Path) -> None:
        self.wire, self._tag = PacketWire(path, timeout=5.0), 0

    def raw(self, packet: bytes) -> tuple[int, int, bytes]:
        """Send bytes; returns tag, status and payload of the answer, whose check sum must hold."""
        self.wire.send(packet)
        a = self.wire.receive(5.0)
        assert a[0] == 0xA5
        assert crc16(a[:-2]) == int.from_bytes(a[-2:], "little")
        assert int.from_bytes(a[3:5], "little") == len(a) - 7
        return a[1], a[2], a[5:-2]

    def ask(self, opcode: int, payload: bytes = b"", tag: int | None = None) -> tuple[int, bytes]:
        """Send a whole frame, with the next tag or this one; returns status and payload."""
        self._tag = (self._tag + 1) % 256 if tag is None else tag
        return self.raw(frame(opcode, payload, self._tag))[1:]

    def close(self) -> None:
        """Hang up."""
        self.wire.close()


class FakeGuard:
    """A page that a test opens and closes, and a socket whose answers to workload commands a test chooses."""

    def __init__(self, root: Path, answer: Callable[[bytes], bytes | None]) -> None:
        (root / "main").mkdir(parents=True, exist_ok=True)
        self.answer, self.heard, self._stop = answer, [], threading.Event()
        self.fd = os.memfd_create("page", os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, 4096)
        self.page = mmap.mmap(self.fd, 4096)
        fcntl.fcntl(self.fd, 1033, 0x0002 | 0x0004 | 0x0010)
        self.page[:4] = b"QGP1"
        struct.pack_into("<Q", self.page, 32, 2**62)
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server.bind(str(root / "main/gate.sock"))
        self.server.listen(8)
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def open(self, is_open: bool) -> None:
        """Arm the page for ten minutes, or not."""
        struct.pack_into("<Q", self.page, 16, now_ns() + 600_000_000_000)
        struct.pack_into("<I", self.page, 4, 0x5A3C96E1 if is_open else 1)

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            socket.send_fds(client, [b"QGP1\1\0\0\0"], [self.fd])
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while packet := client.recv(4096):
                self.heard.append(packet)
                answer = self.answer(packet)
                if answer is None:
                    return
                if answer:
                    client.send(answer)

    def close(self) -> None:
        """Stop serving."""
        self._stop.set()
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.threads[0].join(LIMIT_S)
        os.close(self.fd)


def answer(packet: bytes, status: int, payload: bytes = b"") -> bytes:
    """A whole answer frame to a command."""
    body = struct.pack("<BBBH", 0xA5, packet[0], status, len(payload)) + payload
    return body + struct.pack("<H", crc16(body))


def frame(opcode: int, payload: bytes = b"", tag: int = 1) -> bytes:
    """A whole command frame."""
    head = struct.pack("<BBH", tag, opcode, len(payload)) + payload
    return head + struct.pack("<H", crc16(head))


def random_bytes(n: int) -> bytes:
    """Bytes that mean nothing."""
    return secrets.token_bytes(n)


__all__ = ["FAST", "LIMIT_S", "MODEL", "Device", "FakeGuard", "Tag", "Wire", "answer", "frame", "random_bytes", "short_dir", "until"]
