# SPDX-License-Identifier: Apache-2.0
"""``qsafp board``: which boards are known, which of their lines are LEASE_VALID and the others, and whether this device has them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ..errors import ConfigError
from ..guard import config as guard
from ..hardware import board, gpio
from ..hardware.board import LINES, Board, Line
from .common import Commands, command, emit, group, home_of
from .doctor import Finding, keys, report
from .wiring import Stopped, wire

__all__ = ["add"]

PROVEN = {
    "silicon": "its lines were driven on the real board",
    "emulated": "its lines were driven by a real kernel on an emulated board",
    "never": "no such board was ever powered here: its lines are from data sheets",
}
USE = (
    "out, high while the lease is valid",
    "out, pulses until a fail-safe is acknowledged",
    "out, toggles at each query",
    "in, a press asks for a renewal",
)
BUSES = {"spi": "spidev*", "i2c": "i2c-*"}
SIMULATED = "simulated: no real line; the levels are in `pins` and `pins.trace` in the guard's run directory"


def add(commands: Commands) -> None:
    """Add ``board list|show|check|wire``."""
    board_ = group(commands, "board", "the boards and their pins", "qsafp board show raspberry_pi_5")
    command(board_, "list", _list, "list the boards that are shipped", "qsafp board list")
    p = command(board_, "show", _show, "show which line is which", "qsafp board show raspberry_pi_5")
    p.add_argument("board", metavar="BOARD", help="a name that list shows, or the path of a board.toml")
    p = command(board_, "check", _check, "look whether this device has the lines, and who holds them", "qsafp board check raspberry_pi_5")
    p.add_argument("board", metavar="BOARD", nargs="?", default="", help="default: the one of the guard's configuration")
    p = command(board_, "wire", _wire, "wire an LED and a button, step by step, and try them", "qsafp board wire raspberry_pi_5")
    p.add_argument("board", metavar="BOARD", nargs="?", default="", help="default: the one of the guard's configuration")


def _list(args: argparse.Namespace) -> int:
    known = [board.load(name) for name in board.names()]
    wide = max(len(b.name) for b in known)
    text = "\n".join(f"{b.name:<{wide}}  {b.title} ({b.proven if not b.simulated else 'no pins'})" for b in known)
    emit(args, [{"name": b.name, "title": b.title, "proven": b.proven} for b in known], text)
    return 0


def _show(args: argparse.Namespace) -> int:
    b = board.load(args.board)
    if b.simulated:
        emit(args, {"name": b.name, "lines": {}}, SIMULATED)
        return 0
    text = [f"{b.title}: {PROVEN[b.proven]}", ""]
    rows = zip(LINES, b.header.pins, b.lines, USE, strict=True)
    text += [f"  {name:<13} {f'pin {pin}' if pin else '':<8} {line!s:<30} {use}" for name, pin, line, use in rows]
    if b.header.name:
        sure = "" if b.header.confirmed else "; NOT confirmed by a document: compare before you wire"
        text += ["", f"pins of {b.header.name}; ground is pin {b.header.ground or '?'}, the supply pin {b.header.supply or '?'}{sure}"]
    text += ["", *(f"{what + ':':<10} {note}" for what, note in b.notes.items() if note)]
    text += ["", f'in guard.toml: board = "{args.board}"']
    lines = {name: line._asdict() for name, line in zip(LINES, b.lines, strict=True)}
    data = {"name": b.name, "proven": b.proven, "lines": lines, "header": asdict(b.header), "notes": dict(b.notes)}
    emit(args, data, "\n".join(text))
    return 0


def _configured(args: argparse.Namespace) -> Board:
    if args.board:
        return board.load(args.board)
    return guard.load(home_of(args).guard_toml).board


def _check(args: argparse.Namespace) -> int:
    if args.board:
        return report(args, list(_findings(board.load(args.board))))
    config = guard.load(home_of(args).guard_toml)
    return report(args, [*_findings(config.board), *keys(config)])


def _wire(args: argparse.Namespace) -> int:
    b = _configured(args)
    if b.simulated:
        raise ConfigError("the simulated board has no pins to wire; give one that qsafp board list knows")
    try:
        return wire(b)
    except Stopped:
        print("Stopped.  LEASE_VALID is low and free again.")
        return 1


def _findings(b: Board) -> Iterator[Finding]:
    if b.simulated:
        yield Finding("board", None, "simulated: no real line moves", "choose one that qsafp board list knows, in guard.toml")
        return
    chips = gpio.chips()
    if not chips:
        yield Finding("chips", False, "there is no /dev/gpiochip* here", "boot a kernel with the board's driver, or hand the device in")
        return
    for chip in chips:
        if chip.trouble:
            yield Finding(chip.path.name, False, chip.trouble, _permit(chip.path))
        else:
            yield Finding(chip.path.name, None, f"{chip.label}, {chip.lines} lines")
    unread = any(c.trouble for c in chips)
    for name, line in zip(LINES, b.lines, strict=True):
        if unread and line.chip and line.chip not in {c.label for c in chips}:
            yield Finding(name, None, "not looked for: a chip above could not be read")
            continue
        yield _line(name, line, [c for c in chips if c.label == line.chip])
    for bus, pattern in BUSES.items():
        yield _bus(bus, sorted(gpio.DEV.glob(pattern)), b.notes.get(bus, ""))


def _bus(bus: str, found: list[Path], enable: str) -> Finding:
    """A bus is a note: who needs none misses none."""
    if not found:
        return Finding(
            bus, None, f"no /dev/{BUSES[bus]} here; a log in flash or EEPROM needs one", enable or "enable it in the device tree"
        )
    shut = [p for p in found if not os.access(p, os.R_OK | os.W_OK)]
    names = " ".join(map(str, found))
    return Finding(bus, None, f"{names}: permission denied", _permit(shut[0], "buses")) if shut else Finding(bus, True, names)


def _permit(path: Path, rule: str = "gpio") -> str:
    try:
        group_ = path.group()
    except KeyError:
        group_ = "root"  # of nobody either
    if group_ == "root":
        return f"install packaging/udev/60-qsafp-{rule}.rules, which gives it to the group {rule if rule == 'gpio' else 'spi or i2c'}"
    return f"let the guard's user into the group that owns it: usermod -aG {group_} USER"


def _line(name: str, line: Line, chips: list[gpio.Chip]) -> Finding:
    if not line.chip:
        return Finding(name, None, "this board has none")
    if not chips:
        return Finding(name, False, f"no chip is labelled {line.chip}", "is this the board? else write a board.toml with a label above")
    found = gpio.find(chips[0], line.name, line.offset)
    if found is None:
        return Finding(name, False, f"{line}: there is no such line", "choose another one in a board.toml of your own")
    if found.consumer is None:
        return Finding(name, True, f"{line}: free")
    ours, who = found.consumer == f"qsafp {name}", gpio.holder(chips[0], found.offset)
    remedy = "" if ours else "free it, or choose another line in a board.toml of your own"
    return Finding(name, ours, f'{line}: held by "{found.consumer}"{who and f", {who}"}', remedy)
