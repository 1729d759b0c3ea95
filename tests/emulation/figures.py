# SPDX-License-Identifier: Apache-2.0
"""Figures of a run: counts, bytes, and times without a goal.  They go into the board's JUnit file and a JSON file for the benchmarks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["Figures"]


class Figures:
    """What was measured, by key; a key of an emulated board begins with ``emulated.``."""

    def __init__(self, path: Path, board: str, junit: Callable[[str, object], None]) -> None:
        """Begin anew in this file."""
        self._path, self._board, self._junit = path, board, junit
        self._found: dict[str, dict[str, object]] = {}
        path.unlink(missing_ok=True)

    def put(self, key: str, value: float, unit: str, *, samples: Sequence[float] = (), note: str = "") -> None:
        """Keep one figure, of samples too their p50, p99 and number, and print it."""
        ordered = sorted(samples)
        p50, p99 = (ordered[int(q * (len(ordered) - 1))] for q in (0.5, 0.99)) if ordered else (None, None)
        row = {"board": self._board, "value": value, "unit": unit, "p50": p50, "p99": p99, "n": len(ordered) or 1, "note": note}
        self._found[key] = row
        self._path.write_text(json.dumps(self._found, indent=1) + "\n")
        self._junit(key, json.dumps(row))
        print(
            f"{key} = {value:g} {unit}"
            + (f", p50 {p50:g}, p99 {p99:g}, n {len(ordered)}" if ordered else "")
            + (f" ({note})" if note else "")
        )
