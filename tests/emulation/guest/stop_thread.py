# SPDX-License-Identifier: Apache-2.0
"""In the guest: stop one thread of a process, the one that runs under SCHED_FIFO, until this program is killed.

SIGSTOP stops all threads of a process; a debugger can stop one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207


def main() -> None:
    """Stop it, say which, and stay."""
    (tid,) = [int(t) for t in os.listdir(f"/proc/{sys.argv[1]}/task") if os.sched_getscheduler(int(t)) == os.SCHED_FIFO]  # noqa: PTH208
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        if libc.ptrace(request, tid, None, None):
            raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(tid, 0x40000000)  # __WALL
    print("stopped", tid, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
