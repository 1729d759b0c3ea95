# SPDX-License-Identifier: Apache-2.0
"""What talks to a running QEMU: the guest's command channel, QMP, and qtest beside the emulated processor."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Answer", "BoardError", "Commands", "Lines", "Qmp", "Qtest"]


class BoardError(Exception):
    """A board did not do what it was told; the message says what it said."""


class Lines:
    """Lines over a Unix socket, each wait bounded; ``alive`` says why nothing can come any more, or nothing."""

    def __init__(self, path: Path, alive: Callable[[], str]) -> None:
        """Connect, within 60 s."""
        self._alive = alive
        end = time.monotonic() + 60
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(str(path))
                break
            except OSError as why:
                self._socket.close()
                if alive() or time.monotonic() > end:
                    raise BoardError(f"{path.name}: {alive() or why}") from why
                time.sleep(0.05)
        self._waiting = b""

    def send(self, line: str) -> None:
        """Send one line."""
        self._socket.sendall(line.encode() + b"\n")

    def line(self, timeout_s: float) -> str | None:
        """Return the next line, None if none came in time; raises BoardError when QEMU is gone."""
        end = time.monotonic() + timeout_s
        while b"\n" not in self._waiting:
            self._socket.settimeout(max(0.01, min(1.0, end - time.monotonic())))
            try:
                chunk = self._socket.recv(65536)
            except TimeoutError:
                if time.monotonic() >= end:
                    return None
                continue
            if not chunk:
                raise BoardError(f"QEMU closed the channel: {self._alive() or 'it still runs'}")
            self._waiting += chunk
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line.decode(errors="replace").strip()

    def close(self) -> None:
        """Close."""
        self._socket.close()


class Qmp:
    """QEMU's machine protocol: look at and change the machine from outside."""

    def __init__(self, lines: Lines) -> None:
        """Take up the connection.  Raises BoardError."""
        self._lines = lines
        self.events: list[dict[str, Any]] = []
        self._next()
        self.call("qmp_capabilities")

    def _next(self, timeout_s: float = 60) -> dict[str, Any]:
        text = self._lines.line(timeout_s)
        if text is None:
            raise BoardError(f"QMP: nothing in {timeout_s:.0f} s")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def event(self, name: str, timeout_s: float) -> dict[str, Any]:
        """Wait for an event that nobody took yet, and take it; ``timestamp`` is the host's time.  Raises BoardError."""
        end = time.monotonic() + timeout_s
        while not (found := [e for e in self.events if e["event"] == name]):
            self.events.append(self._next(end - time.monotonic()))
        self.events.remove(found[0])
        return found[0]

    def call(self, name: str, **arguments: object) -> Any:
        """Execute a command and return its answer.  Raises BoardError with QEMU's words."""
        self._lines.send(json.dumps({"execute": name, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}))
        while "event" in (answer := self._next()):
            self.events.append(answer)
        if "error" in answer:
            raise BoardError(f"QMP {name}: {answer['error']['desc']}")
        return answer["return"]

    def all(self, names: list[str]) -> None:
        """Execute commands that take nothing one right after the other.  Raises BoardError with QEMU's words."""
        self._lines.send("\n".join(json.dumps({"execute": name}) for name in names))
        left = len(names)
        while left:
            answer = self._next()
            if "error" in answer:
                raise BoardError(f"QMP: {answer['error']['desc']}")
            left -= "return" in answer

    def get(self, path: str, name: str) -> Any:
        """Read a property of a device (qom-get)."""
        return self.call("qom-get", path=path, property=name)

    def set(self, path: str, name: str, value: object) -> None:
        """Change a property of a device (qom-set)."""
        self.call("qom-set", path=path, property=name, value=value)

    def find(self, kind: str, path: str = "/machine", depth: int = 3) -> list[str]:
        """Paths of the devices of a kind, such as ``pl061``, in QEMU's order."""
        out = []
        for item in self.call("qom-list", path=path):
            if item["type"].startswith("child<"):
                here = f"{path}/{item['name']}"
                if item["type"] == f"child<{kind}>":
                    out.append(here)
                elif depth > 1:
                    out += self.find(kind, here, depth - 1)
        return out


class Qtest:
    """QEMU's test protocol beside TCG: drive a device's input lines while the guest runs, and see its output lines change."""

    CHANGE = re.compile(r"IRQ (?P<what>raise|lower) (?P<line>\d+)")

    def __init__(self, lines: Lines) -> None:
        """Take up the connection."""
        self._lines = lines
        self._changes: list[tuple[int, int]] = []

    def _change(self, line: str) -> bool:
        """Take up what QEMU says of an intercepted line by itself."""
        if said := self.CHANGE.match(line):
            self._changes.append((int(said["line"]), int(said["what"] == "raise")))
        return bool(said)

    def call(self, *words: object) -> str:
        """Send a command, return what follows OK.  Raises BoardError."""
        self._lines.send(" ".join(map(str, words)))
        while (answer := self._lines.line(60)) is not None and self._change(answer):
            pass
        if answer is None or not answer.startswith("OK"):
            raise BoardError(f"qtest {words[0]}: {answer or 'no answer in 60 s'}")
        return answer[2:].strip()

    def drive(self, path: str, number: int, level: int, name: str = "unnamed-gpio-in") -> None:
        """Set input ``number`` of the device at ``path`` to 0 or 1."""
        self.call("set_irq_in", path, name, number, level)

    def intercept(self, path: str) -> None:
        """From now on keep each change of this device's outputs; QEMU does so for one device only."""
        self.call("irq_intercept_out", path)

    def changes(self) -> list[tuple[int, int]]:
        """Number and level of each change of an intercepted output so far."""
        while (line := self._lines.line(0)) is not None:
            if not self._change(line):
                raise BoardError(f"qtest: {line}")
        return self._changes


@dataclass(frozen=True)
class Answer:
    """How a program in the guest ended (None: killed after its time) and what it printed."""

    words: str
    code: int | None
    out: str
    err: str

    def ok(self) -> str:
        """Standard output of a success.  Raises BoardError with all it said."""
        if self.code != 0:
            raise BoardError(f"in the guest: {self.words}\n{self.out}{self.err}exit {self.code}")
        return self.out


class Commands:
    """The guest's own command server (guest/serve.py), asked one request after the other."""

    def __init__(self, lines: Lines, log: Path) -> None:
        """Take up the channel; every request and answer goes into ``log``."""
        self._lines = lines
        self._log = log.open("a")
        self._number = 0

    def ready(self, timeout_s: float) -> str:
        """Wait until a start of the guest is complete; its boot id.  Raises BoardError."""
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            line = self._lines.line(left)
            with contextlib.suppress(ValueError, TypeError):
                if isinstance(found := json.loads(line or ""), dict) and "ready" in found:
                    return str(found["ready"])
        raise BoardError(f"the guest was not ready in {timeout_s:.0f} s")

    def ask(self, shown: str, timeout_s: float, **request: object) -> Answer:
        """Send a request and return its answer.  Raises BoardError when none comes within ``timeout_s``."""
        self._number += 1
        self._log.write(f"{time.time():.3f} > {shown}\n")
        self._log.flush()
        self._lines.send(json.dumps({"id": self._number, **request}))
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            line = self._lines.line(left)
            if line is None:
                break
            try:
                found = json.loads(line)
            except ValueError:
                continue  # a line cut by a restart of the guest
            if "ready" in found:
                raise BoardError(f"the guest started again during: {shown}")
            if found.get("id") == self._number:
                return self._answer(shown, found)
        raise BoardError(f"no answer in {timeout_s:.0f} s from the guest: {shown}")

    def _answer(self, shown: str, found: dict[str, Any]) -> Answer:
        text = {k: base64.b64decode(found[k]).decode(errors="replace") for k in ("out", "err")}
        answer = Answer(shown, found["code"], text["out"], text["err"])
        self._log.write(f"{time.time():.3f} < {answer.code}\n{answer.out}{answer.err}\n")
        self._log.flush()
        return answer

    def close(self) -> None:
        """Close log and channel."""
        self._log.close()
        self._lines.close()
