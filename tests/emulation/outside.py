# SPDX-License-Identifier: Apache-2.0
"""A board's lines as seen from outside the guest: QEMU's view of the pins, with nothing of ours in between."""

from __future__ import annotations

import re
from typing import Protocol

from channels import BoardError
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
        wait_for(lambda: not self.level(line), f"line {line} low", pause_s=0.005)
        wait_for(lambda: self.level(line), f"line {line} high", pause_s=0.005)
        return 1

    def drive(self, line: int, level: int) -> None:
        """Set an input."""
        self._machine.qmp.set(self.PATH, self.name(line), bool(level))


def lines_of(machine: Machine) -> Lines:
    """What looks at this board's lines."""
    kinds: dict[str, type[Pl061] | type[Aspeed]] = {"pl061": Pl061, "aspeed": Aspeed}
    return kinds[machine.board.outside](machine)
