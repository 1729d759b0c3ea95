# SPDX-License-Identifier: Apache-2.0
"""Many devices at once against one validator, while a real device lives beside them."""

from __future__ import annotations

import asyncio
import time

from .. import cose, keys
from .._core import cbor_loads
from ..agent.peer import Peer
from ..tls import client_context
from .device import Device
from .registry import Figures, scenario
from .stage import Stage, check

__all__ = ["renewal_storm"]

DEVICES, ROUNDS = 200, 5


def _approved(s: Stage, device: Device, answer: bytes) -> bool:
    """Whether the answer is the validator's good signature over what the device asked for."""
    listed = cbor_loads(answer)
    public = s.set.validators[0].ed25519
    if not isinstance(listed, list) or len(listed) != 1 or public is None:
        return False
    return cose.verify_payload(device.payload, cose.decode_signature(*listed[0]), public, cose.AAD_LEASE)


async def _once(s: Stage, peer: Peer, device: Device) -> float:
    """One renewal; returns ms.  Signing is the device's time, not the validator's."""
    envelope = device.ask()
    begun = time.perf_counter()
    answer = await peer.renew(envelope)
    spent = (time.perf_counter() - begun) * 1e3
    check(_approved(s, device, answer), f"a device was not approved: {answer[:40].hex()}")
    return spent


async def _storm(s: Stage, devices: list[Device]) -> tuple[list[float], float]:
    """All devices at once, each over a connection of its own, so many times; returns every ms and the seconds it took."""
    context = client_context(keys.load_ed25519(s.root / "agent/relay.key"), s.root / "agent/relay.crt")
    peers = [Peer(s.set.validators[0], context, timeout_s=60.0) for _ in devices]
    try:
        spent: list[float] = []
        begun = time.perf_counter()
        for _ in range(ROUNDS):
            spent += await asyncio.gather(*(_once(s, p, d) for p, d in zip(peers, devices, strict=True)))
        return spent, time.perf_counter() - begun
    finally:
        await asyncio.gather(*(p.close() for p in peers))


@scenario(fast=True, duration_ms=4000)
def renewal_storm(s: Stage) -> Figures:
    """200 devices with keys of their own renew at once, five times: all are approved, and a real device's gate stays open."""
    path = s.root / "validator-0/validator.toml"
    devices = [Device(s.set, bytes(32)) for _ in range(DEVICES)]
    path.write_text(path.read_text() + "".join(d.registration for d in devices))
    s.start()
    s.workload()
    s.wait("an open gate", lambda: s.stamp().opens > 0)
    before = s.status().serial
    spent, seconds = asyncio.run(_storm(s, devices))
    after = s.renewed()
    check(s.stamp().closes == 0, "the real device's gate closed in the storm")
    check(len(spent) == DEVICES * ROUNDS, f"{len(spent)} answers")
    spent.sort()
    return {
        "approved": len(spent),
        "per_s": round(len(spent) / seconds, 1),
        "p50_ms": round(spent[len(spent) // 2], 3),
        "p99_ms": round(spent[len(spent) * 99 // 100], 3),
        "real_device_leases": after.serial - before,
        "false_closes": s.stamp().closes,
    }
