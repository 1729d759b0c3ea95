# SPDX-License-Identifier: Apache-2.0
"""A fleet in a temporary directory: guard on the simulated board, agent, validators, workloads; all ended at the end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from .. import keys, sets
from .._core import now_ns, record_decode
from .._tables import Event, Phase
from ..client import GuardClient, Status
from ..errors import GuardUnavailable, QsafpError
from ..gate import Gate
from ..validator import admin_client
from .workload import Stamp

__all__ = ["CannotRun", "Failed", "LIMIT_S", "MARGIN_MS", "Stage", "check", "ms"]

T = TypeVar("T")
LIMIT_S = 30.0  # how long a condition may take before a scenario gives up; no figure depends on it
MARGIN_MS = 500.0  # what a busy host may add to an act that needs a process to be scheduled
END_S = 10.0


class Failed(QsafpError):
    """What a scenario asserts did not hold."""


class CannotRun(QsafpError):
    """This host lacks what a scenario needs; the text says what."""


def check(ok: bool, what: str) -> None:
    """Assert; raises Failed."""
    if not ok:
        raise Failed(what)


def ms(ns: int) -> float:
    """Nanoseconds in milliseconds, to the microsecond."""
    return round(ns / 1e6, 3)


class Stage:
    """Starts processes and ends them.  Use as a context manager; nothing runs and nothing is left afterwards.

    Args: profile: of ``qsafp init``. duration_ms, warning_ms, grace_ms, stale_after_ms: of the lease and the
    gate. model: content of the model file that leases name. policy: other values in every validator's [policy].
    """

    def __init__(
        self,
        *,
        profile: str = "fleet",
        duration_ms: int = 2000,
        warning_ms: int = 400,
        grace_ms: int = 600,
        stale_after_ms: int = 1000,
        model: bytes | None = None,
        policy: Mapping[str, int] | None = None,
        suite: str = "ed25519",
    ) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="qsafp-scenario-"))
        self.root = self.base / "fleet"
        self.stale_after_ms, self.duration_ms, self.grace_ms = stale_after_ms, duration_ms, grace_ms
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._gates: list[Gate] = []
        self._deaf: list[str] = []
        try:
            self._init(profile, suite, model)
            self.settings(
                "guard/guard.toml", warning_ms=warning_ms, grace_ms=grace_ms, stale_after_ms=stale_after_ms, initial_ms=0, linger_ms=3000
            )
            self.settings("agent/agent.toml", backoff_max_s=0.5, timeout_s=5)
            for path in self.root.glob("validator-*/validator.toml"):
                self.settings(str(path.relative_to(self.root)), human_retry_ms=200, **(policy or {}))
            self.set = sets.load((self.root / "set/set-1.cbor").read_bytes())
        except BaseException:  # outermost: nothing is left behind
            shutil.rmtree(self.base, ignore_errors=True)
            raise

    def _init(self, profile: str, suite: str, model: bytes | None) -> None:
        command = [sys.executable, "-m", "qsafp_embedded.cli", "init", "--profile", profile, "--dir", str(self.root)]
        command += ["--duration-ms", str(self.duration_ms), "--suite", suite]
        if model is not None:
            (self.base / "model.bin").write_bytes(model)
            command += ["--model", str(self.base / "model.bin")]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment(), timeout=60, check=False)
        check(done.returncode == 0, f"qsafp init: {done.stderr.strip()}")

    def __enter__(self) -> Stage:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End every process and remove the directory; raises Failed if one did not end when it was told to."""
        self.close()
        check(error is not None or not self._deaf, f"did not end within {END_S:g} s of SIGTERM: {'; '.join(self._deaf)}")

    def close(self) -> None:
        """End what was started, the youngest first; what does not end in time is killed with its group."""
        for gate in self._gates:
            gate.close()
        for name in reversed(list(self.processes)):
            self.stop(name)
        self._strays()
        shutil.rmtree(self.base, ignore_errors=True)

    def _strays(self) -> None:
        """End a guard that an agent started, and workloads that got away from signals."""
        pids = [Stamp.read(p).pid for p in self.base.glob("*.stamp")]
        with contextlib.suppress(QsafpError), self.client() as guard:
            pids.append(guard.pid)
        for pid in pids:
            with contextlib.suppress(OSError):
                if str(self.base) in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, signal.SIGKILL)

    # ---- settings ----

    def environment(self) -> dict[str, str]:
        """The environment of every process: this very package."""
        here = str(Path(__file__).resolve().parents[2])
        return {
            **os.environ,
            "PYTHONFAULTHANDLER": "1",
            "PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]),
        }

    def settings(self, name: str, **values: object) -> None:
        """Set top-level keys of a TOML file of the fleet."""
        path = self.root / name
        text = path.read_text()
        for key, value in values.items():
            shown = f'"{value}"' if isinstance(value, str | Path) else str(value).lower()
            text, found = re.subn(rf"(?m)^{key} = .*$", f"{key} = {shown}".replace("\\", r"\\"), text)
            if not found:
                head, mark, tables = text.partition("\n[")
                text = f"{head.rstrip()}\n{key} = {shown}\n{mark}{tables}"
        path.write_text(text)

    # ---- processes ----

    def spawn(self, name: str, command: Sequence[str], *, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program in a process group of its own; its words go to a file."""
        self.stop(name)
        with (self.base / f"{name}.log").open("ab") as log:
            env = {**self.environment(), **(environment or {})}
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0, env=env)
        self.processes[name] = child
        return child

    def module(self, name: str, module: str, *args: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start ``python -m qsafp_embedded.<module>``."""
        return self.spawn(name, [sys.executable, "-m", f"qsafp_embedded.{module}", *args], environment=environment)

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End one process; SIGKILL is sent to it alone, whatever else does not end is killed with its group."""
        child = self.processes.pop(name, None)
        if child is None:
            return
        if child.poll() is None:
            child.send_signal(number)
            child.send_signal(signal.SIGCONT)
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGABRT)  # the fault handler writes where it stands
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(END_S)
                self._deaf.append(f"{name}: {self.words(name)[-2000:]}")
        if number != signal.SIGKILL or child.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(END_S)

    def kill(self, name: str) -> int:
        """SIGKILL one process and nothing of what it started; returns the boot time, ns, right after the signal."""
        child = self.processes[name]
        child.kill()
        at = now_ns()
        child.wait(END_S)
        return at

    def words(self, name: str) -> str:
        """What a process said so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self.base / f"{name}.log").read_text(errors="replace")
        return ""

    # ---- the parts ----

    def validator(self, index: int, *act: str, environment: dict[str, str] | None = None) -> None:
        """Start one validator, or in its place an adversary with its keys that does ``act``; waits until it listens."""
        self.validators([index], *act, environment=environment)

    def validators(self, indexes: Sequence[int] | None = None, *act: str, environment: dict[str, str] | None = None) -> None:
        """Start several at once (default: all)."""
        chosen = range(self.set.n) if indexes is None else indexes
        module, more = ("scenarios.adversary", ["--act", *act]) if act else ("validator", [])
        before = {i: self.words(f"validator-{i}").count("listening") for i in chosen}
        for i in chosen:
            config = str(self.root / f"validator-{i}" / "validator.toml")
            self.module(f"validator-{i}", module, "--config", config, *more, environment=environment)
        for i in chosen:
            self.wait(f"validator {i} to listen", partial(self._listens, i, before[i]))

    def _listens(self, index: int, before: int) -> bool:
        words = self.words(f"validator-{index}")
        check(self.processes[f"validator-{index}"].poll() is None, f"validator {index} ended: {words.strip()[-300:]}")
        return words.count("listening") > before

    def guard(self, *, environment: dict[str, str] | None = None) -> None:
        """Start the guard and wait until it serves; raises Failed with its own words if it ends."""
        child = self.module("guard", "guard", "--config", str(self.root / "guard/guard.toml"), environment=environment)
        self.wait("the guard to serve", lambda: child.poll() is not None or self.served())
        check(child.poll() is None, f"the guard ended: {self.words('guard').strip()[-300:]}")

    def served(self, ctl: Path | None = None) -> bool:
        """Whether a guard answers."""
        with contextlib.suppress(GuardUnavailable):
            GuardClient.connect(ctl or self.ctl).close()
            return True
        return False

    def agent(self, *, environment: dict[str, str] | None = None) -> None:
        """Start the agent."""
        self.module("agent", "agent", "--config", str(self.root / "agent/agent.toml"), environment=environment)

    def start(self, *, validators: Sequence[int] | None = None) -> None:
        """Start everything and wait for the first lease."""
        self.validators(validators)
        self.guard()
        self.agent()
        self.opened()

    def workload(self, name: str = "workload", *, asks: bool = True) -> Path:
        """Start a program that infers in a loop, asking the gate before each step; returns its stamp file."""
        stamp = self.base / f"{name}.stamp"
        ask = ["--gate", str(self.root / "run")] if asks else []
        self.module(name, "scenarios.workload", "--stamp", str(stamp), *ask)
        self.wait(f"{name} to run", lambda: self.stamp(name).runs > 0)
        return stamp

    def held(self, name: str, *options: str, writes: Path | None = None, hide: Path | None = None) -> None:
        """Start a busy program that never asks, under ``qsafp run``; waits until it runs.

        It spoils the file ``writes``; with ``hide`` it ignores signals and has a child in another session, which stamps that file.
        """
        stamp = self.base / f"{name}.stamp"
        command = [sys.executable, "-m", "qsafp_embedded.scenarios.workload", "--stamp", str(stamp)]
        command += ["--writes", str(writes)] if writes else []
        command += ["--hide", str(hide)] if hide else []
        run = ["run", "--dir", str(self.root), "--name", name, *options, "--", *command]
        self.module(f"run-{name}", "cli", *run)
        self.wait(f"{name} to run", lambda: self.stamp(name).runs > 0)

    def held_by(self, name: str) -> str:
        """What holds a program that ``held`` started: its own cgroup or, without the rights for one, signals."""
        inside = f"/qsafp-{name}" in Path(f"/proc/{self.stamp(name).pid}/cgroup").read_text()
        return "cgroup" if inside else "signals, for want of cgroup rights"

    # ---- looking ----

    @property
    def ctl(self) -> Path:
        """The guard's command socket."""
        return self.root / "run/main/ctl.sock"

    @property
    def ueid(self) -> bytes:
        """The device's id."""
        return bytes.fromhex((self.root / "guard/state/ueid").read_text())

    def admin(self, index: int) -> Path:
        """A validator's operator socket."""
        return self.root / f"validator-{index}" / "admin.sock"

    def signer(self, index: int) -> keys.Ed25519Key:
        """A validator's signing key: what a stolen or lying validator signs with."""
        return keys.load_ed25519(self.root / f"validator-{index}" / "signing.key")

    def client(self) -> GuardClient:
        """A connection to the guard."""
        return GuardClient.connect(self.ctl)

    def status(self) -> Status:
        """The guard's status."""
        with self.client() as guard:
            return guard.status()

    def gate(self, model: bytes | None = None) -> Gate:
        """A gate of this process."""
        gate = Gate(run_dir=self.root / "run", model=model)
        self._gates.append(gate)
        return gate

    def stamp(self, name: str = "workload") -> Stamp:
        """What a workload stamped last."""
        return Stamp.read(self.base / f"{name}.stamp")

    def records(self) -> list[dict[str, Any]]:
        """The whole log, decoded."""
        with self.client() as guard:
            return [record_decode(r) for r in guard.records()]

    def lease_end(self) -> int:
        """When the running lease ends, boot time in ns; raises Failed if that is later than its request's time and its duration."""
        with self.client() as guard:
            status = guard.status()
        records = self.records()
        got = max(i for i, r in enumerate(records) if r["event"] in (Event.LEASE_ISSUED, Event.LEASE_RENEWED))
        asked = max(r["boot_ns"] for r in records[:got] if r["event"] == Event.VALIDATOR_QUERY)
        end = status.now_ns + status.remaining_ns
        check(status.remaining_ns > 0, "no lease runs")
        check(end <= asked + status.duration_ms * 1_000_000, f"the lease ends {ms(end - asked)} ms after it was asked for")
        return end

    def pin(self, line: int = 0) -> tuple[int, int]:
        """Level and boot time, ns, of the last change of a line of the simulated board: 0 LEASE_VALID, 1 FAILSAFE."""
        raw = (self.root / "run/main/pins").read_bytes()
        check(raw.startswith(b"SIMULATED PINS"), "no simulated pins")
        return struct.unpack_from("<I", raw, 16 + 4 * line)[0], struct.unpack_from("<Q", raw, 32 + 8 * line)[0]

    def edges(self, line: str = "LEASE_VALID") -> list[tuple[int, int]]:
        """Every change of a line so far: boot time in ns, level."""
        rows = [r.split() for r in (self.root / "run/main/pins.trace").read_text().splitlines()]
        return [(int(at), int(level)) for at, name, level in rows if name == line]

    # ---- waiting ----

    def wait(self, what: str, condition: Callable[[], T | None], *, limit_s: float = LIMIT_S) -> T:
        """Wait until a condition holds and return what it gave; raises Failed that says what never came."""
        end = time.monotonic() + limit_s
        while not (found := condition()):
            if time.monotonic() > end:
                raise Failed(f"waited {limit_s:g} s for {what}; agent: {self.words('agent').strip()[-200:]!r}")
            time.sleep(0.005)
        return found

    def until(self, what: str, good: Callable[[Status], bool]) -> Status:
        """Wait until the guard's status is good, and return that status."""
        return self.wait(what, lambda: next(filter(good, [self.status()]), None))

    def opened(self) -> Status:
        """Wait for an open gate."""
        return self.until("a lease", lambda s: s.phase in (Phase.ACTIVE, Phase.WARNING))

    def phase(self, phase: Phase) -> Status:
        """Wait for a phase."""
        return self.until(f"phase {phase.name}", lambda s: s.phase == phase)

    def renewed(self, times: int = 1) -> Status:
        """Wait for so many leases from now on."""
        want = self.status().serial + times
        return self.until(f"{times} renewals", lambda s: s.serial >= want and s.phase == Phase.ACTIVE)

    # ---- operators ----

    def revoke(self, *indexes: int) -> None:
        """Revoke the device at these validators."""
        for i in indexes:
            admin_client.revoke(self.admin(i), self.ueid)

    def allow(self, *indexes: int) -> None:
        """Lift revocations."""
        for i in indexes:
            admin_client.allow(self.admin(i), self.ueid)

    def release(self, *indexes: int) -> None:
        """Consent to the release of the latched fail-safe."""
        s = self.status()
        for i in indexes:
            admin_client.release(self.admin(i), self.ueid, s.latch_seq, record_hash=s.latch_hash)
