# SPDX-License-Identifier: Apache-2.0
"""The guest runs Debian's kernel, and our wheel for its processor."""

from __future__ import annotations

from machine import Machine


def test_the_kernel_is_debians(machine: Machine) -> None:
    assert "Debian" in machine.sh("uname -v")
    assert machine.sh("uname -m").strip() == machine.board.arch.machine
    print(f"booted in {machine.boot_s:.1f} s")


def test_every_module_of_the_board_was_loaded(machine: Machine) -> None:
    console = (machine.out / "console.log").read_text(errors="replace")
    assert [line for line in console.splitlines() if "BOARD:" in line] == []


def test_our_wheel_was_built_for_this_processor(machine: Machine) -> None:
    said = machine.sh("python3 -c 'import nacl.bindings, cryptography, aiohttp, qsafp_embedded._core as c; print(c.__file__)'")
    assert said.strip().endswith(f"cpython-311-{machine.board.arch.triplet}.so")


def test_a_failure_in_the_guest_is_seen(machine: Machine) -> None:
    assert machine.run("sh", "-c", "echo out; echo err >&2; exit 3").code == 3
    assert machine.run("no-such-program").code == 127
    assert machine.run("sleep", "600", timeout_s=0.1).code is None


def test_long_output_comes_whole(machine: Machine) -> None:
    assert [int(row) for row in machine.sh("busybox seq 20000", timeout_s=60).splitlines()] == list(range(1, 20001))
