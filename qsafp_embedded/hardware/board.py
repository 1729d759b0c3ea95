# SPDX-License-Identifier: Apache-2.0
"""board.toml: which lines of a board are LEASE_VALID, FAILSAFE, VALIDATOR_REQ and LEASE_RENEW (HW-13; docs/porting.md)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..settings import known, read_toml, settings

__all__ = ["LINES", "SIMULATED", "Board", "Line", "load", "names"]

SIMULATED = "simulated"
LINES = ("LEASE_VALID", "FAILSAFE", "VALIDATOR_REQ", "LEASE_RENEW")  # in the order of qsafp_line_t; the last is the input
FLAGS = {"active-low": 1, "open-drain": 2}
BIAS = {"": 0, "pull-up": 4, "pull-down": 8, "disabled": 16}
PROVEN = ("silicon", "emulated", "never")

HERE = Path(__file__).resolve().parent
FOLDERS = (HERE.parent / "boards", HERE.parent.parent / "board_ports")  # installed, and in a checkout


class Line(NamedTuple):
    """A line by its chip's label and its own name, or its offset where the chip names none; ``chip`` empty: there is no such line."""

    chip: str = ""
    name: str = ""
    offset: int = 0
    flags: int = 0

    def __str__(self) -> str:
        """As people call it."""
        return f"{self.chip} {self.name or f'line {self.offset}'}" if self.chip else "none"


@dataclass(frozen=True)
class Board:
    """A board: ``proven`` says where its lines were ever driven: on silicon, emulated, or never."""

    name: str
    title: str
    proven: str
    lines: tuple[Line, ...]

    @property
    def simulated(self) -> bool:
        """True if no real line moves."""
        return self.name == SIMULATED


NONE = Board(SIMULATED, "no board: levels in a file", "never", (Line(),) * len(LINES))


def names() -> list[str]:
    """Every board that is shipped, ``simulated`` first."""
    return [SIMULATED, *sorted({p.parent.name for f in FOLDERS for p in f.glob("*/board.toml")})]


def load(name: str, base: Path = Path()) -> Board:
    """Return a board by its name, or by the path of a board.toml of one's own, relative to ``base``.  Raises: ConfigError."""
    if name == SIMULATED:
        return NONE
    if name.endswith(".toml"):
        return _read(base / name, name)
    for folder in FOLDERS:
        if name.isidentifier() and (folder / name / "board.toml").is_file():
            return _read(folder / name / "board.toml", name)
    near = difflib.get_close_matches(name, names(), 1, 0.0)[0]
    raise ConfigError(f'board "{name}" is not known; the nearest is "{near}", and the path of a board.toml of your own will do')


def _read(path: Path, name: str) -> Board:
    v = settings(read_toml(path), {"title": str, "proven": str, "chip": "", "lines": dict}, str(path))
    if v["proven"] not in PROVEN:
        raise ConfigError(f'{path}: proven = "{v["proven"]}" is none of {", ".join(PROVEN)}')
    known(v["lines"], LINES, f"{path}: [lines]")
    lines = tuple(_line(v["lines"][n], v["chip"], f"{path}: {n}") if n in v["lines"] else Line() for n in LINES)
    if not lines[0].chip:
        raise ConfigError(f"{path}: LEASE_VALID has no line; it is what a relay or an auditor looks at")
    places = [(a.chip, a.name, a.offset) for a in lines if a.chip]
    if len(set(places)) != len(places):
        raise ConfigError(f"{path}: one line has two meanings")
    return Board(name, v["title"], v["proven"], lines)


def _line(table: Any, chip: str, where: str) -> Line:
    if not isinstance(table, Mapping):
        raise ConfigError(f'{where}: must be a table, as {{ line = "GPIO17" }}')
    v = settings(table, {"chip": chip, "line": "", "offset": -1, "active-low": False, "open-drain": False, "bias": ""}, where)
    if bool(v["line"]) == (v["offset"] >= 0) or v["offset"] >= 1 << 16:
        raise ConfigError(f"{where}: give either line (its name) or offset (0..65535)")
    if not v["chip"]:
        raise ConfigError(f"{where}: give chip, the label of its GPIO chip, here or for the whole board")
    if v["bias"] not in BIAS:
        raise ConfigError(f'{where}: bias = "{v["bias"]}" is none of {", ".join(b for b in BIAS if b)}')
    flags = BIAS[v["bias"]] | sum(bit for key, bit in FLAGS.items() if v[key])
    return Line(v["chip"], v["line"], max(0, v["offset"]), flags)
