# SPDX-License-Identifier: Apache-2.0
"""The agent's control socket: one JSON object in, one out, each a line.  Only the agent's user may connect."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import ConfigError

__all__ = ["Control"]

LINE_MAX = 4096


class Control:
    """Serves commands by name; use as an async context manager."""

    def __init__(self, path: Path, commands: Mapping[str, Callable[[], dict[str, object]]]) -> None:
        """``commands`` answer at once and never raise."""
        self._path, self._commands = path, commands
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Control:
        """Open the socket; raises ConfigError if it cannot, or if another agent serves it."""
        if await self._served():
            raise ConfigError(f"{self._path}: another agent is at work here; stop it first")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path, limit=LINE_MAX)
        except OSError as why:
            raise ConfigError(f"{self._path}: cannot serve: {why.strerror}") from why
        finally:
            os.umask(before)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the socket and what hangs on it."""
        self._server.close()
        for writer in list(self._open):
            writer.close()
        self._path.unlink(missing_ok=True)

    async def _served(self) -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_unix_connection(self._path)
            writer.close()
            return True
        return False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(ConnectionError, ValueError):  # ValueError: an overlong line
            while line := await reader.readline():
                writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                await writer.drain()
        self._open.discard(writer)
        writer.close()

    def _answer(self, line: bytes) -> dict[str, object]:
        try:
            asked = json.loads(line)
            command = asked["cmd"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"error": 'one JSON object per line, such as {"cmd": "status"}'}
        work = self._commands.get(command) if isinstance(command, str) else None
        return work() if work else {"error": f"unknown command {command!r}; known: {', '.join(sorted(self._commands))}"}
