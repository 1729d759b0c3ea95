# SPDX-License-Identifier: Apache-2.0
"""A validator over mutual TLS 1.3: requests, revocations, operators."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from validator_kit import Device, failsafe_record, named, quorum
from validator_live import Live, live, new_key

from qsafp_embedded import cose
from qsafp_embedded._core import cbor_loads, sha256
from qsafp_embedded._tables import Reason, Refusal
from qsafp_embedded.errors import ConfigError, QsafpError
from qsafp_embedded.validator import admin_client
from qsafp_embedded.validator.http import Face


@pytest.mark.parametrize("suite", ["ed25519", "ml-dsa-65", "hybrid"])
def test_a_device_is_granted_leases(suite: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum(suite=suite, lab=True)) as v:
            old = 0
            for _ in range(4):
                assert await v.code(v.device.ask(old=old)) is None
                old = v.device.claims["log_size"]

    asyncio.run(story())


def test_an_answer_is_byte_identical_even_after_a_restart(tmp_path: Path) -> None:
    q = quorum(suite="hybrid")  # ML-DSA signatures are randomised: only a stored one repeats
    device = Device(q.members)
    envelope = device.ask()
    answers = []

    async def ask() -> None:
        async with live(tmp_path, q, device=device, relay=relay) as v:
            answers.extend([await v.renew(envelope), await v.renew(envelope)])

    relay = new_key()
    asyncio.run(ask())
    asyncio.run(ask())
    assert len(set(answers)) == 1


def test_denials_are_stored_and_equivocation_is_denied_alike_every_time(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            denied = v.device.ask(log_id=bytes(32))
            first = await v.renew(denied)
            assert v.refusal(first)[3] == Refusal.REREGISTER
            assert await v.renew(denied) == first
            v.device.serial = 0
            twice = v.device.ask()
            assert v.refusal(await v.renew(twice))[3] == Refusal.EQUIVOCATION
            assert await v.renew(twice) == await v.renew(twice)
            evidence = v.service.store.read("SELECT request FROM equivocation")
            assert [row[0] for row in evidence] == [cbor_loads(twice)[1]]
            assert await v.renew(denied) == first

    asyncio.run(story())


def test_a_refusal_names_the_request(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            envelope = v.device.ask(epoch=9)
            said = v.refusal(await v.renew(envelope))
            payload = cose.parse_sign1(cbor_loads(envelope)[1]).payload
            assert said == {1: sha256(payload), 2: 2, 3: 36, 4: "epoch 1 is in force here", 5: None}

    asyncio.run(story())


def test_what_is_no_request_is_not_answered_with_a_signature(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            stranger = Device(v.q.members)
            liar = replace(stranger, ueid=v.device.ueid)
            for body, status in ((b"", 400), (b"\xff" * 99, 400), (bytes(24 * 1024 + 1), 413), (stranger.ask(), 403), (liar.ask(), 403)):
                got, text = await v.post("/v1/renew", body)
                assert (got, "error" in json.loads(text)) == (status, True)
            for path, body in (("/v1/lease", b"x"), ("/v1/messages", b"{"), ("/v1/messages", b"[]")):
                assert (await v.post(path, body))[0] == 400
            for path in ("/v1/revocation", "/v1/revocation?ueid=zz&serial=1", f"/v1/revocation?ueid={v.device.ueid.hex()}"):
                assert (await v.get(path))[0] == 400
            assert (await v.get(f"/v1/revocation?ueid={stranger.ueid.hex()}&serial=0"))[0] == 403
            assert (await v.get("/v1/renew"))[0] == 404
            assert v.service.store.read("SELECT count(*) FROM state") == [(0,)]
            assert await v.code(v.device.ask()) is None

    asyncio.run(story())


def test_a_body_without_a_length_is_cut_at_the_limit(tmp_path: Path) -> None:
    async def story() -> None:
        async def endless() -> AsyncIterator[bytes]:
            for _ in range(200):
                yield bytes(1024)

        async with live(tmp_path, quorum()) as v, v.session.post(v.url + "/v1/renew", data=endless()) as answer:
            assert answer.status == 413

    asyncio.run(story())


# ---- revocation ----


def poll(v: Live, serial: int) -> str:
    return f"/v1/revocation?ueid={v.device.ueid.hex()}&serial={serial}"


def test_a_revocation_answers_every_waiting_poll_and_denies_until_allowed(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            assert await v.code(v.device.ask()) is None
            polls = [asyncio.create_task(v.get(poll(v, 1))) for _ in range(3)]
            while not v.service.waiting_polls:
                await asyncio.sleep(0.01)
            admin = v.service.config.admin_socket
            said = await asyncio.to_thread(admin_client.revoke, admin, v.device.ueid, text="stop")
            for status, token in await asyncio.gather(*polls):
                assert (status, token.hex()) == (200, said["revocation"])
                m = v.q.members
                assert v.refusal(token, cose.AAD_REVOCATION) == {1: v.device.ueid, 2: m.set_id, 3: 1, 4: 1, 5: Refusal.REVOKED, 6: "stop"}
            assert await v.code(v.device.ask(old=3)) is Refusal.REVOKED
            await asyncio.to_thread(admin_client.allow, admin, v.device.ueid)
            assert await v.code(v.device.ask(old=3)) is None
            assert await v.service.poll(v.device.ueid, 3, seconds=0.01) is None

    asyncio.run(story())


def test_a_revocation_survives_a_restart_and_covers_what_is_known(tmp_path: Path) -> None:
    q, relay = quorum(), new_key()
    device = Device(q.members)

    async def before() -> None:
        async with live(tmp_path, q, device=device, relay=relay) as v:
            await v.code(device.ask())
            await v.service.revoke(device.ueid, "stop")

    async def after() -> None:
        async with live(tmp_path, q, device=device, relay=relay) as v:
            status, token = await v.get(poll(v, 1))
            assert (status, v.refusal(token, cose.AAD_REVOCATION)[4]) == (200, 1)
            assert await v.code(device.ask(old=3)) is Refusal.REVOKED
            status, token = await v.get(poll(v, 2))
            assert (status, v.refusal(token, cose.AAD_REVOCATION)[4]) == (200, 2)

    asyncio.run(before())
    asyncio.run(after())


def test_a_poll_for_an_unknown_serial_asks_for_the_lease(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            v.device.serial = 4
            lease = v.q.lease(v.device.propose(), [1, 2])
            status, token = await v.get(poll(v, 5))
            assert (status, v.refusal(token)[3], v.refusal(token)[5]) == (200, Refusal.STATE_BEHIND, 0)
            assert (await v.post("/v1/lease", v.q.lease(v.device.propose(), [1])))[0] == 400
            assert (await v.post("/v1/lease", lease))[0] == 204
            waiting = asyncio.create_task(v.get(poll(v, 5)))
            while not v.service.waiting_polls:
                await asyncio.sleep(0.01)
            await v.service.revoke(v.device.ueid, "stop")
            status, token = await waiting
            assert v.refusal(token, cose.AAD_REVOCATION)[4] == 5

    asyncio.run(story())


def test_a_lease_of_a_strange_device_teaches_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            assert (await v.post("/v1/lease", v.q.lease(Device(v.q.members).propose())))[0] == 403
            assert v.service.store.read("SELECT count(*) FROM state") == [(0,)]

    asyncio.run(story())


# ---- operators ----


def test_a_fail_safe_waits_for_a_person_who_releases_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            admin, d = v.service.config.admin_socket, v.device
            record = failsafe_record(2, Reason.MANUAL)
            envelope = d.envelope(d.request(d.propose(**named(record))), record=record)
            assert await v.code(envelope) is Refusal.PENDING_HUMAN
            (listed,) = await asyncio.to_thread(admin_client.pending, admin)
            assert (listed["ueid"], listed["sequence"], listed["reason"]) == (d.ueid.hex(), 2, "MANUAL")
            assert listed["hash"] == record[208:240].hex()
            await asyncio.to_thread(admin_client.release, admin, d.ueid, 2)
            assert await asyncio.to_thread(admin_client.pending, admin) == []
            assert await v.code(envelope) is None
            other = failsafe_record(5, Reason.MANUAL)
            assert await v.code(d.envelope(d.request(d.propose(**named(other))), old=3, record=other)) is Refusal.PENDING_HUMAN

    asyncio.run(story())


def test_a_release_may_come_before_the_request_if_it_names_the_record(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            admin, d = v.service.config.admin_socket, v.device
            record = failsafe_record(2, Reason.TAMPER)
            with pytest.raises(QsafpError, match="no fail-safe of sequence 2"):
                await asyncio.to_thread(admin_client.release, admin, d.ueid, 2)
            await asyncio.to_thread(admin_client.release, admin, d.ueid, 2, record_hash=record[208:240])
            assert await v.code(d.envelope(d.request(d.propose(**named(record))), record=record)) is None

    asyncio.run(story())


def test_operators_see_devices_and_decisions(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            admin = v.service.config.admin_socket
            await v.code(v.device.ask())
            await v.code(v.device.ask(old=3, model=bytes(32), log_id=bytes(32)))
            (device,) = await asyncio.to_thread(admin_client.devices, admin)
            assert (device["serial"], device["log_size"], device["revoked"]) == (2, 3, False)
            seen = [(d["serial"], d["decision"]) for d in await asyncio.to_thread(admin_client.decisions, admin)]
            assert seen == [(2, "REREGISTER"), (1, "APPROVED")]
            health = await asyncio.to_thread(admin_client.health, admin)
            assert health["store"] == "ok"
            assert health["polls"] == 0

    asyncio.run(story())


def test_the_operators_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            mode = v.service.config.admin_socket.stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert stat.S_IMODE(mode) == 0o600
            for ueid in (b"", bytes(33)):
                with pytest.raises(QsafpError, match=r"33 bytes|did not apply"):
                    await asyncio.to_thread(admin_client.allow, v.service.config.admin_socket, ueid)
        with pytest.raises(ConfigError, match="no validator listens"):
            admin_client.devices(tmp_path / "nowhere.sock")

    asyncio.run(story())


def test_health_metrics_devices_and_the_interface_are_shown(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum(lab=True)) as v:
            await v.code(v.device.ask())
            assert json.loads((await v.get("/healthz"))[1])["lab"] is True
            assert b'requests_total{answer="approved"} 1' in (await v.get("/metrics"))[1]
            assert json.loads((await v.get("/v1/devices"))[1])[0]["ueid"] == v.device.ueid.hex()
            shown = json.loads((await v.get("/openapi.json"))[1])["paths"]
            assert {path for _, path in Face(v.service).routes} == {*shown, "/openapi.json"}

    asyncio.run(story())
