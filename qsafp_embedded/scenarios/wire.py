# SPDX-License-Identifier: Apache-2.0
"""What a scenario says to validators by itself: as the fleet's relay, or as whoever stole its device key."""

from __future__ import annotations

import http.client
import secrets
from collections.abc import Mapping
from typing import Any

from .. import cose, keys
from .._core import cbor_dumps, cbor_loads, claims_decode, claims_encode
from .._tables import Refusal
from ..keyfile import read_secret
from ..tls import client_context
from .stage import Stage, check

__all__ = ["answer_of", "ask", "counts", "envelope_of", "last_lease", "refusal_code", "signed_request"]


def ask(s: Stage, index: int, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """One exchange with a validator over TLS 1.3 with the relay's key; returns status and body."""
    context = client_context(keys.load_ed25519(s.root / "agent/relay.key"), s.root / "agent/relay.crt")
    host = s.set.validators[index].endpoints[0].removeprefix("https://")
    link = http.client.HTTPSConnection(host, context=context, timeout=10)
    try:
        link.request("GET" if body is None else "POST", path, body=body)
        answer = link.getresponse()
        return answer.status, answer.read()
    finally:
        link.close()


def counts(s: Stage, index: int) -> dict[str, int]:
    """A validator's counters by what it answered, such as ``approved`` and ``repeated``."""
    rows = ask(s, index, "/metrics")[1].decode().splitlines()
    head = 'qsafp_validator_requests_total{answer="'
    return {r.removeprefix(head).partition('"')[0]: int(r.rpartition(" ")[2]) for r in rows if r.startswith(head)}


def last_lease(s: Stage) -> dict[str, Any]:
    """The claims of the newest lease that the agent keeps."""
    token = (s.root / "agent/evidence/last-lease.cbor").read_bytes()
    return dict(claims_decode(cose.parse_sign(token).payload))


def signed_request(s: Stage, claims: Mapping[str, Any], *, key: keys.Ed25519Key | None = None) -> bytes:
    """A request over other claims with a fresh nonce, signed by the device's own key (stolen from its state) or ``key``."""
    key = key or keys.Ed25519Key.from_seed(read_secret(s.root / "guard/state/device.key", "device"))
    lease = claims_encode({**claims, "nonce": secrets.token_bytes(16)})
    return cose.encode_sign1(cbor_dumps({1: lease, 2: bytes(32), 3: [0, 0, 0, 1, 0], 4: [0, b""]}), key, cose.AAD_REQUEST)


def envelope_of(request: bytes) -> bytes:
    """The envelope of a request that shows no more of the log."""
    return bytes(cbor_dumps({1: request, 2: 0, 3: None, 4: [], 5: None, 6: None, 7: None}))


def refusal_code(s: Stage, index: int, body: bytes) -> Refusal | None:
    """The code of a refusal that this validator signed, None for an approval; raises Failed if it is not its signature."""
    if body[:1] != b"\xd2":
        return None
    refusal = cose.parse_sign1(body)
    check(refusal.verify(s.signer(index).public, cose.AAD_REFUSAL), f"the refusal of validator {index} is not signed by it")
    return Refusal(cbor_loads(refusal.payload)[3])


def answer_of(s: Stage, index: int, request: bytes) -> Refusal | None:
    """Send a request; the signed refusal's code, or None for an approval.  Raises Failed for any other answer."""
    status, body = ask(s, index, "/v1/renew", envelope_of(request))
    check(status == 200, f"validator {index} answered {status}: {body[:200]!r}")
    return refusal_code(s, index, body)
