# SPDX-License-Identifier: Apache-2.0
"""In the guest: a guard whose log lies on a flash or EEPROM, and what its bus carried.

``append CTL`` asks for events and requests without end, and tells the console what was answered.  ``events CTL`` asks for 64 events.
``read CTL`` prints status and records.  ``carried spi|i2c`` prints calls and bytes on the bus since the start, by the kernel's own
count: the statistics of spi0.0, or the trace of the I2C core, an address byte for each message included.
"""

from __future__ import annotations

import base64
import json
import random
import re
import sys
from pathlib import Path

STATISTICS = Path("/sys/bus/spi/devices/spi0.0/statistics")
TRACE = Path("/sys/kernel/debug/tracing/trace")
MESSAGE = re.compile(r" i2c_(?:write|read): .* l=(\d+)")


def append(ctl: str) -> None:
    """Ask until the power goes; what is told was answered before."""
    from qsafp_embedded import cose
    from qsafp_embedded._core import cbor_loads, claims_decode
    from qsafp_embedded._tables import Event
    from qsafp_embedded.client import GuardClient

    dice = random.Random(4)
    with Path("/dev/console").open("w") as console, GuardClient.connect(ctl, timeout=120) as guard:
        boot = guard.status().boot
        while True:
            for _ in range(dice.randrange(1, 24)):
                guard.log_event(Event.WORKLOAD_REPORT)
            serial = guard.begin()[1]
            claims = claims_decode(cbor_loads(cose.parse_sign1(cbor_loads(guard.envelope())[1]).payload)[1])
            told = {"boot": boot, "serial": serial, "size": claims["log_size"], "root": claims["log_root"].hex()}
            print("\nTOLD", json.dumps(told), flush=True, file=console)


def events(ctl: str) -> None:
    """Sixty-four of them."""
    from qsafp_embedded._tables import Event
    from qsafp_embedded.client import GuardClient

    with GuardClient.connect(ctl, timeout=120) as guard:
        for _ in range(64):
            guard.log_event(Event.WORKLOAD_REPORT)


def read(ctl: str) -> None:
    """What the guard has."""
    from qsafp_embedded.client import GuardClient

    with GuardClient.connect(ctl, timeout=120) as guard:
        now, records = guard.status(), b"".join(guard.records())
        told = {"boot": now.boot, "serial": guard.begin()[1], "log_id": now.log_id.hex()}
    print(json.dumps({**told, "records": base64.b64encode(records).decode()}))


def carried(kind: str) -> None:
    """What the kernel counted."""
    if kind == "spi":
        calls, count = (int((STATISTICS / name).read_text()) for name in ("messages", "bytes"))
    else:
        lines = TRACE.read_text().splitlines()
        calls = sum(" i2c_result: " in line for line in lines)
        count = sum(1 + int(m[1]) for m in map(MESSAGE.search, lines) if m)
    print(json.dumps({"calls": calls, "bytes": count}))


if __name__ == "__main__":
    {"append": append, "events": events, "read": read, "carried": carried}[sys.argv[1]](sys.argv[2])
