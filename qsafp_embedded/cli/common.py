# SPDX-License-Identifier: Apache-2.0
"""What all commands share: the directory they work on, and how they answer."""

from __future__ import annotations

import argparse
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..settings import read_toml

__all__ = ["Commands", "Home", "ask_agent", "command", "default_dir", "emit", "home_of"]

Commands = Any  # what add_subparsers returns; argparse does not export its type


def default_dir() -> Path:
    """Return QSAFP_DIR, else /var/lib/qsafp for root, else the user's data directory."""
    named = os.environ.get("QSAFP_DIR")
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/lib/qsafp")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "qsafp"


@dataclass(frozen=True)
class Home:
    """A directory that ``qsafp init`` laid out."""

    root: Path

    @property
    def guard_toml(self) -> Path:
        """The guard's configuration."""
        return self.root / "guard" / "guard.toml"

    @property
    def agent_toml(self) -> Path:
        """The agent's configuration."""
        return self.root / "agent" / "agent.toml"

    @property
    def run(self) -> Path:
        """Where the sockets of the lease are, as guard.toml says; raises ConfigError."""
        table = read_toml(self.guard_toml)
        return (self.guard_toml.parent / str(table.get("run_dir", "../run/main"))).resolve()

    @property
    def ctl(self) -> Path:
        """The guard's command socket."""
        return self.run / "ctl.sock"

    @property
    def agent(self) -> Path:
        """The agent's control socket."""
        return self.run / "agent.sock"

    @property
    def set_document(self) -> Path:
        """The set document that the guard trusts."""
        return (self.guard_toml.parent / str(read_toml(self.guard_toml).get("set", ""))).resolve()

    @property
    def enrolment(self) -> dict[str, str]:
        """The public enrolment: ueid, key, log_id in hex, lease name; raises ConfigError."""
        path = self.root / "guard" / "enrolment.json"
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError) as why:
            raise ConfigError(f"{path}: no enrolment ({why}); make it: qsafp init") from why
        return {k: str(v) for k, v in found.items()}

    @property
    def ueid(self) -> bytes:
        """The device's id."""
        return bytes.fromhex(self.enrolment["ueid"])

    def validators(self) -> list[Path]:
        """The directories of the validators on this host, by index."""
        found = [p for p in self.root.glob("validator-*") if p.name[10:].isdecimal() and (p / "validator.toml").exists()]
        return sorted(found, key=lambda p: int(p.name[10:]))


def home_of(args: argparse.Namespace) -> Home:
    """Return the directory that a command works on; raises ConfigError if nothing was made there."""
    home = Home(Path(args.dir).absolute())
    if not home.guard_toml.exists():
        raise ConfigError(f"{home.root}: nothing was set up here; run: qsafp init --profile lab --dir {args.dir}")
    return home


def command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
    """Add one command with the options that all have."""
    p: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    p.add_argument("--dir", default=str(default_dir()), metavar="D", help="directory made by qsafp init (default: %(default)s)")
    p.add_argument("--json", action="store_true", help="answer in JSON")
    p.set_defaults(run=run)
    return p


def emit(args: argparse.Namespace, data: object, text: str) -> None:
    """Print the answer: JSON for programs, text for people."""
    print(json.dumps(data) if args.json else text, flush=True)


def ask_agent(home: Home, name: str) -> dict[str, Any] | None:
    """Send one command to the agent and return its answer; None if none runs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as s:
        s.settimeout(5.0)
        try:
            s.connect(str(home.agent))
            s.sendall(json.dumps({"cmd": name}).encode() + b"\n")
            with s.makefile("rb") as file:
                return dict(json.loads(file.readline()))
        except (OSError, ValueError):
            return None
