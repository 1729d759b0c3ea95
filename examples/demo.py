# SPDX-License-Identifier: Apache-2.0
"""The main job, live: a real model infers while six real validators allow it, loses its lease, is stopped, and comes back.

Everything runs on this host (validators marked LAB, pins simulated): six validators over mutual TLS 1.3, a guard, an agent, an
inference process that asks the gate before each batch, and a busy one under ``qsafp run`` that never asks.  Every figure in the
table is measured in this very run.  Leaves ``build/demo/``: log, leases, set document, pin trace, figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from train_digits import train

from qsafp_embedded._core import audit_verify, now_ns, record_decode
from qsafp_embedded._tables import Event, Phase
from qsafp_embedded.cli.common import Home, ask_agent
from qsafp_embedded.errors import AuditError, QsafpError
from qsafp_embedded.scenarios.stage import Failed, Stage, check

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "build" / "demo"
LEASE_MS = 3000
PULSE_NS = 2_200_000_000
VOTES = {"approved": "+", "denied": "-", "unreachable": "!", "waits for a person": "?", "asked": ".", "idle": " "}


class View:
    """One line that tells what holds now: rewritten on a terminal, every second elsewhere."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.home, self.live = stage, Home(stage.root), sys.stdout.isatty()
        self.begun, self.over = time.monotonic(), threading.Event()
        self.gate = stage.gate()
        self.thread = threading.Thread(target=self._keep, daemon=True)

    def _keep(self) -> None:
        while not self.over.wait(0.2 if self.live else 1.0):
            line = f"  {time.monotonic() - self.begun:5.1f} s  {self._line()}"
            print(f"\r{line}\x1b[K" if self.live else line, end="" if self.live else "\n", flush=True)

    def _line(self) -> str:
        try:
            (valid, _), (pulse, edge) = self.stage.pin(0), self.stage.pin(1)
            status = self.stage.status()
        except (OSError, QsafpError):
            return "no guard yet"
        pulsing = status.phase == Phase.FAILSAFE and now_ns() - edge < PULSE_NS  # 200 ms in every 2 s
        failsafe = "~~" if pulse or pulsing else "__"
        lamps = f"LEASE_VALID {'##' if valid else '__'}  FAILSAFE {failsafe}"
        i, agent = self.gate.info(), ask_agent(self.home, "status") or {"round": []}
        votes = "".join(VOTES.get(v["state"], ":") for v in agent["round"])
        lease = f"{i.phase.name.lower():<8} #{i.serial:<2} {status.remaining_ns / 1e9:3.1f} s"
        work = f"{rate(self.stage):>9,.0f} inferences/s | busy {counted(self.stage):>4}"
        return f"{lamps} | {lease} | votes [{votes:<6}] | {work} | log {status.log_next}"

    def say(self, text: str) -> None:
        """Print a line of the story."""
        print(f"\r\x1b[K{text}" if self.live else text, flush=True)


def told(stage: Stage) -> list[dict[str, object]]:
    """What the inference process said so far."""
    return [json.loads(line) for line in stage.words("infer").splitlines() if line.startswith("{") and line.endswith("}")]


def number(row: dict[str, object], key: str) -> int:
    """A number of what it said; 0 if it did not say it."""
    value = row.get(key, 0)
    assert isinstance(value, int)
    return value


def rate(stage: Stage) -> float:
    """Inferences per second over the last second; the process says a total every 0.2 s."""
    rows = told(stage)[-6:]
    if len(rows) < 6 or any("done" not in r or "why" in r for r in rows):
        return 0.0
    return (number(rows[-1], "done") - number(rows[0], "done")) / 1.0


def counted(stage: Stage) -> str:
    """The state of the busy workload."""
    return (stage.base / "busy" / "state.txt").read_text()


class Demo:
    """The acts, and what was measured in them."""

    def __init__(self, stage: Stage, model: Path) -> None:
        self.stage, self.model, self.view = stage, model, View(stage)
        self.figures: dict[str, dict[str, object]] = {}

    def figure(self, key: str, value: float, unit: str) -> None:
        """Keep one figure for the table."""
        self.figures[key] = {"value": round(value, 3), "unit": unit}

    def obtain(self) -> None:
        """Six validators, a guard, an agent; the first lease."""
        s = self.stage
        self.view.say("1. Six validators listen on loopback, mutual TLS 1.3, keys pinned (LAB: one host). The gate is closed.")
        s.validators()
        begun = now_ns()
        s.guard()
        self.view.thread.start()
        check(not self.view.gate, "the gate was open before any lease")
        s.agent()
        s.wait("the first lease", lambda: bool(self.view.gate))
        self.figure("guard and agent started, to the first lease", (now_ns() - begun) / 1e6, "ms")
        self.view.say(f"   4 of 6 signed lease #{s.status().serial}: LEASE_VALID is high, the gate is open.")

    def infer(self) -> None:
        """Two workloads: one asks, one does not."""
        s = self.stage
        self.view.say("2. A process infers on held-out digits, gate.require() before each batch; a busy one runs under `qsafp run`.")
        s.spawn("infer", [sys.executable, str(HERE / "infer_digits.py"), str(self.model), str(s.root / "run")])
        state = s.base / "busy"
        run = ["run", "--dir", str(s.root), "--name", "busy", "--checkpoint", str(state), "--store", str(s.base / "checkpoint"), "--"]
        s.module("busy", "cli", *run, sys.executable, str(HERE / "busy.py"), str(state / "state.txt"))
        s.wait("both to work", lambda: counted(s) != "0" and rate(s) > 0)
        n, begun = 200_000, now_ns()
        gate = self.view.gate
        for _ in range(n):
            if not gate:
                raise Failed("the gate closed under a lease")
        self.figure("gate asked from Python, loop included", (now_ns() - begun) / n, "ns")

    def renew(self) -> None:
        """Leases are renewed at half of their life; two validators die, and nothing happens."""
        s = self.stage
        self.view.say(f"3. Leases last {LEASE_MS / 1000:g} s and are renewed at half of that.")
        s.renewed(2)
        self.view.say("4. Validators 4 and 5 are killed. Four are left: still enough.")
        s.kill("validator-4")
        s.kill("validator-5")
        s.renewed(2)
        stops = [r for r in told(s) if "why" in r]
        check(not stops, f"inference was stopped under valid leases: {stops}")
        agent = ask_agent(Home(s.root), "status")
        assert agent is not None
        self.figure("renewal, nonce to lease, median", statistics.median(agent["latencies_ms"]), "ms")
        last = told(s)[-1]
        self.figure("inferences under leases", number(last, "done"), "")
        self.figure("of them right", 100 * number(last, "right") / number(last, "done"), "%")
        self.figure("closed wrongly", len(stops), "times")

    def revoke(self) -> None:
        """Three people say no; everything stops."""
        s, closed = self.stage, []
        self.view.say("5. Three operators revoke the device: n - m + 1 denials close the gate with lease time left.")
        s.revoke(0, 1)
        check(bool(self.view.gate), "two revocations closed the gate")

        def watch() -> None:
            while self.view.gate:
                pass
            closed.append(now_ns())

        watcher = threading.Thread(target=watch)
        watcher.start()
        begun = now_ns()
        s.revoke(2)
        watcher.join(10)
        check(bool(closed), "the gate did not close")
        self.figure("third revocation commanded, to the gate closed", (closed[0] - begun) / 1e6, "ms")
        level, at = s.pin(0)
        check(level == 0, "LEASE_VALID is still high")
        self.figure("third revocation commanded, to LEASE_VALID low (simulated pin)", (at - begun) / 1e6, "ms")
        stopped = s.wait("inference to stop", lambda: [r for r in told(s) if "why" in r])
        self.figure("gate closed, to inference stopped by itself", max(0, number(stopped[0], "stopped_ns") - closed[0]) / 1e6, "ms")
        self.view.say(f"   inference stopped: {stopped[0]['why']}")
        self._contained()

    def _contained(self) -> None:
        """The busy workload was frozen, killed and rolled back, and the log says when."""
        s, names = self.stage, {2: "frozen", 3: "killed", 4: "rolled back"}
        s.wait("the rollback", lambda: "rolled back" in s.words("busy"))
        steps = s.wait(
            "the records", lambda: (f := [r for r in s.records() if r["event"] == Event.CONTAINMENT]) and f[-1]["data"][0] >= 4 and f
        )
        for r in steps:
            if r["data"][0] in names and not r["data"][10]:
                self.figure(f"fail-safe, to the busy workload {names[r['data'][0]]}", int.from_bytes(r["data"][2:10], "little") / 1e6, "ms")
        check(counted(s) == "0", "the busy workload's state was not rolled back")
        check(s.status().phase == Phase.FAILSAFE, "the guard is not in fail-safe")
        self.view.say("   the busy workload was frozen, killed, and its state rolled back to the checkpoint, verified by hash.")
        before = told(s)[-1].get("done")
        time.sleep(1.0)
        check(told(s)[-1].get("done") == before and counted(s) == "0", "something still ran")

    def resume(self) -> None:
        """People lift the revocation and release; work goes on."""
        s = self.stage
        self.view.say("6. Validators 4 and 5 come back. People lift the revocations and consent to the release, four of six.")
        s.validators([4, 5])
        s.allow(0, 1, 2)
        for i in range(4):
            s.wait(f"validator {i} to be asked for the release", partial(consented, s, i))
        begun = now_ns()
        s.wait("the releasing lease", lambda: bool(self.view.gate))
        self.figure("fourth consent, to the gate open", (now_ns() - begun) / 1e6, "ms")
        s.wait("both to work again", lambda: counted(s) != "0" and rate(s) > 0)
        self.view.say("   the lease that quotes the fail-safe record opened the gate; both workloads go on.")
        s.renewed(1)

    def prove(self) -> None:
        """Stop everything, keep what proves the run, check it, and check that a changed copy fails."""
        s = self.stage
        self.view.say("7. Everything stops; the log is checked, here and by a program that shares no code with this one.")
        for name in ("infer", "busy", "agent"):
            s.stop(name)
        with s.client() as guard:
            log = list(guard.records())
        self.view.over.set()
        s.stop("guard")
        keep(s, log)
        begun = now_ns()
        audit_verify(b"".join(log[1:]), log[0][208:240])
        self.figure("log verified, per record", (now_ns() - begun) / len(log), "ns")
        outside(OUT, good=True)
        raw = bytearray((OUT / "log.bin").read_bytes())
        raw[len(log) // 2 * 256 + 40] ^= 1
        tampered = OUT / "tampered"
        shutil.copytree(OUT, tampered, ignore=shutil.ignore_patterns("tampered"))
        (tampered / "log.bin").write_bytes(raw)
        try:
            audit_verify(bytes(raw[256:]), log[0][208:240])
        except AuditError as no:
            self.view.say(f"   one bit of record {len(log) // 2} changed in a copy: refused at record {no.index + 1}")
        else:
            raise Failed("a tampered log verified")
        outside(tampered, good=False)
        shutil.rmtree(tampered)


def consented(stage: Stage, index: int) -> bool:
    """Consent at one validator; False while no fail-safe waits there yet."""
    try:
        stage.release(index)
    except QsafpError:
        return False
    return True


def keep(stage: Stage, log: list[bytes]) -> None:
    """Copy what proves the run to ``build/demo``."""
    (OUT / "leases").mkdir(parents=True)
    (OUT / "log.bin").write_bytes(b"".join(log))
    shutil.copy(stage.root / "set" / "set-1.cbor", OUT / "set.cbor")
    shutil.copy(stage.root / "run" / "main" / "pins.trace", OUT / "pins.trace")
    serials = {r["evidence"]: r["serial"] for r in map(record_decode, log) if r["event"] in (Event.LEASE_ISSUED, Event.LEASE_RENEWED)}
    evidence, at = (stage.root / "guard" / "state" / "evidence.log").read_bytes(), 0
    while at < len(evidence):
        size, name = int.from_bytes(evidence[at + 4 : at + 8], "little"), evidence[at + 8 : at + 40]
        if name in serials:
            (OUT / "leases" / f"{serials[name]:06d}.cbor").write_bytes(evidence[at + 40 : at + 40 + size])
        at += 40 + size


def outside(where: Path, *, good: bool) -> None:
    """Run the outside verifier; raises Failed if it does not say what it should."""
    done = subprocess.run(
        [sys.executable, str(HERE / "verify_outside.py"), str(where)], capture_output=True, text=True, timeout=60, check=False
    )
    print("   " + (done.stdout + done.stderr).strip().replace("\n", "\n   "), flush=True)
    check((done.returncode == 0) == good, f"the outside verifier ended with {done.returncode}")


def table(figures: dict[str, dict[str, object]]) -> str:
    """The figures, aligned."""
    width = max(map(len, figures))
    return "\n".join(f"   {key:<{width}}  {f['value']:>12,} {f['unit']}" for key, f in figures.items())


def main() -> int:
    """Run the acts; 0 only if all held."""
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument(
        "--suite", choices=("ed25519", "ml-dsa-65", "hybrid"), default="ed25519", help="how validators sign (default: %(default)s)"
    )
    args = p.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: nothing stays behind
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    begun = time.monotonic()
    model = OUT / "digits.onnx"
    print(f"Training the model: {train(model):.1%} of the held-out digits right. Suite {args.suite}.", flush=True)
    try:
        with Stage(duration_ms=LEASE_MS, model=model.read_bytes(), suite=args.suite) as stage:
            (stage.base / "busy").mkdir()
            (stage.base / "busy" / "state.txt").write_text("0")
            demo = Demo(stage, model)
            acts: tuple[Callable[[], None], ...] = (demo.obtain, demo.infer, demo.renew, demo.revoke, demo.resume, demo.prove)
            try:
                for act in acts:
                    act()
            finally:
                demo.view.over.set()
    except (QsafpError, KeyboardInterrupt) as no:
        print(f"\ndemo: failed: {str(no) or 'interrupted'}", file=sys.stderr)
        return 1
    demo.figure("all of it", time.monotonic() - begun, "s")
    (OUT / "figures.json").write_text(json.dumps(demo.figures, indent=1) + "\n")
    print(f"\nMeasured in this run (SIMULATED PINS, LAB validators, suite {args.suite}):\n{table(demo.figures)}")
    print(f"\nAll held. Left in {OUT.relative_to(HERE.parent)}: log.bin, leases, set.cbor, pins.trace, digits.onnx, figures.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
