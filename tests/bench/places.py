# SPDX-License-Identifier: Apache-2.0
"""Real processes to measure: a guard whose quorum signs in this process, and a whole directory with six validators."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import mmap
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from frame import OUT, now_ns

from qsafp_embedded import cose, keys, sets
from qsafp_embedded._core import cbor_dumps, cbor_loads, sha256
from qsafp_embedded._tables import Refusal, RefusalClass, Status
from qsafp_embedded.client import CommandRefused, GuardClient

M, N = 4, 6
STALE_MS, TICK_MS = 1000, 100
MODEL = bytes(range(32))
NO_REAL_TIME = ["setpriv", "--bounding-set=-sys_nice", "--"]
LIMIT_S = 20.0


@contextmanager
def place(name: str) -> Iterator[Path]:
    """A fresh folder on the checkout's file system with a short path, gone afterwards."""
    OUT.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name[:4]}-", dir=OUT))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def real_time() -> bool:
    """True if a child may get SCHED_FIFO, so that both cases can be measured."""
    words = [sys.executable, "-c", "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Stop a process that was started here."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Granted:
    """A lease that runs: its token, the hash that refusals name, and its end on the boot clock."""

    token: bytes
    request_hash: bytes
    end_ns: int


class Lab:
    """One guard process under a quorum whose keys are here; use as a context manager."""

    def __init__(self, root: Path, *, duration_ms: int = 3_600_000, grace_ms: int = 1000, fifo: bool = True, more: str = "") -> None:
        self.root, self._fifo = root, fifo
        self.signers = [keys.Ed25519Key.from_seed(secrets.token_bytes(32)) for _ in range(N)]
        set_key = keys.Ed25519Key.from_seed(secrets.token_bytes(32))
        members = tuple(sets.Validator(i, ("https://127.0.0.1:1",), (bytes(32),), k.public) for i, k in enumerate(self.signers))
        self.members = sets.ValidatorSet(secrets.token_bytes(16), 1, M, members, lab=True, set_keys=(set_key.public,))
        (root / "set.cbor").write_bytes(sets.encode(self.members, [set_key]))
        self.config = root / "guard.toml"
        lines = ['run_dir = "run/main"', 'state_dir = "state"', 'set = "set.cbor"', f'model_hash = "{MODEL.hex()}"', f"tick_ms = {TICK_MS}"]
        lines += [f"duration_ms = {duration_ms}", f"warning_ms = {min(1000, duration_ms // 4)}", f"grace_ms = {grace_ms}"]
        self.config.write_text("\n".join([*lines, f"stale_after_ms = {STALE_MS}", more]))
        self._guard("--init", check=True)

    def _guard(self, *more: str, check: bool = False) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "qsafp_embedded.guard", "--config", str(self.config), *more]
        p = subprocess.Popen([*([] if self._fifo else NO_REAL_TIME), *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        if check and p.wait(LIMIT_S):
            raise RuntimeError(f"{words} ended with {p.returncode}")
        return p

    @property
    def run(self) -> Path:
        """Where the sockets and the pins are."""
        return self.root / "run" / "main"

    def __enter__(self) -> Lab:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the guard and wait until it serves."""
        self.process = self._guard()
        assert self.process.stdout
        line = self.process.stdout.readline().decode()
        if "serving" not in line or ("FIFO yes" in line) != (self._fifo and real_time()):
            raise RuntimeError(f"the guard says: {line!r}")
        self.client = GuardClient.connect(self.run / "ctl.sock")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.connect(str(self.run / "gate.sock"))
            _, fds, _, _ = socket.recv_fds(s, 64, 1)
        self.page_fd = fds[0]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop the guard."""
        self.client.close()
        os.close(self.page_fd)
        end(self.process, number)
        if self.process.stdout:
            self.process.stdout.close()

    def propose(self) -> tuple[bytes, bytes]:
        """A new request's lease payload, and the hash that refusals of it name."""
        self.client.begin()
        request = cose.parse_sign1(cbor_loads(self.client.envelope())[1], cose.REQUESTS)
        return cbor_loads(request.payload)[1], sha256(request.payload)

    def lease(self) -> Granted:
        """Sign and put the next lease; asks again where the request was over before it was signed (short leases under load)."""
        for _ in range(1000):
            try:
                payload, named = self.propose()
                token = cose.encode_sign(payload, [cose.sign_payload(payload, k, cose.AAD_LEASE) for k in self.signers[:M]])
                self.client.put(token)
            except CommandRefused:
                continue
            s = self.client.status()
            if s.status == Status.VALID:
                return Granted(token, named, s.now_ns + s.remaining_ns)
        raise RuntimeError("no lease in 1,000 tries")

    def refusal(self, index: int, named: bytes) -> bytes:
        """A signed denial of a request."""
        body = cbor_dumps({1: named, 2: int(RefusalClass.DENY), 3: int(Refusal.POLICY), 4: "bench", 5: None})
        return cose.encode_sign1(body, self.signers[index], cose.AAD_REFUSAL)

    def deny_but_one(self, granted: Granted) -> bytes:
        """Put all denials but the last; returns the last one, chunks already sent but for the frame that ends it."""
        for i in range(N - M):
            self.client.put(self.refusal(i, granted.request_hash))
        return self.refusal(N - M, granted.request_hash)

    def pins(self) -> mmap.mmap:
        """The simulated lines, mapped."""
        with (self.run / "pins").open("r+b") as file:
            return mmap.mmap(file.fileno(), 4096)


def address(mapped: mmap.mmap) -> int:
    """Where a mapping lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(mapped))


def sodium() -> str:
    """The shared object of PyNaCl that holds libsodium: what the guard verifies with."""
    spec = importlib.util.find_spec("nacl")
    assert spec
    assert spec.submodule_search_locations
    return str(next(Path(spec.submodule_search_locations[0]).glob("_sodium*.so")))


def cli(*words: str) -> str:
    """Run one ``qsafp`` command."""
    done = subprocess.run([sys.executable, "-m", "qsafp_embedded.cli", *words], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


class Home:
    """A directory of ``qsafp init`` with its six validators running; use as a context manager."""

    def __init__(self, root: Path, *, duration_ms: int = 60_000) -> None:
        self.root = root / "h"
        cli("init", "--profile", "fleet", "--dir", str(self.root), "--duration-ms", str(duration_ms))
        self.run = self.root / "run" / "main"
        self.agent: subprocess.Popen[bytes] | None = None

    @property
    def ueid(self) -> bytes:
        """The device's id."""
        return bytes.fromhex((self.root / "guard" / "state" / "ueid").read_text())

    def admin(self, index: int) -> Path:
        """The operator's socket of one validator."""
        return self.root / f"validator-{index}" / "admin.sock"

    def __enter__(self) -> Home:
        base = [sys.executable, "-m", "qsafp_embedded.validator", "--config"]
        words = [[*base, str(self.root / f"validator-{i}" / "validator.toml")] for i in range(N)]
        self.validators = [subprocess.Popen(w, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) for w in words]
        for v in self.validators:
            assert v.stdout
            if b"listening" not in v.stdout.readline():
                raise RuntimeError("a validator did not start")
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop_agent()
        for v in self.validators:
            end(v)
            if v.stdout:
                v.stdout.close()

    def guard_pid(self) -> int:
        """The guard of this directory, as its socket tells; 0 if none serves."""
        try:
            with GuardClient.connect(self.run / "ctl.sock") as g:
                return g.pid
        except OSError:
            return 0

    def start_agent(self) -> None:
        """Exec an agent, which starts the guard where none runs."""
        words = [sys.executable, "-m", "qsafp_embedded.agent", "--config", str(self.root / "agent" / "agent.toml")]
        self.agent = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def stop_agent(self) -> None:
        """Stop the agent and its guard."""
        if self.agent is None:
            return
        pid = self.guard_pid()
        end(self.agent)
        self.agent = None
        stop_guard(pid)


def stop_guard(pid: int) -> None:
    """Stop a guard that an agent started, if it is still there."""
    if not pid:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: _zombie(pid), "the guard to end")


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition: object, what: str, *, seconds: float = 60.0, pause: float = 0.005) -> None:
    """Wait until ``condition()`` is true; raises TimeoutError naming ``what``."""
    assert callable(condition)
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(pause)


@contextmanager
def busy(cores: int, storm: Path | None = None) -> Iterator[None]:
    """One spinning process per core; ``storm``: a folder in which one more writes and fsyncs without pause."""
    spin = "while True: pass"
    words = [[sys.executable, "-c", spin] for _ in range(cores)]
    if storm:
        text = f"import os\nf = os.open({str(storm / 'storm')!r}, os.O_RDWR | os.O_CREAT)\nb = bytes(1 << 20)\ni = 0\n"
        words.append([sys.executable, "-c", f"{text}while True:\n os.pwrite(f, b, i % 32 << 20); os.fsync(f); i += 1\n"])
    children = [subprocess.Popen(w, stdin=subprocess.DEVNULL) for w in words]
    for i, c in enumerate(children[:cores]):
        os.sched_setaffinity(c.pid, {i})
    try:
        yield
    finally:
        for c in children:
            end(c, signal.SIGKILL)


def deadline_passed(ns: int) -> bool:
    """True once the boot clock is past ``ns``."""
    return now_ns() > ns
