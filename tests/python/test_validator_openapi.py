# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document says what a validator takes and answers: every route, with messages that really went over it (OC-5)."""

from __future__ import annotations

import asyncio
import copy
import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from test_validator_messages import application, encoded, message
from validator_kit import Device, quorum
from validator_live import Live, live, new_key

from qsafp_embedded.validator.http import Face
from qsafp_embedded.validator.messages import sign
from qsafp_embedded.validator.openapi import OPENAPI

CDDL = Path(__file__).resolve().parents[2] / "docs/formats.cddl"
RELAY = new_key()


def misfit(schema: dict[str, Any], value: Any) -> str:
    """Why a value does not fit a schema of the document, empty if it does."""
    errors = Draft202012Validator({**schema, "components": OPENAPI["components"]}).iter_errors(value)
    return "; ".join(e.message for e in errors)


def bodies(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every media type of the document with its schema."""
    if isinstance(node, dict):
        for media, body in node.get("content", {}).items():
            yield media, body["schema"]
        for child in node.values():
            yield from bodies(child)


class Watched:
    """A relay that holds every answer to the document."""

    def __init__(self, v: Live) -> None:
        self.v, self.seen = v, set[tuple[str, str, int]]()

    async def ask(self, method: str, path: str, body: bytes | None = None, media: str = "") -> tuple[int, Any]:
        """Send a request; the status, media type and form of the answer must be what the document says."""
        headers = {"Content-Type": media} if media else {}
        async with self.v.session.request(method, self.v.url + path, data=body, headers=headers) as answer:
            status, kind, got = answer.status, answer.content_type, await answer.read()
        route = path.partition("?")[0]
        said = OPENAPI["paths"][route][method.lower()]["responses"][str(status)]
        self.seen.add((method, route, status))
        if "content" not in said:
            assert got == b""
            return status, None
        assert list(said["content"]) == [kind]
        value = json.loads(got) if kind == "application/json" else got.decode() if kind == "text/plain" else got
        schema = said["content"][kind]["schema"]
        if isinstance(value, bytes):
            assert len(value) <= max(s["maxLength"] for s in schema.get("anyOf", [schema]))
        else:
            assert misfit(schema, value) == ""
        return status, value

    async def say(self, operation: str, payload: dict[str, Any]) -> tuple[int, Any]:
        """Send an OC-1 message, which must fit the document itself."""
        signed = sign(message(operation, payload), self.v.relay)
        assert misfit(OPENAPI["components"]["schemas"]["Message"], signed) == ""
        return await self.ask("POST", "/v1/messages", encoded(signed), "application/json")


def test_it_is_an_openapi_document_and_what_is_served(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            served = json.loads((await v.get("/openapi.json"))[1])
            validate(served)
            assert served == OPENAPI
            shown = {(m.upper(), path) for path, item in served["paths"].items() for m in item}
            assert shown == set(Face(v.service).routes)

    asyncio.run(story())


def test_a_document_that_is_none_is_refused() -> None:
    bad = copy.deepcopy(OPENAPI)
    bad["components"]["schemas"]["Device"]["type"] = "thing"
    with pytest.raises(Exception, match="thing"):
        validate(bad)


def test_every_body_has_a_schema_and_binary_ones_name_a_rule_of_the_cddl() -> None:
    rules = {line.split(" = ")[0] for line in CDDL.read_text().splitlines() if " = " in line}
    rules.add("approval")
    found = list(bodies(OPENAPI["paths"]))
    assert len(found) > 20
    for media, schema in found:
        if media == "application/json":
            assert schema
        elif media != "text/plain":
            for one in schema.get("anyOf", [schema]):
                assert one["x-cddl"] in rules
                assert one["maxLength"] > 0
    for item in OPENAPI["paths"].values():
        for method, operation in item.items():
            assert ("requestBody" in operation) == (method == "post")
            assert "403" in operation["responses"]


def test_what_goes_over_every_route_fits(tmp_path: Path) -> None:
    async def story() -> None:
        q = quorum(lab=True)
        async with live(tmp_path, q, relay=RELAY) as v:
            w, d = Watched(v), v.device
            stranger = Device(q.members)
            for path in ("/healthz", "/metrics", "/v1/devices", "/openapi.json"):
                assert (await w.ask("GET", path))[0] == 200
            envelope = d.ask()
            assert (await w.ask("POST", "/v1/renew", envelope, "application/cbor"))[0] == 200
            assert (await w.ask("POST", "/v1/renew", d.ask(epoch=9)))[0] == 200
            lease = q.lease(d.propose(), [0, 1])
            for media in OPENAPI["paths"]["/v1/lease"]["post"]["requestBody"]["content"]:
                assert (await w.ask("POST", "/v1/lease", lease, media))[0] == 204
            for path in ("/v1/renew", "/v1/lease", "/v1/messages"):
                assert (await w.ask("POST", path, b"\xff"))[0] == 400
                assert (await w.ask("POST", path, bytes(49 * 1024)))[0] == 413
            assert (await w.ask("POST", "/v1/renew", stranger.ask()))[0] == 403
            assert (await w.ask("POST", "/v1/lease", q.lease(stranger.propose(), [0, 1])))[0] == 403
            poll = f"/v1/revocation?ueid={d.ueid.hex()}&serial="
            assert (await w.ask("GET", "/v1/revocation"))[0] == 400
            assert (await w.ask("GET", f"/v1/revocation?ueid={stranger.ueid.hex()}&serial=0"))[0] == 403
            assert (await w.ask("GET", poll + "999"))[0] == 200
            assert await w.say("register", application(stranger)) == (200, reply("register", {"status": "pending"}))
            assert await w.say("register", application(d)) == (200, reply("register", {"status": "registered"}))
            assert (await w.say("renew", {"envelope": b64encode(envelope).decode()}))[0] == 200
            assert (await w.say("status", {"ueid": d.ueid.hex()}))[1]["result"]["status"] == "registered"
            assert (await w.say("status", {"ueid": stranger.ueid.hex()}))[0] == 403
            await v.service.revoke(d.ueid, "stop")
            assert (await w.ask("GET", poll + "1"))[0] == 200
            assert (await w.say("status", {"ueid": d.ueid.hex()}))[1]["result"]["status"] == "revoked"
            assert (await w.say("shutdown", {"ueid": d.ueid.hex()}))[0] == 200
            assert (await w.ask("GET", "/v1/devices"))[1][0]["revoked"] is True
            assert {(m, p) for m, p, status in w.seen if status < 300} == set(Face(v.service).routes)

    def reply(operation: str, result: dict[str, Any]) -> dict[str, Any]:
        return {"version": "1.0", "system_id": message("", {})["system_id"], "operation": operation, "result": result}

    asyncio.run(story())


def test_a_stranger_and_a_store_that_failed_are_answered_as_the_document_says(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            w = Watched(v)
            v.service.store.failed = True
            assert (await w.ask("GET", "/healthz"))[1]["store"] == "failed"
            assert (await w.ask("POST", "/v1/renew", v.device.ask()))[0] == 503
            v.service.config = replace(v.service.config, relays=())
            for method, path in Face(v.service).routes:
                assert (await w.ask(method, path, b"" if method == "POST" else None))[0] == 403

    asyncio.run(story())


GOOD = {
    "register": application(Device(quorum().members)),
    "renew": {"envelope": "AAEC"},
    "status": {"ueid": "01" * 33},
    "shutdown": {"ueid": "01" * 33},
}
WRONG: dict[str, dict[str, Any]] = {
    "a version": {"version": "2.0"},
    "an operation": {"operation": "open"},
    "a system id of another version": {"system_id": "7b1c4b3e-96a1-1a3e-8b0c-6f2a4d5e6f70"},
    "a time without an offset": {"timestamp": "1970-01-24T03:00:00"},
    "a time that is none": {"expiration": None},
    "another field": {"more": 1},
    "a payload that is a list": {"payload": []},
    "a payload of another operation": {"payload": {"envelope": "AAEC"}},
    "a ueid that is short": {"payload": {"ueid": "01"}},
    "a signature that is no base64": {"signature": "!"},
}


@pytest.mark.parametrize("operation", GOOD)
def test_a_message_of_every_operation_fits(operation: str) -> None:
    signed = sign(message(operation, GOOD[operation]), RELAY)
    assert misfit(OPENAPI["components"]["schemas"]["Message"], signed) == ""
    for name in signed:
        lacking = {k: v for k, v in signed.items() if k != name}
        assert misfit(OPENAPI["components"]["schemas"]["Message"], lacking)


@pytest.mark.parametrize("name", WRONG)
def test_what_the_document_refuses_the_validator_refuses(name: str, tmp_path: Path) -> None:
    bad = sign({**message("status", GOOD["status"]), **{k: v for k, v in WRONG[name].items() if k != "signature"}}, RELAY)
    bad |= {k: v for k, v in WRONG[name].items() if k == "signature"}
    assert misfit(OPENAPI["components"]["schemas"]["Message"], bad)

    async def story() -> None:
        async with live(tmp_path, quorum(), relay=RELAY) as v:
            status, said = await Watched(v).ask("POST", "/v1/messages", encoded(bad))
            assert status in (400, 403)
            assert said["error"]

    asyncio.run(story())
