# SPDX-License-Identifier: Apache-2.0
"""A validator that listens, inside the test's own event loop, and a relay that talks to it."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from validator_kit import Device, Quorum, install

from qsafp_embedded import cose, keys
from qsafp_embedded._core import cbor_loads
from qsafp_embedded._tables import Refusal
from qsafp_embedded.tls import load_identity, make_certificate, server_context
from qsafp_embedded.validator import config as configuration
from qsafp_embedded.validator.__main__ import identity_of, load_set
from qsafp_embedded.validator.admin import serve_admin
from qsafp_embedded.validator.http import Face, serve
from qsafp_embedded.validator.service import Service
from qsafp_embedded.validator.store import Store

NOW = 2_000_000_000


def new_key() -> keys.Ed25519Key:
    """A fresh Ed25519 key."""
    return keys.Ed25519Key.from_seed(secrets.token_bytes(32))


def client(folder: Path, key: keys.Ed25519Key | None) -> ssl.SSLContext:
    """What a relay connects with; it would check the server's SPKI by itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if key is not None:
        path = folder / f"{key.kid.hex()}.crt"
        path.write_bytes(make_certificate(key))
        load_identity(context, key, path)
    return context


@dataclass
class Live:
    """A listening validator, its relay's session, and the device they serve."""

    q: Quorum
    device: Device
    relay: keys.Ed25519Key
    service: Service
    session: aiohttp.ClientSession
    url: str
    folder: Path

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """POST and return status and body."""
        async with self.session.post(self.url + path, data=body) as answer:
            return answer.status, await answer.read()

    async def get(self, path: str) -> tuple[int, bytes]:
        """GET and return status and body."""
        async with self.session.get(self.url + path) as answer:
            return answer.status, await answer.read()

    async def renew(self, envelope: bytes) -> bytes:
        """Send an envelope; the answer must be HTTP 200."""
        status, body = await self.post("/v1/renew", envelope)
        assert status == 200, body
        return body

    def refusal(self, token: bytes, aad: bytes = cose.AAD_REFUSAL) -> dict[int, Any]:
        """Verify a refusal or revocation of this validator and return its fields."""
        signed = cose.parse_sign1(token)
        public = self.q.members.public(self.q.members.validators[0], signed.by.alg)
        assert public is not None
        assert signed.verify(public, aad)
        return dict(cbor_loads(signed.payload))

    async def code(self, envelope: bytes) -> Refusal | None:
        """Send an envelope; None if it was approved with good signatures, else the signed code."""
        body = await self.renew(envelope)
        if body[:1] == b"\xd2":
            return Refusal(self.refusal(body)[3])
        payload = cbor_loads(cose.parse_sign1(cbor_loads(envelope)[1], cose.REQUESTS).payload)[1]
        for item, signer in zip(cbor_loads(body), self.q.signers(0), strict=True):
            assert cose.verify_payload(payload, cose.decode_signature(*item), signer.public, cose.AAD_LEASE)
        return None


@asynccontextmanager
async def live(
    folder: Path, q: Quorum, *, device: Device | None = None, relay: keys.Ed25519Key | None = None, policy: str = ""
) -> AsyncIterator[Live]:
    """Run validator 0 of ``q`` in ``folder``; a second run in the same folder finds its state again."""
    device, relay = device or Device(q.members), relay or new_key()
    home = folder / "validator-0"
    if not home.exists():
        install(home, q, 0, relay, [device.registered()], policy=policy)
    config = configuration.load(home / "validator.toml")
    members = load_set(config)
    context = server_context(keys.load_ed25519(config.tls_key), config.tls_cert, trusted=[r.cert for r in config.relays])
    async with Store(config.db) as store:
        service = Service(config, members, identity_of(config, members), store, clock=lambda: NOW)
        runner, port = await serve(Face(service), config.host, config.port, context)
        admin = await serve_admin(service, config.admin_socket)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client(folder, relay))) as session:
            yield Live(q, device, relay, service, session, f"https://127.0.0.1:{port}", folder)
        await admin.cleanup()
        await runner.cleanup()
