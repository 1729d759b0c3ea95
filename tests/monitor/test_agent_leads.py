# SPDX-License-Identifier: Apache-2.0
"""Real validators and the real agent lead two boards: leases over mutual TLS from 4 of 6, fed through the line; the auditor's command
then verifies the log on the host (HW-6, HW-7, HW-8)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from agent_world import World
from kinds import KINDS
from test_attacks import rolled_back
from unleashed import Board, Device, until
from validator_kit import MODEL
from virt_armv7 import VirtArmv7

from qsafp_embedded._tables import Event
from qsafp_embedded.keyfile import write_secret

BOARDS = (Board.name, VirtArmv7.name)  # of 64 and of 32 bits
RENEWALS = 3


async def lead(world: World, board: Board) -> None:
    """Run validators and agent until the lease was renewed some times."""
    async with world.validators(), world.agent(guard_socket=f'"{board.line}"', guard_config='""', renew_fraction=0.1) as agent:
        await world.until(lambda: agent.status()["renewals"] > RENEWALS, f"{RENEWALS} renewals")


def audit(world: World, line: Path, k0: bytes) -> dict[str, object]:
    """What the auditor's command says of the log that it reads over the line."""
    ctl = world.root / "run/main/ctl.sock"
    ctl.parent.mkdir(parents=True, exist_ok=True)
    ctl.symlink_to(line)
    key = world.root / "board.k0"
    write_secret(key, "seal", k0)
    words = [sys.executable, "-m", "qsafp_embedded.cli", "audit", "verify", "--json", "--dir", str(world.root), "--k0", str(key)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.board(name)) for name in BOARDS])
def test_an_agent_leads_a_board_through_its_line(name: str, folder: Path) -> None:
    world = World(folder, profile="fleet")
    device = Device(duration_ms=12_000, document=(world.root / "set/set-1.cbor").read_bytes())
    with KINDS[name](device, folder) as board:
        with board.client() as client:
            world.register(device.ueid, device.public, client.status().log_id, model=MODEL)
        asyncio.run(lead(world, board))
        with board.client() as client:
            client.failsafe()  # sooner than the end of a lease that nobody renews any more
            until(lambda: rolled_back(board, client))
            events = [r["event"] for r in board.records(client)]
        assert events.count(Event.LEASE_ISSUED) == 1
        assert events.count(Event.LEASE_RENEWED) >= RENEWALS
        assert audit(world, board.line, device.k0)["records"] == len(events)
        assert board.orders()["batches"] > 0
