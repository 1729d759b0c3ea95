# SPDX-License-Identifier: Apache-2.0
"""Everything this package raises.  A refusal is an exception: a batch that must not run does not run by accident."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AuditError",
    "ConfigError",
    "FormatError",
    "GuardUnavailable",
    "LeaseDenied",
    "LeaseExpired",
    "LeasePending",
    "LeaseRefused",
    "LeaseUninitialized",
    "QsafpError",
    "StoreError",
    "WrongModel",
]


class QsafpError(Exception):
    """Base of all errors of this package."""


class FormatError(QsafpError, ValueError):
    """Bytes that are not what docs/formats.md says; the message names what is wrong."""


class ConfigError(QsafpError, ValueError):
    """A setting, key file or argument that cannot be used; the message names it and the remedy."""


class StoreError(QsafpError, OSError):
    """A file or database that does not hold what it must."""


class AuditError(QsafpError):
    """A log that does not verify; ``index`` is the first record that fails."""

    def __init__(self, message: str, *, index: int = -1) -> None:
        super().__init__(message)
        self.index = index


class GuardUnavailable(QsafpError, ConnectionError):
    """No guard answers on its socket; the gate is closed."""


class LeaseRefused(QsafpError, PermissionError):
    """The gate is closed (HW-5).

    Attributes: ``reason`` (name from the reason table), ``since`` (seconds the last lease has been over, None if unknown),
    ``serial`` of the last lease, ``resume`` (what opens the gate again), ``refused_by`` (indexes of validators that said no).
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        since: float | None = None,
        serial: int = 0,
        resume: str = "",
        refused_by: Sequence[int] = (),
    ) -> None:
        super().__init__(message)
        self.reason, self.since, self.serial, self.resume, self.refused_by = reason, since, serial, resume, tuple(refused_by)


class LeaseExpired(LeaseRefused):
    """The lease ended, or the guard that kept it is gone."""


class LeaseDenied(LeaseRefused):
    """Validators, an operator or the guard itself stopped the device; a fail-safe is latched."""


class LeasePending(LeaseRefused):
    """The first lease is being asked for."""


class LeaseUninitialized(LeaseRefused):
    """No lease was ever granted."""


class WrongModel(LeaseRefused):
    """The model that was loaded is not the one the lease names (architecture decision 4)."""
