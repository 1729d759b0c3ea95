# SPDX-License-Identifier: Apache-2.0
"""The agent's TOML file.  Unknown keys are refused with the nearest valid one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..settings import parse_toml, read_toml, settings
from ..wire import BAUD, BAUDS, SPI_HZ_MAX, SPI_HZ_MIN

__all__ = ["DEFAULTS", "Config", "load", "parse"]

# Every key of agent.toml; a type marks one that must be given.
DEFAULTS: dict[str, Any] = {
    "guard_socket": str,
    "guard_baud": BAUD,
    "guard_spi_hz": SPI_HZ_MAX,
    "set": str,
    "relay_key": str,
    "relay_cert": str,
    "evidence_dir": str,
    "control_socket": str,
    "guard_config": "",
    "stop_guard": False,
    "renew_fraction": 0.5,
    "backoff_max_s": 15.0,
    "poll": True,
    "timeout_s": 10.0,
}
RANGES = {"guard_spi_hz": (SPI_HZ_MIN, SPI_HZ_MAX), "renew_fraction": (0.05, 0.95), "backoff_max_s": (0.1, 15.0), "timeout_s": (0.1, 600.0)}


@dataclass(frozen=True)
class Config:
    """One agent.  Relative paths of the file are taken from its directory.

    guard_socket: ``ctl.sock`` of the guard, or the serial or SPI device of a coprocessor, at guard_baud or guard_spi_hz.
    set: the set document.
    relay_key, relay_cert: TLS identity towards validators.
    evidence_dir: where the newest lease is kept for validators that are behind.  control_socket: ``agent.sock``.
    guard_config: configuration to start a guard with when none runs; stop_guard: end that guard with the agent.
    renew_fraction: renew when this part of the lease is over.  backoff_max_s: longest pause after failures.  poll: keep a
    revocation poll per validator.  timeout_s: longest wait for one answer.
    """

    guard_socket: Path
    guard_baud: int
    guard_spi_hz: int
    set: Path
    relay_key: Path
    relay_cert: Path
    evidence_dir: Path
    control_socket: Path
    guard_config: Path | None
    stop_guard: bool
    renew_fraction: float
    backoff_max_s: float
    poll: bool
    timeout_s: float

    @property
    def lease_name(self) -> str:
        """What people call the lease: the folder of its sockets, or the device of its coprocessor."""
        return (self.guard_socket if self.guard_socket.is_char_device() else self.guard_socket.parent).name


def _build(table: Mapping[str, Any], directory: Path, where: str) -> Config:
    values = settings(table, DEFAULTS, where)
    for key, (low, high) in RANGES.items():
        if not low <= values[key] <= high:  # a NaN is in no range
            raise ConfigError(f"{where}: '{key}' is not in {low}..{high}")
    if values["guard_baud"] not in BAUDS:
        raise ConfigError(f"{where}: 'guard_baud' is none of {', '.join(map(str, BAUDS))}")
    for key, default in DEFAULTS.items():
        if default is str and not values[key]:
            raise ConfigError(f"{where}: '{key}' is empty")
        if isinstance(values[key], str):
            values[key] = Path(os.path.normpath(directory / values[key])) if values[key] else None
    return Config(**values)


def parse(text: str, directory: Path, *, where: str = "agent.toml") -> Config:
    """Read the text of a configuration; raises ConfigError naming the key."""
    return _build(parse_toml(text, where), directory, where)


def load(path: Path) -> Config:
    """Read a configuration file; raises ConfigError if it is missing or wrong."""
    return _build(read_toml(path), path.parent.absolute(), str(path))
