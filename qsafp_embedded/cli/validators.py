# SPDX-License-Identifier: Apache-2.0
"""``qsafp validators up`` and an operator's acts at validators on this host: ``qsafp validator …``."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import ConfigError, QsafpError
from ..validator import admin_client
from .common import Commands, Home, ask_agent, command, emit, group, home_of

__all__ = ["add", "each"]


def add(commands: Commands) -> None:
    """Add ``validators`` and ``validator``."""
    acts = group(commands, "validators", "run the validators of this directory", "qsafp validators up")
    command(acts, "up", _up, "start all validators of the directory and wait; Ctrl-C stops them", "qsafp validators up --dir ~/lab")
    acts = group(
        commands,
        "validator",
        "revoke, allow, release at validators; see their lists",
        'qsafp validator revoke --all --text "smoke"\nqsafp validator waiting --index 0',
    )
    for name, run, text, example in (
        ("revoke", _revoke, "revoke this device; n-m+1 validators that do close its gate", '--all --text "smoke in hall 3"'),
        ("allow", _allow, "lift a revocation, or register a device that applied; releases nothing", "--all --ueid 01ab…"),
        ("release", _release, "consent to the release of a fail-safe", "--index 0"),
        ("decisions", _decisions, "list the latest decisions", "--index 0"),
        ("devices", _devices, "list the registered devices", "--json"),
        ("waiting", _waiting, "list what waits for a person: fail-safes to release, devices that applied", ""),
    ):
        p = command(acts, name, run, text, f"qsafp validator {name} {example}".strip())
        which = p.add_mutually_exclusive_group(required=name in ("revoke", "allow", "release"))
        which.add_argument("--index", type=int, metavar="I", help="one validator")
        which.add_argument("--all", action="store_true", help="all validators of the directory")
        p.add_argument("--ueid", metavar="HEX", help="another device than this directory's")
        if name == "revoke":
            p.add_argument("--text", default="revoked by an operator", help="why, for people")
        if name == "release":
            p.add_argument("--sequence", type=int, metavar="N", help="record of the fail-safe (default: the one that waits)")


def _up(args: argparse.Namespace) -> int:
    home = home_of(args)
    where = home.validators()
    if not where:
        raise ConfigError(f"{home.root}: no validator lives here")

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    base = [sys.executable, "-m", "qsafp_embedded.validator", "--config"]
    shown = sys.stderr if args.json else None  # what they say is for people
    children = {p.name: subprocess.Popen([*base, str(p / "validator.toml")], stdin=subprocess.DEVNULL, stdout=shown) for p in where}
    if args.json:
        emit(args, {name: child.pid for name, child in children.items()}, "")
    failed = 0
    try:
        while children:
            for name, child in list(children.items()):
                if child.poll() is not None:
                    failed += child.returncode != 0
                    print(f"qsafp: {name} ended with exit code {child.returncode}", file=sys.stderr, flush=True)
                    del children[name]
            time.sleep(0.2)
    except KeyboardInterrupt:
        failed = 0
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # however often it comes, the end is clean
        for child in children.values():
            child.terminate()
        for child in children.values():
            child.wait()
    return int(failed > 0)


def each(home: Home, index: int | None, act: Callable[[Path], Any]) -> dict[int, Any]:
    """Do something at one or all validators; a failure is a string that starts with ``error:``.  Raises ConfigError for no such index."""
    out: dict[int, Any] = {}
    for path in home.validators():
        number = int(path.name[10:])
        if index is None or number == index:
            try:
                out[number] = act(path / "admin.sock")
            except QsafpError as why:
                out[number] = f"error: {why}"
    if not out:
        raise ConfigError(f"{home.root}: no validator {index} lives here")
    return out


def _tell(args: argparse.Namespace, found: dict[int, Any], done: str) -> int:
    bad = {i: v for i, v in found.items() if isinstance(v, str)}
    lines = [f"validator {i}: {found[i] if i in bad else done}" for i in found]
    emit(args, {str(i): {"error": v[7:]} if isinstance(v, str) else v for i, v in found.items()}, "\n".join(lines))
    return int(bool(bad))


def _ueid(args: argparse.Namespace, home: Home) -> bytes:
    try:
        return bytes.fromhex(args.ueid) if args.ueid else home.ueid
    except ValueError as why:
        raise ConfigError("--ueid is not hex") from why


def _revoke(args: argparse.Namespace) -> int:
    home = home_of(args)
    ueid = _ueid(args, home)
    return _tell(args, each(home, args.index, lambda p: admin_client.revoke(p, ueid, text=args.text)), "revoked")


def _allow(args: argparse.Namespace) -> int:
    home = home_of(args)
    ueid = _ueid(args, home)
    code = _tell(args, each(home, args.index, lambda p: admin_client.allow(p, ueid)), "allowed; a fail-safe needs qsafp unlock too")
    ask_agent(home, "renew")
    return code


def _release(args: argparse.Namespace) -> int:
    home = home_of(args)
    ueid = _ueid(args, home)

    def act(path: Path) -> Any:
        if args.sequence is not None:
            return admin_client.release(path, ueid, args.sequence)
        waiting = [w for w in admin_client.pending(path) if w["ueid"] == ueid.hex()]
        if not waiting:
            raise QsafpError("no fail-safe of this device waits here; is its agent at work, and the revocation lifted?")
        return admin_client.release(path, ueid, int(waiting[0]["sequence"]))

    code = _tell(args, each(home, args.index, act), "released")
    ask_agent(home, "renew")
    return code


def _lists(args: argparse.Namespace, call: Callable[[Path], list[dict[str, Any]]]) -> int:
    found = each(home_of(args), args.index, call)
    bad = any(isinstance(v, str) for v in found.values())
    lines = []
    for i, rows in found.items():
        lines.append(f"validator {i}: {rows if isinstance(rows, str) else f'{len(rows)} listed'}")
        if not isinstance(rows, str):
            lines += ["  " + "  ".join(f"{k}={_short(k, v)}" for k, v in row.items()) for row in rows]
    emit(args, {str(i): {"error": v[7:]} if isinstance(v, str) else v for i, v in found.items()}, "\n".join(lines))
    return int(bad)


def _short(key: str, value: object) -> str:
    if key in ("at_ms", "since_ms", "decided_ms") and isinstance(value, int):
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(value / 1000)) if value else "never"
    text = str(value)
    return text if len(text) <= 20 else text[:16] + "…"


def _decisions(args: argparse.Namespace) -> int:
    return _lists(args, admin_client.decisions)


def _devices(args: argparse.Namespace) -> int:
    return _lists(args, admin_client.devices)


def _waiting(args: argparse.Namespace) -> int:
    return _lists(
        args,
        lambda p: [
            *({"waits": "release", **w} for w in admin_client.pending(p)),
            *({"waits": "allow", **w} for w in admin_client.applicants(p)),
        ],
    )
