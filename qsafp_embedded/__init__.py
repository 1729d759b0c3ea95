# SPDX-License-Identifier: Apache-2.0
"""Execution leases for edge AI: a device infers only while a quorum of validators says so.

Names are loaded when first used, so that the guard stays as small as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import (
        GuardUnavailable,
        LeaseDenied,
        LeaseExpired,
        LeasePending,
        LeaseRefused,
        LeaseUninitialized,
        QsafpError,
        WrongModel,
    )
    from .gate import Gate, GateInfo

__all__ = [
    "Gate",
    "GateInfo",
    "GuardUnavailable",
    "LeaseDenied",
    "LeaseExpired",
    "LeasePending",
    "LeaseRefused",
    "LeaseUninitialized",
    "QsafpError",
    "WrongModel",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'qsafp_embedded' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(".gate" if name.startswith("Gate") else ".errors", __name__), name)
