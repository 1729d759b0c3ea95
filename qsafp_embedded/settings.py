# SPDX-License-Identifier: Apache-2.0
"""TOML settings with the keys spelled out: a typo is refused and named together with the nearest valid key."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import ConfigError

__all__ = ["known", "parse_toml", "read_toml", "settings"]


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Parse TOML text; raises ConfigError that begins with ``where``."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as why:
        raise ConfigError(f"{where}: not TOML: {why}") from why


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file; raises ConfigError that names the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as why:
        raise ConfigError(f"{path}: cannot read the configuration: {getattr(why, 'strerror', None) or why}") from why
    return parse_toml(text, str(path))


def known(table: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    """Check that every key of ``table`` is one of ``names``; raises ConfigError with the nearest valid one."""
    valid = tuple(names)
    for key in table:
        if key not in valid:
            near = difflib.get_close_matches(key, valid, 1, 0.0)[0]
            raise ConfigError(f"{where}: unknown key '{key}'; the nearest valid one is '{near}'")


def settings(table: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``defaults`` overlaid with ``table``; an integer may stand for a float.

    Args: defaults: every valid key; a type instead of a value marks a key that must be given.
    Raises: ConfigError for an unknown key, a wrong type or a missing one, naming ``where``.
    """
    known(table, defaults, where)
    out: dict[str, Any] = {}
    for key, default in defaults.items():
        kind = default if isinstance(default, type) else type(default)
        value = table.get(key, default)
        if isinstance(value, type):
            raise ConfigError(f"{where}: '{key}' is missing")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ConfigError(f"{where}: '{key}' must be {kind.__name__}, not {type(value).__name__}")
        if isinstance(value, str) and "\0" in value:
            raise ConfigError(f"{where}: '{key}' has a NUL in it")
        out[key] = value
    return out
