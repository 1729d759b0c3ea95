# SPDX-License-Identifier: Apache-2.0
"""Ports that servers keep: none that the kernel lends to clients.

A client that asks for a server which is not there yet may be lent that very port: it then talks to itself, and the server finds it in use.
"""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path

from ..errors import QsafpError

__all__ = ["free_ports"]

FIRST, LEAST, TRIES = 20_000, 4_000, 1_000
LENT = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Consecutive ports of the loopback interface that nobody uses now, below those lent to clients (ip_local_port_range).

    Raises QsafpError if there are none.
    """
    end = max(int(LENT.read_text().split()[0]), FIRST + LEAST)
    for _ in range(TRIES):
        first = random.randrange(FIRST, end - count + 1)
        ports = list(range(first, first + count))
        with ExitStack() as held:
            try:
                for port in ports:
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
        return ports
    raise QsafpError(f"127.0.0.1: no {count} free ports side by side from {FIRST} to {end - 1}; end what uses them")
