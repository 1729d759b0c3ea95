# SPDX-License-Identifier: Apache-2.0
"""``qsafp failsafe`` stops the device at once; ``qsafp unlock`` lets people at the validators start it again."""

from __future__ import annotations

import argparse
import sys
import time

from .._tables import Phase, Reason
from ..client import GuardClient
from ..errors import GuardUnavailable, QsafpError
from ..validator import admin_client
from .common import Commands, Home, ask_agent, command, emit, home_of
from .status import guard_status
from .validators import each

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add ``failsafe`` and ``unlock``."""
    p = command(commands, "failsafe", _failsafe, "stop the device now; people must release it", "qsafp failsafe --reason ANOMALY --yes")
    p.add_argument("--reason", choices=("MANUAL", "BUS", "ANOMALY"), default="MANUAL", help="what the record says (default: %(default)s)")
    p.add_argument("--yes", action="store_true", help="do not ask; without a terminal nobody is asked either")
    p = command(
        commands, "unlock", _unlock, "acknowledge a fail-safe and release it at all validators of this directory", "qsafp unlock --wait 30"
    )
    p.add_argument("--yes", action="store_true", help="acknowledge without being asked")
    p.add_argument("--wait", type=float, default=10.0, metavar="S", help="wait so long for the next lease (default: %(default)s)")


def _yes(question: str) -> bool:
    print(f"{question}  Type yes: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"


def _failsafe(args: argparse.Namespace) -> int:
    home = home_of(args)
    try:
        connected = GuardClient.connect(home.ctl)
    except GuardUnavailable as why:
        raise GuardUnavailable(f"{str(why).partition(';')[0]}; without a guard the gate is closed, and nothing is left to stop") from why
    with connected as guard:
        if not args.yes and sys.stdin.isatty() and not _yes("This stops the device at once, until people release it."):
            raise QsafpError("not confirmed; nothing was stopped")
        guard.failsafe(Reason[args.reason])
        s = guard.status()
    text = f"stopped: {s.phase_name.lower()}, {s.reason_name}, record {s.latch_seq}; to start again: {home.hint('unlock')}"
    emit(args, {"phase": s.phase_name.lower(), "reason": s.reason_name, "sequence": s.latch_seq, "hash": s.latch_hash.hex()}, text)
    return 0


def _unlock(args: argparse.Namespace) -> int:
    home = home_of(args)
    s = guard_status(home)
    if s.phase != Phase.FAILSAFE:
        emit(args, {"phase": s.phase_name.lower(), "released": {}}, f"nothing to unlock: phase {s.phase_name.lower()}")
        return 0
    latch = f"fail-safe {s.reason_name}, record {s.latch_seq}, {s.latch_hash.hex()[:16]}…"
    if not args.yes and not _yes(f"{latch}\nIs the cause understood, and is it safe to start again?"):
        raise QsafpError("not acknowledged; nothing was released")
    released = each(home, None, lambda p: admin_client.release(p, s.ueid, s.latch_seq, record_hash=s.latch_hash))
    good = [i for i, v in released.items() if not isinstance(v, str)]
    if ask_agent(home, "renew") is None:
        raise QsafpError(f"released at {len(good)} validators, but no agent runs: {home.start_agent}")
    end = time.monotonic() + args.wait
    while (now := guard_status(home)).phase not in (Phase.ACTIVE, Phase.WARNING) and time.monotonic() < end:
        time.sleep(0.02)
    open_ = now.phase in (Phase.ACTIVE, Phase.WARNING)
    bad = "".join(f"\n  validator {i}: {v}" for i, v in released.items() if isinstance(v, str))
    why = "" if open_ else "\n" + _why(home)
    shown = {str(i): v if isinstance(v, dict) else {"error": v[7:]} for i, v in released.items()}
    text = f"{latch}: released at {len(good)} of {s.total} validators; phase {now.phase_name.lower()}{bad}{why}"
    emit(args, {"phase": now.phase_name.lower(), "serial": now.serial, "released": shown}, text)
    return int(not open_)


def _why(home: Home) -> str:
    """What keeps the lease away, and the command that helps."""
    known = ask_agent(home, "status")
    if known is None:
        return f"no agent runs\n  start it: {home.start_agent}"
    return f"{known['error']}\n  what helps: {home.remedy(str(known['error']))}"
