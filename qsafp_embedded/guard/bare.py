# SPDX-License-Identifier: Apache-2.0
"""The interpreter that the guard stays in: it holds the binding and little else (architecture decision 2).

``python -I -S bare.py FD …``: started in place of the program that read the configuration, which costs as much memory again as
the guard needs; FD is a memory file with the options, keys among them, and is gone once they are read.
"""

import marshal
import os
import sys
from types import ModuleType

__all__ = ["main"]


def main() -> int:
    """Be the guard until SIGTERM or SIGINT; returns the exit status."""
    package = ModuleType("qsafp_embedded")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]  # noqa: PTH100, PTH120 (pathlib is half of what is saved here)
    sys.modules["qsafp_embedded"] = package
    from qsafp_embedded._core import guard_run
    from qsafp_embedded.errors import QsafpError

    with os.fdopen(int(sys.argv[1]), "rb") as file:
        options = marshal.load(file)
    try:
        guard_run(options)
    except (QsafpError, OSError) as no:
        print(f"guard: {no}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
