# SPDX-License-Identifier: Apache-2.0
"""The stack and RAM check refuses what it should: a deep path, a recursion, a frame of unknown size, a foreign call, too much state."""

from __future__ import annotations

import pytest
import stack_c


def graph(frames: dict[str, int], calls: dict[str, list[str]]) -> stack_c.Graph:
    """A core of one object whose functions have these frames and calls; "*" is a call through a pointer."""
    g = stack_c.Graph()
    usage = "".join(f"a.c:1:1:{name}\t{size}\tstatic\n" for name, size in frames.items())
    text = ""
    for name in frames:
        text += f"00000000 <{name}>:\n"
        text += "".join("   0:\tblx\tr3\n" if c == "*" else f"   0:\tbl\t0 <{c}>\n" for c in calls.get(name, []))
    g.add("a", usage, text)
    return g


DEADLINE = {"qsafp_tick": 100, "qsafp_trip": 16, "low": 300} | dict.fromkeys(stack_c.SERVICE, 8)


def test_the_deepest_path_is_summed_with_a_library_call_and_named() -> None:
    stack, service = stack_c.check_stack(graph(DEADLINE, {"qsafp_tick": ["low", "*"], "low": ["memcpy"]}))
    assert f"{400 + stack_c.LIBRARY_BYTES} B by qsafp_tick > low > memcpy of 512 B" in stack
    assert service.total == 8


@pytest.mark.parametrize(
    ("frames", "calls", "says"),
    [
        ({"low": 413}, {"qsafp_tick": ["low"]}, "513 B by qsafp_tick > low; 512 B are allowed"),
        ({}, {"qsafp_trip": ["low"], "low": ["qsafp_trip"]}, "recursion: qsafp_trip > low > qsafp_trip"),
        ({}, {"qsafp_tick": ["printf"]}, "printf, of unknown stack"),
    ],
)
def test_a_deadline_path_out_of_bounds_is_refused(frames: dict[str, int], calls: dict[str, list[str]], says: str) -> None:
    with pytest.raises(stack_c.StackError, match=says):
        stack_c.check_stack(graph(DEADLINE | frames, calls))


def test_a_frame_of_unknown_size_and_a_lost_function_are_refused() -> None:
    with pytest.raises(stack_c.StackError, match="dynamic"):
        stack_c.Graph().add("a", "a.c:1:1:f\t8\tdynamic\n", "")
    with pytest.raises(stack_c.StackError, match="no function qsafp_tick"):
        stack_c.check_stack(stack_c.Graph())


def test_more_state_than_the_ceiling_is_refused() -> None:
    small = "".join(f"00000000 00001000 B size_of_{t}\n" for t in stack_c.RAM_TYPES)
    room = stack_c.RAM_BYTES - 3000 - stack_c.DEADLINE_BYTES
    assert "of 114688 B" in stack_c.check_ram(small, stack_c.Depth(room, ("f",)))
    with pytest.raises(stack_c.StackError, match=r"over by 1$"):
        stack_c.check_ram(small, stack_c.Depth(room + 1, ("f",)))
