# SPDX-License-Identifier: Apache-2.0
"""``qsafp status``, ``qsafp lease show`` and ``qsafp gate check``: what holds now, asked of the guard itself."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from ..client import GuardClient, Status
from ..errors import ConfigError, FormatError, GuardUnavailable, LeaseRefused, QsafpError
from ..settings import read_toml
from .common import Commands, Home, ask_agent, command, emit, group, home_of

__all__ = ["add", "guard_status"]

WATCH_S = 0.5


def add(commands: Commands) -> None:
    """Add ``status``, ``lease`` and ``gate``."""
    p = command(commands, "status", _status, "show lease, guard, agent and validators", "qsafp status --watch\nqsafp status --json")
    p.add_argument("--metrics", action="store_true", help="what the agent knows, as Prometheus text")
    p.add_argument("-w", "--watch", action="store_true", help="keep showing until Ctrl-C")
    acts = group(commands, "lease", "look at the newest lease", "qsafp lease show")
    command(acts, "show", _lease, "verify the newest lease and show its claims and signers", "qsafp lease show --json")
    acts = group(commands, "gate", "ask the gate", "qsafp gate check")
    p = command(
        acts,
        "check",
        _gate,
        "exit with 0 if the gate is open, with 1 and the reason if it is closed",
        "qsafp gate check --model model.onnx && ./infer",
    )
    p.add_argument("--model", metavar="FILE", help="and only for this model")


def guard_status(home: Home) -> Status:
    """Ask the guard; raises GuardUnavailable, CommandRefused."""
    with GuardClient.connect(home.ctl) as guard:
        return guard.status()


def _look(home: Home) -> dict[str, Any]:
    """Guard and agent, each None when it does not answer."""
    try:
        with GuardClient.connect(home.ctl) as guard:
            pid, s = guard.pid, guard.status()
    except GuardUnavailable as why:
        return {"guard": None, "error": str(why), "agent": ask_agent(home, "status")}
    return {
        "guard": {
            "pid": pid,
            "level": _level(home, s.serial),
            "device_key": read_toml(home.guard_toml).get("device_key", "file"),
            "phase": s.phase_name.lower(),
            "status": s.status_name,
            "reason": s.reason_name,
            "serial": s.serial,
            "remaining_ms": s.remaining_ns // 1_000_000,
            "duration_ms": s.duration_ms,
            "renewals": s.renewals,
            "renew_wanted": s.renew_wanted,
            "approvals": s.approvals,
            "validators": s.total,
            "lab": s.lab,
            "contained": s.contained,
            "denied": [i for i in range(16) if s.denied >> i & 1],
            "ueid": s.ueid.hex(),
            "model": s.model.hex(),
            "log": {"id": s.log_id.hex(), "next": s.log_next, "head": s.log_head.hex()},
            "key": s.key_place,
            "anchor": _anchor(s),
            "latch": {"sequence": s.latch_seq, "hash": s.latch_hash.hex()} if any(s.latch_hash) else None,
        },
        "error": "",
        "agent": ask_agent(home, "status"),
    }


def _level(home: Home, serial: int) -> int | None:
    """What the running lease states; None if the agent kept none of this serial here."""
    from ..lease import Lease

    try:
        found = Lease.decode(home.last_lease.read_bytes())
    except (OSError, FormatError):
        return None
    return found.level if found.serial == serial else None


def _place(g: dict[str, Any]) -> str:
    """Level and place of the key, in words."""
    level = g["level"]
    stated = "no lease" if level is None else f"{level}, {'quoted by its TPM' if level >= 3 else 'on its word'}"
    return f"level      {stated}; device key in {'a file' if g['device_key'] == 'file' else g['device_key']}"


def _anchor(s: Status) -> dict[str, Any] | None:
    """How the log stands with the TPM; None where it is not bound to one."""
    if not s.bound:
        return None
    return {"sequence": s.anchor_seq or None, "age_s": s.anchor_age_ms / 1000 if s.anchor_seq else None, "failing": s.bound == 2}


def _bound(a: dict[str, Any]) -> str:
    """What the TPM knows of the log, in words."""
    last = "none yet" if a["sequence"] is None else f"record {a['sequence']}, {a['age_s']:.0f} s ago"
    return f"anchor     {last}{'; THE TPM FAILS, see the guard' if a['failing'] else ''}"


def _text(home: Home, found: dict[str, Any]) -> str:
    g, a = found["guard"], found["agent"]
    if g is None:
        lines = [f"guard      none: {found['error']}", "gate       closed"]
    else:
        lab = "  LAB: validators share this host" if g["lab"] else ""
        closed = f": {g['reason']}" if g["reason"] != "NONE" else ""
        lines = [
            f"lease      {g['phase']}, serial {g['serial']}, {g['remaining_ms'] / 1000:.1f} of {g['duration_ms'] / 1000:g} s left{lab}",
            f"status     {g['status']}{closed}{', workloads contained' if g['contained'] else ''}",
            f"guard      pid {g['pid']}, {g['renewals']} renewals, log of {g['log']['next']} records",
            f"device     {g['ueid'][:18]}…  model {g['model'][:16]}…",
            _place(g),
        ]
        lines += [_bound(g["anchor"])] if g["anchor"] else []
        if g["denied"]:
            lines.append(f"denied by  validators {', '.join(map(str, g['denied']))}")
        if g["latch"] and g["phase"] == "failsafe":
            lines.append(f"fail-safe  record {g['latch']['sequence']}; when the cause is understood: {home.hint('unlock')}")
    return "\n".join(lines + (_agent(a) if a else [f"agent      none; start it: {home.start_agent}"]))


def _vote(v: dict[str, Any]) -> str:
    if v["state"] == "unreachable" and v["poll"]:
        v = v | {"state": "back", "text": "missed the last renewal"}
    took = f"{v['ms']:8.1f} ms" if v["ms"] else " " * 11
    return f"  validator {v['index']}: {v['state']:<11}{took}  {'poll alive' if v['poll'] else 'no poll':<10}  {v['text']}".rstrip()


def _agent(a: dict[str, Any]) -> list[str]:
    isolated = "  ISOLATED: no stop by the quorum could arrive" if a["isolated"] else ""
    took = sorted(a["latencies_ms"])
    typical = f", renewals take {took[len(took) // 2]:.1f} ms" if took else ""
    lines = [f"agent      pid {a['agent']}, {a['polls']} of {a['n']} polls alive{typical}{isolated}"]
    lines += [_vote(v) for v in a["round"]]
    return lines + ([f"trouble    {a['error']}"] if a["error"] else [])


def _status(args: argparse.Namespace) -> int:
    home = home_of(args)
    if args.metrics:
        known = ask_agent(home, "metrics")
        if known is None:
            raise GuardUnavailable(f"{home.agent}: no agent answers; start it: {home.start_agent}")
        emit(args, known, str(known["text"]).rstrip("\n"))
        return 0
    clear = "\x1b[H\x1b[J" if sys.stdout.isatty() and not args.json else ""
    while args.watch:
        found = _look(home)
        emit(args, found, clear + _text(home, found))
        time.sleep(WATCH_S)
    found = _look(home)
    emit(args, found, _text(home, found))
    return int(found["guard"] is None)


def _lease(args: argparse.Namespace) -> int:
    from .. import sets
    from ..lease import Lease

    home = home_of(args)
    path = home.last_lease
    try:
        token, members = path.read_bytes(), home.members()
    except OSError as why:
        raise ConfigError(f"{why.filename}: {why.strerror}; a lease is there once the agent got one") from why
    try:
        claims = sets.verify_lease(token, members)
    except FormatError as why:
        raise QsafpError(f"{path}: {why}") from why
    signers = Lease.decode(token).signers(members)
    shown = {k: v.hex() if isinstance(v, bytes) else v for k, v in claims.items()}
    shown |= {"signers": signers, "m": members.m, "n": members.n, "suite": members.suite, "bytes": len(token), "token": token.hex()}
    warning, grace, initial, extension = claims["policy_ms"]
    lines = [
        f"lease      {shown['lease_id']}  serial {claims['serial']}  {len(token)} bytes, {members.suite}",
        f"signed by  validators {', '.join(map(str, signers))}: {members.m} of {members.n}, all good{'  LAB' if claims['lab'] else ''}",
        f"duration   {claims['duration_ms']} ms; warning {warning}, grace {grace}, initial {initial}, extension {extension} ms",
        f"device     {shown['ueid']}",
        f"model      {shown['model']}",
        f"log        {claims['log_size']} records, root {shown['log_root']}",
        f"nonce      {shown['nonce']}  epoch {claims['epoch']}  level {claims['level']}",
    ]
    if claims["has_failsafe"]:
        lines.append(f"releases   fail-safe record {claims['failsafe_seq']}, {shown['failsafe_hash']}")
    emit(args, shown, "\n".join(lines))
    return 0


def _gate(args: argparse.Namespace) -> int:
    from ..gate import Gate

    run = home_of(args).run
    gate = Gate(model=args.model, lease=run.name, run_dir=run.parent)
    try:
        gate.require()
    except LeaseRefused as why:
        shown = {"open": False, "error": type(why).__name__, "reason": why.reason, "resume": why.resume, "text": str(why)}
        emit(args, shown, f"closed: {why}")
        return 1
    i = gate.info()
    phase = i.phase.name.lower()
    emit(args, {"open": True, "serial": i.serial, "phase": phase}, f"open: lease {run.name} #{i.serial}, {phase}")
    return 0
