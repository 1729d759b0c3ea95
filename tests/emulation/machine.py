# SPDX-License-Identifier: Apache-2.0
"""A board under QEMU: start it, run programs in it, look at its lines and drive them from outside, end it whatever happened.

Everything that was said is kept in ``build/boards/<board>``: console.log, commands.log, qemu.log, trace.log.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import amdpt
from boards import Board
from channels import Answer, BoardError, Commands, Lines, Qmp, Qtest
from image import OUT, Image

__all__ = ["SLOW", "Machine", "die_with_parent", "wait_for"]

SLOW = 4.0  # the host may be this much slower than a quiet one
TRACED = re.compile(r"\d+@(?P<at>\d+\.\d+):(?P<what>\w+) (?P<rest>.*)")
PR_SET_PDEATHSIG = 1


def wait_for(check: Callable[[], object], what: str, timeout_s: float = 120.0, *, pause_s: float = 0.1) -> None:
    """Wait until a condition holds.  Raises BoardError."""
    end = time.monotonic() + timeout_s * SLOW
    while not check():
        if time.monotonic() > end:
            raise BoardError(f"not in {timeout_s * SLOW:.0f} s: {what}")
        time.sleep(pause_s)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """In a child: get this signal when the thread that started it ends, whatever ends it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


class Machine:
    """One emulated board.  As a context manager it is running inside, and gone after."""

    def __init__(self, board: Board, image: Image, *, extra: tuple[str, ...] = (), append: str = "", trace: tuple[str, ...] = ()) -> None:
        """Name what to run; ``extra`` QEMU words, ``append`` kernel words, ``trace`` events of QEMU to record."""
        self.board, self.image = board, image
        self.extra, self._append, self._traced = extra, append, trace
        self.out = OUT / board.name
        self.out.mkdir(parents=True, exist_ok=True)
        self._disk = self.out / "disk.qcow2"
        self.part = self.out / "part.img"  # what the flash or EEPROM of the log holds
        self._process: subprocess.Popen[bytes] | None = None
        self.boot_s = 0.0
        self.at_start: list[Callable[[], object]] = []  # after each start that the guest made by itself

    # ---- life ----

    def __enter__(self) -> Self:
        """Start with a fresh disk."""
        for log in self.out.glob("*.log"):
            log.unlink()
        self.blank_disk()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """End it; what it wrote to its disk is dropped."""
        self.power_off()
        self._disk.unlink(missing_ok=True)

    def blank_disk(self) -> None:
        """Make the disk anew: what the guest writes goes there, the base stays as it is."""
        self._disk.unlink(missing_ok=True)
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self.image.disk), str(self._disk)]
        subprocess.run(words, check=True, timeout=60)
        self.part.write_bytes(b"\xff" * self.board.part_bytes)

    def start(self) -> None:
        """Start QEMU, with the disk as it was left, and wait for the guest.  Raises BoardError."""
        assert self._process is None
        self._sockets = Path(tempfile.mkdtemp(prefix="board-"))
        if self.board.outside == "amdpt":
            amdpt.power_on(self.out)
        began = time.monotonic()
        with (self.out / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.words(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent
            )
        try:
            self.commands = Commands(self._connect("cmd"), self.out / "commands.log")
            self.qmp = Qmp(self._connect("qmp"))
            self.qtest = Qtest(self._connect("qtest"))
            self.boot_id = self.commands.ready(self.board.boot_s * SLOW)
        except BaseException:
            self.power_off()
            raise
        self.boot_s = time.monotonic() - began

    def again(self) -> None:
        """Wait until the guest has started again by itself.  Raises BoardError."""
        self.boot_id = self.commands.ready(self.board.boot_s * SLOW)
        for action in self.at_start:
            action()

    def cut(self) -> None:
        """Cut the power between two instructions.  What the parts had taken, they keep; what only the guest's memory held is gone."""
        if self._process is not None:
            self.qmp.call("stop")  # QEMU hands down what it still held back of the parts and the disk
        self.power_off()

    def power_off(self) -> None:
        """Cut the power: kill QEMU."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            if hasattr(self, "commands"):
                self.commands.close()
            shutil.rmtree(self._sockets, ignore_errors=True)

    def words(self) -> list[str]:
        """QEMU's command line."""
        b, i = self.board, self.image
        command = f"console={b.console} panic=-1 {self._append}".strip()
        words = [
            b.arch.qemu,
            *(w.format(out=self.out) for w in b.qemu),
            "-accel",
            "tcg",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-kernel",
            i.kernel,
        ]
        words += ["-initrd", i.initramfs, "-append", command, *(["-dtb", i.dtb] if i.dtb else [])]
        words += [
            "-drive",
            f"{b.drive},format=qcow2,file={self._disk},cache=unsafe",
            "-nic" if b.nic else "-netdev",
            b.nic or "user,id=net",
        ]
        words += ["-chardev", f"file,id=console,append=on,path={self.out / 'console.log'}", "-serial", "chardev:console"]
        words += [*(["-serial", "chardev:cmd"] if b.second_serial else []), "-msg", "timestamp=on", "-D", self.out / "trace.log"]
        words += [w for t in self._traced for w in ("-trace", t)]
        for name in ("cmd", "qmp", "qtest"):
            words += ["-chardev", f"socket,id={name},path={self._sockets / name},server=on,wait=off"]
        return [str(w) for w in (*words, "-mon", "chardev=qmp,mode=control", "-qtest", "chardev:qtest", "-qtest-log", "none", *self.extra)]

    def _connect(self, name: str) -> Lines:
        return Lines(self._sockets / name, self._gone)

    def _gone(self) -> str:
        """Why QEMU does not run, or nothing."""
        if self._process is None or self._process.poll() is None:
            return ""
        said = (self.out / "qemu.log").read_text(errors="replace").strip().splitlines()
        return f"QEMU ended with {self._process.returncode}: {said[-1] if said else 'no message'}"

    # ---- inside ----

    def run(self, *words: str, timeout_s: float = 30.0) -> Answer:
        """Run a program in the guest.  A limit is stretched for slow hosts.  Raises BoardError when the guest does not answer."""
        limit = timeout_s * SLOW
        return self.commands.ask(shlex.join(words), limit + 60, run=list(words), timeout=limit)

    def sh(self, script: str, timeout_s: float = 30.0) -> str:
        """Run a shell script in the guest and return its output.  Raises BoardError if it fails."""
        return self.run("sh", "-c", script, timeout_s=timeout_s).ok()

    def spawn(self, script: str, log: str) -> int:
        """Start a program that stays, with its output in a file of the guest; its process id, which is its group's."""
        return int(self.sh(f"setsid sh -c {shlex.quote('exec ' + script)} </dev/null >{log} 2>&1 & echo $!"))

    def until(self, script: str, what: str, *, pid: int = 0, timeout_s: float = 60.0) -> None:
        """Wait until a script succeeds in the guest; not once process ``pid`` is gone.  Raises BoardError."""

        def done() -> bool:
            if self.run("sh", "-c", script).code == 0:
                return True
            if pid and self.run("kill", "-0", str(pid)).code:
                raise BoardError(f"process {pid} ended before: {what}")
            return False

        wait_for(done, what, timeout_s)

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file in the guest."""
        text = base64.b64encode(data).decode()
        self.commands.ask(f"put {path} ({len(data)} bytes)", 600, put=path, data=text, mode=mode).ok()

    def get(self, path: str) -> bytes:
        """Read a file of the guest.  Raises BoardError."""
        return base64.b64decode(self.run("busybox", "base64", path, timeout_s=600).ok())

    # ---- outside ----

    def traced(self, what: str) -> list[tuple[float, str]]:
        """Host time in s and text of each traced event of this name so far."""
        path = self.out / "trace.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        found = [m for m in map(TRACED.match, lines) if m and m["what"] == what]
        return [(float(m["at"]), m["rest"]) for m in found]
