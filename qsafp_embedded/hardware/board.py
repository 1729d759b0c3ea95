# SPDX-License-Identifier: Apache-2.0
"""board.toml: which lines of a board are LEASE_VALID, FAILSAFE, VALIDATOR_REQ and LEASE_RENEW (HW-13; docs/porting.md)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..settings import known, read_toml, settings

__all__ = ["LINES", "NOTES", "SIMULATED", "Board", "Header", "Line", "load", "names"]

SIMULATED = "simulated"
LINES = ("LEASE_VALID", "FAILSAFE", "VALIDATOR_REQ", "LEASE_RENEW")  # in the order of qsafp_line_t; the last is the input
FLAGS = {"active-low": 1, "open-drain": 2}
BIAS = {"": 0, "pull-up": 4, "pull-down": 8, "disabled": 16}
PROVEN = ("silicon", "emulated", "never")
NOTES = ("levels", "spi", "i2c", "uart", "realtime", "watchdog")  # levels: voltage, strength, state at reset; the buses: how to enable them
DEBOUNCE_MAX_US = 1_000_000

HERE = Path(__file__).resolve().parent
FOLDERS = (HERE.parent / "boards", HERE.parent.parent / "board_ports")  # installed, and in a checkout


class Line(NamedTuple):
    """A line by its chip's label and its own name, or its offset where the chip names none; ``chip`` empty: there is no such line.

    ``debounce_us`` is what the kernel is asked to swallow, in microseconds; 0 asks nothing.
    """

    chip: str = ""
    name: str = ""
    offset: int = 0
    flags: int = 0
    debounce_us: int = 0

    def __str__(self) -> str:
        """As people call it."""
        return f"{self.chip} {self.name or f'line {self.offset}'}" if self.chip else "none"


@dataclass(frozen=True)
class Header:
    """Where a maker's wires go: the pin of each line, of ground and of the supply, by the header's own numbers; "" is not known.

    ``confirmed``: the pins were looked up in a document that the board's README names.  ``driver``: the lines are too weak for an
    LED, which needs a transistor.
    """

    name: str = ""
    pins: tuple[str, ...] = ("",) * len(LINES)
    ground: str = ""
    supply: str = ""
    confirmed: bool = False
    driver: bool = False


@dataclass(frozen=True)
class Board:
    """A board: ``proven`` says where its lines were ever driven: on silicon, emulated, or never.

    ``notes`` are for people, by what they are about (NOTES).
    """

    name: str
    title: str
    proven: str
    lines: tuple[Line, ...]
    header: Header = Header()
    notes: Mapping[str, str] = field(default_factory=dict)

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
    shape = {"title": str, "proven": str, "chip": "", "lines": dict, "header": {}, "notes": {}}
    v = settings(read_toml(path), shape, str(path))
    if v["proven"] not in PROVEN:
        raise ConfigError(f'{path}: proven = "{v["proven"]}" is none of {", ".join(PROVEN)}')
    known(v["lines"], LINES, f"{path}: [lines]")
    known(v["notes"], NOTES, f"{path}: [notes]")
    notes = settings(v["notes"], dict.fromkeys(NOTES, ""), f"{path}: [notes]")
    lines = tuple(_line(n, v["lines"][n], v["chip"], f"{path}: {n}") if n in v["lines"] else Line() for n in LINES)
    if not lines[0].chip:
        raise ConfigError(f"{path}: LEASE_VALID has no line; it is what a relay or an auditor looks at")
    places = [(a.chip, a.name, a.offset) for a in lines if a.chip]
    if len(set(places)) != len(places):
        raise ConfigError(f"{path}: one line has two meanings")
    pins = tuple(v["lines"].get(n, {}).get("pin", "") for n in LINES)
    return Board(name, v["title"], v["proven"], lines, _header(v["header"], pins, str(path)), notes)


def _header(table: dict[str, Any], pins: tuple[str, ...], path: str) -> Header:
    h = settings(table, {"name": "", "ground": "", "supply": "", "confirmed": False, "driver": False}, f"{path}: [header]")
    taken = [p for p in (*pins, h["ground"], h["supply"]) if p]
    if len(set(taken)) != len(taken):
        raise ConfigError(f"{path}: one header pin has two meanings")
    if h["confirmed"] and not h["name"]:
        raise ConfigError(f"{path}: [header]: give its name, as the board's documents do")
    return Header(pins=pins, **h)


LINE: dict[str, Any] = {"line": "", "offset": -1, "active-low": False, "open-drain": False, "bias": "", "debounce_us": 0, "pin": ""}


def _line(name: str, table: Any, chip: str, where: str) -> Line:
    if not isinstance(table, Mapping):
        raise ConfigError(f'{where}: must be a table, as {{ line = "GPIO17" }}')
    v = settings(table, {"chip": chip, **LINE}, where)
    if bool(v["line"]) == (v["offset"] >= 0) or v["offset"] >= 1 << 16:
        raise ConfigError(f"{where}: give either line (its name) or offset (0..65535)")
    if not v["chip"]:
        raise ConfigError(f"{where}: give chip, the label of its GPIO chip, here or for the whole board")
    if v["bias"] not in BIAS:
        raise ConfigError(f'{where}: bias = "{v["bias"]}" is none of {", ".join(b for b in BIAS if b)}')
    is_input = name == LINES[-1]
    if v["open-drain"] and is_input:
        raise ConfigError(f"{where}: open-drain is for outputs, and this is the input")
    if not 0 <= v["debounce_us"] <= DEBOUNCE_MAX_US * is_input:
        limit = f"is outside 0..{DEBOUNCE_MAX_US}" if is_input else "is for the input alone"
        raise ConfigError(f"{where}: debounce_us = {v['debounce_us']} {limit}")
    flags = BIAS[v["bias"]] | sum(bit for key, bit in FLAGS.items() if v[key])
    return Line(v["chip"], v["line"], max(0, v["offset"]), flags, v["debounce_us"])
