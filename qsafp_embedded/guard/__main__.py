# SPDX-License-Identifier: Apache-2.0
"""``python -m qsafp_embedded.guard``: enrol this device, or be its guard."""

from __future__ import annotations

import argparse
import json
import marshal
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ConfigError, QsafpError
from . import config, enrol

BARE = Path(__file__).with_name("bare.py")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="python -m qsafp_embedded.guard",
        description="Holds this device's permission to infer: verifies leases, keeps the gate, the timer, the pins and the log.",
        epilog="First: --init, once. It prints what validators need to know of this device and leaves all secrets in state_dir.",
    )
    p.add_argument("--config", type=Path, required=True, metavar="guard.toml")
    p.add_argument("--init", action="store_true", help="make ueid, keys and the first record, print the public enrolment, and end")
    p.add_argument("--activate", type=Path, metavar="FILE", help="answer the enroller's challenge to the TPM in FILE, and end")
    p.add_argument("--k0", type=Path, metavar="FILE", help="with --init: where the auditor's seal key goes (default: k0 beside state_dir)")
    p.add_argument("--erase-log", action="store_true", help="with --init: erase the flash or EEPROM that guard.toml names first")
    return p.parse_args(argv)


def _become(options: dict[str, Any], words: list[str]) -> NoReturn:
    """Go on as a bare interpreter with the same process id: what reading the configuration took is given back."""
    if not sys.executable:
        raise ConfigError("this Python does not know its own program; start it by its path")
    fd = os.memfd_create("qsafp-guard", 0)  # inherited; holds keys, so it is never a file
    with os.fdopen(fd, "wb", closefd=False) as file:
        marshal.dump(options, file)
    os.lseek(fd, 0, os.SEEK_SET)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-I", "-S", str(BARE), str(fd), *words])


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    args = _arguments(argv)
    try:
        settings = config.load(args.config)
        if args.init:
            print(json.dumps(enrol.enrol(settings, k0=args.k0 or settings.state_dir.parent / "k0", erase_log=args.erase_log)))
        elif args.activate:
            print(json.dumps(enrol.activate(settings, args.activate.read_bytes())))
        else:
            _become(enrol.options(settings), sys.argv[1:] if argv is None else argv)
    except (QsafpError, OSError) as no:
        print(f"guard: {no}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
