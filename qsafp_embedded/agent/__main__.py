# SPDX-License-Identifier: Apache-2.0
"""``python -m qsafp_embedded.agent --config agent.toml``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from ..errors import QsafpError
from .config import load
from .owner import GuardOwner

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the agent; returns 0 after a clean stop, 2 for a configuration that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m qsafp_embedded.agent", description="Keeps the lease of one guard.")
    parser.add_argument("--config", type=Path, required=True, help="agent.toml")
    args = parser.parse_args(argv)
    try:
        config = load(args.config)
        owner = GuardOwner(config)
        owner.ensure()  # the guard starts while the heavy imports below run
        try:
            from .loop import serve

            asyncio.run(serve(config, owner))
        finally:
            owner.close()
    except (QsafpError, OSError) as why:
        print(f"agent: {why}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
