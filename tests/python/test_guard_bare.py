# SPDX-License-Identifier: Apache-2.0
"""The guard process is a bare interpreter: small, and nothing of how it was started stays open."""

from __future__ import annotations

from pathlib import Path

from guard_kit import Device, short_dir

RSS_MIB = 14  # the goal of docs/benchmarks.md; a budget, not a timing
PSS_MIB = 8


def _kib(pid: int, file: str, name: str) -> int:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def test_the_guard_stays_within_its_memory_budget() -> None:
    with short_dir() as root:
        device = Device(root).start()
        try:
            device.lease()
            assert device.guard
            rss, pss = _kib(device.guard.pid, "status", "VmRSS"), _kib(device.guard.pid, "smaps_rollup", "Pss:")
        finally:
            device.close()
    assert 1 < rss / 1024 <= RSS_MIB
    assert 1 < pss / 1024 <= PSS_MIB


def test_the_file_that_brought_the_keys_is_closed() -> None:
    with short_dir() as root:
        device = Device(root).start()
        try:
            assert device.guard
            process = Path(f"/proc/{device.guard.pid}")
            targets = [str(fd.readlink()) for fd in (process / "fd").iterdir()]
            words = (process / "cmdline").read_bytes().split(b"\0")
        finally:
            device.close()
    assert any("qsafp-gate" in t for t in targets)
    assert not any("qsafp-guard" in t for t in targets)
    assert b"-I" in words
    assert str(device.toml).encode() in words


def test_a_guard_that_cannot_start_says_why_from_there_too() -> None:
    with short_dir() as root:
        device = Device(root)
        (device.state / "log.ring").write_bytes(b"\0" * 100)
        done = device.call()
        device.close()
    assert done.returncode == 1
    assert done.stderr.startswith("guard: ")
    assert "Traceback" not in done.stderr
