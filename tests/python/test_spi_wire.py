# SPDX-License-Identifier: Apache-2.0
"""A guard behind an SPI bus (HW-14): the peripheral is a model of ours on a real guard's command socket, under the API of ``spidev``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from agent_world import World
from guard_kit import LIMIT_S, PYTHON, Device, until

from qsafp_embedded._tables import Phase
from qsafp_embedded.agent import config as agent_config
from qsafp_embedded.client import GuardClient
from qsafp_embedded.errors import ConfigError, GuardUnavailable
from qsafp_embedded.wire import PacketWire

IDLE = 0xFF


@dataclass
class Peripheral:
    """The other end.  ``late``: fetches that find no answer yet; ``bent``: answers of which one bit flips; ``gone``: it is unplugged."""

    ctl: Path
    late: int = 0
    bent: int = 0
    gone: bool = False
    settings: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._wire: PacketWire | None = None
        self._answer, self._wait, self._lock = b"", 0, threading.Lock()

    def exchange(self, sent: bytes) -> bytes:
        """One chip select: the answer goes out from its start, and whole frames that came in are answered from the next one on."""
        with self._lock:
            if self.gone:
                return bytes([IDLE]) * len(sent)
            out = b"" if self._wait else self._answer
            self._wait = max(self._wait - 1, 0)
            if sent[1] != IDLE:
                self._wire = self._wire or PacketWire(self.ctl)
                self._wire.send(sent)
                self._answer, self._wait = self._wire.receive(LIMIT_S), self.late
                if self.bent:
                    self.bent -= 1
                    self._answer = self._answer[:-1] + bytes([self._answer[-1] ^ 1])
            return out[: len(sent)].ljust(len(sent), bytes([IDLE]))

    def close(self) -> None:
        if self._wire:
            self._wire.close()


class Spidev:
    """``spidev.SpiDev`` as far as it is used."""

    far: Peripheral
    mode = 3
    max_speed_hz = 500_000

    def open_path(self, path: str) -> None:
        if not Path(path).exists():
            raise FileNotFoundError(2, "No such file or directory")

    def xfer2(self, values: list[int]) -> list[int]:
        self.far.settings.append((self.mode, self.max_speed_hz))
        return list(self.far.exchange(bytes(values)))

    def close(self) -> None:
        pass


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A path that looks like an SPI device; opening it reaches ``Spidev.far``."""
    monkeypatch.setitem(sys.modules, "spidev", SimpleNamespace(SpiDev=Spidev))
    path = tmp_path / "spidev0.0"
    path.touch()
    return path


@pytest.fixture
def far(enrolled: Device, port: Path) -> Iterator[Peripheral]:
    enrolled.start()
    Spidev.far = Peripheral(enrolled.run / "ctl.sock")
    yield Spidev.far
    Spidev.far.close()


def test_a_lease_comes_over_the_bus(enrolled: Device, far: Peripheral, port: Path) -> None:
    far.late = 3
    with GuardClient.connect(port, spi_hz=1_000_000) as client:
        client.put(enrolled.q.lease(enrolled.propose(client)[0], None))
        assert client.status().phase == Phase.ACTIVE
        assert [r[8:16] for r in client.records()] == [n.to_bytes(8, "little") for n in range(len(list(client.records())))]
    assert set(far.settings) == {(0, 1_000_000)}
    until(lambda: enrolled.pin("LEASE_VALID") == 1)


def test_a_fail_safe_over_the_bus_stops(enrolled: Device, far: Peripheral, port: Path) -> None:
    with GuardClient.connect(port) as client:
        client.put(enrolled.q.lease(enrolled.propose(client)[0], None))
        client.failsafe()
    until(lambda: enrolled.pin("LEASE_VALID") == 0)


def test_a_bent_answer_is_asked_for_again(far: Peripheral, port: Path) -> None:
    far.bent = 1
    with GuardClient.connect(port) as client:
        assert client.status().phase == Phase.NONE
    far.bent = 2
    with GuardClient.connect(port) as client, pytest.raises(GuardUnavailable, match="garbled twice"):
        client.status()


def test_a_peripheral_that_is_gone_says_nothing(far: Peripheral, port: Path) -> None:
    far.gone = True
    with GuardClient.connect(port, timeout=0.05) as client, pytest.raises(GuardUnavailable, match=r"spidev0\.0: no answer in 0\.05 s"):
        client.status()
    far.gone = False
    with GuardClient.connect(port) as client:
        assert client.status().phase == Phase.NONE


def test_a_bus_that_is_stuck_low_is_no_answer(far: Peripheral, port: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far, "exchange", lambda sent: bytes(len(sent)))
    with GuardClient.connect(port) as client, pytest.raises(GuardUnavailable, match="garbled twice"):
        client.status()


def test_an_answer_that_claims_too_much_is_no_answer(far: Peripheral, port: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far, "exchange", lambda sent: b"\xa5\0\0\xff\xff".ljust(len(sent), b"\0"))
    with GuardClient.connect(port) as client, pytest.raises(GuardUnavailable, match="garbled twice"):
        client.status()


def test_what_is_missing_is_named(tmp_path: Path, port: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GuardUnavailable, match=r"spidev9\.9: cannot open the bus to the guard \(No such file or directory\)"):
        GuardClient.connect(tmp_path / "spidev9.9")
    monkeypatch.setitem(sys.modules, "spidev", None)
    with pytest.raises(GuardUnavailable, match="run: pip install spidev"):
        GuardClient.connect(port)


def test_a_clock_beyond_the_bus_is_refused(tmp_path: Path) -> None:
    needed = "".join(f'{k} = "x"\n' for k, v in agent_config.DEFAULTS.items() if v is str)
    with pytest.raises(ConfigError, match=r"'guard_spi_hz' is not in 10000\.\.10000000"):
        agent_config.parse(f"{needed}guard_spi_hz = 20000000\n", tmp_path)


def test_the_agent_renews_over_the_bus(tmp_path: Path, port: Path) -> None:
    async def story() -> None:
        world = World(tmp_path, duration_ms=2000)
        toml = world.root / "guard" / "guard.toml"
        guard = subprocess.Popen([*PYTHON, "qsafp_embedded.guard", "--config", str(toml)], stdout=subprocess.PIPE, start_new_session=True)
        try:
            assert guard.stdout is not None
            assert b"serving" in guard.stdout.readline()
            Spidev.far = Peripheral(world.ctl, late=1)
            async with world.validators(), world.agent(guard_socket=f'"{port}"', guard_config='""'):
                first = (await world.phase("active")).serial
                await world.until(lambda: world.guard().serial >= first + 3)
        finally:
            guard.terminate()
            guard.communicate(timeout=LIMIT_S)
            Spidev.far.close()

    asyncio.run(story())
