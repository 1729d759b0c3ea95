# SPDX-License-Identifier: Apache-2.0
"""An emulated board with our monitor: start it, speak to it over its line, see its pins, look into its memory.

``Board`` is the HiFive Unleashed, and what other boards share with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import secrets
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from channels import Lines, Qmp
from validator_kit import MODEL, Quorum, quorum

from qsafp_embedded import cose
from qsafp_embedded._core import cbor_loads, record_decode
from qsafp_embedded._tables import CommandStatus, Error
from qsafp_embedded.client import CommandRefused, GuardClient
from qsafp_embedded.errors import GuardUnavailable
from qsafp_embedded.keys import Ed25519Key

ROOT = Path(__file__).resolve().parents[2]
QEMU = "qemu-system-riscv64"
FUSES, ENTROPY, SET, PAYLOAD, ORDERS = 0x803E0000, 0x803E0800, 0x803E1000, 0x80400000, 0x807FF000
ANYWHERE = 0x10060000  # reads as something on every board
ORDER_NAMES = ("attack", "finished", "batches", "refused", "leaked", "moved", "answers", "odd", "started", "early", "under", "renews")
ORDER = struct.Struct("<II10Q")
GUEST_LIMIT_S = 60.0  # on a host that is busy; the board itself takes a second


def finish(process: subprocess.Popen[bytes], limit: float = GUEST_LIMIT_S) -> None:
    """Ask a process to end, so that it finishes what it writes, and see to it after ``limit`` seconds."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(limit)
    process.kill()
    process.wait()


def build(name: str = "hifive_unleashed") -> None:
    """Build monitor and payload of a board; fails with what the compiler said."""
    done = subprocess.run([sys.executable, "tools/monitor.py", name], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def until(what: Callable[[], Any], limit: float = GUEST_LIMIT_S) -> Any:
    """Wait for something to become true; fails after ``limit`` seconds."""
    end = time.monotonic() + limit
    while not (got := what()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)
    return got


def ran_out(no: CommandRefused) -> bool:
    """Whether a command was refused because the time of its request is over."""
    return no.status == CommandStatus.NO_REQUEST or no.error == Error.NO_REQUEST


def die_with_parent() -> None:
    """In the child: be killed when who started it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Edges:
    """The pins of the board as QEMU drives them outside, through its test protocol."""

    def __init__(self, lines: Lines, path: str) -> None:
        """Take up the connection; from now on every edge of the device at ``path`` is told."""
        self._lines, self._path = lines, path
        self._seen: list[tuple[int, int]] = []
        self.ask(f"irq_intercept_out {path}")

    def ask(self, words: str) -> str:
        """One command; what follows OK."""
        self._lines.send(words)
        while not (said := self._lines.line(GUEST_LIMIT_S) or "none").startswith("OK"):
            found = re.match(r"IRQ (raise|lower) (\d+)", said)
            assert found, f"qtest: {said}"
            self._seen.append((int(found[2]), int(found[1] == "raise")))
        return said[2:].strip()

    def drive(self, line: int, level: int) -> None:
        """Put a level on an input from outside."""
        self.ask(f"set_irq_in {self._path} unnamed-gpio-in {line} {level}")

    def seen(self) -> list[tuple[int, int]]:
        """All edges so far: line, level."""
        self.ask(f"readb {ANYWHERE:#x}")
        return self._seen


class Device:
    """What a factory and an operator give one board: keys, entropy, the validators' set, policy in ms."""

    def __init__(self, *, duration_ms: int = 60_000, grace_ms: int = 300, document: bytes = b"", suite: str = "ed25519") -> None:
        """``document``: the set of validators that run elsewhere; else a set whose keys are at hand, with signatures of ``suite``."""
        self.q: Quorum = quorum(m=4, n=6, lab=True, suite=suite)
        self.document = document or self.q.document
        self.ueid, self.seed = b"\x01" + secrets.token_bytes(32), secrets.token_bytes(32)
        self.public = Ed25519Key.from_seed(self.seed).public
        self.nonce_key, self.k0 = secrets.token_bytes(32), secrets.token_bytes(32)
        self.duration_ms, self.policy_ms = duration_ms, (0, grace_ms, 0, 0)

    def fuses(self) -> bytes:
        """The bytes of the fuses, as cext/monitor/monitor.h lays them out."""
        body = struct.pack("<4sI33s7x", b"QFS1", 1, self.ueid) + self.seed + self.nonce_key + self.k0 + MODEL
        body += struct.pack("<Q4QII", self.duration_ms, *self.policy_ms, len(self.document), 0)
        return body + hashlib.sha256(body).digest()


class Board:
    """One running board, as a context manager.  ``folder`` keeps what outlives a reset: the flash."""

    name = "hifive_unleashed"
    emulator = QEMU
    cross = "riscv64-linux-gnu-"
    pin_numbers: Mapping[str, int] = {"LEASE_VALID": 0, "FAILSAFE": 1, "VALIDATOR_REQ": 2}
    orders_at = ORDERS
    code = range(0x80000000, 0x80010000)  # the monitor's
    own_cores = 1  # the first ones, which are the monitor's alone
    held = False  # whether it stands still until somebody lets it run

    def __init__(
        self,
        device: Device,
        folder: Path,
        *,
        attack: int = 0,
        renews: bool = False,
        entropy: bytes | None = None,
        qemu: tuple[str, ...] = (),
    ) -> None:
        """``attack``: of its payload's, under the first lease or, if it ``renews``, under the second."""
        self.device, self.folder, self.attack, self.renews = device, folder, attack, renews
        self._entropy = secrets.token_bytes(32) if entropy is None else entropy
        self._qemu = qemu
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""
        self.log, self.heard_log = folder / "qemu.log", folder / "line.log"

    def _blob(self, name: str, data: bytes, address: int) -> list[str]:
        (self.folder / name).write_bytes(data)
        return ["-device", f"loader,file={self.folder / name},addr={address:#x},force-raw=on"]

    def _orders(self) -> bytes:
        given = {"attack": self.attack, "renews": self.renews}
        return ORDER.pack(*(given.get(name, 0) for name in ORDER_NAMES))

    def _words(self) -> list[str]:
        flash = self.folder / "flash.bin"
        if not flash.exists():
            flash.write_bytes(b"\xff" * (32 << 20))
        words = [QEMU, "-M", "sifive_u", "-smp", "3", "-m", "128", "-display", "none", "-net", "none", "-bios", "none", "-no-reboot"]
        words += ["-kernel", str(self.out / "monitor.elf"), "-drive", f"if=mtd,format=raw,file={flash}"]
        words += self._blob("fuses.bin", self.device.fuses(), FUSES) + self._blob("entropy.bin", self._entropy, ENTROPY)
        words += self._blob("set.cbor", self.device.document, SET)
        words += self._blob("payload.bin", (self.out / "payload.bin").read_bytes(), PAYLOAD)
        words += self._blob("orders.bin", self._orders(), ORDERS)
        words += [*self._line(), *self._channels()]
        return [*words, *self._qemu]

    def _line(self) -> list[str]:
        """A serial port whose other end a client may open; what the board said is kept."""
        return ["-chardev", f"pty,id=line,logfile={self.heard_log}", "-serial", "chardev:line"]

    def _channels(self) -> list[str]:
        """What looks at the board from outside."""
        words = ["-S", "-monitor", "none", "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off", "-accel", "tcg"]
        return [*words, "-qtest", f"unix:{self.folder}/qtest,server=on,wait=off", "-qtest-log", "none", "-D", str(self.log)]

    def __enter__(self) -> Self:
        """Start it."""
        self._process = subprocess.Popen(
            self._words(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent
        )
        try:
            assert self._process.stdout is not None
            said = self._process.stdout.readline().decode()
            found = re.search(r"redirected to (\S+)", said)
            assert found, said
            self.line = Path(found[1])
            self._fd = os.open(self.line, os.O_RDWR | os.O_NOCTTY)  # what is said before a client comes is not an error
            self.qmp = Qmp(Lines(self.folder / "qmp", self.gone))
            self._edges = Edges(Lines(self.folder / "qtest", self.gone), self.pin_device())
            for cpu in self.qmp.call("query-cpus-fast")[self.own_cores :]:  # who brings it bytes, or stops it, comes first
                os.setpriority(os.PRIO_PROCESS, cpu["thread-id"], os.getpriority(os.PRIO_PROCESS, 0) + 8)
            if not self.held:
                self.qmp.call("cont")  # no edge comes before somebody looks
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it, once the file of its flash has all that the part took: QEMU's m25p80 writes that behind its guest's back."""
        if self._process is not None:
            finish(self._process)
            assert self._process.stdout is not None
            self._process.stdout.close()
        with contextlib.suppress(AttributeError, OSError):
            os.close(self._fd)

    def gone(self) -> str:
        """Why nothing can come any more, or nothing."""
        assert self._process is not None
        return "" if self._process.poll() is None else "QEMU ended"

    # ---- what it is ----

    @classmethod
    def absent(cls) -> str:
        """What this machine lacks to run it, or nothing."""
        return ", ".join(p for p in (cls.emulator, cls.cross + "gcc") if not shutil.which(p))

    @property
    def out(self) -> Path:
        """Where its monitor and payload were built."""
        return ROOT / "build/monitor" / self.name

    def pin_device(self) -> str:
        """QEMU's path of the device whose outputs are the pins."""
        return "/machine/soc"

    def counters(self) -> list[int]:
        """Where each core of the payload is."""
        return [int(pc, 16) for pc in re.findall(r"^ pc +([0-9a-f]+)", self.hmp("info registers -a"), re.M)[1:]]

    # ---- what it says and does ----

    @contextlib.contextmanager
    def client(self) -> Iterator[GuardClient]:
        """A client over the line, once the monitor answers."""
        with GuardClient.connect(self.line, timeout=5.0) as client:

            def answers() -> bool:
                with contextlib.suppress(GuardUnavailable):
                    client.version()
                    return True
                return False

            until(answers)
            yield client

    def lease(self, client: GuardClient, indexes: list[int] | None = None, bend: Callable[[bytes], bytes] = bytes) -> bytes:
        """Obtain a lease that the first m validators or ``indexes`` sign; returns the token, which ``bend`` may change on its way."""
        end = time.monotonic() + GUEST_LIMIT_S
        while True:
            try:
                token = bend(self.device.q.lease(self.propose(client), indexes))
                client.put(token)
            except CommandRefused as no:  # the host was so busy that the request ran out
                if not ran_out(no) or time.monotonic() > end:
                    raise
            else:
                return token

    def propose(self, client: GuardClient) -> bytes:
        """Begin a request and check the device's signature; returns the payload to sign."""
        client.begin()
        request = cose.parse_sign1(cbor_loads(client.envelope())[1], cose.REQUESTS)
        assert request.verify(self.device.public, cose.AAD_REQUEST)
        payload: bytes = cbor_loads(request.payload)[1]
        return payload

    def records(self, client: GuardClient) -> list[dict[str, Any]]:
        """The log, decoded."""
        return [record_decode(r) for r in client.records()]

    def said(self) -> bytes:
        """What it said on its line so far, while no client listens."""
        os.set_blocking(self._fd, False)
        with contextlib.suppress(BlockingIOError):
            self._heard += os.read(self._fd, 4096)
        return self._heard

    def hmp(self, words: str) -> str:
        """One command of QEMU's own monitor."""
        return str(self.qmp.call("human-monitor-command", command_line=words))

    def orders(self) -> dict[str, int]:
        """What the payload wrote down."""
        raw = self.memory(self.orders_at, ORDER.size)
        return dict(zip(ORDER_NAMES, ORDER.unpack(raw), strict=True))

    def memory(self, address: int, size: int) -> bytes:
        """Physical memory as it is now."""
        path = self.folder / "memory.bin"
        self.qmp.call("pmemsave", val=address, size=size, filename=str(path))
        return path.read_bytes()

    def seen_by_first(self, address: int, size: int) -> bytes:
        """Memory as the first core sees it now: secure memory too while that is in the monitor."""
        path = self.folder / "memory.bin"
        self.qmp.call("memsave", val=address, size=size, filename=str(path), cpu_index=0)
        return path.read_bytes()

    @property
    def region(self) -> int:
        """Where the payload keeps what it declared for rollback."""
        done = subprocess.run([f"{self.cross}nm", str(self.out / "payload.elf")], capture_output=True, text=True, timeout=60, check=True)
        return int(next(row for row in done.stdout.splitlines() if row.endswith(" region")).split()[0], 16)

    def edges(self) -> list[tuple[str, int]]:
        """Every edge of a pin so far, as the board drove it outside: name, level."""
        names = {line: name for name, line in self.pin_numbers.items()}
        return [(names[line], level) for line, level in self._edges.seen() if line in names]

    def pins(self, name: str) -> list[int]:
        """The levels that a pin was driven to, outside, in order."""
        return [level for pin, level in self.edges() if pin == name]

    def renew_line(self, level: int) -> None:
        """Move LEASE_RENEW."""
        self._edges.drive(5, level)

    def pin(self, name: str) -> int:
        """The level of a pin: low until it was driven."""
        return (self.pins(name) or [0])[-1]


@contextlib.contextmanager
def short_dir() -> Iterator[Path]:
    """A directory whose path leaves room in the 108 bytes of a socket's."""
    path = Path(tempfile.mkdtemp(prefix="qm"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
