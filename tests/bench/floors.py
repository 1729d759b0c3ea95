# SPDX-License-Identifier: Apache-2.0
"""What the figures are compared with, in Python.  No product code (tests/python/test_bench.py holds that)."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import sqlite3
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = bytes(range(256)) * 4096


def four_blocks_ns() -> float:
    """SHA-256 of OpenSSL over 1 MiB, as ns for four blocks of 64 bytes."""
    start = time.perf_counter_ns()
    for _ in range(4):
        hashlib.sha256(MIB).digest()
    return (time.perf_counter_ns() - start) / 4 / 16_384 * 4


def unrolled(line: str, name: str, thing: object, n: int, **more: object) -> Callable[[], float]:
    """A function that runs ``line`` n times, 100 in a row, and returns ns for one; nothing is subtracted.  more: other names in it."""
    turns, body = n // 100, "\n".join(f"        {line}" for _ in range(100))
    head = ", ".join([f"{name}=thing", *(f"{k}={k}" for k in more)])
    text = f"def run({head}):\n    t = clock()\n    for _ in range({turns}):\n{body}\n    return (clock() - t) / {turns * 100}\n"
    space: dict[str, Any] = {"thing": thing, "clock": time.perf_counter_ns, **more}
    exec(text, space)
    run: Callable[[], float] = space["run"]
    return run


# ---- a quorum of plain HTTPS servers: what m of n answers cost before anything is decided ----


def _serve(tls: tuple[str, str], sock: Any, answer: bytes) -> None:
    from aiohttp import web

    async def handle(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(body=answer)

    async def run() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        context.load_verify_locations(tls[0])
        context.verify_mode, context.minimum_version = ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_3
        runner = web.ServerRunner(web.Server(handle, access_log=None))
        await runner.setup()
        await web.SockSite(runner, sock, ssl_context=context).start()
        await asyncio.Event().wait()

    asyncio.run(run())


async def _ask(tls: tuple[str, str], ports: list[int], m: int, n: int) -> list[float]:
    import aiohttp

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(*tls)
    out = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0)) as session:

        async def one(port: int) -> None:
            async with session.post(f"https://127.0.0.1:{port}/", data=bytes(1200)) as got:
                await got.read()

        for _ in range(n):
            start = time.perf_counter()
            tasks = [asyncio.create_task(one(p)) for p in ports]
            waiting = set(tasks)
            while len(tasks) - len(waiting) < m:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            out.append((time.perf_counter() - start) * 1e3)
            await asyncio.gather(*tasks)
    return out


def quorum_ms(tls: tuple[str, str], *, m: int, members: int, n: int) -> list[float]:
    """Ms until m of ``members`` server processes answered over kept mTLS connections, n times after 20."""
    import socket

    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(members)]
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_serve, args=(tls, s, bytes(96)), daemon=True) for s in socks]
    for c in children:
        c.start()
    try:
        return asyncio.run(_ask(tls, [s.getsockname()[1] for s in socks], m, n + 20))[20:]
    finally:
        for c in children:
            c.kill()
            c.join()
        for s in socks:
            s.close()


# ---- a validator's bare work ----


def verify_sign_commit_per_s(path: Path, seconds: float, *, batch: int = 64) -> float:
    """Verifications + signatures + rows per second, one commit (synchronous=FULL) per ``batch``, one thread."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    public, message = key.public_key(), os.urandom(600)
    signature = key.sign(message)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE s (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID")
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        rows = []
        for _ in range(batch):
            public.verify(signature, message)
            rows.append((os.urandom(33), key.sign(message) + bytes(300)))
        db.execute("BEGIN")
        db.executemany("INSERT INTO s VALUES (?, ?)", rows)
        db.execute("COMMIT")
        done += batch
    rate = done / (time.perf_counter() - start)
    db.close()
    return rate
