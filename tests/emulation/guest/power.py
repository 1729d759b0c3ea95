# SPDX-License-Identifier: Apache-2.0
"""In the guest: ask a guard for things, and note on the recorded disk what it answered, before the next question.

``power.py CTL DISK OFFSET ROUNDS``.  A note is one sector, written past the page cache: in the order of writes it stands behind all
that the guard did before it answered.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import sys
import time

from qsafp_embedded import cose
from qsafp_embedded._core import cbor_loads, claims_decode
from qsafp_embedded._tables import Event, Phase, Reason
from qsafp_embedded.client import CommandRefused, GuardClient


class Notes:
    """What was told so far; each change is one sector of the disk."""

    def __init__(self, disk: str, offset: int) -> None:
        self._fd = os.open(disk, os.O_WRONLY | os.O_DIRECT)
        self._offset = offset
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self.told: dict[str, object] = {}

    def note(self, **told: object) -> None:
        """Take up what was told."""
        self.told.update(told)
        text = json.dumps(self.told).encode()
        self._page[:512] = text.ljust(512, b"\0")
        os.pwrite(self._fd, memoryview(self._page)[:512], self._offset)


def ask(guard: GuardClient, notes: Notes) -> tuple[int, str]:
    """A request of its own, once the last one's time is over: size and root of the log that it is about."""
    while True:
        serial = guard.begin()[1]
        if serial == notes.told["serial"]:
            time.sleep(0.02)
            continue
        notes.note(serial=serial)
        with contextlib.suppress(CommandRefused):  # on a slow host it may be over before it was read
            claims = claims_decode(cbor_loads(cose.parse_sign1(cbor_loads(guard.envelope())[1]).payload)[1])
            return claims["log_size"], claims["log_root"].hex()


def main() -> None:
    """Events, requests, a fail-safe in the middle."""
    ctl, disk, offset, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    notes, dice = Notes(disk, offset), random.Random(2)
    with GuardClient.connect(ctl, timeout=60) as guard:
        notes.note(boot=guard.status().boot, serial=0, size=0, root="", latched=False)
        for i in range(rounds):
            for _ in range(dice.randrange(1, 24)):
                guard.log_event(Event.WORKLOAD_REPORT, data=i.to_bytes(4))
            if i == rounds // 2:
                guard.failsafe(Reason.MANUAL)
                now = guard.status()
                notes.note(latched=now.phase == Phase.FAILSAFE and any(now.latch_hash))
            size, root = ask(guard, notes)
            notes.note(size=size, root=root)
    print("told", json.dumps(notes.told))


if __name__ == "__main__":
    main()
