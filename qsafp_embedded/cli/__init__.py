# SPDX-License-Identifier: Apache-2.0
"""The command line, ``qsafp``: one module per group of commands.  Exit code 1 is a refusal, 2 wrong usage; never a traceback."""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import json
import os
import re
import sys
from typing import NoReturn

from ..errors import QsafpError

__all__ = ["main", "parser"]

GROUPS = ("init", "validators", "run", "status", "audit", "stop", "doctor", "board", "attest", "image", "test", "keygen", "completion")


START = """start here:
  qsafp init --profile lab --dir ~/lab      # make device, validators and agent in one directory
  qsafp validators up --dir ~/lab           # run the validators; leave it running
  python -m qsafp_embedded.agent --config ~/lab/agent/agent.toml
                                            # run the agent, which starts the guard; leave it running
  qsafp status --watch --dir ~/lab          # look at the lease
  qsafp run --dir ~/lab -- python infer.py  # run something that stops when the lease does
  qsafp doctor --dir ~/lab                  # if something is wrong"""
CHOICE = re.compile(r"invalid choice: '(?P<said>[^']*)' \(choose from (?P<known>.*)\)$")


class _Parser(argparse.ArgumentParser):
    """One clear line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_nearer(message)}; see {self.prog} --help\n")


def _nearer(message: str) -> str:
    """Name the nearest choice instead of all."""
    found = CHOICE.search(message)
    near = difflib.get_close_matches(found["said"], re.findall(r"[\w-]+", found["known"]), 1, 0.6) if found else []
    return f"{message[: found.start()]}no '{found['said']}' here; did you mean '{near[0]}'?" if found and near else message


def parser() -> argparse.ArgumentParser:
    """Return the whole command line, as completion reads it too."""
    top = _Parser(
        prog="qsafp",
        description="Leases for AI on devices: it infers only while a quorum allows it.",
        epilog=START,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name in GROUPS:
        importlib.import_module(f".{name}", __name__).add(commands)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if not words:
        parser().print_help()
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may be any bytes
    args = parser().parse_args(words)
    try:
        code = args.run(args)
        sys.stdout.flush()
        return int(code or 0)
    except QsafpError as why:
        return _failed(args, type(why).__name__, str(why))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as why:
        return _failed(args, type(why).__name__, f"{why.filename or 'system'}: {why.strerror or why}")
    except KeyboardInterrupt:
        return 130


def _failed(args: argparse.Namespace, kind: str, text: str) -> int:
    """Say why, to people and, with ``--json``, to the program that reads the answer."""
    print(f"qsafp: {text}", file=sys.stderr)
    if getattr(args, "json", False):
        print(json.dumps({"error": text, "kind": kind}), flush=True)
    return 1
