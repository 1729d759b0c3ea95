# SPDX-License-Identifier: Apache-2.0
"""What the monitor's work takes of a processor (HW-16): ``python tests/monitor/power.py [BOARD]``.  Computed, not measured; docs/power.md.

Instructions come from figures.py, energy per instruction from what others published for cores of this class.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import figures

# Least: a 64-bit in-order RISC-V core in 22 nm, measured on silicon at 40 Gop/s/W.  Most: a Cortex-A53 in 28 nm at its highest voltage,
# 311 uW/MHz/V^2 at 1.33 V, with three cycles for each instruction.
LEAST_PJ, MOST_PJ = 1e3 / 40, 311 * 1.33**2 * 3
SIGNATURES = 4


@dataclass(frozen=True)
class Work:
    """Something the monitor does: instructions each time, times a second, and the power in mW that HW-16 allows."""

    what: str
    instructions: int
    per_s: int
    budget_mw: float

    def mw(self, pj: float) -> float:
        """The power that it takes on average, at so many pJ per instruction."""
        return self.instructions * self.per_s * pj * 1e-9

    @property
    def met(self) -> bool:
        """Even at the most."""
        return self.mw(MOST_PJ) < self.budget_mw

    def __str__(self) -> str:
        row = f"{self.what:<52}{self.instructions:>12,}{self.per_s:>8,}{self.mw(LEAST_PJ):>10.4f}{self.mw(MOST_PJ):>10.4f}"
        return f"{row}  < {self.budget_mw:g}{'' if self.met else '  MISSED'}"


def works(found: dict[str, int]) -> list[Work]:
    """What HW-16 names, from figures by name."""
    stored = found["append to flash, instructions"] - found["append without its store, as to RAM, instructions"]
    renewal = found["request_without_signature, instructions"] + found["lease_without_signatures, instructions"]
    renewal += found["ed25519_sign, instructions"] + SIGNATURES * found["ed25519_verify, instructions"] + figures.RENEWAL_RECORDS * stored
    call = found["validate through a service call, instructions"]
    return [
        Work("idle, the timer alone: 10 ticks a second", found["tick, and the loop's look at everything after it, instructions"], 10, 5),
        Work("validation by a service call, 1,000 a second", call, 1000, 100),
        Work(f"query and verify {SIGNATURES} signatures, one a second", renewal, 1, 500),
    ]


def measure(isa: figures.Isa) -> list[Work]:
    """Run a board; what it does not count itself is taken from the HiFive Unleashed."""
    found = {f.what: f.value for other in dict.fromkeys((figures.RV64, isa)) for f in figures.measure(other)}
    return works(found)


def main(argv: list[str]) -> int:
    """Print the table of one board, the HiFive Unleashed if none is named; 1 if a budget is missed."""
    isa = figures.ISAS[argv[0] if argv else figures.RV64.board.name]
    if missing := isa.board.absent() or figures.RV64.board.absent():
        print(f"SKIP power: {missing} not installed")
        return 0
    print(f"{isa.board.name}, computed, not measured: mW at {LEAST_PJ:.0f} and at {MOST_PJ:,.0f} pJ per instruction\n")
    print(f"{'':<52}{'instructions':>12}{'per s':>8}{'least mW':>10}{'most mW':>10}")
    found = measure(isa)
    print("\n".join(map(str, found)))
    return int(not all(w.met for w in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
