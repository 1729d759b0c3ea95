# SPDX-License-Identifier: Apache-2.0
"""Messages to a service manager (sd_notify): one datagram each, none without NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket

__all__ = ["notify", "watchdog_s"]


def notify(text: str) -> None:
    """Send ``READY=1``, ``WATCHDOG=1``, ``STOPPING=1`` or ``STATUS=…``; silent when nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
        try:
            s.sendto(text.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError as why:
            os.write(2, f"NOTIFY_SOCKET {address}: {why.strerror}\n".encode())


def watchdog_s() -> float:
    """Return half of the watchdog's period in seconds, 0 if there is none."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdecimal() else 0.0
