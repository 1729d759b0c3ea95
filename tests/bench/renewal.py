# SPDX-License-Identifier: Apache-2.0
"""How long a quorum of six real validators takes to renew, and to stop."""

from __future__ import annotations

import array
import asyncio
import contextlib
import ctypes
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import floors
from frame import Bench, at, median, now_ns, subject
from frame import floors as c_floors
from places import Home, M, N, place, stop_guard, wait_for

from qsafp_embedded import keys, sets
from qsafp_embedded.agent import config as configuration
from qsafp_embedded.agent.owner import GuardOwner
from qsafp_embedded.agent.peer import Peer
from qsafp_embedded.agent.round import Round
from qsafp_embedded.cli.common import Home as CliHome
from qsafp_embedded.cli.common import ask_agent
from qsafp_embedded.errors import QsafpError
from qsafp_embedded.tls import client_context
from qsafp_embedded.validator import admin_client

KEYS = ("renewal.p50_ms", "renewal.p99_ms", "renewal.cold_ms", "revocation.operator_to_gate_ms")
WARM = 50


def _renewals(b: Bench) -> None:
    with place("renew") as folder, Home(folder) as home:
        if b.wants(*KEYS[:2]):
            _floor(b, home)
        _renew(b, home)


def _revocations(b: Bench) -> None:
    with place("revo") as folder, Home(folder) as home:
        _revoke(b, home)


def _floor(b: Bench, home: Home) -> None:
    """Six plain HTTPS servers of which four answered, and fdatasync on the same file system."""
    bare, _ = c_floors()
    tls = (str(home.root / "agent" / "relay.crt"), str(home.root / "relay.pem"))
    _pem(home.root / "agent" / "relay.key", Path(tls[1]))
    quorum = floors.quorum_ms(tls, m=M, members=N, n=max(50, b.n("renewal.p50_ms") // 4))
    fd = os.open(home.root / "sync", os.O_RDWR | os.O_CREAT, 0o600)
    out = (ctypes.c_uint64 * 200)()
    if bare.floor_write_sync(fd, ctypes.c_uint64(200), 4096, out):
        raise RuntimeError("writing failed")
    os.close(fd)
    sync = [v / 1e6 for v in out]
    b.beside("renewal.quorum_floor_ms", median(quorum), "ms", samples=quorum)
    b.beside("renewal.fdatasync_ms", median(sync), "ms", samples=sync)


def _pem(key: Path, to: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from qsafp_embedded.keyfile import read_secret

    private = Ed25519PrivateKey.from_private_bytes(read_secret(key, "ed25519"))
    to.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


class Stamps:
    """Watches the page of a running guard from a thread of its own and stamps every new serial."""

    def __init__(self, run: Path, n: int) -> None:
        self._out, self._stop, self._found = (ctypes.c_uint64 * (2 * n))(), ctypes.c_uint32(0), 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.connect(str(run / "gate.sock"))
            _, fds, _, _ = socket.recv_fds(s, 64, 1)
        self.page = ctypes.c_void_p(subject().subject_map(fds[0]))
        os.close(fds[0])
        self._thread = threading.Thread(target=self._watch, args=(n,))

    def _watch(self, n: int) -> None:
        self._found = subject().subject_serials(self.page, ctypes.c_uint64(n), self._out, ctypes.byref(self._stop))

    def __enter__(self) -> Stamps:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.value = 1
        self._thread.join()

    def seen(self) -> dict[int, int]:
        """Serial to the boot time at which the page showed it."""
        return {self._out[2 * i]: self._out[2 * i + 1] for i in range(self._found)}


@contextlib.contextmanager
def _owner(home: Home) -> Iterator[tuple[configuration.Config, GuardOwner]]:
    config = configuration.load(home.root / "agent" / "agent.toml")
    owner = GuardOwner(config)
    owner.ensure()
    try:
        yield config, owner
    finally:
        pid = home.guard_pid()
        owner.close()
        stop_guard(pid)


class _Rounds:
    """The agent's own renewal round, back to back."""

    def __init__(self, config: configuration.Config, owner: GuardOwner) -> None:
        self._owner, self._members = owner, sets.read(config.set)
        context = client_context(keys.load_ed25519(config.relay_key), config.relay_cert)
        self._new = lambda: [Peer(v, context, timeout_s=10.0) for v in self._members.validators]
        self._peers = self._new()

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(p.close() for p in self._peers))

    async def cold(self) -> None:
        """Begin again with no connection open."""
        await self.close()
        self._peers = self._new()

    async def one(self) -> tuple[int, int]:
        """Renew once; returns the serial and the boot time at which its nonce was made.  Stragglers end before the next."""
        r = Round(self._peers, self._members, self._owner, longest=1.0)
        if not await r.run():
            raise RuntimeError(f"no lease: {r.error}")
        s = await self._owner.status()
        await asyncio.gather(*r.tasks)
        return r.serial, s.now_ns + s.remaining_ns - s.duration_ms * 10**6


def _renew(b: Bench, home: Home) -> None:
    n, cold = b.n("renewal.p50_ms") if b.wants(*KEYS[:2]) else 0, b.n("renewal.cold_ms") if b.wants(KEYS[2]) else 0

    async def run(rounds: _Rounds) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        for _ in range(WARM):
            await rounds.one()
        b.say(f"renewal: {n} kept alive, {cold} cold")
        warm = [await rounds.one() for _ in range(n)]
        fresh = []
        for _ in range(cold):
            await rounds.cold()
            fresh.append(await rounds.one())
        return warm, fresh

    with _owner(home) as (config, owner):
        wait_for(lambda: home.guard_pid() != 0, "a guard")
        with Stamps(home.run, WARM + n + cold + 8) as stamps:
            warm, fresh = asyncio.run(_started(config, owner, run))
            time.sleep(0.05)
        seen = stamps.seen()
    _put(b, [(seen[s] - t0) / 1e6 for s, t0 in warm if s in seen], [(seen[s] - t0) / 1e6 for s, t0 in fresh if s in seen])


async def _started(config: configuration.Config, owner: GuardOwner, run: object) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    assert callable(run)
    rounds = _Rounds(config, owner)
    try:
        found: tuple[list[tuple[int, int]], list[tuple[int, int]]] = await run(rounds)
    finally:
        await rounds.close()
    return found


def _put(b: Bench, warm: list[float], fresh: list[float]) -> None:
    if warm:
        sync = b.results["renewal.fdatasync_ms"].value
        b.put("renewal.p50_ms", at(warm, 0.5), samples=warm, limit=3 + 2 * sync)
        b.put("renewal.p99_ms", at(warm, 0.99), samples=warm, limit=8 + 4 * sync)
    if fresh:
        b.put("renewal.cold_ms", at(fresh, 0.5), samples=fresh)


# ---- revocation ----


def _release(home: Home, page: ctypes.c_void_p) -> None:
    """Lift the revocations and consent to the release where it waits, until the gate is open: m consents are enough."""
    for i in range(N - M + 1):
        admin_client.allow(home.admin(i), home.ueid)
    cli_home, done = CliHome(home.root), set[int]()

    def consented() -> bool:
        ask_agent(cli_home, "renew")
        for i in set(range(N)) - done:
            for w in admin_client.pending(home.admin(i)):
                with contextlib.suppress(QsafpError):
                    admin_client.release(home.admin(i), home.ueid, int(w["sequence"]))
                    done.add(i)
        return bool(subject().subject_wait_open(page, ctypes.c_uint64(now_ns() + 20_000_000)))

    wait_for(consented, "the release")


def _revoke(b: Bench, home: Home) -> None:
    lib, n, samples = subject(), b.n("revocation.operator_to_gate_ms"), array.array("d")
    home.start_agent()
    wait_for(lambda: home.guard_pid() != 0, "a guard")
    with Stamps(home.run, 1) as stamps:
        page = stamps.page
    cli_home = CliHome(home.root)
    for i in range(n):
        if not lib.subject_wait_open(page, ctypes.c_uint64(now_ns() + 6 * 10**10)):
            raise RuntimeError(f"no lease in 60 s: {ask_agent(cli_home, 'status')}")
        wait_for(lambda: all(admin_client.health(home.admin(i))["polls"] for i in range(N)), "a poll at every validator")
        for index in range(N - M):
            admin_client.revoke(home.admin(index), home.ueid)
        start = now_ns()
        last = threading.Thread(target=admin_client.revoke, args=(home.admin(N - M), home.ueid))
        last.start()
        closed = lib.subject_wait_closed(page, ctypes.c_uint64(start), ctypes.c_uint64(start + 10**10))
        last.join()
        if not closed:
            raise RuntimeError("the gate stayed open for 10 s")
        samples.append((closed - start) / 1e6)
        _release(home, page)
        if i % 20 == 0:
            b.say(f"revocation: {i} of {n}, last {samples[-1]:.1f} ms")
    b.put("revocation.operator_to_gate_ms", at(samples, 0.99), samples=list(samples), limit=50)


STEPS = ((KEYS[:3], _renewals), (KEYS[3:], _revocations))
