# SPDX-License-Identifier: Apache-2.0
"""The validator's OpenAPI 3.1 document (OC-5): every route with its bodies.  Objects of COSE and CBOR are rules of docs/formats.cddl."""

from __future__ import annotations

from typing import Any

from ..credential import CERTIFICATE, FIRST_USE
from ..keys import DEVICE_KEYS

__all__ = ["OPENAPI"]

Json = dict[str, Any]

CBOR, COSE_SIGN, JSON = "application/cbor", 'application/cose; cose-type="cose-sign"', "application/json"
COUNT = {"type": "integer", "minimum": 0}
SIZE = {"type": ["integer", "null"], "minimum": 0, "description": "records; null while no log was followed"}
TEXT = {"type": "string"}


def _hex(size: int) -> Json:
    return {"type": "string", "pattern": f"^[0-9a-f]{{{2 * size}}}$"}


def _object(**fields: Any) -> Json:
    return {"type": "object", "required": list(fields), "properties": fields, "additionalProperties": False}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _bytes(rule: str, most: int) -> Json:
    """Binary content: OpenAPI 3.1 describes it by its length alone; ``x-cddl`` names what is in it."""
    return {"maxLength": most, "x-cddl": rule}


def _operation_of(name: str, payload: Json, result: Json) -> tuple[Json, Json]:
    """The message and the answer of one OC-1 operation."""
    named = {"version": {"const": "1.0"}, "system_id": _ref("SystemId"), "operation": {"const": name}}
    times = {"timestamp": _ref("Time"), "expiration": _ref("Time")}
    message = _object(**named, **times, payload=payload, signature={"type": "string", "contentEncoding": "base64", "pattern": BASE64})
    return message, _object(**named, result=result)


BASE64 = "^[A-Za-z0-9+/]*={0,2}$"
BASE64_BYTES = {"type": "string", "contentEncoding": "base64", "contentMediaType": CBOR, "pattern": BASE64}
STANDING = {"enum": ["registered", "pending", "revoked", "stopped"]}
DEVICE = _object(
    ueid=_hex(33),
    key={"oneOf": [_hex(32), _hex(64)]},  # Ed25519; x || y of P-256
    log_id=_hex(32),
    models={"oneOf": [{"const": ["*"]}, {"type": "array", "items": _hex(32)}]},
    registered=COUNT,
)
DEVICE["properties"]["key_type"] = {"enum": [*DEVICE_KEYS], "default": "ed25519"}
OPERATIONS = {
    "register": _operation_of("register", _ref("Application"), _object(status={"enum": ["registered", "pending"]})),
    "renew": _operation_of("renew", _object(envelope=BASE64_BYTES), _object(answer=BASE64_BYTES)),
    "status": _operation_of("status", _object(ueid=_hex(33)), _object(status=STANDING, serial=COUNT, log_size=SIZE)),
    "shutdown": _operation_of("shutdown", _object(ueid=_hex(33)), _object(status={"const": "stopped"})),
}
SCHEMAS: Json = {
    "SystemId": {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"},
    "Time": {"type": "string", "format": "date-time", "pattern": "T.*(Z|[+-][0-9]{2}:[0-9]{2})$"},
    "Error": _object(error=TEXT),
    "Application": DEVICE,
    "Message": {"oneOf": [message for message, _ in OPERATIONS.values()]},
    "MessageAnswer": {"oneOf": [answer for _, answer in OPERATIONS.values()]},
    "Device": _object(
        ueid=_hex(33),
        serial=COUNT,
        highest=COUNT,
        log_size=SIZE,
        decided_ms=COUNT,
        revoked={"type": "boolean"},
        attested_by={"enum": [None, CERTIFICATE, FIRST_USE]},
        measured=COUNT,
        waits={"type": "boolean"},
    ),
    "Health": _object(
        index={"type": "integer", "minimum": 0, "maximum": 15},
        epoch={"type": "integer", "minimum": 1},
        m={"type": "integer", "minimum": 1, "maximum": 16},
        n={"type": "integer", "minimum": 1, "maximum": 16},
        lab={"type": "boolean"},
        devices=COUNT,
        polls=COUNT,
        store={"enum": ["ok", "failed"]},
    ),
}


def _answer(text: str, media: str = "", schema: Json | None = None) -> Json:
    return {"description": text} | ({"content": {media: {"schema": schema}}} if schema is not None else {})


def _error(text: str) -> Json:
    return _answer(text, JSON, _ref("Error"))


STRANGER = {"403": _error("this connection's key is no relay's of this validator")}
REFUSED = {
    "400": _error("no valid form"),
    "403": _error("unknown relay or device, or not signed by it"),
    "413": _error("the body is too long"),
    "503": _error("the store failed"),
}
SIGNED_MAX = 66_560  # a refusal may carry a set document
DECISION = {"anyOf": [_bytes("approval", 8192), _bytes("refusal", SIGNED_MAX)]}
STOP = {"anyOf": [_bytes("revocation", 8192), _bytes("refusal", 8192)]}


def _route(summary: str, answers: Json, *, body: Json | None = None) -> Json:
    out: Json = {"summary": summary, "responses": answers}
    return out | ({"requestBody": {"required": True, "content": body}} if body else {})


POLL = _route(
    "wait up to 25 s for a revocation",
    {"200": _answer("signed revocation, or refusal STATE_BEHIND", CBOR, STOP), "204": _answer("none came"), **REFUSED},
)
POLL["parameters"] = [
    {"name": "ueid", "in": "query", "required": True, "schema": _hex(33)},
    {"name": "serial", "in": "query", "required": True, "schema": COUNT},
]
OPENAPI: Json = {
    "openapi": "3.1.0",
    "info": {"title": "qsafp_embedded validator", "version": "1", "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
    "servers": [{"url": "/", "description": "TLS 1.3, mutual; the set document pins the validator's key, its configuration the relay's"}],
    "paths": {
        "/v1/renew": {
            "post": _route(
                "decide on a lease request",
                {"200": _answer("signatures, or a signed refusal", CBOR, DECISION), **REFUSED},
                body={CBOR: {"schema": _bytes("envelope", 24576)}},
            )
        },
        "/v1/lease": {
            "post": _route(
                "show the lease that runs",
                {"204": _answer("taken note of"), **REFUSED},
                body={media: {"schema": _bytes("lease", 24576)} for media in (CBOR, COSE_SIGN)},
            )
        },
        "/v1/revocation": {"get": POLL},
        "/v1/messages": {
            "post": _route(
                "OC-1 message: register, renew, status, shutdown",
                {"200": _answer("done, or pending", JSON, _ref("MessageAnswer")), **REFUSED},
                body={JSON: {"schema": _ref("Message")}},
            )
        },
        "/v1/devices": {
            "get": _route(
                "list registered devices",
                {"200": _answer("at most 1,000 of them", JSON, {"type": "array", "maxItems": 1000, "items": _ref("Device")}), **STRANGER},
            )
        },
        "/healthz": {
            "get": _route(
                "tell whether it works",
                {
                    "200": _answer("it does", JSON, _ref("Health")),
                    "503": _answer("the store failed", JSON, _ref("Health")),
                    **STRANGER,
                },
            )
        },
        "/metrics": {"get": _route("counters", {"200": _answer("Prometheus text", "text/plain", TEXT), **STRANGER})},
        "/openapi.json": {"get": _route("this document", {"200": _answer("OpenAPI 3.1", JSON, {"type": "object"}), **STRANGER})},
    },
    "components": {"schemas": SCHEMAS},
}
