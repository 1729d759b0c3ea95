# SPDX-License-Identifier: Apache-2.0
"""In the guest: wait for a lease, say ``fresh``, wait for two more; how much of the one before was left then, in ms, and its duration."""

from __future__ import annotations

import sys
import time

from qsafp_embedded.client import GuardClient, Status


def next_lease(guard: GuardClient) -> tuple[int, Status]:
    """The next lease, and what would be left of the one before now, in ms: between two looks it ran on."""
    before = now = guard.status()
    while now.serial == before.serial:
        time.sleep(0.02)
        last, now = now, guard.status()
    return (last.remaining_ns - (now.now_ns - last.now_ns)) // 1_000_000, now


def main() -> None:
    """Three leases."""
    with GuardClient.connect(sys.argv[1], timeout=60) as guard:
        next_lease(guard)
        print("fresh", flush=True)
        for word in ("first", "second"):
            left, lease = next_lease(guard)
            print(word, left, lease.duration_ms, flush=True)


if __name__ == "__main__":
    main()
