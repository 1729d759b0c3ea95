# SPDX-License-Identifier: Apache-2.0
"""examples/gate.c, compiled as C and C++ by each compiler, against a page served the way the guard serves it."""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from guard_kit import Device, short_dir

ROOT = Path(__file__).resolve().parent.parent.parent
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wundef", "-Werror", "-Icext/include"]
COMPILERS = {"gcc": ["-std=c11"], "clang-14": ["-std=c11"], "g++": ["-xc++", "-std=c++17"], "clang++-14": ["-xc++", "-std=c++17"]}
MAGIC, ARMED, GENERATION = 0x31504751, 0x5A3C96E1, 7
SECOND = 10**9


@pytest.fixture(params=COMPILERS)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    compiler: str = request.param
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    out = tmp_path / "gate"
    subprocess.run([compiler, *STRICT, *COMPILERS[compiler], "examples/gate.c", "-o", str(out)], cwd=ROOT, check=True, timeout=60)
    return out


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_dir() as made:
        yield made


@contextmanager
def serving(
    folder: Path, *, magic: int = MAGIC, armed: int = ARMED, ahead_ns: int = 3600 * SECOND, hello: bytes = b"QGP1\1\0\0\0"
) -> Iterator[Path]:
    """A gate.sock that hands out one page: boot time only, deadline `ahead_ns` from now, window two hours."""
    deadline = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + ahead_ns
    fd = os.memfd_create("page", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    with mmap.mmap(fd, 4096) as page:
        struct.pack_into("<IIQQQQQ", page, 0, magic, armed, 0, deadline, 0, 7200 * SECOND, 0)
    fcntl.fcntl(fd, 1033, 0x0001 | 0x0002 | 0x0004 | 0x0008)  # F_ADD_SEALS: SEAL, SHRINK, GROW, WRITE
    path = folder / "gate.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(30)

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.sendmsg([hello], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
                client.settimeout(30)
                client.recv(1)  # until it ends

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join(30)
    os.close(fd)


def run(program: Path, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, path, "3"], text=True, capture_output=True, timeout=30)


def test_it_works_while_the_gate_is_open(program: Path, folder: Path) -> None:
    with serving(folder) as path:
        done = run(program, path)
    assert (done.returncode, done.stdout) == (0, "batch 0 done\nbatch 1 done\nbatch 2 done\n")


CLOSED: list[tuple[dict[str, int | bytes], int]] = [
    ({"armed": GENERATION}, 1),
    ({"armed": 0}, 1),
    ({"armed": ARMED ^ 1}, 1),
    ({"ahead_ns": 0}, 1),
    ({"ahead_ns": -SECOND}, 1),
    ({"ahead_ns": 7300 * SECOND}, 1),
    ({"magic": MAGIC ^ (1 << 24)}, 2),
    ({"magic": 0}, 2),
    ({"hello": b"QGP2\1\0\0\0"}, 2),
    ({"hello": b"QGP1\2\0\0\0"}, 2),
]


@pytest.mark.parametrize(("what", "code"), CLOSED)
def test_it_does_nothing_where_the_gate_is_closed_or_of_another_version(
    program: Path, folder: Path, what: dict[str, Any], code: int
) -> None:
    with serving(folder, **what) as path:
        done = run(program, path)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr


def test_without_a_guard_it_does_nothing(program: Path, tmp_path: Path) -> None:
    done = run(program, tmp_path / "absent.sock")
    assert (done.returncode, done.stdout) == (2, "")


def test_behind_a_real_guard_it_works_until_the_validators_revoke(program: Path, folder: Path) -> None:
    device = Device(folder)
    try:
        path = device.start().run / "gate.sock"
        assert run(program, path).returncode == 1
        device.lease()
        assert run(program, path).returncode == 0
        device.revoke()
        assert run(program, path).returncode == 1
    finally:
        device.close()
