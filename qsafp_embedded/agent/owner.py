# SPDX-License-Identifier: Apache-2.0
"""The one thread that speaks to the guard, and the guard process that the agent may have started."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..client import GuardClient, Status
from ..errors import GuardUnavailable
from .config import Config

__all__ = ["GuardOwner"]

T = TypeVar("T")
START_S = 10.0
RESTART_S = 2.0


class GuardOwner:
    """Calls the guard from one thread, so that the event loop never waits for its disk; connects again when it must."""

    def __init__(self, config: Config) -> None:
        """Nothing is opened yet."""
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="guard")
        self._client: GuardClient | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self.pid = 0

    def ensure(self) -> None:
        """Start a guard in the background if none answers and a configuration for one is named; returns at once."""
        if self._config.guard_config is None or (self._child is not None and self._child.poll() is None):
            return
        if time.monotonic() - self._started < RESTART_S or self._connectable():
            return
        self._started = time.monotonic()
        command = [sys.executable, "-m", "qsafp_embedded.guard", "--config", str(self._config.guard_config)]
        # Its own process group: a Ctrl-C meant for the agent must not end a guard that is to stay.
        self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)

    def _connect(self) -> GuardClient:
        config = self._config
        return GuardClient.connect(config.guard_socket, baud=config.guard_baud, spi_hz=config.guard_spi_hz)

    def _connectable(self) -> bool:
        with contextlib.suppress(GuardUnavailable):
            self._client = self._client or self._connect()
        return self._client is not None

    def _connected(self) -> GuardClient:
        """Return the connection; a guard that was just started gets time to open its socket."""
        end = time.monotonic() + START_S
        while self._client is None:
            try:
                self._client = self._connect()
            except GuardUnavailable:
                self.ensure()
                if self._child is None or time.monotonic() > end:
                    raise
                if self._child.poll() is not None:
                    raise GuardUnavailable(f"the guard ended with exit code {self._child.returncode}; its own message is above") from None
                time.sleep(0.005)
        self.pid = self._client.pid
        return self._client

    def _call(self, work: Callable[[GuardClient], T]) -> T:
        try:
            return work(self._connected())
        except GuardUnavailable:
            if self._client is not None:
                self._client.close()
            self._client = None
            raise

    async def call(self, work: Callable[[GuardClient], T]) -> T:
        """Run ``work`` with the client in the guard's thread; raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._call, work)

    async def status(self) -> Status:
        """Return the guard's status; raises GuardUnavailable."""
        return await self.call(GuardClient.status)

    async def put(self, token: bytes) -> None:
        """Give the guard a token; raises CommandRefused, GuardUnavailable."""
        await self.call(lambda g: g.put(token))

    async def envelope(self, old: int) -> bytes:
        """Return the pending envelope for a validator that knows ``old`` records; raises CommandRefused, GuardUnavailable."""
        return await self.call(lambda g: g.envelope(old))

    @property
    def stops_guard(self) -> bool:
        """True if the guard ends with us."""
        return self._child is not None and self._config.stop_guard

    def close(self) -> None:
        """Let the thread end; stop the guard only if it is ours and the configuration says so."""
        self._thread.shutdown(wait=True)
        if self._client is not None:
            self._client.close()
        if self._child is not None and self.stops_guard and self._child.poll() is None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(10)
