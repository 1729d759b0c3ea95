# SPDX-License-Identifier: Apache-2.0
"""Execution leases for edge AI: a device infers only while a quorum of validators says so."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
