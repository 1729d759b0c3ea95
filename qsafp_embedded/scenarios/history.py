# SPDX-License-Identifier: Apache-2.0
"""A log that was changed, rewritten with good hashes, or put back to an earlier day."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

from .._core import cbor_dumps, record_hash, tree_leaf
from .._tables import Event, Phase, Reason, Refusal
from .device import tree_of, tree_range
from .registry import Figures, scenario
from .stage import Stage, check
from .wire import ask, counts, last_lease, refusal_code, signed_request

__all__ = ["log_rollback", "log_tamper"]

RECORD = 256
VICTIM = 9


def _ring(s: Stage) -> list[bytes]:
    """The records of the ring file, oldest first; the log is young enough not to have wrapped."""
    raw = (s.root / "guard/state/log.ring").read_bytes()
    records = [raw[at : at + RECORD] for at in range(0, len(raw), RECORD)]
    return [r for r in records if r.startswith(b"QAR1")]


def _write_ring(s: Stage, records: list[bytes]) -> None:
    with (s.root / "guard/state/log.ring").open("r+b") as file:
        file.write(b"".join(records))


def _rewritten(records: list[bytes]) -> list[bytes]:
    """One record changed, and every hash after it made good: what root can do without the seal keys."""
    out = records[:VICTIM]
    for old in [records[VICTIM][:120] + b"tampered" + records[VICTIM][128:], *records[VICTIM + 1 :]]:
        digest = record_hash(out[-1][208:240], old)
        out.append(old[:208] + digest + old[240:])
    return out


def _verify(s: Stage, *options: str) -> tuple[int, str]:
    """What ``qsafp audit verify`` says of the ring file."""
    command = [sys.executable, "-m", "qsafp_embedded.cli", "audit", "verify", "--dir", str(s.root), *options]
    command += ["--file", str(s.root / "guard/state/log.ring")]
    done = subprocess.run(command, capture_output=True, text=True, env=s.environment(), timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def _refuses_to_start(s: Stage) -> str:
    """Start the guard over this log; it must end and say why."""
    guard = s.module("guard", "guard", "--config", str(s.root / "guard/guard.toml"))
    s.wait("the guard to refuse", lambda: guard.poll() is not None or s.served())
    check(guard.poll() == 1, "the guard serves with a log that was changed")
    return s.words("guard").strip().splitlines()[-1]


@scenario(fast=True)
def log_tamper(s: Stage) -> Figures:
    """A record is changed: guard and audit name it.  Rewritten with good hashes, the seals, the guard and the validators still refuse."""
    s.start()
    with s.client() as guard:
        for i in range(40):
            guard.log_event(Event.WORKLOAD_REPORT, data=bytes([i]))
    serial = s.renewed(2).serial
    s.wait("the agent to keep the lease", lambda: last_lease(s)["serial"] >= serial)
    s.stop("agent")
    s.stop("guard")
    records = _ring(s)
    sealed = ["--k0", str(s.root / "auditor/k0")]
    code, said = _verify(s, *sealed)
    check(code == 0, f"the good log does not verify: {said}")
    changed = bytearray(records[VICTIM])
    changed[120] ^= 1
    _write_ring(s, [*records[:VICTIM], bytes(changed), *records[VICTIM + 1 :]])
    code, said = _verify(s)
    check(code == 1 and re.search(rf"\brecord {VICTIM}\b", said) is not None, f"audit verify said {said}")
    named = _refuses_to_start(s)
    check(re.search(rf"\b{VICTIM}\b", named) is not None, f"the guard said {named}")
    forged = _rewritten(records)
    _write_ring(s, forged)
    code, said = _verify(s, *sealed)
    check(code == 1 and "not those that the validators signed" in said, f"audit verify said {said}")
    kept = s.root / "agent/evidence"
    kept.rename(s.base / "evidence")
    code, said = _verify(s, *sealed)  # an auditor without the lease still has the seals
    (s.base / "evidence").rename(kept)
    check(code == 1 and "seal" in said and re.search(r"\brecord 15\b", said) is not None, f"audit verify said {said}")
    rewritten = _refuses_to_start(s)
    _write_ring(s, records)
    denied = [_rewritten_request(s, i, forged) for i in range(6)]
    check(denied == [Refusal.LOG_INCONSISTENT] * 6, f"validators said {denied} to a rewritten log")
    s.guard()  # the good log starts again
    said = rewritten.rpartition("/")[2]
    return {"records": len(records), "named_record": VICTIM, "seal_named": 15, "validators_refused": 6, "guard_said": said}


def _rewritten_request(s: Stage, index: int, records: list[bytes]) -> Refusal | None:
    """What a validator says to a request over a rewritten log, signed with the stolen device key: everything else is right."""
    claims = last_lease(s)
    old, leaves = claims["log_size"], [tree_leaf(r[208:240]) for r in records]
    claims |= {"serial": claims["serial"] + 1, "log_size": len(leaves), "log_root": tree_of(leaves).root()}
    request = signed_request(s, claims)
    envelope = cbor_dumps({1: request, 2: old, 3: None, 4: tree_range(leaves, old, len(leaves)), 5: None, 6: None, 7: None})
    status, body = ask(s, index, "/v1/renew", envelope)
    check(status == 200, f"validator {index} answered {status}: {body[:200]!r}")
    return refusal_code(s, index, body)


@scenario(fast=True)
def log_rollback(s: Stage) -> Figures:
    """The guard's whole state is put back to an earlier copy: validators deny its serials and its log, and no lease comes."""
    s.start()
    s.renewed()
    s.stop("agent")
    s.stop("guard")
    state, copy = s.root / "guard/state", s.base / "copy"
    shutil.copytree(state, copy)
    s.guard()
    s.agent()
    s.opened()
    s.workload()
    ahead = s.renewed(2)
    s.stop("agent")
    s.stop("guard")
    shutil.rmtree(state)
    shutil.copytree(copy, state)
    opens = s.stamp().opens
    s.guard()
    behind = s.status()
    check(behind.log_next < ahead.log_next, "nothing was rolled back")
    s.agent()
    latched = s.phase(Phase.FAILSAFE)
    check(latched.reason == Reason.VALIDATOR_DENIED, f"latched {latched.reason_name}")
    s.until("the fail-safe to be on record", lambda now: any(now.latch_hash))
    s.release(*range(6))  # people who are fooled: the next serial, over a log that lacks what was approved
    s.wait("denials of the log", lambda: sum(counts(s, i).get("log_inconsistent", 0) for i in range(6)) >= 3)
    check(s.status().phase == Phase.FAILSAFE and s.stamp().opens == opens, "the gate opened")
    said = {name: sum(counts(s, i).get(name, 0) for i in range(6)) for name in ("stale", "equivocation", "log_inconsistent")}
    return {"records_lost": ahead.log_next - behind.log_next, **{f"said_{k}": v for k, v in said.items()}}
