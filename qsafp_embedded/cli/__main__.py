# SPDX-License-Identifier: Apache-2.0
"""``python -m qsafp_embedded.cli``, the same as ``qsafp``."""

from __future__ import annotations

import sys

from . import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
