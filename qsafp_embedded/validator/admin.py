# SPDX-License-Identifier: Apache-2.0
"""The operator's side: HTTP over a Unix socket of mode 0600.  Who may open the file may revoke, allow and release."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from aiohttp import web

from ..errors import ConfigError, FormatError, StoreError
from . import pages
from .service import NotKnown, Service

__all__ = ["serve_admin"]


def _hex(body: dict[str, Any], key: str, size: int) -> bytes:
    try:
        value = bytes.fromhex(body[key])
    except (KeyError, TypeError, ValueError) as why:
        raise FormatError(f"'{key}' is missing or not hex") from why
    if len(value) != size:
        raise FormatError(f"'{key}' is not {size} bytes")
    return value


async def _body(request: web.BaseRequest) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as why:
        raise FormatError("the body is not JSON") from why
    if not isinstance(body, dict):
        raise FormatError("the body is not a JSON object")
    return body


async def _act(service: Service, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
    if path == "/revoke":
        token = await service.revoke(_hex(body, "ueid", 33), str(body.get("text", "revoked by an operator")))
        return {"revocation": token.hex()}
    if path == "/allow":
        await service.allow(_hex(body, "ueid", 33))
        return {"allowed": body["ueid"]}
    if path == "/release":
        sequence = body.get("sequence")
        if type(sequence) is not int or not 0 <= sequence < 2**63:
            raise FormatError("'sequence' is missing or no number")
        record = _hex(body, "hash", 32) if body.get("hash") is not None else None
        done = await service.release(_hex(body, "ueid", 33), sequence, record)
        return {"released": done.ueid.hex(), "sequence": done.sequence, "hash": done.hash.hex()}
    return None


def _show(service: Service, path: str) -> Any:
    if path == "/decisions":
        return pages.decisions(service)
    if path == "/devices":
        return pages.devices(service)
    if path == "/applicants":
        return list(service.applicants.values())
    if path == "/pending":
        return pages.pending(service)
    return pages.health(service) if path == "/health" else None


def _handler(service: Service) -> Any:
    async def answer(request: web.BaseRequest) -> web.Response:
        status, found = 200, None
        try:
            path = request.raw_path
            found = await _act(service, path, await _body(request)) if request.method == "POST" else _show(service, path)
            if found is None:
                status, found = 404, {"error": f"no such command: {request.raw_path}"}
        except FormatError as why:
            status, found = 400, {"error": str(why)}
        except NotKnown as why:
            status, found = 404, {"error": str(why)}
        except StoreError as why:
            status, found = 503, {"error": str(why)}
        return web.Response(body=json.dumps(found).encode(), status=status, content_type="application/json")

    return answer


def _bind(path: Path) -> socket.socket:
    """Bind beside the name and rename over it, so that the name is never a socket others may open."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    sock = socket.socket(socket.AF_UNIX)
    try:
        fresh.unlink(missing_ok=True)
        sock.bind(str(fresh))
        fresh.chmod(0o600)
        fresh.replace(path)
    except OSError as why:
        sock.close()
        raise ConfigError(f"{path}: cannot make the admin socket: {why}") from why
    return sock


async def serve_admin(service: Service, path: Path) -> web.ServerRunner:
    """Listen on the operator's socket; the runner's ``cleanup`` ends it.  Raises ConfigError."""
    runner = web.ServerRunner(web.Server(_handler(service), access_log=None), shutdown_timeout=1.0)
    await runner.setup()
    sock = _bind(path)
    await web.SockSite(runner, sock).start()
    return runner
