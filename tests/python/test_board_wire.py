# SPDX-License-Identifier: Apache-2.0
"""``qsafp board wire`` on a terminal: what it asks, what it drives meanwhile, and that LEASE_VALID is low at every end (HW-13)."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_gpio
import pytest

LIMIT_S = 20.0
TOML = """
title = "bench"
proven = "never"
chip = "bench-chip"
[lines]
LEASE_VALID = { line = "GPIO1", pin = "11" }
LEASE_RENEW = { line = "GPIO2", bias = "pull-down", pin = "16" }
[header]
name = "J1"
ground = "9"
supply = "1"
confirmed = true
[notes]
levels = "weak lines"
"""


class Terminal:
    """The program on a pseudo terminal, and the fake chip under it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.text, self.at = folder, "", 0
        self.toml = folder / "mine.toml"
        self.toml.write_text(TOML)
        fake_gpio.make(folder, "bench-chip")
        self._master, self._slave = pty.openpty()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = [sys.executable, fake_gpio.__file__, self.folder, "board", "wire", self.toml]
        self.process = subprocess.Popen(words, stdin=self._slave, stdout=self._slave, stderr=self._slave, start_new_session=True)

    def until(self, said: str) -> str:
        """Wait for words that were not there before; returns what came before them."""
        end = time.monotonic() + LIMIT_S
        while said not in self.text[self.at :]:
            assert time.monotonic() < end, f"no {said!r} in {self.text!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                self.text += os.read(self._master, 4096).decode().replace("\r\n", "\n")
        before, _, _ = self.text[self.at :].partition(said)
        self.at += len(before) + len(said)
        return before

    def type(self, words: str) -> None:
        os.write(self._master, f"{words}\n".encode())

    def end(self) -> int:
        assert self.process is not None
        return self.process.wait(LIMIT_S)

    def driven(self) -> str:
        line = self.folder / "line1.line"
        return line.read_text() if line.exists() else ""

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(LIMIT_S)
        for fd in (self._master, self._slave):
            os.close(fd)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    try:
        yield made
    finally:
        made.close()


def to_the_led(t: Terminal) -> None:
    t.start()
    t.until("Enter when it is so")
    t.type("")
    t.until("Is the LED dark?")
    t.type("y")
    t.until("Enter to begin")


def blink(t: Terminal, answer: Callable[[int], int] = int) -> None:
    before = t.driven().count("1")
    t.type("")
    t.until("How often did it light up?")
    assert t.driven().endswith("0")  # a person is waited for with the line low
    t.type(str(answer(t.driven().count("1") - before)))


def test_an_led_and_a_button_are_walked_through(terminal: Terminal) -> None:
    to_the_led(terminal)
    assert re.search(r"1\. pin 11 of J1 \(bench-chip GPIO1\) to a 330 ohm.*\n.*\n.*pin 9 \(ground\)", terminal.text)
    assert "Note: weak lines" in terminal.text
    assert terminal.driven() == "0"
    blink(terminal, lambda times: times + 1)
    terminal.until("Turn the LED round")
    terminal.until("Enter to begin")
    blink(terminal)
    terminal.until("The LED is right.")
    assert "pin 16 of J1 (bench-chip GPIO2)" in terminal.until("Enter when it is so")
    terminal.type("")
    terminal.until("Press the button")
    fake_gpio.press(terminal.folder, 2, "10")  # a glitch
    fake_gpio.press(terminal.folder, 2, "101")
    terminal.until("The button is right.")
    terminal.until("Done.")
    assert terminal.end() == 0
    assert terminal.driven().endswith("0")
    assert not list(terminal.folder.glob("*.held"))


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_line_falls_when_a_signal_ends_it_in_a_blink(terminal: Terminal, end: signal.Signals) -> None:
    to_the_led(terminal)
    terminal.type("")
    limit = time.monotonic() + LIMIT_S
    while not terminal.driven().endswith("1"):
        assert time.monotonic() < limit
    assert terminal.process is not None
    terminal.process.send_signal(end)
    assert terminal.end() == 130
    assert terminal.driven().endswith("10")
    assert not list(terminal.folder.glob("*.held"))


def test_q_stops_at_any_question_with_the_line_low(terminal: Terminal) -> None:
    to_the_led(terminal)
    terminal.type("q")
    terminal.until("Stopped.")
    assert (terminal.end(), terminal.driven()) == (1, "00")


@pytest.mark.parametrize("line", [1, 2])
def test_a_line_that_somebody_holds_is_refused_by_name(terminal: Terminal, line: int) -> None:
    (terminal.folder / f"line{line}.held").write_text("qsafp LEASE_VALID")
    terminal.start()
    terminal.until(f'bench-chip GPIO{line} is held by "qsafp LEASE_VALID"')
    terminal.until("systemctl stop qsafp-guard")
    assert (terminal.end(), terminal.driven()) == (1, "")


def test_a_line_of_the_wrong_direction_is_an_error_and_not_a_level(terminal: Terminal) -> None:
    (terminal.folder / "line1.wrong").touch()
    terminal.start()
    terminal.until("Enter when it is so")
    terminal.type("")
    terminal.until("bench-chip GPIO1: Invalid argument")
    assert (terminal.end(), terminal.driven()) == (1, "")


def test_a_line_that_is_not_here_is_named(terminal: Terminal) -> None:
    terminal.toml.write_text(TOML.replace("bench-chip", "other"))
    terminal.start()
    terminal.until("other GPIO1 is not here, or not for us; qsafp board check says why")
    assert terminal.end() == 1


def test_pins_that_nobody_confirmed_are_said_so_and_other_wirings_are_drawn(terminal: Terminal) -> None:
    text = TOML.replace("confirmed = true", "").replace('"GPIO1", ', '"GPIO1", active-low = true, ')
    terminal.toml.write_text(text.replace('pin = "11"', 'pin = "12"'))
    terminal.start()
    terminal.until("NOT confirmed")
    terminal.until("1. pin 1 (the logic supply")
    terminal.until("the LED's short leg to pin 12 of J1")
    terminal.until("q to stop:")
    terminal.type("q")
    assert terminal.end() == 1


def test_without_a_terminal_it_is_refused(tmp_path: Path) -> None:
    made = Terminal(tmp_path)
    words = [sys.executable, fake_gpio.__file__, tmp_path, "board", "wire", made.toml]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    made.close()
    assert done.returncode == 1
    assert done.stderr.startswith("qsafp: board wire asks what you see and changes lines: run it in a terminal")
    assert made.driven() == ""


def test_the_simulated_board_has_nothing_to_wire() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qsafp_embedded.cli", "board", "wire", "simulated"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert "has no pins to wire" in done.stderr
