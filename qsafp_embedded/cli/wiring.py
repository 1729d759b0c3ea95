# SPDX-License-Identifier: Apache-2.0
"""``qsafp board wire``: a maker's first LED and button, one wire at a time, each tried before the next (HW-13).

LEASE_VALID is high for blinks only, never while a person is waited for; it is driven low at every end of this program but SIGKILL.
"""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from ..errors import ConfigError
from ..hardware import board, gpio
from ..hardware.board import Board, Line

__all__ = ["Stopped", "wire"]

CONSUMER = "qsafp board wire"
BLINK_S, PRESS_S = 0.3, 60.0
SETTLE_S = 0.02  # as the pin holder's: a shorter press is none
LEASE_VALID, LEASE_RENEW = 0, len(board.LINES) - 1
ACTIVE_LOW, OPEN_DRAIN, PULL_UP = board.FLAGS["active-low"], board.FLAGS["open-drain"], board.BIAS["pull-up"]
DARK = "It should be: is the LED on another pin, or on the supply?  Is this the board that is configured?"
BLIND = (
    "Turn the LED round (its long leg is the one to the resistor), count the header's pins again, try another LED.\n"
    "Does a note above say that the line is too weak for an LED?"
)
DEAF = "Nothing came.  Count the header's pins again; a button of four legs joins two of them always: use two that lie diagonally."


class Stopped(Exception):
    """The person asked to stop."""


def wire(b: Board) -> int:
    """Walk through both; returns 0 if both work.  Raises: ConfigError if it cannot begin, KeyboardInterrupt, Stopped."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("board wire asks what you see and changes lines: run it in a terminal, on the board itself")
    led = _place(b.lines[LEASE_VALID])
    button = _place(b.lines[LEASE_RENEW]) if b.lines[LEASE_RENEW].chip else None
    with _ends_as_an_interrupt():
        _begin(b)
        _led(b, led)
        if button:
            _button(b, button)
    print("\nDone.  LEASE_VALID is low and free again.  Next: start the guard, then qsafp board check shows who holds the lines.")
    return 0


def _place(line: Line) -> tuple[gpio.Chip, int]:
    """Where a line is, which must be there and free."""
    for chip in gpio.chips():
        found = gpio.find(chip, line.name, line.offset) if chip.label == line.chip else None
        if found and found.consumer is not None:
            who = " ".join(w for w in (f'"{found.consumer}"', gpio.holder(chip, found.offset)) if w)
            raise ConfigError(
                f"{line} is held by {who}; if that is the guard, stop first what it guards, then it: systemctl stop qsafp-guard"
            )
        if found:
            return chip, found.offset
    raise ConfigError(f"{line} is not here, or not for us; qsafp board check says why, and what helps")


@contextlib.contextmanager
def _ends_as_an_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the program as Ctrl-C does: through every finally."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ask(question: str) -> str:
    try:
        answer = input(f"{question} ").strip().lower()
    except EOFError:
        answer = "q"
    if answer in ("q", "quit"):
        raise Stopped
    return answer


def _yes(question: str) -> bool:
    while (answer := _ask(f"{question} [y/n, q stops]")) not in ("y", "yes", "n", "no"):
        pass
    return answer[0] == "y"


def _pin(b: Board, index: int) -> str:
    pin, line = b.header.pins[index], b.lines[index]
    return f"pin {pin} of {b.header.name or 'the header'} ({line})" if pin else f"the pin of {line} (the board's documents say which)"


def _rail(pin: str, name: str) -> str:
    return f"pin {pin} ({name})" if pin else name


def _begin(b: Board) -> None:
    print(f"{b.title}: an LED that shows LEASE_VALID, and a button for LEASE_RENEW.")
    if b.header.pins[LEASE_VALID] and not b.header.confirmed:
        print("The pin numbers are NOT confirmed by a document we could read: compare them with your board's own before you wire.")
    if note := b.notes.get("levels"):
        print(f"Note: {note}")
    print("Only an LED, a button and resistors belong on these pins now: no relay, no motor, nothing of 5 V.")


def _led(b: Board, place: tuple[gpio.Chip, int]) -> None:
    line, pin = b.lines[LEASE_VALID], _pin(b, LEASE_VALID)
    ground, supply = _rail(b.header.ground, "ground"), _rail(b.header.supply, "the logic supply, such as 3.3 V; never 5 V")
    if b.header.driver and not line.flags & (ACTIVE_LOW | OPEN_DRAIN):
        steps = [f"{pin} to the gate of an N-channel transistor (2N7000 or the like)", f"its source to {ground}"]
        steps += [f"{supply} through 330 ohm to the LED's long leg", "the LED's short leg to the drain"]
    elif line.flags & ACTIVE_LOW:
        steps = [f"{supply} to a 330 ohm resistor", "the resistor to the LED's long leg", f"the LED's short leg to {pin}"]
    elif line.flags & OPEN_DRAIN:
        steps = [f"{supply} through 1 kohm to {pin}", "the same pin to the LED's long leg", f"the LED's short leg to {ground}"]
    else:
        steps = [f"{pin} to a 330 ohm resistor", "the resistor to the LED's long leg", f"the LED's short leg to {ground}"]
    if not line.flags & OPEN_DRAIN:
        steps.append(f"{_pull(b)} from the line to {supply if line.flags & ACTIVE_LOW else ground}: dark while nobody drives it")
    _steps("The LED", steps)
    with _request(line, place, output=True) as out:
        try:
            while not _yes("LEASE_VALID is off.  Is the LED dark?"):
                print(DARK)
            while not _seen(out):
                print(BLIND)
        finally:
            out.set(0)
    print("The LED is right.")


def _pull(b: Board) -> str:
    return "100 kohm" if b.header.driver else "10 kohm"


def _steps(title: str, steps: list[str]) -> None:
    print(f"\n{title}.  Connect (best with the board switched off; then begin again):")
    for n, step in enumerate(steps, 1):
        print(f"  {n}. {step}")
    _ask("Enter when it is so, q to stop:")


@contextlib.contextmanager
def _request(line: Line, place: tuple[gpio.Chip, int], *, output: bool) -> Iterator[gpio.Request]:
    chip, offset = place
    try:
        with gpio.Request(chip, offset, consumer=CONSUMER, output=output, flags=line.flags, debounce_us=line.debounce_us) as request:
            yield request
    except OSError as why:
        raise ConfigError(f"{line}: {why.strerror}; qsafp board check says who holds it and what is here") from why


def _seen(out: gpio.Request) -> bool:
    """Blink a few times; true if the person says how often."""
    _ask("Now it blinks a few times.  Enter to begin:")
    times = random.randint(2, 5)
    for _ in range(times):
        out.set(1)
        time.sleep(BLINK_S)
        out.set(0)
        time.sleep(BLINK_S)
    return _ask("How often did it light up? [a number, q stops]") == str(times)


def _button(b: Board, place: tuple[gpio.Chip, int]) -> None:
    line, pin = b.lines[LEASE_RENEW], _pin(b, LEASE_RENEW)
    up = line.flags & PULL_UP
    rail = _rail(b.header.ground, "ground") if up else _rail(b.header.supply, "the logic supply, such as 3.3 V; never 5 V")
    steps = [f"one leg of the button to {pin}", f"the other leg to {rail}"]
    if not line.flags & sum(board.BIAS.values()):
        steps.append(f"{_pull(b)} from the line to {_rail(b.header.ground, 'ground')}")
    _steps("The button", steps)
    with _request(line, place, output=False) as inp:
        while not _pressed(inp):
            print(DEAF if not up or line.flags & ACTIVE_LOW else f"{DEAF}\nA line with a pull-up also needs active-low = true.")
            _ask("Enter to try again, q to stop:")
    print("The button is right.")


def _pressed(inp: gpio.Request) -> bool:
    """Wait for a press as the guard means it: a rising edge, and a line that stays high."""
    print("Press the button, and hold it for a moment.", flush=True)
    rising, edges, end = False, 0, time.monotonic() + PRESS_S
    while (left := end - time.monotonic()) > 0:
        edge = inp.edge(SETTLE_S if edges else left)
        if edge is not None:
            rising, edges = rising or edge == 1, edges + 1
        elif rising and inp.get():
            print(f"Seen, with {edges} edges: the contact bounces, which is no harm." if edges > 1 else "Seen.")
            return True
        else:
            rising, edges = False, 0
    return False
