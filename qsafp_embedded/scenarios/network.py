# SPDX-License-Identifier: Apache-2.0
"""Other devices, other models, and validators that are away, slow or busy."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

from .. import cose, keys
from .._core import sha256
from .._tables import Error, Event, Phase, Reason
from ..client import GuardClient
from ..errors import WrongModel
from ..keyfile import read_secret
from .registry import Figures, scenario
from .stage import MARGIN_MS, Stage, check, ms
from .votes import payload_of, refused
from .wire import ask, counts, envelope_of, last_lease, signed_request

__all__ = ["rate_limited", "slow_validators", "validator_outage", "wrong_device", "wrong_model"]


def _second_device(s: Stage) -> keys.Ed25519Key:
    """Enrol and start another guard that trusts the same set, but that no validator knows; returns its key."""
    here = s.root / "other"
    here.mkdir()
    text = (s.root / "guard/guard.toml").read_text().replace("run/main", "run/other")
    (here / "guard.toml").write_text(text.replace('lease = "main"', 'lease = "other"'))
    command = [sys.executable, "-m", "qsafp_embedded.guard", "--config", str(here / "guard.toml")]
    done = subprocess.run([*command, "--init"], capture_output=True, text=True, env=s.environment(), timeout=60, check=False)
    check(done.returncode == 0 and "ueid" in json.loads(done.stdout), f"the second device: {done.stderr}")
    s.spawn("other", command)
    s.wait("the second guard to serve", lambda: (s.root / "run/other/ctl.sock").exists() and "serving" in s.words("other"))
    return keys.Ed25519Key.from_seed(read_secret(here / "state/device.key", "device"))


@scenario(fast=True)
def wrong_device(s: Stage) -> Figures:
    """A lease of one device opens no other's gate, and validators sign nothing for a device they do not know."""
    s.start()
    s.renewed()
    other = _second_device(s)
    lease = (s.root / "agent/evidence/last-lease.cbor").read_bytes()
    with GuardClient.connect(s.root / "run/other/ctl.sock") as guard:
        said = [refused(guard, lease)]
        payload, _ = payload_of(guard)
        answers = [ask(s, i, "/v1/renew", guard.envelope())[0] for i in range(6)]
        said += [refused(guard, lease), refused(guard, cose.encode_sign(payload, cose.parse_sign(lease).by))]
        check(said == [Error.NO_REQUEST, Error.MISMATCH, Error.BAD_SIGNATURE], f"the other guard said {said}")
        check(guard.status().serial == 0 and guard.status().phase == Phase.FAILSAFE, "four bad signatures latched nothing")
    claims = last_lease(s)
    answers += [ask(s, i, "/v1/renew", envelope_of(signed_request(s, claims, key=other)))[0] for i in range(6)]
    check(answers == [403] * 12, f"validators answered a stranger with {answers}")
    check(s.renewed().phase == Phase.ACTIVE, "the first device was disturbed")
    return {"foreign_tokens_refused": len(said), "requests_of_a_stranger": len(answers)}


@scenario(fast=True, model=b"the model that was approved")
def wrong_model(s: Stage) -> Figures:
    """A lease names one model: a gate for another refuses, and a guard that is given another gets a denial."""
    s.start()
    good, bad = sha256(b"the model that was approved"), sha256(b"another model")
    check(bool(s.gate(good)), "closed for the right model")
    wrong = s.gate(bad)
    try:
        wrong.require()
    except WrongModel as why:
        said = str(why)
    else:
        check(False, "the gate is open for another model")
    s.stop("agent")
    s.stop("guard")
    (s.base / "model.bin").write_bytes(b"another model")
    s.guard()
    s.agent()
    status = s.phase(Phase.FAILSAFE)
    check(status.reason == Reason.VALIDATOR_DENIED and status.model == bad, f"latched {status.reason_name}")
    denied = sum(counts(s, i).get("model", 0) for i in range(6))
    check(denied >= 3, f"{denied} validators denied the model")
    check(not s.gate(good) and not s.gate(bad), "a gate is open")
    return {"denials": denied, "latched": status.reason_name, "gate_said": said.split(",")[0]}


@scenario(fast=True, duration_ms=3000)
def validator_outage(s: Stage) -> Figures:
    """Two of six validators down: nothing happens.  Three down: the lease expires.  One comes back: the device resumes."""
    s.start()
    s.workload()
    s.wait("an open gate", lambda: s.stamp().opens > 0)
    s.kill("validator-4")
    s.kill("validator-5")
    two = s.renewed(3)
    check(s.stamp().closes == 0, "the gate closed with two validators down")
    s.kill("validator-3")
    latched = s.phase(Phase.FAILSAFE)
    check(latched.reason in (Reason.NETWORK_TIMEOUT, Reason.LEASE_EXPIRED), f"latched {latched.reason_name}")
    check(not [r for r in s.records() if r["event"] == Event.LEASE_DENIED], "an outage became a denial")
    closed = s.stamp().closed_ns
    s.validator(5)
    s.opened()
    s.wait("the workload to go on", lambda: s.stamp().last_open_ns > closed)
    check(s.stamp().closes == 1, f"the gate closed {s.stamp().closes} times")
    return {
        "leases_with_two_down": two.serial,
        "latched_with_three_down": latched.reason_name,
        "closed_for_ms": ms(s.stamp().last_open_ns - closed),
    }


@scenario(fast=True, duration_ms=3000)
def slow_validators(s: Stage) -> Figures:
    """Two validators that take 30 s delay nothing; four that take 0.6 s make leases 0.6 s shorter, for time starts at the nonce."""
    s.validators(range(4))
    s.validators([4, 5], "slow", "30")
    s.guard()
    s.agent()
    s.opened()
    s.workload()
    s.wait("an open gate", lambda: s.stamp().opens > 0)
    fast = _new_lease_ms(s)
    check(fast >= s.duration_ms - MARGIN_MS, f"only {fast} ms were left of a new lease")
    check(s.stamp().closes == 0, "the gate closed")
    for i in range(4):
        s.stop(f"validator-{i}")
    s.validators(range(4), "slow", "0.6")
    s.renewed()
    closes = s.stamp().closes  # on a slow host the change itself may have taken a lease's time
    slow = _new_lease_ms(s)
    check(slow <= s.duration_ms - 600, f"{slow} ms were left of a lease that took 600 ms to get")
    check(s.stamp().closes == closes, "the gate closed")
    return {"left_of_a_new_lease_ms": fast, "left_when_slow_ms": slow, "lease_ms": s.duration_ms, "false_closes": s.stamp().closes - closes}


def _new_lease_ms(s: Stage) -> float:
    """What is left of a lease just when it came."""
    serial = s.status().serial
    return ms(s.until("a renewal", lambda now: now.serial > serial).remaining_ns)


@scenario(fast=True, duration_ms=4000, policy={"min_interval_ms": 2300})
def rate_limited(s: Stage) -> Figures:
    """Asked too often, validators say later, never no: the lease comes late; if it never comes it expires, undenied."""
    s.start()
    s.workload()
    s.wait("an open gate", lambda: s.stamp().opens > 0)
    late = s.renewed(3)
    limited = sum(counts(s, i).get("rate", 0) for i in range(6))
    check(limited >= 6, f"only {limited} requests were limited")
    check(s.stamp().closes == 0, "the gate closed")
    for i in range(6):
        path = s.root / f"validator-{i}/validator.toml"
        path.write_text(re.sub("min_interval_ms = .*", "min_interval_ms = 3600000", path.read_text()))
        s.processes[f"validator-{i}"].send_signal(signal.SIGHUP)
    latched = s.phase(Phase.FAILSAFE)
    check(latched.reason in (Reason.NETWORK_TIMEOUT, Reason.LEASE_EXPIRED), f"latched {latched.reason_name}")
    check(not [r for r in s.records() if r["event"] == Event.LEASE_DENIED], "a limit became a denial")
    return {"leases": late.serial, "said_later": limited, "latched_at_last": latched.reason_name}
