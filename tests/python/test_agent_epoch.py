# SPDX-License-Identifier: Apache-2.0
"""The agent takes a new epoch and the validators' limits to the guard, and tells it how many polls are alive (decisions 6 and 8)."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

from agent_world import World

from qsafp_embedded import keys, sets
from qsafp_embedded.client import GuardClient


def successor(world: World) -> sets.ValidatorSet:
    """The next epoch, with the same members."""
    document = sets.encode(replace(world.members, epoch=2), [keys.load_ed25519(world.root / "set" / "set.key")])
    return sets.load(document, old=world.members)


def limit(world: World, index: int) -> None:
    """Let a validator grant 5 s at most."""
    toml = world.root / f"validator-{index}" / "validator.toml"
    changed = re.sub(r"(?m)^max_duration_ms = \d+", "max_duration_ms = 5000", toml.read_text())
    assert "= 5000" in changed
    toml.write_text(changed)


def in_force(world: World) -> bytes:
    """The document that the guard holds."""
    with GuardClient.connect(world.ctl) as guard:
        return guard.set_document()


def test_a_new_epoch_reaches_the_guard_through_a_refusal_and_the_gate_never_closes(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, duration_ms=4000)
        async with world.agent() as agent:
            async with world.validators():
                first = (await world.phase("active")).serial
            world.members = successor(world)
            async with world.validators():
                await world.until(lambda: agent._members.epoch == 2, "the agent is in epoch 2")
                assert in_force(world) == world.members.document
                await world.until(lambda: world.guard().serial > first and world.guard().phase_name == "ACTIVE")
                assert world.guard().generation == 0
                await world.until(lambda: agent._polls.alive == 3)
        async with world.validators(), world.agent(stop_guard=True) as again:  # its own file still says epoch 1
            await world.phase("active")
            assert again._members.epoch == 2

    asyncio.run(story())


def test_a_limit_of_all_validators_makes_a_shorter_lease(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, duration_ms=60_000)
        for index in range(3):
            limit(world, index)
        async with world.validators(), world.agent():
            assert (await world.phase("active")).duration_ms == 5000

    asyncio.run(story())


def test_a_limit_of_one_validator_shortens_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, duration_ms=60_000)
        limit(world, 0)
        async with world.validators(), world.agent():
            assert (await world.phase("active")).duration_ms == 60_000

    asyncio.run(story())


def test_the_guard_shows_isolation_as_the_agent_sees_it(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        async with world.agent():
            async with world.validators():
                await world.phase("active")
                await world.until(lambda: not world.guard().isolated)
            await world.until(lambda: world.guard().isolated)

    asyncio.run(story())
