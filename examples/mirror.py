# SPDX-License-Identifier: Apache-2.0
"""A green LED while the lease holds, a red one after a stop, and a button that stops.  python mirror.py GREEN RED BUTTON

The numbers are a Raspberry Pi's GPIOs, other ones than LEASE_VALID and its companions use.  On boards without gpiozero, hand Mirror
``digitalio.DigitalInOut`` outputs of Blinka instead.  These lamps are for people: what must not run without a lease hangs on LEASE_VALID.
"""

from __future__ import annotations

import signal
import sys
import threading

from gpiozero import LED, Button

from qsafp_embedded.hardware.mirror import Mirror

if len(sys.argv) != 4:
    sys.exit("usage: mirror.py GREEN RED BUTTON")
green, red, button = LED(sys.argv[1]), LED(sys.argv[2]), Button(sys.argv[3])
done = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: done.set())
with Mirror({"open": green, "stopped": red}) as mirror:
    button.when_pressed = mirror.stop
    print("mirror: follows the gate; SIGTERM or Ctrl-C ends it", flush=True)
    mirror.run(done)
