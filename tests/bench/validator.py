# SPDX-License-Identifier: Apache-2.0
"""Renewals per second of one validator process: it on core 0, the load on core 1."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import secrets
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import floors
from frame import ROOT, Bench, Pinned, other_core
from places import end, place

sys.path.append(str(ROOT / "tests" / "python"))

from validator_kit import Device, Quorum, install, quorum

from qsafp_embedded import keys
from qsafp_embedded.tls import load_identity, make_certificate

KEYS = ("validator.renewals_per_s", "validator.renewals_100k_ratio")
CONNECTIONS = 64
MANY = 100_000
PER_S = 7_000  # requests made ready for a second of load; the load says so if they do not last
WARM_S = 0.5


def _measure_all(b: Bench) -> None:
    """Few devices, then many registered ones."""
    seconds = b.n(KEYS[0])
    count = int(PER_S * (seconds + WARM_S))
    b.say(f"validator: {count:,} signed requests are made ready")
    with place("val") as folder:
        q = quorum(m=4, n=6, lab=True)
        devices, envelopes = _devices(q, count)
        few = _rate(_Run(folder / "few", q, devices, envelopes, seconds))
        many = 0.0
        if b.wants(KEYS[1]):
            more = [Device(q.members, key=devices[0].key) for _ in range(max(0, MANY - count))]
            b.say(f"validator: again with {count + len(more):,} devices registered")
            many = _rate(_Run(folder / "many", q, devices + more, envelopes, seconds))
        with Pinned(0):
            floor = floors.verify_sign_commit_per_s(folder / "floor.db", min(3, seconds))
    b.beside("validator.floor_per_s", floor, "1/s", n=min(3, seconds))
    notes = [f"{few / floor:.2f} x verify + sign + commit alone"]
    if b.wants(KEYS[0]):
        b.put(KEYS[0], few, n=seconds, limit=2500, above=True, notes=notes)
    if many:
        b.beside("validator.renewals_per_s[100k]", many, "1/s", n=seconds)
        b.put(KEYS[1], many / few, n=seconds, limit=0.9, above=True)


def _devices(q: Quorum, count: int) -> tuple[list[Device], list[bytes]]:
    """Distinct devices with keys of their own, and the first request of each."""
    devices = [Device(q.members) for _ in range(count)]
    return devices, [d.ask() for d in devices]


@dataclass(frozen=True)
class _Run:
    """One validator under load."""

    folder: Path
    q: Quorum
    devices: list[Device]
    envelopes: list[bytes]
    seconds: int


def _rate(run: _Run) -> float:
    relay = keys.Ed25519Key.from_seed(secrets.token_bytes(32))
    config = install(run.folder, run.q, 0, relay, [d.registered(registered=int(time.time())) for d in run.devices])
    words = ["taskset", "-c", "0", sys.executable, "-m", "qsafp_embedded.validator", "--config", str(config)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        assert server.stdout
        line = server.stdout.readline().decode()
        port = int((run.folder / "port").read_text())
        if "listening" not in line:
            raise RuntimeError(f"the validator says: {line!r}")
        return _load(run, relay, port)
    finally:
        end(server)
        if server.stdout:
            server.stdout.close()


def _load(run: _Run, relay: keys.Ed25519Key, port: int) -> float:
    """From a process of its own on the other core."""
    certificate = run.folder / "load.crt"
    certificate.write_bytes(make_certificate(relay))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    load_identity(context, relay, certificate)
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_hammer, args=(there, context, port, run), daemon=True)
    child.start()
    there.close()
    try:
        done, seconds, problem = here.recv()
    except EOFError:
        done, seconds, problem = 0, 1.0, "the load ended early"
    child.join()
    if problem:
        raise RuntimeError(problem)
    return float(done / seconds)


class _Client(asyncio.Protocol):
    """One connection: a request, its answer, the next request; as little Python as it takes, so that the load is not the limit."""

    def __init__(self, shared: _Shared) -> None:
        self._shared, self._got = shared, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def next(self) -> None:
        """Send the next request, if there is time and one is left."""
        s = self._shared
        request = next(s.requests, None)
        if request is None or s.over:
            s.problem = s.problem or ("" if s.over else "the requests that were made ready did not last")
            s.finished()
            return
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Count a whole answer: 200 with a signature, which a refusal has not the length of."""
        self._got += data
        head, sep, body = self._got.partition(b"\r\n\r\n")
        if not sep:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200") or body[:1] != b"\x81":
            self._shared.problem = f"refused: {self._got[:300]!r}"
            self._shared.over = True
        self._got = b""
        self._shared.done += 1
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that breaks under load fails the measurement."""
        if not self._shared.over:
            self._shared.problem = f"connection lost: {exc}"
            self._shared.finished()


class _Shared:
    """What the connections share."""

    def __init__(self, requests: list[bytes]) -> None:
        self.requests, self.done, self.over, self.problem = iter(requests), 0, False, ""
        self.end = asyncio.Event()

    def finished(self) -> None:
        """One connection has no more to do: the measurement is over."""
        self.over = True
        self.end.set()


def _hammer(pipe: Connection, context: ssl.SSLContext, port: int, run: _Run) -> None:
    os.sched_setaffinity(0, {other_core()})
    head = b"POST /v1/renew HTTP/1.1\r\nHost: v\r\nContent-Type: application/cbor\r\nContent-Length: %d\r\n\r\n"
    requests = [head % len(e) + e for e in run.envelopes]
    pipe.send(asyncio.run(_measure(requests, context, port, run.seconds)))


async def _measure(requests: list[bytes], context: ssl.SSLContext, port: int, seconds: int) -> tuple[int, float, str]:
    shared, loop = _Shared(requests), asyncio.get_running_loop()
    clients = [(await loop.create_connection(lambda: _Client(shared), "127.0.0.1", port, ssl=context))[1] for _ in range(CONNECTIONS)]
    for c in clients:
        c.next()
    await asyncio.sleep(WARM_S)
    before, start = shared.done, time.perf_counter()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(shared.end.wait(), seconds)
    took = time.perf_counter() - start
    done = shared.done - before
    shared.over = True
    return done, took, shared.problem


STEPS = ((KEYS, _measure_all),)
