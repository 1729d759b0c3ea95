# SPDX-License-Identifier: Apache-2.0
"""Six validators on the host and one device in the guest.

The device makes its own keys in the guest; only its public enrolment comes out.  The set names the validators as the guest reaches
them: QEMU's user network shows the host's loopback interface at 10.0.2.2.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from channels import BoardError
from machine import SLOW, Machine, die_with_parent, wait_for

from qsafp_embedded import keys, sets
from qsafp_embedded.cli import attest
from qsafp_embedded.cli.init import Plan, make
from qsafp_embedded.cli.templates import device_toml
from qsafp_embedded.lease import Lease
from qsafp_embedded.validator import admin_client

__all__ = ["DEVICE", "HOST", "Fleet"]

HOST = "10.0.2.2"
PHASE = (Path(__file__).parent / "guest/phase.py").read_bytes()
DEVICE = "/var/lib/board"  # the device's directory in the guest


def setting(text: str, key: str, value: str) -> str:
    """The text of a guard.toml with this key, which stood there once or not at all."""
    return "\n".join([*(row for row in text.splitlines() if not row.startswith(f"{key} =")), f"{key} = {value}", ""])


class Fleet:
    """Validators (4 of 6) at work on the host; ``root`` is their directory, and later the auditor's."""

    def __init__(self, machine: Machine, root: Path, *, board: str, duration_ms: int = 30_000, device_key: str = "file") -> None:
        """Lay out everything under ``root`` and enrol the device in the guest.  Raises BoardError.

        With its key in a TPM (``device_key``) each request carries a quote, and leases state level 3.
        """
        self.machine, self.root = machine, root
        make(Plan(root, "fleet", duration_ms=duration_ms))
        for made_here in (root / "guard/state", root / "auditor"):
            shutil.rmtree(made_here)
        (root / "guard/enrolment.json").unlink()
        self._rename_host()
        guard = root / "guard/guard.toml"
        self.attests = device_key != "file"
        text = guard.read_text()
        pcrs = [0, 7] if self.attests else []
        for key, value in {"board": board, "device_key": device_key, "quote_pcrs": pcrs, **machine.board.log}.items():
            text = setting(text, key, json.dumps(value))
        guard.write_text(text)
        self._enrol()
        self._process: subprocess.Popen[bytes] | None = None
        self.agent_pid = 0

    def _rename_host(self) -> None:
        """Sign the set anew, with endpoints that the guest can reach."""
        path = self.root / "set/set-1.cbor"
        old = sets.read(path)
        members = tuple(replace(v, endpoints=tuple(e.replace("127.0.0.1", HOST) for e in v.endpoints)) for v in old.validators)
        path.write_bytes(sets.encode(replace(old, validators=members), [keys.load_ed25519(self.root / "set/set.key")]))

    def _enrol(self) -> None:
        m = self.machine
        m.put(f"{DEVICE}/phase.py", PHASE)
        for name in ("guard/guard.toml", "set/set-1.cbor", "agent/agent.toml", "agent/relay.key", "agent/relay.crt"):
            m.put(f"{DEVICE}/{name}", (self.root / name).read_bytes(), 0o600)
        m.sh(f"mkdir -p {DEVICE}/auditor; cd {DEVICE}; python3 -m qsafp_embedded.guard --init --config guard/guard.toml --k0 auditor/k0")
        (self.root / "auditor").mkdir(mode=0o700)
        key = self.root / "auditor/k0"
        key.touch(0o600)
        key.write_bytes(m.get(f"{DEVICE}/auditor/k0"))
        m.sh(f"rm {DEVICE}/auditor/k0")
        text = m.get(f"{DEVICE}/guard/enrolment.json").decode()
        (self.root / "guard/enrolment.json").write_text(text)
        self.enrolment: dict[str, Any] = json.loads(text)
        attested, pcrs = self._attest() if self.attests else ("", "")
        for toml in self.root.glob("validator-*/validator.toml"):
            kept = toml.read_text().partition("\n[[device]]")[0]
            toml.write_text(kept + device_toml(self.enrolment, model=bytes(32), registered=int(time.time()), attested=attested) + pcrs)

    def _attest(self) -> tuple[str, str]:
        """Let the TPM prove that the attestation key is its own; what validators are told of it."""
        asked, ticket = attest.challenge(self.enrolment)
        self.machine.put(f"{DEVICE}/challenge.json", json.dumps(asked).encode())
        said = self.machine.sh(f"cd {DEVICE}; python3 -m qsafp_embedded.guard --config guard/guard.toml --activate challenge.json")
        return attest.admit(ticket, json.loads(said))

    # ---- life ----

    def __enter__(self) -> Self:
        """Start the validators."""
        with (self.machine.out / "validators.log").open("wb") as log:
            words = [sys.executable, "-m", "qsafp_embedded.cli", "validators", "up", "--dir", str(self.root)]
            self._process = subprocess.Popen(
                words, stdout=log, stderr=log, start_new_session=True, preexec_fn=partial(die_with_parent, signal.SIGTERM)
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """End them."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def ready(self) -> None:
        """Wait until every validator takes orders."""

        def serving() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise BoardError(f"the validators ended with exit code {self._process.returncode}")
            return all((p.parent / "admin.sock").exists() for p in self.root.glob("validator-*/validator.toml"))

        wait_for(serving, "all validators serve")

    # ---- the device ----

    def start_agent(self) -> None:
        """Start the agent in the guest, which starts the guard."""
        words = f"python3 -m qsafp_embedded.agent --config {DEVICE}/agent/agent.toml"
        self.agent_pid = self.machine.spawn(words, f"{DEVICE}/agent.log")

    def stop_agent(self) -> None:
        """Stop the agent, if it runs, and with it the guard that it started."""
        if not self.agent_pid:
            return
        self.machine.sh(f"kill {self.agent_pid}; while kill -0 {self.agent_pid} 2>/dev/null; do sleep 0.1; done")
        self.agent_pid = 0

    def configure(self, key: str, value: str) -> None:
        """Set a key of the device's guard.toml, durably; ``value`` as TOML.  The next start of the guard reads it."""
        path = f"{DEVICE}/guard/guard.toml"
        self.machine.put(path, setting(self.machine.get(path).decode(), key, value).encode(), 0o600)
        self.machine.sh("sync")

    def qsafp(self, *words: str) -> str:
        """Run the guest's own qsafp on the device's directory."""
        return self.machine.run("qsafp", *words, "--dir", DEVICE).ok()

    def status(self) -> dict[str, Any]:
        """What the device says of itself."""
        answer = self.machine.run("qsafp", "status", "--json", "--dir", DEVICE)
        found: dict[str, Any] = json.loads(answer.out) if answer.out.strip() else {"guard": None, "error": answer.err}
        return found

    def level(self) -> int:
        """The isolation level that the newest lease states, as validators signed it."""
        return int(Lease.decode(self.machine.get(f"{DEVICE}/agent/evidence/last-lease.cbor")).level)

    def seen(self, phase: str, after: int, timeout_s: float) -> dict[str, Any] | None:
        """What the guard says once it has this phase and a serial above ``after``; None if not in time."""
        words = ("python3", "-S", f"{DEVICE}/phase.py", f"{DEVICE}/run/main/ctl.sock", phase, str(after), str(timeout_s))
        answer = self.machine.run(*words, timeout_s=timeout_s + 60)
        return dict(json.loads(answer.out)) if answer.code == 0 else None

    def phase(self, name: str, *, after: int = -1, timeout_s: float = 90.0) -> dict[str, Any]:
        """Wait for a phase of the lease, of a serial above ``after``.  Raises BoardError with what device and agent say."""
        found = self.seen(name, after, timeout_s * SLOW)
        if found is None:
            log = self.machine.run("tail", "-n", "20", f"{DEVICE}/agent.log").out
            raise BoardError(f"not {name} but {json.dumps(self.status())}\n{log}")
        return found

    # ---- people ----

    def revoke(self, *indexes: int) -> None:
        """Let operators revoke the device at these validators."""
        for i in indexes:
            admin_client.revoke(self.root / f"validator-{i}/admin.sock", bytes.fromhex(self.enrolment["ueid"]), text="board check")

    def forgive(self, timeout_s: float = 120.0) -> None:
        """Let operators lift every revocation, and consent to the release wherever it waits, until the lease runs again."""
        ueid = bytes.fromhex(self.enrolment["ueid"])
        sockets = [p.parent / "admin.sock" for p in self.root.glob("validator-*/validator.toml")]
        for socket in sockets:
            admin_client.allow(socket, ueid)

        def released() -> bool:
            for socket in sockets:
                for waiting in admin_client.pending(socket):
                    admin_client.release(socket, ueid, int(waiting["sequence"]))
            return self.seen("active", -1, 0.5) is not None

        wait_for(released, "the release", timeout_s)

    def fetch_log(self) -> Path:
        """Export the device's log in the guest and bring it to the host, with the newest lease that it must cover."""
        lease = self.machine.get(f"{DEVICE}/agent/evidence/last-lease.cbor")  # first: the log grows with each
        self.machine.sh(f"rm -f {DEVICE}/log.cbor")
        self.qsafp("audit", "export", "--cbor", "--out", f"{DEVICE}/log.cbor")
        out = self.root / "log.cbor"
        out.write_bytes(self.machine.get(f"{DEVICE}/log.cbor"))
        evidence = self.root / "agent/evidence"
        evidence.mkdir(exist_ok=True)
        (evidence / "last-lease.cbor").write_bytes(lease)
        return out

    def verify(self, log: Path) -> dict[str, Any]:
        """Let the auditor on the host verify a fetched log: chain, newest lease's root, seals.  Raises BoardError."""
        words = [sys.executable, "-m", "qsafp_embedded.cli", "audit", "verify", "--json", "--dir", str(self.root)]
        words += ["--file", str(log), "--k0", str(self.root / "auditor/k0")]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise BoardError(f"audit verify: exit {done.returncode}\n{done.stdout}{done.stderr}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found
