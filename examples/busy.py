# SPDX-License-Identifier: Apache-2.0
"""A program that knows nothing of leases: it counts, and keeps what it counted in a file.  python busy.py FILE"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if len(sys.argv) != 2:
    sys.exit("usage: busy.py FILE")
state = Path(sys.argv[1])
while True:
    new = state.with_suffix(".new")
    new.write_text(str(int(state.read_text()) + 1))
    new.replace(state)
    time.sleep(0.01)
