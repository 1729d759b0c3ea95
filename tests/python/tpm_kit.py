# SPDX-License-Identifier: Apache-2.0
"""A software TPM, and a wire to it that a test may cut, hang, or make answer what no healthy TPM would."""

from __future__ import annotations

import contextlib
import marshal
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path

import pytest
from guard_kit import LIMIT_S, Device, short_dir, until

from qsafp_embedded.cli.ports import free_ports
from qsafp_embedded.guard import config, enrol
from qsafp_embedded.guard.__main__ import BARE

MISSING = [
    n
    for n, there in (
        ("swtpm", shutil.which("swtpm")),
        ("libtss2-esys-3.0.2-0", find_library("tss2-esys")),
        ("libtss2-tcti-swtpm0", find_library("tss2-tcti-swtpm")),
    )
    if not there
]
needs_tpm = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
NV = 0x01815100  # tpm_nv of these tests
PRIMARY, INCREMENT, EXTEND, NV_WRITE, NV_READ = 0x131, 0x134, 0x136, 0x137, 0x14E
DEFINE, UNDEFINE, LOAD, SIGN, UNSEAL = 0x12A, 0x122, 0x157, 0x15D, 0x15E


def by_owner(code: int, index: int, after: bytes = b"") -> bytes:
    """An NV command of the owner, whose password is empty."""
    body = struct.pack(">I", 0x40000001) + (b"" if code == DEFINE else struct.pack(">I", index))
    body += struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0) + after
    return struct.pack(">HII", 0x8002, 10 + len(body), code) + body


class Tpm:
    """A software TPM on a port of its own; its state outlives it, as a TPM's does."""

    def __init__(self, state: Path) -> None:
        self.state = state
        state.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_ports(2)[0]  # and swtpm's TCTI takes the next for the control channel
        self.start()

    @property
    def key(self) -> str:
        """What guard.toml says."""
        return f"tpm:swtpm:host=127.0.0.1,port={self.port}"

    def start(self, state: Path | None = None) -> None:
        """Start it, with another TPM's state if one is given."""
        at = [f"type=tcp,bindaddr=127.0.0.1,port={p}" for p in (self.port, self.port + 1)]
        where = ["--tpmstate", f"dir={state or self.state}", "--server", at[0], "--ctrl", at[1], "--flags", "startup-clear,not-need-init"]
        self.process = subprocess.Popen(["swtpm", "socket", "--tpm2", *where], start_new_session=True)
        until(self.listens)

    def listens(self) -> bool:
        """Whether its control port answers; the other takes one client at a time."""
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port + 1)) == 0

    def signal(self, number: int) -> None:
        """Stop it in its tracks, or let it go on."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """End it at once; its state stays."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(LIMIT_S)
            self.process = None

    def owner(self, code: int, index: int, after: bytes = b"") -> int:
        """Send one NV command as the owner, whose password is empty; returns the response code.  No guard may be connected."""
        command = by_owner(code, index, after)
        with socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT_S) as s:
            s.sendall(command)
            return int(struct.unpack(">HII", _exactly(s, 10))[2])


def _exactly(s: socket.socket, n: int) -> bytes:
    """That many bytes; raises ConnectionError if the other side ends before."""
    out = b""
    while len(out) < n:
        got = s.recv(n - len(out))
        if not got:
            raise ConnectionError("the other side is gone")
        out += got
    return out


def _message(s: socket.socket) -> bytes:
    """A command or an answer: tag, size, code, the rest."""
    head = _exactly(s, 10)
    return head + _exactly(s, struct.unpack(">I", head[2:6])[0] - 10)


Rule = Callable[[int, int], "int | bytes | Callable[[], object] | None"]


def void(what: Callable[[], object]) -> None:
    """Call it, whatever it returns."""
    what()


class Wire:
    """Between a guard and a TPM.  ``before(code, n)`` and ``after(code, n)`` see command n, counted from 0 since ``watch``.

    What they return: None, nothing happens; a number, the answer in place of the TPM's; bytes, a command of somebody else that
    goes first (both ``before`` only); a function, which is called, and then the line is dead.
    """

    def __init__(self, tpm: Tpm) -> None:
        self.tpm, self.port = tpm, free_ports(2)[0]
        self.before: Rule = lambda _code, _n: None
        self.after: Rule = lambda _code, _n: None
        self.seen: list[tuple[int, float]] = []
        self._over = False
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, args=(i,), daemon=True) for i in (0, 1)]
        self._listening = [socket.create_server(("127.0.0.1", self.port + i)) for i in (0, 1)]
        for thread in self._threads:
            thread.start()

    @property
    def key(self) -> str:
        """What guard.toml says."""
        return f"tpm:swtpm:host=127.0.0.1,port={self.port}"

    def codes(self) -> list[int]:
        """The commands seen, in order."""
        return [code for code, _ in self.seen]

    def watch(self, before: Rule | None = None, after: Rule | None = None) -> None:
        """Forget what was seen, and put other rules in force."""
        self.seen = []
        self.before, self.after = before or (lambda _code, _n: None), after or (lambda _code, _n: None)

    def _accept(self, which: int) -> None:
        while not self._over:
            try:
                client, _ = self._listening[which].accept()
            except OSError:
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.tpm.port + which), timeout=LIMIT_S)
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            threading.Thread(target=self._carry if which == 0 else self._copy, args=(client, server), daemon=True).start()

    def _copy(self, client: socket.socket, server: socket.socket) -> None:
        def one_way(a: socket.socket, b: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while got := a.recv(4096):
                    b.sendall(got)
            for s in (a, b):
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)  # the other way may wait in a recv, which closing does not end

        threading.Thread(target=one_way, args=(server, client), daemon=True).start()
        one_way(client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError), client, server:
            while True:
                command = _message(client)
                code = struct.unpack(">I", command[6:10])[0]
                n = len(self.seen)
                self.seen.append((code, time.monotonic()))
                rule = self.before(code, n)
                if callable(rule):
                    return void(rule)
                if isinstance(rule, bytes):
                    server.sendall(rule)
                    _message(server)
                elif rule is not None:
                    client.sendall(struct.pack(">HII", 0x8001, 10, rule))
                    continue
                server.sendall(command)
                answer = _message(server)
                rule = self.after(code, n)
                if callable(rule):
                    return void(rule)
                client.sendall(answer)

    def close(self) -> None:
        """Cut the wire."""
        self._over = True
        for s in self._listening:
            s.close()
        for s in self._open:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()


def refused(device: Device) -> str:
    """What the guard says when it does not start: one line."""
    done = device.call()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@contextmanager
def wired() -> Iterator[Wire]:
    """A TPM that runs, behind a wire."""
    with short_dir() as root:
        tpm = Tpm(root / "tpm")
        wire = Wire(tpm)
        try:
            yield wire
        finally:
            wire.close()
            tpm.stop()


@contextmanager
def enrolled(key: str, **more: object) -> Iterator[Device]:
    """A device enrolled there, its state and log bound to NV memory; its guard does not run yet."""
    with short_dir() as root:
        made = Device(root, device_key=key, **{"tpm_nv": f"0x{NV:08x}", **more})
        try:
            yield made
        finally:
            made.close()


def started(device: Device, **changed: int) -> None:
    """Start the guard with options that guard.toml does not let anyone set."""
    options = {**enrol.options(config.load(device.toml)), **changed}
    fd = os.memfd_create("options", 0)
    with os.fdopen(fd, "wb", closefd=False) as file:
        marshal.dump(options, file)
    os.lseek(fd, 0, os.SEEK_SET)
    words = [sys.executable, "-I", "-S", str(BARE), str(fd)]
    device.guard = subprocess.Popen(words, pass_fds=[fd], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    os.close(fd)
    assert device.guard.stdout is not None
    assert "serving" in device.guard.stdout.readline()
