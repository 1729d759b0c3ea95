# SPDX-License-Identifier: Apache-2.0
"""``qsafp board wire`` against a real kernel: what it drives is seen outside, and a button outside is seen by it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from check_lines import owned
from machine import Machine, wait_for
from outside import Lines

from qsafp_embedded.hardware.board import Board

TERMINAL = """
import os, pty, select, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
print(pid, file=open("/run/wire.pid", "w"), flush=True)
told = os.open("/run/wire.in", os.O_RDWR)
while True:
    ready = select.select([fd, told], [], [])[0]
    if told in ready:
        os.write(fd, os.read(told, 100))
    if fd in ready:
        try:
            os.write(1, os.read(fd, 4096))
        except OSError:
            break
os.write(1, b"[ended %d]" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


class Wire:
    """The program on a terminal in the guest."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        machine.put("/run/wire.py", TERMINAL.encode())
        machine.sh("rm -f /run/wire.in /run/wire.log; mkfifo /run/wire.in")
        self.process = machine.spawn(f"python3 /run/wire.py qsafp board wire {machine.board.name}", "/run/wire.log")

    def until(self, said: str) -> None:
        self._machine.until(f"grep -qF '{said}' /run/wire.log", f"wire says: {said}", pid=self.process)

    def ended(self, code: int) -> None:
        self._machine.until(f"grep -qF '[ended {code}]' /run/wire.log", f"wire ends with {code}")

    def type(self, words: str = "") -> None:
        self._machine.sh(f"echo '{words}' > /run/wire.in")

    def to_the_blinks(self) -> None:
        self.until("Enter when it is so")
        self.type()
        self.until("Is the LED dark")
        self.type("y")
        self.until("Enter to begin")


@pytest.fixture
def wire(machine: Machine) -> Iterator[Wire]:
    made = Wire(machine)
    yield made
    machine.run("kill", str(made.process))


def test_blinks_are_seen_outside_and_a_press_inside(machine: Machine, lines: Lines, wiring: Board, wire: Wire) -> None:
    led, button = wiring.lines[0].offset, wiring.lines[3].offset
    lines.drive(button, 0)
    wire.to_the_blinks()
    assert lines.level(led) == 0
    found = machine.run("qsafp", "board", "check", machine.board.name)
    assert f'line {led}: held by "qsafp board wire"' in found.out
    before = lines.rises(led)
    wire.type()
    wire.until("How often did it light up")
    assert lines.level(led) == 0
    wire.type(str(lines.rises(led) - before))
    wire.until("The LED is right.")
    wire.type()
    wire.until("Press the button")
    lines.drive(button, 1)
    wire.until("The button is right.")
    lines.drive(button, 0)
    wire.ended(0)


def test_the_line_is_low_outside_when_it_is_ended_in_a_blink(machine: Machine, lines: Lines, wiring: Board, wire: Wire) -> None:
    led = wiring.lines[0].offset
    wire.to_the_blinks()
    wire.type()
    wait_for(lambda: lines.level(led), "a blink outside", pause_s=0.02)
    machine.sh("kill $(cat /run/wire.pid)")
    wire.ended(130)
    assert lines.level(led) == 0


def test_a_line_that_is_held_is_refused_with_its_holder(machine: Machine, wiring: Board) -> None:
    line = wiring.lines[0]
    with owned(machine, line) as pid:
        wire = Wire(machine)
        wire.ended(1)
        said = machine.sh("cat /run/wire.log")
        assert f"line {line.offset} is held by" in said
        assert f"(pid {pid})" in said


OPTIONS = """
import fcntl, os, struct
from qsafp_embedded.hardware import gpio
chip = next(c for c in gpio.chips() if c.label == {chip!r})
with gpio.Request(chip, {offset}, consumer="options", output=False, flags=1, debounce_us=5000):
    fd = os.open(chip.path, os.O_RDWR)
    info = fcntl.ioctl(fd, gpio.GET_LINEINFO, struct.pack("64xI", {offset}).ljust(gpio.LINEINFO_BYTES, b"\\0"))
consumer, attrs, flags, attr, us = struct.unpack_from("32x32s4xIQI4xI", info)
print(consumer.rstrip(b"\\0").decode(), attrs, attr, us, flags & ~gpio.USED == 2 | gpio.INPUT | gpio.BOTH_EDGES)
"""


def test_debounce_and_active_low_reach_the_kernel(machine: Machine, wiring: Board) -> None:
    line = wiring.lines[3]
    machine.put("/run/options.py", OPTIONS.format(chip=line.chip, offset=line.offset).encode())
    assert machine.sh("python3 /run/options.py").split() == ["options", "1", "3", "5000", "True"]
