# SPDX-License-Identifier: Apache-2.0
"""The gate: what a workload asks before every batch (HW-5, architecture decisions 3 and 4)."""

from __future__ import annotations

import array
import fcntl
import hashlib
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

from ._core import GatePage, crc16, direct, now_ns
from ._tables import Event, Opcode, Phase, Reason, Status
from .errors import (
    FormatError,
    GuardUnavailable,
    LeaseDenied,
    LeaseExpired,
    LeasePending,
    LeaseRefused,
    LeaseUninitialized,
    QsafpError,
    WrongModel,
)

__all__ = ["Gate", "GateInfo", "run_directory"]

P = ParamSpec("P")
R = TypeVar("R")

F_GET_SEALS = 1034
SEALS = 0x0002 | 0x0004 | 0x0010  # no shrinking, no growing, no new writers
HELLO = struct.Struct("<4sI")
ABI = 1
RETRY_S = 0.02
ANSWER_S = 0.5
AGGREGATE_CALLS, AGGREGATE_S = 4096, 1.0
DENIED_AT = 258  # in the status answer: a bit per validator that said no, u16

CLASSES: dict[Status, type[LeaseRefused]] = {
    Status.UNINITIALIZED: LeaseUninitialized,
    Status.PENDING: LeasePending,
    Status.EXPIRED: LeaseExpired,
    Status.DENIED: LeaseDenied,
    Status.VALID: LeaseExpired,  # a page that says valid and is not open is stale
}
PEOPLE = {Reason.VALIDATOR_DENIED, Reason.ANOMALY, Reason.INVALID_SIGNATURES, Reason.MANUAL, Reason.TAMPER}


@dataclass(frozen=True)
class GateInfo:
    """One consistent look at the gate page.

    ``remaining_s`` is how long the gate stays open if nothing happens (at most stale_after: the guard renews it every tick);
    ``generation`` is the last fail-safe, 0 if there was none.
    """

    open: bool
    attached: bool
    status: Status
    phase: Phase
    reason: Reason
    serial: int
    generation: int
    remaining_s: float
    model: bytes
    lease_id: bytes


def run_directory(lease: str = "main", base: str | os.PathLike[str] | None = None) -> Path:
    """Where a lease's sockets are: ``base``, $QSAFP_RUN_DIR, /run/qsafp or $XDG_RUNTIME_DIR/qsafp, then the lease name."""
    chosen = base or os.environ.get("QSAFP_RUN_DIR")
    if chosen:
        return Path(chosen) / lease
    system, user = Path("/run/qsafp"), os.environ.get("XDG_RUNTIME_DIR")
    return (system if (system / lease).exists() or not user else Path(user) / "qsafp") / lease


@direct
class Gate(GatePage):
    """The gate of one lease: ``if gate:``, ``gate.require()``, ``with gate:``, ``@gate``.

    Args:
        model: file or 32-byte SHA-256 of the model in use; a lease for another model never opens this gate.
        lease: lease name. run_dir: folder that holds the lease's folder (default: see ``run_directory``).
        guard_uid: user id the guard may have beside root and our own.
    A guard that is away makes a closed gate, not an error: it attaches again by itself.  Source: HW-5.
    """

    def __init__(
        self,
        *,
        model: str | os.PathLike[str] | bytes | None = None,
        lease: str = "main",
        run_dir: str | os.PathLike[str] | None = None,
        guard_uid: int | None = None,
    ) -> None:
        self.lease = lease
        self._path = str(run_directory(lease, run_dir) / "gate.sock")
        self._model = model if isinstance(model, bytes) or model is None else hashlib.sha256(Path(model).read_bytes()).digest()
        if self._model is not None and len(self._model) != 32:
            raise FormatError(f"model: {len(self._model)} bytes are not a SHA-256")
        self._uids = {0, os.geteuid()} | ({guard_uid} if guard_uid is not None else set())
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._tried = 0.0
        self._wrong: bytes | None = None
        self._lost = ""
        self._calls, self._since = 0, 0.0
        self._key, self._hash = secrets.token_bytes(32), bytes(32)
        self._reattach()

    # ---- attaching ----

    def _connect(self) -> tuple[socket.socket, int]:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        fds: list[int] = []
        try:
            s.settimeout(ANSWER_S)
            s.connect(self._path)
            uid = struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
            if uid not in self._uids:
                raise GuardUnavailable(f"{self._path}: served by uid {uid}, which may not be the guard; give guard_uid= if it is")
            hello, ancillary, _, _ = s.recvmsg(HELLO.size, socket.CMSG_SPACE(4))
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds = list(array.array("i", data[:4]))
            if len(hello) != HELLO.size or HELLO.unpack(hello) != (b"QGP1", ABI) or not fds:
                raise FormatError(f"{self._path}: the guard speaks another version; update one of the two")
            if fcntl.fcntl(fds[0], F_GET_SEALS) & SEALS != SEALS:
                raise FormatError(f"{self._path}: the gate page is not sealed")
        except BaseException:  # outermost: nothing stays open
            for fd in fds:
                os.close(fd)
            s.close()
            raise
        return s, fds[0]

    def _reattach(self) -> bool:
        """Try to map the guard's page, at most every 20 ms."""
        if time.monotonic() - self._tried < RETRY_S:
            return False
        self._tried = time.monotonic()
        try:
            s, fd = self._connect()
        except (OSError, QsafpError) as why:
            self._lost = str(why)
            return False
        self._drop()
        try:
            self._attach(fd)
        except (OSError, QsafpError) as why:
            self._lost = str(why)
            s.close()
            return False
        finally:
            os.close(fd)
        found = self._fields()["model"]
        self._wrong = found if self._model is not None and found != self._model else None
        if self._wrong is not None:
            self._detach()
        s.setblocking(False)
        self._sock = s
        return self._wrong is None

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _guard_gone(self) -> bool:
        if self._sock is None:
            return True
        try:
            return not self._sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _slow(self) -> bool:
        """The second look: once more at the page, then a new page if the guard behind this one is gone."""
        if self._open():
            return True
        with self._lock:
            if self._guard_gone() and self._reattach():
                return bool(self._open())
        return False

    # ---- asking ----

    def check(self) -> Status:
        """Status now: VALID only if the gate is open this very moment (HW-5)."""
        if self:
            return Status.VALID
        status = Status(self._fields()["status"])
        return Status.EXPIRED if status is Status.VALID else status

    def info(self) -> GateInfo:
        """One look at everything the page says."""
        is_open = bool(self)
        f = self._fields()
        left = (f["deadline_ns"] - now_ns()) / 1e9 if is_open else 0.0
        names = {k: f[k] for k in ("attached", "serial", "generation", "model", "lease_id")}
        status, phase, reason = Status(f["status"]), Phase(f["phase"]), Reason(f["reason"])
        return GateInfo(open=is_open, status=status, phase=phase, reason=reason, remaining_s=max(left, 0.0), **names)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the gate is open; False if ``timeout`` seconds passed first."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self:
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(0.005)
        return True

    def _ask(self, opcode: int, payload: bytes = b"") -> bytes:
        """One command frame over a connection of its own; raises OSError or QsafpError."""
        frame = struct.pack("<BBH", 1, opcode, len(payload)) + payload
        s, fd = self._connect()
        os.close(fd)
        with s:
            s.send(frame + struct.pack("<H", crc16(frame)))
            answer = s.recv(2048)
        if len(answer) < 7 or answer[2]:
            raise GuardUnavailable(f"{self._path}: the guard refused (status {answer[2] if len(answer) > 2 else 'none'})")
        return answer[5:-2]

    def _who(self) -> list[int]:
        try:
            mask = int.from_bytes(self._ask(Opcode.STATUS)[DENIED_AT:][:2], "little")
        except (OSError, QsafpError):
            return []
        return [i for i in range(16) if mask >> i & 1]

    def _refusal(self) -> LeaseRefused:
        if self._wrong is not None and self._model is not None:
            named, loaded = self._wrong.hex()[:16], self._model.hex()[:16]
            return WrongModel(f"lease {self.lease} is for model {named}…, not for {loaded}…", resume="load the model the lease names")
        i = self.info()
        if not i.attached:
            start = "start it: python -m qsafp_embedded.agent --config agent.toml"
            return LeaseUninitialized(f"no guard serves {self._path} ({self._lost})", resume=start)
        since = (now_ns() - self._fields()["deadline_ns"]) / 1e9 if i.serial else None
        who = self._who() if i.reason is Reason.VALIDATOR_DENIED else []
        if i.reason in PEOPLE:
            resume = "people at the validators release it: qsafp unlock"
        elif self._guard_gone():
            resume = "the guard is gone; it resumes when a guard serves this lease again"
        else:
            resume = "resumes by itself with the next lease"
        said = f", refused by validators {', '.join(map(str, who))}" if who else ""
        text = f"lease {self.lease} #{i.serial}: gate closed ({i.status.name}, {i.reason.name}{said}); {resume}"
        return CLASSES[i.status](text, reason=i.reason.name, since=since, serial=i.serial, resume=resume, refused_by=who)

    def _refuse(self) -> None:
        if not self._slow():
            raise self._refusal()

    # ---- using ----

    def record(self, data: bytes = b"", *, calls: int = 1) -> None:
        """Count finished inferences; the guard's log gets one record a second or per 4,096 calls (HW-9).

        Args: data: the input, folded into a running keyed hash. calls: how many inferences this was.
        """
        now = time.monotonic()
        self._since = self._since or now
        self._calls += calls
        self._hash = hashlib.sha256(self._key + self._hash + data).digest()
        if self._calls >= AGGREGATE_CALLS or now - self._since >= AGGREGATE_S:
            self.flush()

    def flush(self) -> None:
        """Send the count so far; a guard that is away loses nothing that was acknowledged: the count is kept."""
        if not self._calls:
            return
        data = struct.pack("<QQQ", self._calls, int(self._since * 1e9), time.monotonic_ns()) + self._hash
        try:
            self._ask(Opcode.LOG_EVENT, struct.pack("<HI", Event.INFERENCE_COMPLETED, 0) + data)
        except (OSError, QsafpError):
            return
        self._calls, self._since = 0, 0.0

    def close(self) -> None:
        """Give up the page: the gate is closed from here on until it is asked again."""
        self.flush()
        self._drop()
        self._detach()

    def __enter__(self) -> Gate:
        """Require once on entry."""
        self.require()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Send what was counted."""
        self.flush()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate: every call requires the gate first."""

        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            self.require()
            return function(*args, **kwargs)

        return guarded
