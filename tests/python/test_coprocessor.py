# SPDX-License-Identifier: Apache-2.0
"""A guard behind a serial line, as a coprocessor is (HW-14): leases come over it, and neither noise nor a cut moves the gate."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import random
import select
import subprocess
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_world import World
from guard_kit import LIMIT_S, PYTHON, Device, until

from qsafp_embedded._core import crc16
from qsafp_embedded._tables import CommandStatus, Phase
from qsafp_embedded.agent import config as agent_config
from qsafp_embedded.client import CommandRefused, GuardClient
from qsafp_embedded.errors import ConfigError, GuardUnavailable
from qsafp_embedded.wire import StreamWire

Noise = Callable[[bytes], bytes]


class Cable:
    """Two serial ports, ``a`` and ``b``, and what lies between them; ``noise`` bends what passes."""

    def __init__(self, folder: Path) -> None:
        self.a, self.b = folder / "a", folder / "b"
        self.noise: Noise = bytes
        self._keep: list[int] = []
        self.plug()

    def plug(self) -> None:
        """Put it in: ports with the same names, of new devices."""
        self._ends = [self._port(self.a), self._port(self.b)]
        self._stop = os.pipe()
        self._thread = threading.Thread(target=self._carry, args=(self._ends, self._stop[0]))
        self._thread.start()

    def _port(self, path: Path) -> int:
        master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)  # what nobody reads is lost, as on a real line
        path.unlink(missing_ok=True)
        path.symlink_to(os.ttyname(slave))
        self._keep.append(slave)  # else the far end reads an error until somebody opens it
        return master

    def _carry(self, ends: list[int], stop: int) -> None:
        other = {ends[0]: ends[1], ends[1]: ends[0]}
        while True:
            ready = select.select([*ends, stop], [], [])[0]
            if stop in ready:
                return
            for end in ready:
                with contextlib.suppress(OSError):
                    os.write(other[end], self.noise(os.read(end, 4096)))

    def pull(self) -> None:
        """Take it out: both sides see their port go."""
        os.close(self._stop[1])
        self._thread.join()
        for fd in (*self._ends, *self._keep, self._stop[0]):
            os.close(fd)
        self._ends, self._keep = [], []


@pytest.fixture
def cable(enrolled: Device) -> Iterator[Cable]:
    made = Cable(enrolled.root)
    try:
        yield made
    finally:
        if made._ends:
            made.pull()


@pytest.fixture
def far(enrolled: Device, cable: Cable) -> Device:
    """A guard that listens to port b."""
    enrolled.configure(uart=str(cable.b))
    return enrolled.start()


def lease_over(device: Device, client: GuardClient) -> None:
    client.put(device.q.lease(device.propose(client)[0], None))


def test_a_lease_comes_over_the_line(far: Device, cable: Cable) -> None:
    with GuardClient.connect(cable.a) as client:
        assert client.pid == 0
        lease_over(far, client)
        assert client.status().phase == Phase.ACTIVE
        assert len(list(client.records())) > 3
    until(lambda: far.pin("LEASE_VALID") == 1)


def test_a_denial_over_the_line_stops(far: Device, cable: Cable) -> None:
    with GuardClient.connect(cable.a) as client:
        lease_over(far, client)
        client.failsafe()
        assert client.status().phase == Phase.FAILSAFE
    until(lambda: far.pin("LEASE_VALID") == 0)


def test_noise_is_answered_as_noise_and_moves_nothing(far: Device, cable: Cable) -> None:
    dice = random.Random(7)
    with GuardClient.connect(cable.a) as client:
        lease_over(far, client)
    before = far.gate()
    assert before
    wire = StreamWire.open(cable.a)
    os.set_blocking(wire._fd, True)
    for _ in range(300):
        os.write(wire._fd, dice.randbytes(dice.randrange(1, 400)))
    os.write(wire._fd, b"\1" * 5000 + b"\0")  # longer than any frame
    while select.select([wire._fd], [], [], 1.0)[0]:
        os.read(wire._fd, 4096)  # every answer to noise, of any tag, is out of the way
    wire.close()
    with GuardClient.connect(cable.a) as client:
        until(lambda: answers(client))
        assert client.status().phase == Phase.ACTIVE
    assert before


def answers(client: GuardClient) -> bool:
    with contextlib.suppress(GuardUnavailable, CommandRefused):
        return client.version() is not None
    return False


def test_a_frame_that_was_bent_is_refused_and_asked_again(far: Device, cable: Cable) -> None:
    frame = bytes((1, 0, 0, 0))
    bent = bytearray(frame + crc16(frame).to_bytes(2, "little"))
    bent[-1] ^= 1
    wire = StreamWire.open(cable.a)
    wire.send(bytes(bent))
    assert wire.receive(LIMIT_S)[2] == CommandStatus.BAD_CRC
    wire.close()
    seen: list[bytes] = []

    def once(block: bytes) -> bytes:
        seen.append(block)
        return bytes([block[0] ^ 1]) + block[1:] if len(seen) == 1 else block

    cable.noise = once
    with GuardClient.connect(cable.a, timeout=1.0) as client:
        assert client.status().phase == Phase.NONE


def test_what_has_lost_its_end_is_asked_again_and_noise_is_nobodys_answer(far: Device, cable: Cable) -> None:
    cut = bytes((3, 1, 1, 0))  # status, of tag 1, and nothing more: a frame of the wrong length
    noise = b"\0\7\7\0"  # no frame, answered with tag 0
    ahead = [cut, noise]

    def spoiled(block: bytes) -> bytes:
        return b"\0" + ahead.pop() + block if ahead and b"\0" in block[:-1] else block

    cable.noise = spoiled
    with GuardClient.connect(cable.a, timeout=2.0) as client:
        for _ in range(2):
            client._tag = 255
            assert client.status().phase == Phase.NONE
    assert not ahead


def test_a_line_that_is_pulled_in_the_middle_of_a_frame_comes_back(far: Device, cable: Cable) -> None:
    with GuardClient.connect(cable.a) as client:
        lease_over(far, client)
    wire = StreamWire.open(cable.a)
    os.write(wire._fd, b"\0\3\1\2")
    gate = far.gate()
    cable.pull()
    wire.close()
    with far.client() as near:  # ctl.sock goes on
        assert near.status().phase == Phase.ACTIVE
    assert gate
    cable.plug()
    until(lambda: back(cable.a))
    assert gate


def back(port: Path) -> bool:
    with contextlib.suppress(GuardUnavailable), GuardClient.connect(port, timeout=0.2) as client:
        return client.status().phase == Phase.ACTIVE
    return False


def test_a_workload_cannot_be_registered_over_a_line(far: Device, cable: Cable) -> None:
    with GuardClient.connect(cable.a) as client, pytest.raises(CommandRefused, match="BAD_ARGUMENT"):
        client.workload(b"\0\0far")


def test_a_port_that_is_not_there_stops_the_start(enrolled: Device) -> None:
    enrolled.configure(uart=str(enrolled.root / "ttyX"))
    done = enrolled.call()
    assert done.returncode == 1
    assert f"uart {enrolled.root}/ttyX: No such file or directory" in done.stderr
    enrolled.configure(uart=str(enrolled.root / "ttyX"), uart_baud=1200)
    assert "uart_baud = 1200 is none of 9600" in enrolled.call().stderr
    (enrolled.root / "file").touch()
    enrolled.configure(uart=str(enrolled.root / "file"))
    assert "uart" in enrolled.call().stderr


def test_an_agent_with_another_speed_is_refused(tmp_path: Path) -> None:
    needed = "".join(f'{k} = "x"\n' for k, v in agent_config.DEFAULTS.items() if v is str)
    with pytest.raises(ConfigError, match="'guard_baud' is none of 9600"):
        agent_config.parse(f"{needed}guard_baud = 1200\n", tmp_path)


def test_the_agent_renews_a_coprocessor_end_to_end(tmp_path: Path) -> None:
    async def story(cable: Cable) -> None:
        world = World(tmp_path, duration_ms=2000)
        toml = world.root / "guard" / "guard.toml"
        toml.write_text(toml.read_text().replace('uart = ""', f'uart = "{cable.b}"'))
        guard = subprocess.Popen([*PYTHON, "qsafp_embedded.guard", "--config", str(toml)], stdout=subprocess.PIPE, start_new_session=True)
        try:
            assert guard.stdout is not None
            assert b"serving" in guard.stdout.readline()
            async with world.validators(), world.agent(guard_socket=f'"{cable.a}"', guard_config='""') as agent:
                first = (await world.phase("active")).serial
                await world.until(lambda: world.guard().serial >= first + 3)
                assert agent._config.lease_name == "a"
        finally:
            guard.terminate()
            guard.communicate(timeout=LIMIT_S)

    cable = Cable(tmp_path)
    try:
        asyncio.run(story(cable))
    finally:
        cable.pull()
