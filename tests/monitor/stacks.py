# SPDX-License-Identifier: Apache-2.0
"""How deep a board's monitor went into its stacks: they are zero when it starts, and what it never reached still is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from firmware import TARGETS, run
from unleashed import ROOT, Board

ABOVE = re.compile(r"^(\w+) \w stack_?0(?:_top)?$", re.M)  # the first stack ends here, the others follow
CORES = 2  # of the payload's that there are
MLDSA_BYTES = 8_000  # with Ed25519 alone it is below 6,000, with ML-DSA-65 above 10,000


@dataclass(frozen=True)
class Stack:
    """One stack: its name, bytes used at the deepest, bytes in all."""

    name: str
    used: int
    size: int


def stacks(board: Board, program: str = "monitor") -> list[Stack]:
    """The stack of the monitor's loop, and those of the payload's cores.  The board's first core must be in the monitor: it looks."""
    t = TARGETS[board.name]
    text = (ROOT / "cext/monitor/arch" / t.arch / "start.S").read_text()
    first, each = (int(size, 16) for size in re.findall(r"^#define STACK(?:0|_N) (0x\w+)$", text, re.M))
    above = ABOVE.search(run(t.cross + "nm", t.out / f"{program}.elf"))
    assert above, "no stack"
    at = int(above[1], 16) - first
    out = []
    for name, size in (("monitor", first), *((f"core {n + 1}", each) for n in range(CORES))):
        out.append(Stack(name, len(board.seen_by_first(at, size).lstrip(b"\0")), size))
        at += size
    return out


def used_up(board: Board, tell: Callable[[str, object], None], program: str = "monitor") -> list[Stack]:
    """After signatures with ML-DSA-65: the stacks of which nothing is left, or too little was used to believe that these are they."""
    found = stacks(board, program)
    for stack in found:
        tell(f"stack of {program}.elf, {stack.name}, bytes used of {stack.size:,}", stack.used)
    least = [MLDSA_BYTES] + CORES * [1]
    return [stack for stack, floor in zip(found, least, strict=True) if not floor <= stack.used < stack.size]
