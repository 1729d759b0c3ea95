# SPDX-License-Identifier: Apache-2.0
"""The command line, ``qsafp``: one module per group of commands.  Exit code 1 is a refusal, 2 wrong usage; never a traceback."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from ..errors import QsafpError

__all__ = ["main", "parser"]

GROUPS = ("init", "validators", "run", "status", "audit", "stop", "doctor", "test", "keygen", "completion")


class _Parser(argparse.ArgumentParser):
    """One clear line instead of the whole usage."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """Return the whole command line, as completion reads it too."""
    top = _Parser(prog="qsafp", description="Leases for AI on devices: it infers only while a quorum allows it.")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name in GROUPS:
        importlib.import_module(f".{name}", __name__).add(commands)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = parser().parse_args(argv)
    try:
        code = args.run(args)
        sys.stdout.flush()
        return int(code or 0)
    except QsafpError as why:
        print(f"qsafp: {why}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as why:
        print(f"qsafp: {why.filename or ''}: {why.strerror or why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
