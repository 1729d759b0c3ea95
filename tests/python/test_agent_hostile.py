# SPDX-License-Identifier: Apache-2.0
"""Validators that hang, close, send garbage or 10 MB, lie about their key or their signature: each costs its own vote, nothing else."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from agent_world import World, states
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from qsafp_embedded import keys
from qsafp_embedded._core import cbor_dumps
from qsafp_embedded.agent import config as agent_config
from qsafp_embedded.agent.owner import GuardOwner
from qsafp_embedded.agent.peer import Peer, PeerError
from qsafp_embedded.agent.polls import Polls
from qsafp_embedded.client import GuardClient
from qsafp_embedded.tls import client_context, make_certificate, server_context

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]
TEN_MB = 10 * 1024 * 1024


def reply(body: bytes, *, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Type: application/cbor\r\nContent-Length: {size}\r\n\r\n".encode() + body


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forged: bytes) -> None:
    await reader.read()  # until the agent gives up


async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forged: bytes) -> None:
    writer.close()


async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forged: bytes) -> None:
    writer.write(reply(b"\x81", length=500))


def says(block: bytes) -> Behaviour:
    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forged: bytes) -> None:
        writer.write(block)

    return act


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forged: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"1000\r\n" + bytes(4096) + b"\r\n")
        await writer.drain()


async def forge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forged: bytes) -> None:
    writer.write(reply(forged))


HOSTILE: dict[str, tuple[Behaviour, set[str]]] = {
    "hang": (hang, {"asked", "unreachable"}),
    "close": (close, {"unreachable"}),
    "cut": (cut, {"unreachable"}),
    "no HTTP": (says(secrets.token_bytes(300) + b"\r\n\r\n"), {"unreachable"}),
    "no CBOR": (says(reply(secrets.token_bytes(300))), {"garbled"}),
    "empty": (says(reply(b"")), {"garbled"}),
    "10 MB": (says(reply(bytes(TEN_MB))), {"unreachable"}),
    "endless": (endless, {"unreachable"}),
    "HTTP 500": (says(reply(b"no", status="500 No")), {"unreachable"}),
    "redirect": (says(b"HTTP/1.1 302 F\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), {"unreachable"}),
    "forged": (forge, {"approved", "forged"}),
}


@asynccontextmanager
async def impostor(world: World, index: int, act: Behaviour, *, key: keys.Ed25519Key | None = None) -> AsyncIterator[None]:
    """Listen where a validator should, with its TLS key or another one, and behave as told once a request came."""
    config = world.config(index)
    tls = key or keys.load_ed25519(config.tls_key)
    crt = config.directory / "impostor.crt"
    crt.write_bytes(make_certificate(tls))
    member = world.members.validators[index]
    assert member.ed25519 is not None
    header = cbor_dumps({1: keys.ED25519, 4: keys.kid(member.ed25519)})
    forged = cbor_dumps([[header, {}, secrets.token_bytes(64)]])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await act(reader, writer, forged)
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError, ssl.SSLError):
            pass
        finally:
            writer.close()

    context = server_context(tls, crt, trusted=[r.cert for r in config.relays])
    server = await asyncio.start_server(serve, config.host, config.port, ssl=context)
    try:
        yield
    finally:
        server.close()


def peer_of(world: World) -> Peer:
    """The agent's side of validator 0."""
    relay = world.root / "agent"
    context = client_context(keys.load_ed25519(relay / "relay.key"), relay / "relay.crt")
    return Peer(world.members.validators[0], context, timeout_s=20.0)


@pytest.mark.parametrize("pair", [list(HOSTILE)[i : i + 2] for i in range(0, len(HOSTILE), 2)], ids=" and ".join)
def test_two_of_six_that_misbehave_do_not_keep_the_lease_away(pair: list[str], tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, profile="fleet", duration_ms=2000)
        first, last = HOSTILE[pair[0]], HOSTILE[pair[-1]]
        async with (
            world.validators(1, 2, 3, 4),
            impostor(world, 0, first[0]),
            impostor(world, 5, last[0]),
            world.agent(timeout_s=1.0) as agent,
        ):
            serial = (await world.phase("active")).serial
            await world.until(lambda: world.guard().serial >= serial + 2)
            await world.until(lambda: states(agent)[0] in first[1] and states(agent)[5] in last[1], f"{pair}: {states(agent)}")
            assert world.guard().phase_name == "ACTIVE"
            assert world.guard().denied == 0
            assert agent.status()["polls"] in (4, 5, 6)  # one that hangs looks like one that has nothing to say

    asyncio.run(story())


def test_a_server_with_another_key_hears_not_one_byte(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forged: bytes) -> None:
        heard.append(b"a request")

    async def story() -> None:
        world = World(tmp_path)
        peer = peer_of(world)
        async with impostor(world, 0, listen, key=keys.Ed25519Key.from_seed(secrets.token_bytes(32))):
            with pytest.raises(PeerError, match="another key than the pinned one"):
                await peer.renew(b"secret")
        assert heard == []
        async with impostor(world, 0, listen):
            with pytest.raises(PeerError):
                await peer.renew(b"secret")
        assert heard  # with the pinned key it speaks: the silence above was for the key
        await peer.close()

    asyncio.run(story())


@pytest.mark.parametrize("name", ["10 MB", "endless"])
def test_an_answer_without_end_is_left_after_64_kib(name: str, tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        peer = peer_of(world)
        async with impostor(world, 0, HOSTILE[name][0]):
            with pytest.raises(PeerError, match="longer than 65536 bytes"):
                await peer.renew(b"x")
        await peer.close()

    asyncio.run(story())


@pytest.mark.parametrize("block", [b"HTTP/1.1 204 N\r\nContent-Length: 0\r\n\r\n", reply(b"x")], ids=["nothing", "garbage"])
def test_a_validator_that_answers_polls_at_once_is_not_asked_without_pause(block: bytes, tmp_path: Path) -> None:
    asked: list[float] = []

    async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forged: bytes) -> None:
        asked.append(asyncio.get_running_loop().time())
        writer.write(block)

    async def story() -> None:
        world = World(tmp_path)
        peer = peer_of(world)
        owner = GuardOwner(agent_config.load(world.root / "agent" / "agent.toml"))
        polls = Polls([peer], world.members, owner, longest=15.0, say=lambda text: None)
        async with impostor(world, 0, at_once):
            task = asyncio.create_task(polls.run())
            await world.until(lambda: len(asked) >= 4)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert asked[3] - asked[1] >= 1.9
        await peer.close()
        owner.close()

    asyncio.run(story())


def test_with_too_few_honest_validators_the_gate_stays_closed_and_status_says_why(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        async with (
            world.validator(0),
            impostor(world, 1, forge),
            impostor(world, 2, HOSTILE["no CBOR"][0]),
            world.agent(backoff_max_s=1) as agent,
        ):
            await world.until(lambda: agent.status()["error"])
            await world.until(lambda: states(agent)[1] == "forged" and states(agent)[2] == "garbled")
            with GuardClient.connect(world.ctl) as guard:
                assert guard.status().phase_name not in ("ACTIVE", "WARNING")
            assert "validator 1: forged" in str(agent.status()["error"]), agent.status()["error"]

    asyncio.run(story())


def long_over(key: keys.Ed25519Key) -> bytes:
    """A certificate of this key that ended in 1999, PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"long over {key.kid.hex()}")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.private.public_key()).serial_number(7)
    old = builder.not_valid_before(datetime(1999, 1, 1, tzinfo=UTC)).not_valid_after(datetime(1999, 1, 2, tzinfo=UTC))
    return old.sign(key.private, None).public_bytes(Encoding.PEM)


def test_the_dates_of_certificates_are_not_looked_at(tmp_path: Path) -> None:
    """A device without a clock, or with a wrong one, must still be heard; who is who, the keys say."""

    async def story() -> None:
        world = World(tmp_path)
        relay = long_over(keys.load_ed25519(world.root / "agent" / "relay.key"))
        (world.root / "agent" / "relay.crt").write_bytes(relay)
        for where in (world.root / f"validator-{i}" for i in range(3)):
            (where / "relay.crt").write_bytes(relay)
            (where / "tls.crt").write_bytes(long_over(keys.load_ed25519(where / "tls.key")))
        async with world.validators(), world.agent():
            await world.phase("active")

    asyncio.run(story())
