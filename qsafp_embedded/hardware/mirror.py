# SPDX-License-Identifier: Apache-2.0
"""A maker's own LEDs and relays that follow the guard, by gpiozero or Blinka.  Never the safety signal: that is LEASE_VALID (HW-13).

A mirror is a program like any other: killed or stopped, it leaves its devices as they were.  Nothing that moves, heats or fires may
hang on one.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from .._tables import Phase, Reason
from ..client import GuardClient
from ..errors import ConfigError
from ..gate import Gate, GateInfo, run_directory
from ..settings import known

__all__ = ["STATES", "Mirror", "state_of"]

# What a device can be lit for, and what each stands for.
STATES = {
    "open": "the lease holds: the device may infer",
    "warning": "it holds, and ends soon",
    "closed": "it does not hold, whatever the reason",
    "stopped": "a fail-safe waits for people",
    "lost": "nobody keeps the gate page: no guard, a dead one, or one that hangs (and for up to a tick when a lease runs out)",
}
PERIOD_S = 0.05


def state_of(info: GateInfo) -> frozenset[str]:
    """Which of STATES hold at one look at the gate page."""
    if info.open:
        return frozenset({"open", "warning"} if info.phase == Phase.WARNING else {"open"})
    if not info.attached or info.phase in (Phase.ACTIVE, Phase.WARNING):  # shut, and nobody wrote so
        return frozenset({"closed", "lost"})
    return frozenset({"closed", "stopped"} if info.phase == Phase.FAILSAFE else {"closed"})


def _switch(device: Any, on: bool) -> None:
    """A gpiozero output has on() and off(), a Blinka DigitalInOut a value."""
    if hasattr(device, "on"):
        (device.on if on else device.off)()
    else:
        device.value = on


class Mirror:
    """Devices by state: ``with Mirror({"open": LED(5), "stopped": [buzzer, lamp]}) as mirror: mirror.run()``.

    Args:
        outputs: a device or several for each of STATES that matters: gpiozero outputs, or ``digitalio.DigitalInOut`` as outputs.
        lease, run_dir: as for Gate, whose page is followed: once the guard dies or hangs, ``open`` ends within its stale_after plus 50 ms.
    All devices are off before it begins and when it ends, also by an exception.  Raises: ConfigError for an unknown state.
    """

    def __init__(self, outputs: Mapping[str, Any], *, lease: str = "main", run_dir: str | None = None) -> None:
        known(outputs, STATES, "mirror")
        self._devices = [(state, d) for state, found in outputs.items() for d in (found if isinstance(found, Iterable) else [found])]
        if not self._devices:
            raise ConfigError("mirror: give a device for at least one state")
        self._ctl = run_directory(lease, run_dir) / "ctl.sock"
        self._gate = Gate(lease=lease, run_dir=run_dir)
        self._shown: frozenset[str] | None = None
        self._all_off()

    def step(self) -> frozenset[str]:
        """Look once and switch what changed; returns the states that hold.  Raises what a device raises."""
        now = state_of(self._gate.info())
        if now != self._shown:
            self._shown = None  # until every device took it
            for wanted in (False, True):  # off before on: nothing shows both
                for state, device in self._devices:
                    if (state in now) is wanted:
                        _switch(device, wanted)
            self._shown = now
        return now

    def run(self, until: threading.Event | None = None) -> None:
        """Step every 50 ms, until an event is set or for ever."""
        end = until or threading.Event()
        while not end.is_set():
            self.step()
            end.wait(PERIOD_S)

    def stop(self) -> None:
        """Stop the device now, as a button's handler: ``button.when_pressed = mirror.stop``.  Raises: GuardUnavailable.

        It goes over ``ctl.sock``, which the guard's user, root and ``agent_uid`` may use.  Not an emergency stop.
        """
        with GuardClient.connect(self._ctl) as guard:
            guard.failsafe(Reason.MANUAL)

    def _all_off(self) -> None:
        for _, device in self._devices:
            with contextlib.suppress(OSError, RuntimeError, ValueError):  # one that is broken keeps no other on
                _switch(device, False)

    def __enter__(self) -> Mirror:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Switch everything off, and let go of the gate."""
        self._all_off()
        self._gate.close()
