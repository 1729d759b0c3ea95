# SPDX-License-Identifier: Apache-2.0
"""The agent with real validators over TLS and a real guard: obtain, renew, lose the network, come back."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest
from agent_world import SECONDS, World, states

from qsafp_embedded import cose
from qsafp_embedded.agent.loop import LAST_LEASE
from qsafp_embedded.agent.round import pause_s
from qsafp_embedded.client import GuardClient
from qsafp_embedded.errors import ConfigError
from qsafp_embedded.lease import claims_decode
from qsafp_embedded.validator.http import Face


def test_a_lease_is_renewed_at_half_of_it_over_kept_connections(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, duration_ms=2000)
        async with world.validators(), world.agent() as agent:
            await world.phase("active")
            await world.until(lambda: agent._polls.alive == 3)
            before = {i: set(s.connections) for i, s in world.servers.items()}
            serial = world.guard().serial
            await world.until(lambda: world.guard().serial >= serial + 3)
            assert world.guard().phase_name == "ACTIVE"
            assert all(set(s.connections) == before[i] for i, s in world.servers.items())
            assert {len(c) for c in before.values()} == {2}  # one renews, one polls

    asyncio.run(story())


def test_a_press_of_lease_renew_renews_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, duration_ms=600_000)
        async with world.validators(), world.agent():
            first = (await world.phase("active")).serial
            (world.ctl.parent / "pins.renew").write_bytes(b"1")
            await world.until(lambda: world.guard().serial > first)
            assert world.guard().phase_name == "ACTIVE"
            assert not world.guard().renew_wanted

    asyncio.run(story())


def test_a_lease_that_nobody_looked_at_yet_is_kept_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> bytes:
        world = World(tmp_path)
        async with world.validators(), world.agent() as agent:
            monkeypatch.setattr(agent, "_leased", lambda round_: None)
            await world.phase("active")
            assert not list(agent._config.evidence_dir.glob("*"))
        return next(agent._config.evidence_dir.iterdir()).read_bytes()

    assert claims_decode(cose.parse_sign(asyncio.run(story())).payload)["serial"] == 1


def test_a_lease_that_the_guard_is_about_to_acknowledge_is_kept_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled, put = threading.Event(), GuardClient.put

    def slow(guard: GuardClient, token: bytes) -> None:
        put(guard, token)
        assert cancelled.wait(SECONDS)

    async def story() -> bytes:
        world = World(tmp_path)
        monkeypatch.setattr(GuardClient, "put", slow)
        async with world.validators(), world.agent() as agent:
            await world.phase("active")
            assert agent._round is not None
            assert not agent._round.lease
            stop = agent._round.stop
            monkeypatch.setattr(agent._round, "stop", lambda: (stop(), cancelled.set()))
        kept: bytes = (agent._config.evidence_dir / LAST_LEASE).read_bytes()
        return kept

    assert claims_decode(cose.parse_sign(asyncio.run(story())).payload)["serial"] == 1


def test_a_round_takes_the_m_fastest_and_the_rest_finishes_behind_it(tmp_path: Path) -> None:
    gate = asyncio.Event()

    class Slow(Face):
        async def answer(self, request):  # type: ignore[no-untyped-def]
            if request.path == "/v1/renew":
                await gate.wait()
            return await super().answer(request)

    async def story() -> None:
        world = World(tmp_path)
        async with world.validators(0, 1), world.validator(2, face=Slow) as slow, world.agent() as agent:
            await world.phase("active")
            await world.until(lambda: agent.status()["renewals"])
            assert states(agent) == {0: "approved", 1: "approved", 2: "asked"}
            gate.set()
            await world.until(lambda: states(agent)[2] == "approved")
            assert slow.store.state(world.guard().ueid).serial == world.guard().serial

    asyncio.run(story())


def test_after_a_network_loss_the_device_resumes_by_itself(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, duration_ms=1000)
        async with world.agent(backoff_max_s=1) as agent:
            async with world.validators():
                serial = (await world.phase("active")).serial
            lost = await world.phase("failsafe")
            assert lost.reason_name in ("LEASE_EXPIRED", "NETWORK_TIMEOUT")
            await world.until(lambda: agent.status()["error"])
            assert agent.status()["isolated"] is True
            async with world.validators():
                back = await world.phase("active")
                assert back.serial > serial
                await world.until(lambda: agent.status()["error"] == "" and agent.status()["isolated"] is False)

    asyncio.run(story())


def test_an_agent_that_comes_back_finds_the_gate_open_and_renews(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, duration_ms=4000)
        async with world.validators():
            async with world.agent(stop_guard=False):
                first = await world.phase("active")
            os.kill(pid := first_pid(world), 0)
            assert world.guard().phase_name == "ACTIVE"
            async with world.agent():
                await world.until(lambda: world.guard().serial > first.serial)
                assert (first_pid(world), world.guard().boot) == (pid, first.boot)
                os.kill(pid, signal.SIGTERM)

    def first_pid(world: World) -> int:
        from qsafp_embedded.client import GuardClient

        with GuardClient.connect(world.ctl) as guard:
            return guard.pid

    asyncio.run(story())


def test_a_guard_that_died_is_started_again_and_the_old_lease_is_over(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        async with world.validators(), world.agent() as agent:
            first = await world.phase("active")
            pid = agent._owner.pid
            os.kill(pid, signal.SIGKILL)
            await world.until(lambda: agent._owner.pid != pid and (agent._status is not None and agent._status.phase_name == "ACTIVE"))
            now = world.guard()
            assert (now.boot, now.serial > first.serial) == (first.boot + 1, True)

    asyncio.run(story())


def test_a_revocation_of_enough_validators_reaches_the_guard_between_renewals(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        async with world.validators(), world.agent() as agent:
            ueid = (await world.phase("active")).ueid
            await world.until(lambda: agent._polls.alive == 3)
            await world.services[0].revoke(ueid, "first")
            await world.until(lambda: world.guard().denied == 1)
            assert world.guard().phase_name == "ACTIVE"
            await world.services[2].revoke(ueid, "second")
            assert (await world.phase("failsafe")).reason_name == "VALIDATOR_DENIED"

    asyncio.run(story())


def test_a_rate_limit_delays_and_never_denies(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, duration_ms=3000)
        for i in range(3):
            toml = world.root / f"validator-{i}" / "validator.toml"
            toml.write_text(toml.read_text().replace("min_interval_ms = 0", "min_interval_ms = 1800"))
        async with world.validators(), world.agent() as agent:
            serial = (await world.phase("active")).serial
            await world.until(lambda: world.guard().serial >= serial + 2)
            assert world.guard().phase_name == "ACTIVE"
            assert "denied" not in states(agent).values()
            assert any(s.counts["rate"] for s in world.services.values())

    asyncio.run(story())


def test_a_second_agent_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        async with world.validators(), world.agent():
            await world.phase("active")
            with pytest.raises(ConfigError, match="another agent is at work"):
                async with world.agent() as second:
                    await second.run()

    asyncio.run(story())


@pytest.mark.parametrize("failures", [0, 1, 5, 16, 10_000])
def test_pauses_grow_with_jitter_and_end_at_the_cap(failures: int) -> None:
    drawn = [pause_s(failures, 15.0) for _ in range(200)]
    top = min(15.0, 0.2 * 2 ** min(failures, 16))
    assert top / 2 <= min(drawn) < max(drawn) <= top


def test_a_validator_that_lost_its_memory_is_shown_the_last_lease_and_signs_again(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, duration_ms=3000)
        async with world.validators(0, 1), world.agent() as agent:
            async with world.validator(2):
                await world.until(lambda: agent.status()["renewals"] >= 2)
            for path in (world.root / "validator-2").glob("state.db*"):
                path.unlink()
            async with world.validator(2) as fresh:
                ueid = world.guard().ueid
                await world.until(lambda: fresh.store.state(ueid).approved)
                assert fresh.store.state(ueid).serial > 2
                await world.until(lambda: states(agent)[2] == "approved")
                assert world.guard().phase_name == "ACTIVE"

    asyncio.run(story())
