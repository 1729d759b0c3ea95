# SPDX-License-Identifier: Apache-2.0
"""A directory of ``qsafp init`` at work: validators and agent in the test's own event loop, the guard as its real process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from qsafp_embedded import keys, sets
from qsafp_embedded.agent import config as agent_config
from qsafp_embedded.agent.loop import Agent
from qsafp_embedded.agent.owner import GuardOwner
from qsafp_embedded.cli.init import Plan, make
from qsafp_embedded.cli.templates import device_toml
from qsafp_embedded.client import GuardClient, Status
from qsafp_embedded.errors import GuardUnavailable
from qsafp_embedded.tls import server_context
from qsafp_embedded.validator import config as configuration
from qsafp_embedded.validator.__main__ import identity_of
from qsafp_embedded.validator.http import Face, serve
from qsafp_embedded.validator.service import Service
from qsafp_embedded.validator.store import Store

SECONDS = 30.0  # the longest wait for anything; a machine under load needs a small part of it


class World:
    """The directory, its set, and what runs of it."""

    def __init__(self, root: Path, *, profile: str = "home", duration_ms: int = 60_000) -> None:
        """Lay it out under ``root``."""
        self.root = root / "d"
        make(Plan(self.root, profile, duration_ms=duration_ms))
        self.members: sets.ValidatorSet = sets.read(self.root / "set" / "set-1.cbor")
        self.services: dict[int, Service] = {}
        self.servers: dict[int, web.Server] = {}

    @property
    def ctl(self) -> Path:
        """The guard's command socket."""
        return self.root / "run" / "main" / "ctl.sock"

    def guard(self) -> Status:
        """Ask the guard."""
        with GuardClient.connect(self.ctl) as guard:
            return guard.status()

    def config(self, index: int) -> configuration.Config:
        """The configuration of a validator."""
        return configuration.load(self.root / f"validator-{index}" / "validator.toml")

    def register(self, ueid: bytes, key: bytes, log_id: bytes, *, model: bytes) -> None:
        """Let every validator know this Ed25519 device and no other."""
        enrolment = {"ueid": ueid.hex(), "key": key.hex(), "key_type": "ed25519", "log_id": log_id.hex()}
        for toml in self.root.glob("validator-*/validator.toml"):
            kept = toml.read_text().partition("\n[[device]]")[0]
            toml.write_text(kept + device_toml(enrolment, model=model, registered=int(time.time())))

    @asynccontextmanager
    async def validators(self, *indexes: int) -> AsyncIterator[None]:
        """Serve these validators, all if none is named."""
        first, *rest = indexes or range(self.members.n)
        async with self.validator(first):
            if rest:
                async with self.validators(*rest):
                    yield
            else:
                yield

    @asynccontextmanager
    async def validator(self, index: int, *, face: Callable[[Service], Face] = Face) -> AsyncIterator[Service]:
        """Serve one validator on its own port; ``face`` may bend what it answers."""
        config = self.config(index)
        context = server_context(keys.load_ed25519(config.tls_key), config.tls_cert, trusted=[r.cert for r in config.relays])
        async with Store(config.db) as store:
            service = Service(config, self.members, identity_of(config, self.members), store)
            runner, _ = await serve(face(service), config.host, config.port, context)
            assert runner.server is not None
            self.services[index], self.servers[index] = service, runner.server
            try:
                yield service
            finally:
                service.close()
                await runner.cleanup()

    @asynccontextmanager
    async def agent(self, **changed: object) -> AsyncIterator[Agent]:
        """Run the agent, and a guard that ends with it unless ``stop_guard=False``; ``changed`` overrides agent.toml."""
        text = (self.root / "agent" / "agent.toml").read_text()
        fresh = {"stop_guard": "true", **{k: str(v).lower() for k, v in changed.items()}}
        kept = [line for line in text.splitlines() if line.partition(" ")[0] not in fresh]
        config = agent_config.parse("\n".join([*kept, *(f"{k} = {v}" for k, v in fresh.items())]), self.root / "agent")
        owner = GuardOwner(config)
        owner.ensure()
        agent = Agent(config, self.members, owner)
        task = asyncio.create_task(agent.run())
        try:
            yield agent
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            owner.close()

    async def until(self, check: Callable[[], object], what: str = "") -> None:
        """Wait for a condition, within a bound that only a broken program reaches."""
        try:
            async with asyncio.timeout(SECONDS):
                while not check():
                    await asyncio.sleep(0.01)
        except TimeoutError as why:
            raise AssertionError(f"not in {SECONDS} s: {what or check}") from why

    async def phase(self, name: str) -> Status:
        """Wait until the guard answers and is in this phase."""

        def there() -> bool:
            with contextlib.suppress(GuardUnavailable):
                return self.guard().phase_name.lower() == name
            return False

        await self.until(there, f"phase {name}")
        return self.guard()


def states(agent: Agent) -> dict[int, str]:
    """What each validator said in the newest round."""
    said = agent.status()["round"]
    assert isinstance(said, list)
    return {int(v["index"]): str(v["state"]) for v in said}
