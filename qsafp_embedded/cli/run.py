# SPDX-License-Identifier: Apache-2.0
"""``qsafp run``: any program, held while no lease runs."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ..errors import ConfigError
from .common import Commands, command, folders

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add ``run``."""
    p = command(
        commands,
        "run",
        _run,
        "run a program that is held, frozen and rolled back while no lease runs; nothing changes in it",
        "qsafp run -- python serve.py --port 80\nqsafp run --json -- ./robot 2> events.jsonl\n"
        "qsafp run --model model.onnx --checkpoint state.db --on-stop ./tell-people.sh -- ./robot",
    )
    p.add_argument("--model", type=Path, metavar="FILE", help="the model it uses; a lease for another one never lets it start")
    p.add_argument("--lease", default="main", help="lease name (default: %(default)s)")
    p.add_argument("--name", default="", help="its name in status and log (default: the program's)")
    p.add_argument(
        "--checkpoint", type=Path, action="append", default=[], metavar="PATH", help="file or directory that a fail-safe rolls back"
    )
    p.add_argument("--store", type=Path, metavar="DIR", help="where the checkpoint is kept (default: the user's state directory)")
    p.add_argument("--on-stop", default="", metavar="CMD", help="run this after the rollback of a fail-safe")
    p.add_argument("--no-restart", action="store_true", help="end with exit status 75 after a fail-safe instead of waiting for the release")
    p.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD...", help="the program and its arguments")


def _run(args: argparse.Namespace) -> int:
    from ..enforce.runner import Plan, Runner
    from ..gate import Gate

    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        raise ConfigError("nothing to run; write: qsafp run -- CMD ARGS")
    for path in args.checkpoint:
        if not path.exists():
            raise ConfigError(f"--checkpoint {path}: does not exist")
    gate = Gate(model=args.model, lease=args.lease, run_dir=folders(args.dir).run)
    kept = {"store": args.store} if args.store else {}
    plan = Plan(words, args.name, args.checkpoint, shlex.split(args.on_stop), not args.no_restart, **kept, events=args.json)
    return Runner(gate, plan).run()
