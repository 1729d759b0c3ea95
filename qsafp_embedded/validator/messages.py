# SPDX-License-Identifier: Apache-2.0
"""OC-1 messages: JSON signed by a relay's key over its RFC 8785 bytes.  They register, ask and carry; they never open anything.

``{"version": "1.0", "system_id": UUIDv4, "operation": …, "timestamp": …, "expiration": …, "payload": {…}, "signature": base64}``
with payload by operation: register the fields of a device as in validator.toml; renew ``envelope`` (base64); status and shutdown
``ueid`` (hex).
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .. import keys
from ..errors import ConfigError, FormatError
from .service import NotKnown, Service

__all__ = ["Message", "canonical", "handle", "read", "sign"]

FIELDS = {"version", "system_id", "operation", "timestamp", "expiration", "payload", "signature"}
SAFE_INTEGER = 2**53 - 1


@dataclass(frozen=True)
class Message:
    """One message, its signature and times checked; ``system_id`` is the sender's own name for the system."""

    system_id: str
    operation: str
    payload: dict[str, Any]


def canonical(value: Any) -> bytes:
    """Return the RFC 8785 bytes of a JSON value without fractions; raises FormatError for what has none."""
    if value is None or isinstance(value, bool | str):
        try:
            return json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as why:
            raise FormatError("JSON: a lone surrogate") from why
    if isinstance(value, int) and abs(value) <= SAFE_INTEGER:
        return b"%d" % value
    if isinstance(value, list):
        return b"[" + b",".join(canonical(v) for v in value) + b"]"
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        pairs = sorted(value.items(), key=lambda kv: kv[0].encode("utf-16-be", "surrogatepass"))
        return b"{" + b",".join(canonical(k) + b":" + canonical(v) for k, v in pairs) + b"}"
    raise FormatError(f"JSON: no canonical form here for {value!r}")


def sign(message: dict[str, Any], key: keys.Ed25519Key) -> dict[str, Any]:
    """Return the message with the signature of ``key`` over its canonical bytes."""
    return {**message, "signature": base64.b64encode(key.sign(canonical(message))).decode()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise FormatError("JSON: a name stands twice")
    return out


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError


def _base64(text: object, what: str) -> bytes:
    try:
        return base64.b64decode(_text(text), validate=True)
    except (TypeError, binascii.Error, ValueError) as why:
        raise FormatError(f"{what} is not base64") from why


def _time(text: object, what: str) -> datetime:
    try:
        when = datetime.fromisoformat(_text(text))
    except (TypeError, ValueError) as why:
        raise FormatError(f"{what} is not RFC 3339") from why
    if when.tzinfo is None:
        raise FormatError(f"{what} has no offset")
    return when


def _system(text: object) -> str:
    try:
        known = uuid.UUID(_text(text))
    except (TypeError, ValueError) as why:
        raise FormatError("system_id is not a UUID") from why
    if known.version != 4 or str(known) != text:
        raise FormatError("system_id is not a UUIDv4 in lower case")
    return str(text)


def read(body: bytes, relay: bytes, now_ms: int) -> Message:
    """Read and verify a message: ``relay`` is the raw Ed25519 key of the connection it came over, ``now_ms`` Unix ms.

    Raises FormatError for another form, NotKnown for another key's signature or a message that is over.
    """
    try:
        m = json.loads(body, object_pairs_hook=_unique)
    except RecursionError as why:
        raise FormatError("JSON: too deep") from why
    except ValueError as why:
        raise FormatError(f"JSON: {why}") from why
    if not isinstance(m, dict) or m.keys() != FIELDS or not isinstance(m["payload"], dict):
        raise FormatError(f"a message has exactly the fields {', '.join(sorted(FIELDS))}")
    if m["version"] != "1.0":
        raise FormatError(f"message version {m['version']!r} is not 1.0")
    bare = {k: v for k, v in m.items() if k != "signature"}
    if not keys.verify(keys.ED25519, relay, canonical(bare), _base64(m["signature"], "signature")):
        raise NotKnown("the message is not signed by this relay's key")
    begin, end = _time(m["timestamp"], "timestamp"), _time(m["expiration"], "expiration")
    if end <= begin or end.timestamp() * 1000 <= now_ms:
        raise NotKnown("the message is over")
    return Message(_system(m["system_id"]), str(m["operation"]), m["payload"])


def _ueid(m: Message) -> bytes:
    try:
        return bytes.fromhex(m.payload["ueid"])
    except (KeyError, TypeError, ValueError) as why:
        raise FormatError("payload: 'ueid' is missing or not hex") from why


async def _register(service: Service, m: Message) -> dict[str, Any]:
    try:
        return {"status": await service.apply(m.payload)}
    except ConfigError as why:
        raise FormatError(str(why)) from why


def _status(service: Service, ueid: bytes) -> dict[str, Any]:
    service.device(ueid)
    s = service.store.state(ueid)
    standing = "revoked" if s.revoked else "pending" if ueid in service.waits else "stopped" if ueid in service.stopped else "registered"
    return {"status": standing, "serial": s.serial, "log_size": s.size}


async def handle(service: Service, m: Message) -> dict[str, Any]:
    """Do what a message asks and return the answer; raises as the service does."""
    if m.operation == "register":
        result = await _register(service, m)
    elif m.operation == "renew":
        answer = await service.renew(_base64(m.payload.get("envelope"), "envelope"))
        result = {"answer": base64.b64encode(answer).decode()}
    elif m.operation == "status":
        result = _status(service, _ueid(m))
    elif m.operation == "shutdown":
        service.stopped.add(service.device(_ueid(m)).ueid)
        result = {"status": "stopped"}
    else:
        raise FormatError(f"no operation {m.operation!r}: register, renew, status or shutdown")
    return {"version": "1.0", "system_id": m.system_id, "operation": m.operation, "result": result}
