# SPDX-License-Identifier: Apache-2.0
"""A guard inside the program that it guards, for tests and embedding: same core, store and timer, **self-policed**.

Its gate closes as any other does; but whoever controls the program controls the guard.  Its leases claim level 0, its log says
who wrote it, and so does every refusal.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import TracebackType

from .._core import SelfGuard
from .._tables import Opcode
from ..client import GuardClient
from ..errors import LeaseRefused
from ..gate import Gate
from ..wire import FRAME_MAX
from . import config, enrol

__all__ = ["SELF_POLICED", "OwnGate", "OwnGuard"]

SELF_POLICED = "self-policed"


class _Wire:
    """Frames to a guard in this process: a socket pair whose other end answers when it is told to."""

    peer = f"{SELF_POLICED} guard"

    def __init__(self, core: SelfGuard) -> None:
        self._core, self._socket = core, socket.socket(fileno=os.dup(core.wire()))

    def send(self, frame: bytes) -> None:
        """Send one frame and let it be answered."""
        self._socket.send(frame)
        self._core.step()

    def receive(self, timeout: float) -> bytes:
        """Return the answer."""
        self._socket.settimeout(timeout)
        return self._socket.recv(FRAME_MAX)

    def close(self) -> None:
        """Close our end."""
        self._socket.close()


class OwnGuard:
    """The device of a ``guard.toml``, served inside this process; no pins, no sockets, no workloads.

    Args: path: guard.toml of an enrolled device (``python -m qsafp_embedded.guard --init``); ``level`` is taken as 0.
    Raises: ConfigError; QsafpError if it cannot start, such as when another guard holds the lease.  Not for two threads at once.
    """

    policed = SELF_POLICED

    def __init__(self, path: Path) -> None:
        self._core = SelfGuard({**enrol.options(config.load(path)), "level": 0, "quote_pcrs": 0})
        self._held: list[socket.socket] = []

    def __repr__(self) -> str:
        """Name it for what it is."""
        return f"<{SELF_POLICED} guard>"

    def client(self) -> GuardClient:
        """A client of its command frames, as an agent has one of a real guard."""
        return GuardClient(_Wire(self._core))

    def gate(self, *, model: str | os.PathLike[str] | bytes | None = None) -> OwnGate:
        """The gate of its lease."""
        return OwnGate(self, model)

    def page(self) -> tuple[socket.socket, int]:
        """A connection that ends with this guard, and a descriptor of the gate page."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = os.dup(self._core.page())
        self._held.append(ours)
        return theirs, fd

    def close(self) -> None:
        """Close the gate for good."""
        self._core.close()
        for s in self._held:
            s.close()
        self._held.clear()

    def __enter__(self) -> OwnGuard:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()


class OwnGate(Gate):
    """The gate of an OwnGuard: asks and refuses as any gate, and says that it is self-policed."""

    policed = SELF_POLICED

    def __init__(self, own: OwnGuard, model: str | os.PathLike[str] | bytes | None) -> None:
        self._own = own
        super().__init__(model=model)
        self._path = SELF_POLICED

    def _connect(self) -> tuple[socket.socket, int]:
        return self._own.page()

    def _ask(self, opcode: int, payload: bytes = b"") -> bytes:
        return self._own.client()._command(Opcode(opcode), payload)

    def _refusal(self) -> LeaseRefused:
        no = super()._refusal()
        no.args = (f"{SELF_POLICED}: {no}",)
        return no
