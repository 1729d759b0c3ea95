# SPDX-License-Identifier: Apache-2.0
"""In the guest: wait for a guard's phase.  ``phase.py CTL PHASE SERIAL SECONDS`` prints what the guard says, as JSON.

Exits with 0 once it says PHASE with a serial above SERIAL, else with 1 after so many seconds.  One start of Python for many questions.
"""

from __future__ import annotations

import json
import sys
import time

sys.path.append("/usr/local/lib/python3.11/dist-packages")  # started without site, which costs a second here

from qsafp_embedded.client import GuardClient, Status
from qsafp_embedded.errors import GuardUnavailable


def ask(ctl: str) -> Status | None:
    """The guard's status, None while there is no guard."""
    try:
        with GuardClient.connect(ctl) as guard:
            return guard.status()
    except GuardUnavailable:
        return None


def main() -> int:
    """Wait."""
    ctl, phase, serial, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    end = time.monotonic() + seconds
    while True:
        now = ask(ctl)
        reached = now is not None and now.phase_name.lower() == phase and now.serial > serial
        if reached or time.monotonic() > end:
            break
        time.sleep(0.1)
    if now is not None:
        found = {"phase": now.phase_name.lower(), "reason": now.reason_name, "serial": now.serial}
        print(json.dumps({**found, "approvals": now.approvals, "validators": now.total}))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
