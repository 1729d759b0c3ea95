# SPDX-License-Identifier: Apache-2.0
"""A maker's own LEDs follow a real guard, and are off when it is gone (HW-13)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from guard_kit import LIMIT_S, Device, until

from qsafp_embedded._tables import Phase, Reason
from qsafp_embedded.errors import ConfigError
from qsafp_embedded.hardware.mirror import STATES, Mirror

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/mirror.py"


class Pin:
    """Blinka's DigitalInOut, as far as an output goes."""

    value: bool = True


@pytest.fixture
def pins() -> dict[str, Pin]:
    return {state: Pin() for state in STATES}


def lit(pins: dict[str, Pin]) -> set[str]:
    return {state for state, pin in pins.items() if pin.value}


def mirror_of(device: Device, outputs: object) -> Mirror:
    return Mirror(outputs, run_dir=str(device.root / "run"))  # type: ignore[arg-type]


def shows(mirror: Mirror, pins: dict[str, Pin], *states: str) -> None:
    until(lambda: mirror.step() == set(states))
    assert lit(pins) == set(states)


def test_each_state_of_the_guard_is_shown(device: Device, pins: dict[str, Pin]) -> None:
    with mirror_of(device, pins) as mirror:
        assert lit(pins) == set()  # off before the first look
        shows(mirror, pins, "closed")
        device.lease()
        shows(mirror, pins, "open")
        mirror.stop()
        shows(mirror, pins, "closed", "stopped")
        with device.client() as guard:
            assert (guard.status().phase, guard.status().reason) == (Phase.FAILSAFE, Reason.MANUAL)
    assert lit(pins) == set()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_guard_that_is_gone_or_hangs_shows_no_open(device: Device, pins: dict[str, Pin], end: signal.Signals) -> None:
    with mirror_of(device, pins) as mirror:
        device.lease()
        shows(mirror, pins, "open")
        device.send(end)
        shows(mirror, pins, "closed", "lost")
        device.send(signal.SIGCONT)


def test_a_device_that_breaks_ends_the_mirror_with_the_others_off(device: Device) -> None:
    class Burnt(Pin):
        def __setattr__(self, name: str, value: object) -> None:
            if value:
                raise OSError("gone")

    well = Pin()
    device.lease()
    with mirror_of(device, {"open": [well, Burnt()]}) as mirror, pytest.raises(OSError, match="gone"):
        until(lambda: "open" in mirror.step())
    assert well.value is False


def test_run_ends_with_its_event_and_leaves_nothing_on(device: Device, pins: dict[str, Pin]) -> None:
    device.lease()
    done = threading.Event()
    with mirror_of(device, pins) as mirror:
        thread = threading.Thread(target=mirror.run, args=(done,))
        thread.start()
        until(lambda: lit(pins) == {"open"})
        done.set()
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert lit(pins) == set()


def test_an_unknown_state_and_no_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'opened'; the nearest valid one is 'open'"):
        Mirror({"opened": Pin()}, run_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="at least one state"):
        Mirror({}, run_dir=str(tmp_path))


def test_gpiozero_outputs_follow_too(device: Device) -> None:
    gpiozero = pytest.importorskip("gpiozero")
    factory = pytest.importorskip("gpiozero.pins.mock").MockFactory()
    led, button = gpiozero.LED(5, pin_factory=factory), gpiozero.Button(6, pin_factory=factory)
    with led, button, mirror_of(device, {"open": led}) as mirror:
        device.lease()
        until(lambda: "open" in mirror.step())
        assert factory.pin(5).state
        button.when_pressed = mirror.stop
        factory.pin(6).drive_low()
        until(lambda: "stopped" in mirror.step())
        assert not factory.pin(5).state
    factory.reset()


BLINKA = """
import board, digitalio, sys
from qsafp_embedded.hardware.mirror import Mirror
pin = digitalio.DigitalInOut(board.Dx_OUTPUT)
pin.direction = digitalio.Direction.OUTPUT
with Mirror({"lost": pin}, run_dir=sys.argv[1]) as mirror:
    before = pin._pin.current_value
    mirror.step()
    print(before, pin._pin.current_value)
print(pin._pin.current_value)
"""


def test_a_pin_of_blinka_follows_too(tmp_path: Path) -> None:
    pytest.importorskip("adafruit_blinka")
    env = {**os.environ, "BLINKA_FORCECHIP": "OS_AGNOSTIC", "BLINKA_FORCEBOARD": "OS_AGNOSTIC_BOARD"}
    words = [sys.executable, "-c", BLINKA, str(tmp_path)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.stdout.split(), done.stderr) == (["0", "1", "0"], "")


def test_the_example_runs_on_mock_pins(device: Device) -> None:
    pytest.importorskip("gpiozero")
    env = {**os.environ, "GPIOZERO_PIN_FACTORY": "mock", "QSAFP_RUN_DIR": str(device.root / "run")}
    words = [sys.executable, str(EXAMPLE), "5", "6", "13"]
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("mirror: follows the gate")
        finally:
            process.terminate()
        _, said = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, said) == (0, "")
