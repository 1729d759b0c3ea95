# SPDX-License-Identifier: Apache-2.0
"""Who may speak to a validator: TLS 1.3, a certificate we know, and its key on the list at this very moment."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from validator_kit import quorum
from validator_live import client, live, new_key

from qsafp_embedded import tls
from qsafp_embedded.errors import ConfigError


async def get(url: str, context: ssl.SSLContext) -> int:
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as answer:
        return answer.status


def test_the_servers_certificate_is_the_key_that_the_set_pins(tmp_path: Path) -> None:
    async def story() -> None:
        q = quorum()
        async with live(tmp_path, q) as v:
            host, port = "127.0.0.1", int(v.url.rsplit(":", 1)[1])
            _, writer = await asyncio.open_connection(host, port, ssl=client(tmp_path, v.relay))
            channel = writer.get_extra_info("ssl_object")
            assert channel.version() == "TLSv1.3"
            assert tls.spki_of_certificate(channel.getpeercert(binary_form=True)) in q.members.validators[0].pins
            writer.close()

    asyncio.run(story())


@pytest.mark.parametrize("known", [False, None], ids=["a strange key", "no certificate"])
def test_strangers_get_no_answer(known: bool | None, tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            assert await get(v.url + "/healthz", client(tmp_path, v.relay)) == 200
            with pytest.raises(aiohttp.ClientError):
                await get(v.url + "/healthz", client(tmp_path, None if known is None else new_key()))

    asyncio.run(story())


def test_a_relay_taken_off_the_list_is_refused_on_its_open_connection(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            assert (await v.get("/healthz"))[0] == 200
            gone = replace(v.service.config, relays=())
            v.service.reload(gone, v.service.members)
            assert (await v.get("/healthz"))[0] == 403
            assert (await v.post("/v1/renew", v.device.ask()))[0] == 403
            assert v.service.store.read("SELECT count(*) FROM state") == [(0,)]

    asyncio.run(story())


def test_tls_1_2_is_not_spoken(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            old = client(tmp_path, v.relay)
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises(aiohttp.ClientError):
                await get(v.url + "/healthz", old)

    asyncio.run(story())


def test_a_certificate_of_another_key_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "crt").write_bytes(tls.make_certificate(new_key()))
    with pytest.raises(ConfigError, match="no certificate of the TLS key"):
        tls.server_context(new_key(), tmp_path / "crt", trusted=[])


def test_a_relay_certificate_that_is_missing_is_named(tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / "crt").write_bytes(tls.make_certificate(key))
    with pytest.raises(ConfigError, match="nowhere"):
        tls.server_context(key, tmp_path / "crt", trusted=[tmp_path / "nowhere"])


def test_the_pin_of_a_key_is_the_pin_of_its_certificate(tmp_path: Path) -> None:
    key = new_key()
    der = ssl.PEM_cert_to_DER_cert(tls.make_certificate(key).decode())
    assert tls.spki_of_certificate(der) == tls.spki_of_key(key)
    assert tls.key_of_certificate(der)[1] == key.public


def test_clients_that_stall_or_talk_nonsense_keep_nobody_waiting(tmp_path: Path) -> None:
    async def story() -> None:
        async with live(tmp_path, quorum()) as v:
            host, port = "127.0.0.1", int(v.url.rsplit(":", 1)[1])
            stalled = []
            for said in (b"", b"\x16\x03\x01", bytes(300)):  # no TLS at all
                _, writer = await asyncio.open_connection(host, port)
                writer.write(said)
                stalled.append(writer)
            head = b"POST /v1/renew HTTP/1.1\r\nHost: v\r\nContent-Length: 500\r\n\r\n"
            for said in (b"GET", head, head + b"x", b"\xff\xfe\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 70_000):
                for _ in range(10):
                    _, writer = await asyncio.open_connection(host, port, ssl=client(tmp_path, v.relay))
                    writer.write(said)
                    stalled.append(writer)
            async with asyncio.timeout(30):
                assert await v.code(v.device.ask()) is None
            for writer in stalled:
                writer.transport.abort()
        assert v.service.counts["approved"] == 1

    asyncio.run(story())
