# SPDX-License-Identifier: Apache-2.0
"""OC-1 messages: signed JSON that registers, asks and carries, and opens nothing."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from validator_kit import Device, quorum
from validator_live import NOW, Live, live, new_key

from qsafp_embedded.errors import FormatError
from qsafp_embedded.validator import admin_client
from qsafp_embedded.validator.messages import canonical, read, sign
from qsafp_embedded.validator.service import NotKnown

RELAY = new_key()


def message(operation: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "1.0",
        "system_id": "7b1c4b3e-96a1-4a3e-8b0c-6f2a4d5e6f70",
        "operation": operation,
        "timestamp": "1970-01-24T03:00:00Z",
        "expiration": "1970-01-24T03:33:21+00:00",
        "payload": payload,
    }


def encoded(m: dict[str, Any]) -> bytes:
    return json.dumps(m).encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None, "x"]}, '{"a":[true,null,"x"],"b":1}'),
        (
            {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7},
            '{"\\r":2,"1":4,"\u0080":6,"ö":7,"€":1,"\U0001f600":5,"\ufb33":3}',
        ),
        ('\u20ac$\u000f\nA\'B"\\\\"/', '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'),
        (-(2**53) + 1, "-9007199254740991"),
    ],
)
def test_canonical_bytes_are_those_of_rfc_8785(value: Any, text: str) -> None:
    """The second and third rows are examples of RFC 8785 3.2.3 and 3.2.2.2."""
    assert canonical(value) == text.encode()


@pytest.mark.parametrize("value", [1.5, 2**53, float("nan"), "\ud800", {"\udfff": 1}, {1: 2}, b"x"])
def test_what_has_no_canonical_form_here_is_refused(value: Any) -> None:
    with pytest.raises(FormatError):
        canonical(value)


def test_a_signed_message_is_read() -> None:
    m = read(encoded(sign(message("status", {"ueid": "00"}), RELAY)), RELAY.public, NOW)
    assert (m.operation, m.payload) == ("status", {"ueid": "00"})


def test_a_message_is_over_at_its_expiration() -> None:
    body = encoded(sign(message("status", {}), RELAY))
    read(body, RELAY.public, NOW + 999)
    for now in (NOW + 1_000, NOW + 1_001, 10**14):
        with pytest.raises(NotKnown, match="over"):
            read(body, RELAY.public, now)


WRONG: list[dict[str, Any]] = [
    {"version": "1.1"},
    {"system_id": "7b1c4b3e-96a1-1a3e-8b0c-6f2a4d5e6f70"},
    {"system_id": 5},
    {"timestamp": "yesterday"},
    {"timestamp": "1970-01-24T03:00:00"},
    {"expiration": None},
    {"payload": []},
    {"extra": 1},
    {"operation": 1.5},
]


@pytest.mark.parametrize("changed", WRONG, ids=[next(iter(w)) + str(i) for i, w in enumerate(WRONG)])
def test_a_message_of_another_form_is_refused_though_it_is_signed(changed: dict[str, Any]) -> None:
    m = {**message("status", {}), **changed}
    try:
        signed = sign(m, RELAY)
    except FormatError:
        signed = {**m, "signature": base64.b64encode(bytes(64)).decode()}
    with pytest.raises(FormatError):
        read(encoded(signed), RELAY.public, NOW)


def test_a_message_changed_after_signing_or_signed_by_another_key_is_refused() -> None:
    good = sign(message("status", {"ueid": "00"}), RELAY)
    for bad in ({**good, "operation": "shutdown"}, {**good, "payload": {"ueid": "01"}}, sign(message("status", {}), new_key())):
        with pytest.raises(NotKnown, match="not signed"):
            read(encoded(bad), RELAY.public, NOW)
    for text in ("", "!", good["signature"][:-4]):
        with pytest.raises((FormatError, NotKnown)):
            read(encoded({**good, "signature": text}), RELAY.public, NOW)


def test_a_name_that_stands_twice_is_refused() -> None:
    body = encoded(sign(message("status", {}), RELAY))
    with pytest.raises(FormatError, match="twice"):
        read(body[:-1] + b', "operation": "shutdown"}', RELAY.public, NOW)
    with pytest.raises(FormatError):
        read(b"[" * 100_000, RELAY.public, NOW)


async def say(v: Live, operation: str, payload: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    status, body = await v.post("/v1/messages", encoded(sign(message(operation, payload), v.relay)))
    said = json.loads(body)
    return status, said.get("result", said)


def application(d: Device) -> dict[str, Any]:
    return {"ueid": d.ueid.hex(), "key": d.key.public.hex(), "log_id": d.log_id.hex(), "models": ["*"], "registered": 1000}


def test_a_device_that_applies_waits_for_a_person_and_is_remembered(tmp_path: Path) -> None:
    q, relay = quorum(), new_key()
    known, new = Device(q.members), Device(q.members)

    async def apply() -> None:
        async with live(tmp_path, q, device=known, relay=relay) as v:
            assert await say(v, "register", application(known)) == (200, {"status": "registered"})
            assert await say(v, "register", application(new)) == (200, {"status": "pending"})
            assert (await v.post("/v1/renew", new.ask()))[0] == 403

    async def admit() -> None:
        async with live(tmp_path, q, device=known, relay=relay) as v:
            admin = v.service.config.admin_socket
            assert [a["ueid"] for a in await asyncio.to_thread(admin_client.applicants, admin)] == [new.ueid.hex()]
            await asyncio.to_thread(admin_client.allow, admin, new.ueid)
            assert await asyncio.to_thread(admin_client.applicants, admin) == []
            assert v.service.device(new.ueid).registered == NOW // 1000  # not the 1000 it wrote: the outer limit counts from here
            new.serial = 0
            assert await v.code(new.ask()) is None

    async def again() -> None:
        async with live(tmp_path, q, device=known, relay=relay) as v:
            assert await v.code(new.ask(old=6)) is None
            assert await say(v, "register", application(new)) == (200, {"status": "registered"})

    for part in (apply, admit, again):
        asyncio.run(part())


def test_an_application_cannot_change_a_registered_device(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            thief = Device(v.q.members, ueid=v.device.ueid)
            assert await say(v, "register", application(thief)) == (200, {"status": "registered"})
            assert (await v.post("/v1/renew", thief.ask()))[0] == 403
            for changed in ({"ueid": "00"}, {"models": "*"}, {"surprise": 1}):
                assert (await say(v, "register", {**application(thief), **changed}))[0] == 400

    asyncio.run(story())


def test_applications_do_not_fill_the_disk(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            v.service.applicants |= {bytes([1, n]) * 16: {} for n in range(256)}
            assert (await say(v, "register", application(Device(v.q.members))))[0] == 403

    asyncio.run(story())


def test_a_message_carries_a_request_and_asks_for_the_standing(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            envelope = v.device.ask()
            payload = {"envelope": base64.b64encode(envelope).decode()}
            status, said = await say(v, "renew", payload)
            assert (status, base64.b64decode(said["answer"])) == (200, await v.renew(envelope))
            ueid = {"ueid": v.device.ueid.hex()}
            assert await say(v, "status", ueid) == (200, {"status": "registered", "serial": 1, "log_size": 3})
            assert await say(v, "shutdown", ueid) == (200, {"status": "stopped"})
            assert (await say(v, "status", ueid))[1]["status"] == "stopped"
            await v.service.revoke(v.device.ueid, "stop")
            assert (await say(v, "status", ueid))[1]["status"] == "revoked"
            for operation, body in (("renew", {}), ("renew", {"envelope": "AAAA"}), ("status", {}), ("open", ueid)):
                assert (await say(v, operation, body))[0] == 400

    asyncio.run(story())
