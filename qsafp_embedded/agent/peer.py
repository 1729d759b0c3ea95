# SPDX-License-Identifier: Apache-2.0
"""One validator as the agent sees it: kept TLS 1.3 connections, its key pinned before a byte is sent (architecture, decision 5)."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import NamedTuple

import aiohttp

from .. import sets
from ..errors import QsafpError
from ..tls import spki_of_certificate

__all__ = ["Peer", "PeerError", "plain"]

ANSWER_MAX = 64 * 1024
SAID_MAX = 200
POLL_S = 40.0
CONNECT_S = 5.0
CBOR = {"Content-Type": "application/cbor"}


class PeerError(QsafpError, ConnectionError):
    """A validator that did not answer as it should; the text is for people."""


class _Pins(aiohttp.Fingerprint):
    """What aiohttp asks right after the handshake, before a request is written: is this one of the pinned keys?"""

    def __init__(self, pins: tuple[bytes, ...]) -> None:
        super().__init__(pins[0] if pins else bytes(32))
        self._pins = pins

    def check(self, transport: asyncio.Transport) -> None:
        """Raise ServerFingerprintMismatch unless the server's SPKI is pinned."""
        tls = transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        got = _spki(der) if der else bytes(32)
        if not der or got not in self._pins:
            host, port, *_ = transport.get_extra_info("peername") or ("?", 0)
            raise aiohttp.ServerFingerprintMismatch(self.fingerprint, got, host, port)


def _spki(der: bytes) -> bytes:
    try:
        return spki_of_certificate(der)
    except ValueError:
        return bytes(32)


def plain(text: str) -> str:
    """Return what a validator said as one line that no terminal or log takes for more than text."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text.strip()[:SAID_MAX])


class _Ask(NamedTuple):
    """One request; ``alive`` is set once its head is written, which is after the pin was checked."""

    method: str
    path: str
    seconds: float
    body: bytes | None = None
    params: dict[str, str] | None = None
    alive: asyncio.Event | None = None


class Peer:
    """Speaks to one validator; made and used inside the event loop."""

    def __init__(self, member: sets.Validator, context: ssl.SSLContext, *, timeout_s: float) -> None:
        """``timeout_s`` is for one answer; polls have their own."""
        self.member = member
        self._context, self._timeout = context, timeout_s
        self._base = 0
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_sent)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=_Pins(member.pins), limit=0, keepalive_timeout=3600.0),
            trace_configs=[trace],
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def renew(self, envelope: bytes) -> bytes:
        """Send an envelope and return the answer's bytes; raises PeerError.  Asking twice is harmless (decision 7)."""
        return await self._post("/v1/renew", envelope)

    async def show_lease(self, token: bytes) -> None:
        """Show the running lease to a validator that does not know it; raises PeerError."""
        await self._post("/v1/lease", token)

    async def poll(self, ueid: bytes, serial: int, alive: asyncio.Event) -> bytes | None:
        """Wait for a revocation; None when there was none for a while.  ``alive`` is set once the poll is on its way."""
        params = {"ueid": ueid.hex(), "serial": str(serial)}
        return await self._request(_Ask("GET", "/v1/revocation", POLL_S, params=params, alive=alive))

    async def _post(self, path: str, body: bytes) -> bytes:
        got = await self._request(_Ask("POST", path, self._timeout, body=body))
        return got or b""

    async def _request(self, ask: _Ask) -> bytes | None:
        """One exchange; a connection that the other side closed meanwhile is replaced once."""
        try:
            try:
                return await self._once(ask)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as gone:
                if isinstance(gone, aiohttp.ClientConnectorError):
                    raise
                return await self._once(ask)
        except PeerError:
            raise
        except aiohttp.ServerFingerprintMismatch as why:
            raise PeerError("another key than the pinned one: not the validator of the set document") from why
        except TimeoutError as why:
            self._base += 1
            raise PeerError(f"no answer in {ask.seconds:g} s") from why
        except (aiohttp.ClientError, OSError, ValueError) as why:
            self._base += 1
            raise PeerError(_words(why)) from why

    async def _once(self, ask: _Ask) -> bytes | None:
        endpoints = self.member.endpoints
        if not endpoints:
            raise PeerError("the set document names no endpoint")
        exchange = self._session.request(
            ask.method,
            endpoints[self._base % len(endpoints)].rstrip("/") + ask.path,
            data=ask.body,
            params=ask.params,
            headers=CBOR if ask.body else None,
            ssl=self._context,
            timeout=aiohttp.ClientTimeout(total=ask.seconds, sock_connect=CONNECT_S),
            allow_redirects=False,
            trace_request_ctx=ask.alive,
        )
        async with exchange as answer:
            got = await _read(answer)
        if answer.status == 204:
            return None
        if answer.status != 200:
            raise PeerError(f"HTTP {answer.status}: {plain(got[:SAID_MAX].decode(errors='replace'))}")
        return got


async def _sent(session: object, context: object, params: object) -> None:
    alive = getattr(context, "trace_request_ctx", None)
    if isinstance(alive, asyncio.Event):
        alive.set()


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    out = bytearray()
    async for block in answer.content.iter_any():
        out += block
        if len(out) > ANSWER_MAX:
            answer.close()
            raise PeerError(f"an answer longer than {ANSWER_MAX} bytes")
    return bytes(out)


def _words(why: Exception) -> str:
    inner = getattr(why, "os_error", None) or why
    number = getattr(inner, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else str(inner) or type(why).__name__
