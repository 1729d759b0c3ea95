# SPDX-License-Identifier: Apache-2.0
"""An operator's commands to a validator on this host: plain calls over its admin socket (``qsafp validator …``)."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from ..errors import ConfigError, QsafpError

__all__ = ["allow", "applicants", "decisions", "devices", "health", "pending", "release", "revoke"]

SECONDS = 10.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the Unix socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(str(self._path))


def _call(path: Path, method: str, target: str, body: dict[str, Any] | None = None) -> Any:
    link = _Connection(path)
    try:
        link.request(method, target, body=None if body is None else json.dumps(body))
        answer = link.getresponse()
        found = json.loads(answer.read())
    except (FileNotFoundError, ConnectionRefusedError) as why:
        raise ConfigError(f"{path}: no validator listens there; start it with: python -m qsafp_embedded.validator") from why
    except PermissionError as why:
        raise ConfigError(f"{path}: not yours to open; run this as the validator's user") from why
    except (OSError, http.client.HTTPException, ValueError) as why:
        raise QsafpError(f"{path}: no proper answer: {why}") from why
    finally:
        link.close()
    if answer.status != 200:
        raise QsafpError(found.get("error", f"status {answer.status}"))
    return found


def revoke(path: Path, ueid: bytes, *, text: str = "revoked by an operator") -> dict[str, Any]:
    """Revoke a device at the validator behind ``path``; returns the signed revocation in hex.

    This and every call here raises ConfigError if nobody listens, QsafpError with the validator's reason if it refuses.
    """
    return dict(_call(path, "POST", "/revoke", {"ueid": ueid.hex(), "text": text}))


def allow(path: Path, ueid: bytes) -> dict[str, Any]:
    """Lift a revocation, or register a device that applied; releases nothing."""
    return dict(_call(path, "POST", "/allow", {"ueid": ueid.hex()}))


def release(path: Path, ueid: bytes, sequence: int, *, record_hash: bytes | None = None) -> dict[str, Any]:
    """Consent to the release of one fail-safe record, by sequence and, if it does not wait there yet, by hash."""
    shown = None if record_hash is None else record_hash.hex()
    return dict(_call(path, "POST", "/release", {"ueid": ueid.hex(), "sequence": sequence, "hash": shown}))


def applicants(path: Path) -> list[dict[str, Any]]:
    """Return the devices that applied by an OC-1 message and wait for ``allow``."""
    return list(_call(path, "GET", "/applicants"))


def pending(path: Path) -> list[dict[str, Any]]:
    """Return the fail-safes that wait for ``release``."""
    return list(_call(path, "GET", "/pending"))


def devices(path: Path) -> list[dict[str, Any]]:
    """Return the registered devices and their standing."""
    return list(_call(path, "GET", "/devices"))


def decisions(path: Path) -> list[dict[str, Any]]:
    """Return the latest stored decisions, newest first."""
    return list(_call(path, "GET", "/decisions"))


def health(path: Path) -> dict[str, Any]:
    """Return index, epoch, LAB mark and the state of the store."""
    return dict(_call(path, "GET", "/health"))
