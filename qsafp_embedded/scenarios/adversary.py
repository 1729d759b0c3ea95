# SPDX-License-Identifier: Apache-2.0
"""A validator that lies, is slow or loses its answers: the real program with its real keys, TLS and store, and one bent act.

Acts: ``forge`` signs with a stranger's key under its own key id; ``replay`` repeats its first approval for ever; ``echo FILE``
answers with the signature of another validator, whose key is FILE; ``lose`` decides, stores, and drops the connection once per request;
``slow SECONDS`` answers late.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from .. import keys
from .._core import cbor_loads
from ..errors import QsafpError
from ..validator.__main__ import run
from ..validator.decide import parse
from ..validator.http import CBOR, Face
from ..validator.service import Identity, Service

__all__ = ["Adversary", "main"]

ACTS = ("forge", "replay", "echo", "lose", "slow")


class Adversary(Face):
    """The relays' side of a validator with one act bent; everything else is as it should be."""

    def __init__(self, service: Service, act: str, argument: str = "") -> None:
        """``act`` is one of ACTS; ``argument`` is its file or its seconds."""
        super().__init__(service)
        self._act, self._argument = act, argument
        self._first = b""
        self._lost: set[bytes] = set()

    def _stranger(self) -> Identity:
        """Whose signatures cannot verify: the right key id over another key."""
        mine = self.service.identity.signers[0]
        return Identity((replace(keys.Ed25519Key.from_seed(secrets.token_bytes(32)), kid=mine.kid),))

    async def _renew(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        if self._act == "forge":
            return web.Response(body=self._stranger().approve(parse(body).lease), headers=CBOR)
        if self._act == "echo":
            other = Identity((keys.load_ed25519(Path(self._argument)),))
            return web.Response(body=other.approve(parse(body).lease), headers=CBOR)
        if self._act == "slow":
            await asyncio.sleep(float(self._argument))
        answer = await self.service.renew(body)
        if self._act == "replay":
            if not self._first and isinstance(cbor_loads(answer), list):
                self._first = answer
            answer = self._first or answer
        if self._act == "lose" and body not in self._lost and request.transport is not None:
            self._lost.add(body)
            request.transport.abort()
        return web.Response(body=answer, headers=CBOR)


def main(argv: Sequence[str] | None = None) -> int:
    """Run in a validator's place until a signal comes."""
    p = argparse.ArgumentParser(description="a validator that misbehaves in one way")
    p.add_argument("--config", type=Path, required=True, help="the validator.toml whose place it takes")
    p.add_argument("--act", nargs="+", required=True, metavar="ACT", help=", ".join(ACTS))
    args = p.parse_args(argv)
    if args.act[0] not in ACTS or len(args.act) > 2:
        p.error(f"unknown act {' '.join(args.act)}")
    try:
        asyncio.run(run(args.config, face=lambda service: Adversary(service, *args.act)))
    except QsafpError as why:
        print(f"adversary: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
