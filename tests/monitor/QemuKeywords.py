# SPDX-License-Identifier: Apache-2.0
"""Renode's keywords for Robot Framework, as far as renode/ uses them, on QEMU: the same names, arguments and meaning.

What is not listed here is refused, so that a suite never runs on half a stand-in.  Emulation always stands still between keywords.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Callable
from pathlib import Path

from robot.api import logger
from robot.libraries.BuiltIn import BuiltIn
from stepped import KINDS, Stepped

LATE, LATE_S = "late", 0.2  # the tag of a case whose board ran further than this, in virtual seconds, past where it was to stand still
HEX = {"ReadDoubleWord": (4, "0x{:08X}"), "ReadQuadWord": (8, "0x{:016X}")}


class Refused(AssertionError):
    """What a suite asked for is not what this library stands in for."""


class QemuKeywords:
    """Keywords by the names that Renode gives them."""

    ROBOT_LIBRARY_SCOPE = "GLOBAL"

    def __init__(self) -> None:
        self._board: Stepped | None = None
        self._open = contextlib.ExitStack()
        self._read = 0
        self._leds: list[str] = []
        self._commands: list[tuple[str, Callable[..., str]]] = [
            (r"\$\w+=@\S+", lambda: ""),  # files: the factory's, which this library looks for in its folder
            (r"include @\S+/(\w+)\.resc", self._include),
            (r'emulation RunFor "([\d.]+)"', self._run_for),
            (r'emulation CreateUartPtyTerminal "(\w+)" "(\S+)" true', self._terminal),
            (r"connector Connect (\S+) (\w+)", self._connect),
            (r"machine Reset", self._reset),
            (r"machine GetTimeSourceInfo", self._time),
            (r"sysbus (Read\w+) (0x[0-9A-Fa-f]+)", self._peek),
            (r"sysbus WriteDoubleWord (0x[0-9A-Fa-f]+) (0x[0-9A-Fa-f]+)", self._poke),
        ]

    # ---- of renode-keywords.robot ----

    def setup(self) -> None:
        """Say what runs it."""
        BuiltIn().set_suite_metadata("Emulator", "QEMU", append=False, top=True)

    def teardown(self) -> None:
        """End the board."""
        self.reset_emulation()

    def test_teardown(self) -> None:
        """Keep what the board said where the reader finds it, say whether the host was too busy for it, and end it."""
        if self._board is not None:
            logger.info(self._board.text())
            if self._board.late_s > LATE_S:
                BuiltIn().set_tags(LATE)
        self.reset_emulation()

    def reset_emulation(self) -> None:
        """Throw the board away."""
        self._open.close()
        self._open = contextlib.ExitStack()
        self._board, self._read, self._leds = None, 0, []

    # ---- the monitor's commands ----

    def execute_command(self, command: str, machine: str | None = None) -> str:
        """One command of Renode's monitor."""
        for pattern, act in self._commands:
            if found := re.fullmatch(pattern, command):
                return act(*found.groups())
        raise Refused(f"this library stands in for no such command: {command}")

    @property
    def board(self) -> Stepped:
        """The board that is on."""
        if self._board is None:
            raise Refused("no board: a script is included first")
        return self._board

    def _include(self, name: str) -> str:
        operator = BuiltIn().get_library_instance("Operator")
        board = operator.equip(KINDS[name])
        self._board = self._open.enter_context(board)
        return ""

    def _run_for(self, seconds: str) -> str:
        self.board.run(float(seconds))
        return ""

    def _terminal(self, _name: str, path: str) -> str:
        Path(path).symlink_to(self.board.line)
        self._open.callback(Path(path).unlink, missing_ok=True)
        return ""

    def _connect(self, uart: str, _name: str) -> str:
        return self._uart(uart)

    def _uart(self, name: str) -> str:
        if name != "sysbus.line":
            raise Refused(f"no such line: {name}")
        return ""

    def _reset(self) -> str:
        board = self.board
        self._open.close()
        self._board, self._read = self._open.enter_context(board), 0
        return ""

    def _time(self) -> str:
        return f"Elapsed Virtual Time: {datetime.timedelta(seconds=self.board.now())}"

    def _peek(self, kind: str, address: str) -> str:
        size, form = HEX[kind]
        return form.format(self.board.peek(int(address, 16), size))

    def _poke(self, address: str, word: str) -> str:
        self.board.poke(int(address, 16), int(word, 16))
        return ""

    # ---- the line ----

    def create_terminal_tester(self, uart: str, timeout: float = 8) -> int:
        """Look at what is said on a line; ``timeout`` in virtual seconds."""
        self._uart(uart)
        self._timeout = timeout
        return 0

    def wait_for_line_on_uart(self, content: str, timeout: float | None = None, *, pauseEmulation: bool) -> str:
        """Wait for a whole line that contains ``content``, behind the last one found; returns it."""
        self._paused(pauseEmulation)

        def line() -> re.Match[str] | None:
            return re.compile(rf"[^\n]*{re.escape(content)}[^\n]*\n").search(self.board.text(), self._read)

        self.board.run(self._timeout if timeout is None else timeout, lambda: line() is not None)
        found = line()
        if found is None:
            raise AssertionError(f"nobody said {content!r}:\n{self.board.text()}")
        self._read = found.end()
        return found[0].strip()

    def _paused(self, asked: bool) -> None:
        if not asked:
            raise Refused("emulation stands still between keywords: pauseEmulation=true")

    # ---- pins ----

    def create_led_tester(self, led: str) -> int:
        """Look at a pin by its LED's name, such as ``sysbus.gpio.lease_valid``; returns the tester's number."""
        name = led.rpartition(".")[2].upper()
        if name not in self.board.pin_numbers:
            raise Refused(f"no such LED: {led}")
        self._leds.append(name)
        return len(self._leds) - 1

    def assert_led_state(self, state: bool, timeout: float = 0, testerId: int = 0, *, pauseEmulation: bool = False) -> None:
        """The pin is at this level, or is so within ``timeout`` virtual seconds."""
        if timeout:
            self._paused(pauseEmulation)
        name = self._leds[testerId]
        before = len(self.board.pins(name))
        if not self.board.run(timeout, lambda: self.board.pin(name) == state or state in self.board.pins(name)[before:]):
            raise AssertionError(f"{name} is not {state}: {self.board.pins(name)}")

    def assert_and_hold_led_state(
        self, initialState: bool, timeoutAssert: float, timeoutHold: float, testerId: int = 0, *, pauseEmulation: bool
    ) -> None:
        """As above, and then it stays so for ``timeoutHold`` virtual seconds."""
        self.assert_led_state(initialState, timeoutAssert, testerId, pauseEmulation=pauseEmulation)
        name = self._leds[testerId]
        before = len(self.board.pins(name))
        if self.board.run(timeoutHold, lambda: len(self.board.pins(name)) > before):
            raise AssertionError(f"{name} did not stay {initialState}: {self.board.pins(name)}")
