# SPDX-License-Identifier: Apache-2.0
"""Stack and RAM of the core on ARM: frames from gcc's -fstack-usage, calls from the disassembly of the very objects that are measured.

Calls through the port go to the board's code: they are named, and no part of the sums.  For mem* and the compiler's arithmetic,
which are the host's, LIBRARY_BYTES are added.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

DEADLINE = ("qsafp_tick", "qsafp_trip")  # all that the deadline thread calls
DEADLINE_BYTES = 512
LIBRARY_BYTES = 64
SERVICE = ("qsafp_command", "qsafp_init", "qsafp_create", "qsafp_service", "qsafp_set_load", "qsafp_note", "qsafp_deinit")
POINTED = {"qsafp_tree_range": ("leaf_of",)}  # indirect calls that stay in the core

RAM_TYPES = ("qsafp_t", "qsafp_command_t", "qsafp_gate_page_t")
RAM_BYTES = (8 + 16 + 64 + 24) * 1024  # requirements note 13: lease, response, audit, stacks and data

FUNCTION = re.compile(r"^[0-9a-f]+ <([^>]+)>:$")
CALL = re.compile(r"\t(?:blx?|b(?:\.[nw])?)\t[0-9a-f]+ <([^>+]+)>")
INDIRECT = re.compile(r"\t(?:blx\t(?:r\d+|ip)|bx\t(?:r\d+|ip))\b")


@dataclass
class Function:
    """One compiled function: its frame in bytes, what it calls by name, and whether it calls through a pointer."""

    frame: int
    calls: set[str] = field(default_factory=set)
    indirect: bool = False


@dataclass(frozen=True)
class Depth:
    """The deepest chain of calls from one function: bytes, and the names on the way."""

    total: int
    path: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.total} B by {' > '.join(self.path)}"


class StackError(Exception):
    """A frame of unknown size, a recursion, or a function that does not exist."""


def plain(name: str) -> str:
    """The source's name of a clone such as head.constprop.0."""
    return name.split(".")[0]


class Graph:
    """Every function of the core, by object and name."""

    def __init__(self) -> None:
        self.functions: dict[tuple[str, str], Function] = {}
        self.outside: set[str] = set()

    def add(self, obj: str, usage: str, disassembly: str) -> None:
        """Take one object's .su file and its ``objdump -d --no-show-raw-insn``."""
        frames: dict[str, int] = {}
        for line in usage.splitlines():
            where, size, kind = line.split("\t")
            if kind != "static":
                raise StackError(f"{where}: a {kind} frame")
            name = plain(where.split(":")[-1])
            frames[name] = max(frames.get(name, 0), int(size))
        here: Function | None = None
        for line in disassembly.splitlines():
            start = FUNCTION.match(line)
            if start:
                here = self.functions.setdefault((obj, plain(start[1])), Function(frames[plain(start[1])]))
            elif here:
                here.calls.update(plain(c) for c in CALL.findall(line))
                here.indirect = here.indirect or bool(INDIRECT.search(line))

    def find(self, obj: str, name: str) -> tuple[str, str] | None:
        """The function that this object means by a name; None if it is outside of the core."""
        if (obj, name) in self.functions:
            return obj, name
        return next((key for key in self.functions if key[1] == name), None)

    def deepest(self, key: tuple[str, str], above: tuple[str, ...] = ()) -> Depth:
        """The most stack that a call of this function needs, itself included."""
        if key[1] in above:
            raise StackError(f"recursion: {' > '.join((*above, key[1]))}")
        f = self.functions[key]
        best = Depth(0, ())
        if f.indirect and key[1] not in POINTED:
            self.outside.add("the port")
        for name in sorted((f.calls | set(POINTED.get(key[1], ()))) - {key[1]}):
            callee = self.find(key[0], name)
            if callee is None:
                self.outside.add(name)
                best = max(best, Depth(LIBRARY_BYTES, (name,)), key=lambda d: d.total)
                continue
            below = self.deepest(callee, (*above, key[1]))
            best = below if below.total > best.total else best
        return Depth(f.frame + best.total, (key[1], *best.path))

    def worst(self, roots: tuple[str, ...]) -> tuple[Depth, list[str]]:
        """The deepest of several functions, and what they call outside of the core."""
        self.outside = set()
        depths = []
        for root in roots:
            key = self.find("", root)
            if key is None:
                raise StackError(f"no function {root}")
            depths.append(self.deepest(key))
        return max(depths, key=lambda d: d.total), sorted(self.outside)


def check_stack(graph: Graph) -> tuple[str, Depth]:
    """Hold the deadline path to its budget; return a line about it, and the service thread's need."""
    deadline, outside = graph.worst(DEADLINE)
    uncounted = [n for n in outside if not re.fullmatch(r"the port|mem\w+|__aeabi_\w+", n)]
    if uncounted:
        raise StackError(f"the deadline path calls {', '.join(uncounted)}, of unknown stack")
    if deadline.total > DEADLINE_BYTES:
        raise StackError(f"the deadline path needs {deadline}; {DEADLINE_BYTES} B are allowed")
    service, _ = graph.worst(SERVICE)
    return f"stack: deadline path {deadline} of {DEADLINE_BYTES} B (not counted: the port)", service


def ram_source() -> str:
    """A C file whose objects are as large as the types."""
    return '#include "qsafp.h"\n' + "".join(f"extern char size_of_{t}[sizeof({t})];\nchar size_of_{t}[sizeof({t})];\n" for t in RAM_TYPES)


def check_ram(symbols: str, service: Depth) -> str:
    """Hold state and stacks to note 13, from ``nm -S -t d`` of ram_source(); the log is in the store, not in RAM."""
    stack = service.total + DEADLINE_BYTES
    sizes = {m[2]: int(m[1]) for m in re.finditer(r"^\d+ (\d+) \w size_of_(\w+)$", symbols, re.M)}
    total = sum(sizes[t] for t in RAM_TYPES) + stack
    line = f"RAM: {', '.join(f'{t} {sizes[t]}' for t in RAM_TYPES)}, stacks {stack} (service {service}): {total} of {RAM_BYTES} B"
    if total > RAM_BYTES:
        raise StackError(f"{line}: over by {total - RAM_BYTES}")
    return line


def read_graph(objects: list[Path], disassemblies: list[str]) -> Graph:
    """The graph of some objects, compiled with -fstack-usage."""
    graph = Graph()
    for obj, text in zip(objects, disassemblies, strict=True):
        graph.add(obj.stem, obj.with_suffix(".su").read_text(), text)
    return graph
