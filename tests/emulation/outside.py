# SPDX-License-Identifier: Apache-2.0
"""A board's lines as seen from outside the guest: QEMU's view of the pins, with nothing of ours in between."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

import amdpt
from channels import BoardError, Qtest
from machine import Machine, wait_for

__all__ = ["Lines", "lines_of"]


class Lines(Protocol):
    """Look at output lines and drive input lines, by their number on the chip."""

    def level(self, line: int) -> int:
        """Level of an output now, 0 or 1."""
        ...

    def rises(self, line: int) -> int:
        """How often an output was seen to rise so far; pulses between two looks count only where every edge is recorded."""
        ...

    def drive(self, line: int, level: int) -> None:
        """Set an input to 0 or 1."""
        ...


class Pl061:
    """Arm's PL061: QEMU traces every change of an output; qtest drives inputs."""

    CHANGE = re.compile(r"(?P<path>\S+) setting output (?P<line>\d+) to (?P<level>\d)")

    def __init__(self, machine: Machine) -> None:
        """Find the chip; there must be one."""
        self._machine = machine
        found = machine.qmp.find("pl061")
        if len(found) != 1:
            raise BoardError(f"{len(found)} PL061 chips where one was expected")
        self._path = found[0]

    def edges(self, line: int) -> list[tuple[float, int]]:
        """Host time in s and level of each change of an output since the start."""
        found = [(at, self.CHANGE.match(text)) for at, text in self._machine.traced("pl061_set_output")]
        return [(at, int(m["level"])) for at, m in found if m and int(m["line"]) == line]

    def level(self, line: int) -> int:
        """Level of an output now; 0 before its first change."""
        edges = self.edges(line)
        return edges[-1][1] if edges else 0

    def rises(self, line: int) -> int:
        """How often an output rose since the start."""
        return sum(level for _, level in self.edges(line))

    def drive(self, line: int, level: int) -> None:
        """Set an input."""
        self._machine.qtest.drive(self._path, line, level)


class Aspeed:
    """ASPEED's GPIO controller: QMP reads and sets ``gpioXn``, X a bank of eight."""

    PATH = "/machine/soc/gpio"

    def __init__(self, machine: Machine) -> None:
        """Look at the machine's one controller of this voltage."""
        self._machine = machine

    @staticmethod
    def name(line: int) -> str:
        """Name of a line: 40 is gpioF0."""
        bank = line // 8
        return f"gpio{chr(ord('A') + bank) if bank < 26 else 'A' + chr(ord('A') + bank - 26)}{line % 8}"

    def level(self, line: int) -> int:
        """Level of an output now."""
        return int(self._machine.qmp.get(self.PATH, self.name(line)))

    def rises(self, line: int) -> int:
        """Wait for one low and one high; QEMU keeps no record."""
        return pulse(self, line)

    def drive(self, line: int, level: int) -> None:
        """Set an input."""
        self._machine.qmp.set(self.PATH, self.name(line), bool(level))


class Imx:
    """The i.MX6's fourth GPIO unit: qtest tells each change of an output and drives inputs."""

    PATH = "/machine/soc/gpio4"

    def __init__(self, machine: Machine) -> None:
        """Look on from now, and from every later start of QEMU that is looked at."""
        self._machine = machine
        self._qtest: Qtest | None = None
        self.edges(0)

    def edges(self, line: int) -> list[int]:
        """Each level that an output changed to since QEMU started."""
        if self._qtest is not self._machine.qtest:
            self._qtest = self._machine.qtest
            self._qtest.intercept(self.PATH)
        return [level for number, level in self._qtest.changes() if number == line]

    def level(self, line: int) -> int:
        """Level of an output now; 0 before its first change."""
        return (self.edges(line) or [0])[-1]

    def rises(self, line: int) -> int:
        """How often an output rose."""
        return sum(self.edges(line))

    def drive(self, line: int, level: int) -> None:
        """Set an input."""
        self._machine.qtest.drive(self.PATH, line, level)


class Amdpt:
    """AMD's Promontory GPIO unit, whose registers the host shares."""

    def __init__(self, machine: Machine) -> None:
        """Find the registers; raises BoardError if QEMU's firmware put them elsewhere."""
        self._path = amdpt.registers(machine.out)
        places = [d["data"]["addr"] for d in machine.qmp.call("query-memory-devices")]
        if places != [amdpt.BASE]:
            raise BoardError(f"the registers are at {places} and not at {amdpt.BASE}")

    def _bits(self, register: int) -> int:
        return int.from_bytes(self._path.read_bytes()[register : register + 4], "little")

    def level(self, line: int) -> int:
        """Level of a line now; one that is no output is pulled down."""
        return (self._bits(amdpt.DIRECTION) & self._bits(amdpt.OUTPUT)) >> line & 1

    def rises(self, line: int) -> int:
        """Wait for one low and one high; registers keep no record."""
        return pulse(self, line)

    def drive(self, line: int, level: int) -> None:
        """Set an input."""
        bits = self._bits(amdpt.INPUT) & ~(1 << line) | level << line
        with self._path.open("r+b") as file:
            file.seek(amdpt.INPUT)
            file.write(bits.to_bytes(4, "little"))


def pulse(lines: Lines, line: int) -> int:
    """Wait for one low and one high."""
    wait_for(lambda: not lines.level(line), f"line {line} low", pause_s=0.005)
    wait_for(lambda: lines.level(line), f"line {line} high", pause_s=0.005)
    return 1


def lines_of(machine: Machine) -> Lines:
    """What looks at this board's lines."""
    kinds: dict[str, Callable[[Machine], Lines]] = {"pl061": Pl061, "aspeed": Aspeed, "imx": Imx, "amdpt": Amdpt}
    return kinds[machine.board.outside](machine)
