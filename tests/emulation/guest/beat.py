# SPDX-License-Identifier: Apache-2.0
"""In the guest: a busy workload of two processes; each says now and then that it still runs, on a port that the host reads.

``beat.py PORT``: lines of a name and a process id.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Work and say so, for ever."""
    port = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
    name = b"child" if os.fork() == 0 else b"parent"
    while True:
        for _ in range(100_000):
            pass
        os.write(port, b"%s %d\n" % (name, os.getpid()))


if __name__ == "__main__":
    main()
