# SPDX-License-Identifier: Apache-2.0
"""``make emulate BOARD=NAME LEAD=1``: validators and agent give the board that one looks at a lease; Ctrl-C ends all of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from unleashed import ROOT, Board, die_with_parent, until

pytestmark = pytest.mark.board(Board.name)
ENDS_S = 30.0
STARTED = 9  # the board, the agent, six validators and who started them


def born(pid: int) -> str:
    """When a process was started, nothing if there is none: a number that is used again is another process."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    return ""


def below(pid: int) -> dict[int, str]:
    """All that a process started, and when, by their numbers."""
    children: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    return {n: at for child in children for n, at in {child: born(child), **below(child)}.items()}


def left(started: dict[int, str]) -> list[str]:
    """The commands of those that are still there after a while; they are ended."""
    running = [pid for pid, at in started.items() if at and born(pid) == at]
    with contextlib.suppress(AssertionError):
        until(lambda: all(born(pid) != started[pid] for pid in running), ENDS_S / 3)
    running = [pid for pid in running if born(pid) == started[pid]]
    commands = [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in running]
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    return commands


@contextlib.contextmanager
def live(out: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, as it is started from a terminal; it keeps its files beside ``out``."""
    command = [sys.executable, "tests/monitor/live.py", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(out.parent / "t")}
    Path(env["TMPDIR"]).mkdir()
    with out.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=file, stderr=file, preexec_fn=die_with_parent)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_board_that_is_led_opens_its_gate_and_leaves_nothing_behind(folder: Path) -> None:
    out = folder / "out"
    with live(out, Board.name, "--lead") as process:
        until(lambda: process.poll() is not None or b"LEASE_VALID high" in out.read_bytes())
        assert process.poll() is None, out.read_text()
        started = below(process.pid)
        assert len(started) >= STARTED
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=ENDS_S) == 0, out.read_text()
    assert left(started) == []
    assert list((folder / "t").iterdir()) == []


def test_the_target_of_make_passes_on_whom_to_lead() -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    words = ["make", "-n", "emulate", f"BOARD={Board.name}", "LEAD=1"]
    said = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"tests/monitor/live.py {Board.name} --lead\n" in said
