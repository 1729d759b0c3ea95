# SPDX-License-Identifier: Apache-2.0
"""TOML settings with the keys spelled out: a typo is refused and named together with the nearest valid key."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import ConfigError

__all__ = ["read_toml", "settings"]


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file; raises ConfigError that names the file."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as why:
        raise ConfigError(f"{path}: {why.strerror}") from why
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as why:
        raise ConfigError(f"{path}: not TOML: {why}") from why


def settings(table: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``defaults`` overlaid with ``table``.

    Args: defaults: every valid key; a type instead of a value marks a key that must be given.
    Raises: ConfigError for an unknown key, a wrong type or a missing one, naming ``where``.
    """
    for key in table:
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, 1, 0.5)
            raise ConfigError(f"{where}: unknown key {key!r}{f'; did you mean {near[0]!r}?' if near else ''}")
    out: dict[str, Any] = {}
    for key, default in defaults.items():
        kind = default if isinstance(default, type) else type(default)
        value = table.get(key, default)
        if isinstance(value, type):
            raise ConfigError(f"{where}: {key!r} is missing")
        if type(value) is not kind:
            raise ConfigError(f"{where}: {key!r} must be {kind.__name__}, not {type(value).__name__}")
        out[key] = value
    return out
