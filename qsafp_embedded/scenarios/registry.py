# SPDX-License-Identifier: Apache-2.0
"""The list of scenarios, and how one is run: in a stage of its own, timed, its refusals turned into a result."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import QsafpError
from .stage import CannotRun, Stage

__all__ = ["Figures", "Result", "Scenario", "all_scenarios", "run", "scenario"]

Figures = dict[str, float | int | str]
Play = Callable[[Stage], Figures]

MODULES = ("leases", "votes", "network", "deaths", "clock", "history", "power", "storm")
_KNOWN: dict[str, Scenario] = {}


@dataclass(frozen=True)
class Scenario:
    """A name, one line for people, the function, and what its stage is made with.  ``fast``: part of ``make test``."""

    name: str
    text: str
    play: Play
    fast: bool
    stage: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What came of it: ``passed``, ``failed`` or ``skipped``; why, if not passed; seconds; figures with their units in the names."""

    name: str
    outcome: str
    seconds: float
    why: str = ""
    figures: Figures = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        return asdict(self)


def scenario(*, fast: bool = False, **stage: Any) -> Callable[[Play], Play]:
    """Register a function as a scenario; its name and first line become the scenario's, ``stage`` goes to ``Stage``."""

    def register(play: Play) -> Play:
        name = play.__name__
        _KNOWN[name] = Scenario(name, (play.__doc__ or "").strip().splitlines()[0], play, fast, stage)
        return play

    return register


def all_scenarios() -> dict[str, Scenario]:
    """Return every scenario by name, in order."""
    for name in MODULES:
        importlib.import_module(f".{name}", __package__)
    return dict(_KNOWN)


def run(name: str) -> Result:
    """Run one scenario; never raises but for KeyboardInterrupt."""
    it = all_scenarios()[name]
    begun = time.monotonic()
    try:
        with Stage(**it.stage) as stage:
            figures = it.play(stage)
    except CannotRun as why:
        return Result(name, "skipped", time.monotonic() - begun, str(why))
    except (QsafpError, OSError, ValueError, LookupError) as why:
        return Result(name, "failed", time.monotonic() - begun, f"{type(why).__name__}: {why}")
    return Result(name, "passed", time.monotonic() - begun, figures=figures)
