# SPDX-License-Identifier: Apache-2.0
"""The validator's HTTPS face for relays: TLS 1.3, mutual, SPKI checked on every connection."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from aiohttp import StreamReader, http, web

from ..errors import FormatError, StoreError
from ..tls import key_of_certificate
from . import messages, openapi, pages
from .service import NotKnown, Service

__all__ = ["BODY_MAX", "Face", "serve"]

BODY_MAX = 48 * 1024  # an OC-1 message carries an envelope of 24 KB in base64
LIMITS = {"/v1/renew": 24 * 1024, "/v1/lease": 24 * 1024}
CBOR = {"Content-Type": "application/cbor"}

Handler = Callable[[web.BaseRequest], Awaitable[web.Response]]


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), status=status, content_type="application/json")


def _error(status: int, why: object) -> web.Response:
    return _json({"error": str(why)}, status=status)


class Face:
    """Routes of the relays' side.  ``answer`` is given to aiohttp's low-level server: no router, no middleware."""

    def __init__(self, service: Service) -> None:
        """Speak for ``service``."""
        self.service = service
        self._seen: dict[bytes, tuple[bytes, bytes]] = {}
        self.routes: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/renew"): self._renew,
            ("GET", "/v1/revocation"): self._revocation,
            ("POST", "/v1/lease"): self._lease,
            ("POST", "/v1/messages"): self._messages,
            ("GET", "/v1/devices"): self._devices,
            ("GET", "/healthz"): self._health,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/openapi.json"): self._openapi,
        }

    def relay(self, request: web.BaseRequest) -> bytes | None:
        """Return the raw Ed25519 key of the relay that holds this connection, None unless its SPKI is a configured one."""
        channel = request.transport.get_extra_info("ssl_object") if request.transport else None
        der = channel.getpeercert(binary_form=True) if channel else None
        if der is None:
            return None
        known = self._seen.get(der)
        if known is None:
            known = self._seen[der] = key_of_certificate(der)
        return known[1] if any(r.spki == known[0] for r in self.service.config.relays) else None

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one request of a relay; refusals of its form are JSON, everything a device should see is signed."""
        if self.relay(request) is None:
            return _error(403, "this key is no relay of this validator")
        path = request.raw_path.partition("?")[0]
        handler = self.routes.get((request.method, path))
        if handler is None:
            return _error(404, "no such resource")
        if (request.content_length or 0) > LIMITS.get(path, BODY_MAX):
            return _error(413, "the body is too long")
        try:
            return await handler(request)
        except FormatError as why:
            self.service.counts["malformed"] += 1
            return _error(400, why)
        except NotKnown as why:
            self.service.counts["strangers"] += 1
            return _error(403, why)
        except StoreError as why:
            return _error(503, why)

    async def _renew(self, request: web.BaseRequest) -> web.Response:
        return web.Response(body=await self.service.renew(await request.read()), headers=CBOR)

    async def _lease(self, request: web.BaseRequest) -> web.Response:
        await self.service.show_lease(await request.read())
        return web.Response(status=204)

    async def _revocation(self, request: web.BaseRequest) -> web.Response:
        query = parse_qs(request.raw_path.partition("?")[2])
        try:
            ueid, serial = bytes.fromhex(query["ueid"][0]), int(query["serial"][0])
        except (KeyError, ValueError) as why:
            raise FormatError("ueid=<hex> and serial=<number> are needed") from why
        found = await self.service.poll(ueid, serial)
        return web.Response(status=204) if found is None else web.Response(body=found, headers=CBOR)

    async def _messages(self, request: web.BaseRequest) -> web.Response:
        message = messages.read(await request.read(), self.relay(request) or b"", self.service.clock())
        return _json(await messages.handle(self.service, message))

    async def _devices(self, request: web.BaseRequest) -> web.Response:
        return _json(pages.devices(self.service))

    async def _health(self, request: web.BaseRequest) -> web.Response:
        return _json(pages.health(self.service), status=503 if self.service.store.failed else 200)

    async def _metrics(self, request: web.BaseRequest) -> web.Response:
        return web.Response(text=pages.metrics(self.service), content_type="text/plain")

    async def _openapi(self, request: web.BaseRequest) -> web.Response:
        return _json(openapi.OPENAPI)


def _limited(
    message: http.RawRequestMessage, payload: StreamReader, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_MAX)


async def serve(face: Face, host: str, port: int, context: ssl.SSLContext) -> tuple[web.ServerRunner, int]:
    """Listen; return the runner, whose ``cleanup`` ends it, and the port in use.  Raises OSError."""
    server = web.Server(face.answer, request_factory=_limited, access_log=None, keepalive_timeout=3600.0)
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=context, backlog=1024).start()
    return runner, runner.addresses[0][1]
