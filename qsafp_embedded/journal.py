# SPDX-License-Identifier: Apache-2.0
"""Lines for people; under systemd the same lines with their fields, in journald's own protocol."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

__all__ = ["SOCKET", "encode", "say"]

SOCKET = Path("/run/systemd/journal/socket")


def encode(fields: Mapping[str, object]) -> bytes:
    """Return the datagram of one entry: ``NAME=value`` lines, or a length before a value that has line ends."""
    out = b""
    for name, value in fields.items():
        raw = str(value).encode(errors="backslashreplace")
        if b"\n" in raw:
            out += name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
        else:
            out += name.encode() + b"=" + raw + b"\n"
    return out


def _is_journal(fd: int) -> bool:
    """Whether this descriptor leads to journald, as JOURNAL_STREAM says."""
    stat = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def say(program: str, text: str, fields: Mapping[str, object] | None = None, *, to: Path = SOCKET, fd: int = 1) -> None:
    """Say a line: on ``fd``, or to the journal at ``to`` if that is where ``fd`` leads.

    Args: fields: what the line is about, such as ``{"serial": 7}``, which becomes ``QSAFP_SERIAL=7``.
    """
    if _is_journal(fd):
        entry = {"MESSAGE": text, "PRIORITY": 6, "SYSLOG_IDENTIFIER": f"qsafp-{program}"}
        entry |= {f"QSAFP_{k.upper()}": v for k, v in (fields or {}).items()}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            try:
                s.sendto(encode(entry), str(to))
            except OSError:
                pass  # then as a plain line
            else:
                return
    with contextlib.suppress(OSError):  # nobody reads: no reason to end
        os.write(fd, f"{program}: {text}\n".encode(errors="backslashreplace"))
