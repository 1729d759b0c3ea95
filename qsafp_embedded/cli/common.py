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
from typing import Any, BinaryIO

from .. import sets
from ..client import CommandRefused, GuardClient
from ..errors import ConfigError, GuardUnavailable, QsafpError
from ..settings import read_toml
from .templates import SYSTEM, Folders

__all__ = ["Commands", "Home", "ask_agent", "command", "emit", "folders", "group", "home_of", "write_new"]

Commands = Any  # what add_subparsers returns; argparse does not export its type


def _default_folders() -> Folders:
    """Return where things are without ``--dir``: QSAFP_DIR, else /etc, /var/lib and /run for root, else the XDG folders."""
    if named := os.environ.get("QSAFP_DIR"):
        return folders(Path(named))
    if os.geteuid() == 0:
        return SYSTEM

    def xdg(variable: str, otherwise: str) -> Path:
        return Path(os.environ.get(variable) or Path.home() / otherwise) / "qsafp"

    state = xdg("XDG_STATE_HOME", ".local/state")
    run = xdg("XDG_RUNTIME_DIR", "") if os.environ.get("XDG_RUNTIME_DIR") else state / "run"
    return Folders(xdg("XDG_CONFIG_HOME", ".config"), state, run)


def folders(root: Path | None) -> Folders:
    """Return where things are under one ``--dir``; the default places if None."""
    if root is None:
        return _default_folders()
    root = root.absolute()
    return Folders(root, root, root / "run")


@dataclass(frozen=True)
class Home:
    """What ``qsafp init`` laid out: configuration under ``root``, state there too unless it has a folder of its own."""

    root: Path
    kept: Path | None = None
    given: bool = True

    def hint(self, words: str) -> str:
        """A command for people to copy, with the ``--dir`` that it needs."""
        return f"qsafp {words}{f' --dir {self.root}' if self.given else ''}"

    def remedy(self, said: str) -> str:
        """What helps against what the agent says keeps the lease away."""
        if "no guard answers" in said:
            return self.start_guard
        if "REVOKED" in said:
            return f"{self.hint('validator allow --all')}, then {self.hint('unlock')}"
        if "PENDING_HUMAN" in said:
            return self.hint("unlock")
        if "REREGISTER" in said:
            return "register the device anew in each validator.toml, once its log is understood"
        return f"start or reach the validators: {self.hint('validators up')}" if "unreachable" in said else "see the validators' decisions"

    @property
    def start_agent(self) -> str:
        """The command that starts the agent."""
        if self.root == SYSTEM.config:
            return "systemctl start qsafp-agent"
        return f"python -m qsafp_embedded.agent --config {self.agent_toml}"

    @property
    def start_guard(self) -> str:
        """The command that starts the guard: on the system's places a unit of its own, else the agent does it."""
        return "systemctl start qsafp-guard" if self.root == SYSTEM.config else f"start the agent, which starts it: {self.start_agent}"

    @property
    def state(self) -> Path:
        """Where programs keep what changes."""
        return self.kept or self.root

    @property
    def last_lease(self) -> Path:
        """The newest lease, which the agent keeps."""
        return self._named(self.agent_toml, "evidence_dir") / "last-lease.cbor"

    def _named(self, toml: Path, key: str) -> Path:
        """A path that a configuration names; raises ConfigError."""
        value = read_toml(toml).get(key)
        if not isinstance(value, str):
            raise ConfigError(f"{toml}: '{key}' is missing or no path")
        return (toml.parent / value).resolve()

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
        return self._named(self.guard_toml, "run_dir")

    @property
    def ctl(self) -> Path:
        """The guard's command socket."""
        return self.run / "ctl.sock"

    @property
    def agent(self) -> Path:
        """The agent's control socket."""
        return self._named(self.agent_toml, "control_socket")

    @property
    def guard_state(self) -> Path:
        """The guard's keys, log and evidence."""
        return self._named(self.guard_toml, "state_dir")

    @property
    def set_document(self) -> Path:
        """The set document that the guard trusts."""
        return self._named(self.guard_toml, "set")

    def members(self) -> sets.ValidatorSet:
        """The validator set in force: the guard's, or while none answers the document that it begins with; raises ConfigError."""
        try:
            with GuardClient.connect(self.ctl) as guard:
                return sets.load(guard.set_document())
        except (GuardUnavailable, CommandRefused):
            return sets.read(self.set_document)

    @property
    def enrolment(self) -> dict[str, str]:
        """The public enrolment: ueid, key, log_id in hex, lease name; raises ConfigError."""
        path = self.guard_state.parent / "enrolment.json"
        try:
            found = json.loads(path.read_text())
            bytes.fromhex(found["ueid"])
        except (OSError, ValueError, KeyError, TypeError) as why:
            raise ConfigError(f"{path}: no enrolment of a device ({why}); qsafp init makes one") from why
        return {k: str(v) for k, v in found.items()}

    @property
    def ueid(self) -> bytes:
        """The device's id."""
        return bytes.fromhex(self.enrolment["ueid"])

    def validators(self) -> list[Path]:
        """The directories of the validators on this host, by index."""
        found = [p for p in self.state.glob("validator-*") if p.name[10:].isdecimal() and (p / "validator.toml").exists()]
        return sorted(found, key=lambda p: int(p.name[10:]))


def home_of(args: argparse.Namespace) -> Home:
    """Return what a command works on; raises ConfigError if nothing was made there."""
    f = folders(args.dir)
    home = Home(f.config, f.state, args.dir is not None)
    if not home.guard_toml.exists():
        raise ConfigError(f"{home.root}: nothing was set up here; run: {home.hint('init --profile lab')}")
    return home


def _describe(text: str, examples: str) -> dict[str, Any]:
    shown = "".join(f"\n  {line}" for line in examples.splitlines())
    return {
        "help": text,
        "description": text[0].upper() + text[1:] + ".",
        "epilog": f"example{'s' * (examples.count(chr(10)) > 0)}:{shown}" if examples else None,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def group(commands: Commands, name: str, text: str, examples: str) -> Commands:
    """Add a command that has sub-commands and return them."""
    parser = commands.add_parser(name, **_describe(text, examples))
    return parser.add_subparsers(metavar="ACT", required=True)


def command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], text: str, examples: str = ""
) -> argparse.ArgumentParser:
    """Add one command with the options that all have; ``examples`` are whole lines for people to copy."""
    p: argparse.ArgumentParser = commands.add_parser(name, **_describe(text, examples))
    p.add_argument("--dir", type=Path, metavar="D", help="directory made by qsafp init --dir (default: the system's or the user's)")
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


def _whole(file: BinaryIO, path: Path, data: bytes) -> None:
    try:
        file.write(data)
        file.flush()
    except (OSError, KeyboardInterrupt):
        path.unlink(missing_ok=True)
        raise


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a new file, whole or not at all; raises QsafpError."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            _whole(file, path, data)
    except FileExistsError as why:
        raise QsafpError(f"{path}: is there already; qsafp never overwrites") from why
    except OSError as why:
        raise QsafpError(f"{path}: {why.strerror}") from why
