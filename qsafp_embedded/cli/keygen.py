# SPDX-License-Identifier: Apache-2.0
"""``qsafp keygen``: a key file of mode 0600; only its public half is shown."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import Commands, command, emit

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add ``keygen``."""
    p = command(commands, "keygen", _run, "make a signing key in a new file of mode 0600", "qsafp keygen signing.key --kind ml-dsa-65")
    p.add_argument("file", type=Path, help="the new file")
    p.add_argument("--kind", choices=("ed25519", "ml-dsa-65"), default="ed25519", help="algorithm (default: %(default)s)")


def _run(args: argparse.Namespace) -> int:
    from .. import keys

    key = keys.generate(args.file, kind=args.kind)
    found = {"file": str(args.file), "kind": args.kind, "kid": key.kid.hex(), "public": key.public.hex()}
    emit(args, found, f"{args.file}: {args.kind}\n  kid     {key.kid.hex()}\n  public  {key.public.hex()}")
    return 0
