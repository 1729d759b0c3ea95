# SPDX-License-Identifier: Apache-2.0
"""The agent's TOML file.  Unknown keys are refused with the nearest valid one."""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import ConfigError

__all__ = ["Config", "load", "parse"]


@dataclass(frozen=True)
class Config:
    """One agent.  Relative paths of the file are taken from its directory.

    guard_socket: ``ctl.sock`` of the guard.  set: the set document.  relay_key, relay_cert: TLS identity towards validators.
    evidence_dir: where the newest lease is kept for validators that are behind.  control_socket: ``agent.sock``.
    guard_config: configuration to start a guard with when none runs; stop_guard: end that guard with the agent.
    renew_fraction: renew when this part of the lease is over.  backoff_max_s: longest pause after failures.  poll: keep a
    revocation poll per validator.  timeout_s: longest wait for one answer.
    """

    guard_socket: Path
    set: Path
    relay_key: Path
    relay_cert: Path
    evidence_dir: Path
    control_socket: Path
    guard_config: Path | None = None
    stop_guard: bool = False
    renew_fraction: float = 0.5
    backoff_max_s: float = 15.0
    poll: bool = True
    timeout_s: float = 10.0


RANGES = {"renew_fraction": (0.05, 0.95), "backoff_max_s": (0.1, 3600.0), "timeout_s": (0.1, 600.0)}
NAMES = tuple(f.name for f in fields(Config))
KINDS = {f.name: str(f.type) for f in fields(Config)}


def _value(key: str, value: Any, directory: Path, where: str) -> Any:
    kind = KINDS[key]
    if kind == "bool":
        if not isinstance(value, bool):
            raise ConfigError(f"{where}: '{key}' is true or false")
        return value
    if kind == "float":
        low, high = RANGES[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigError(f"{where}: '{key}' is not a number in {low:g}..{high:g}")
        return float(value)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: '{key}' is not a path")
    return Path(os.path.normpath(directory / value))


def parse(text: str, directory: Path, *, where: str = "agent.toml") -> Config:
    """Read the text of a configuration; raises ConfigError naming the key."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as why:
        raise ConfigError(f"{where}: {why}") from why
    for key in table:
        if key not in NAMES:
            near = difflib.get_close_matches(key, NAMES, 1, 0.0)[0]
            raise ConfigError(f"{where}: unknown key '{key}'; the nearest valid one is '{near}'")
    for f in fields(Config):
        if f.default is MISSING and f.name not in table:
            raise ConfigError(f"{where}: '{f.name}' is missing")
    return Config(**{k: _value(k, v, directory, where) for k, v in table.items()})


def load(path: Path) -> Config:
    """Read a configuration file; raises ConfigError if it is missing or wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as why:
        raise ConfigError(f"{path}: cannot read the configuration: {why}") from why
    return parse(text, path.parent.absolute(), where=str(path))
