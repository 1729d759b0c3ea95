# SPDX-License-Identifier: Apache-2.0
"""Run renode/suites on QEMU: ``python tests/monitor/suites.py [BOARD...]``; results in build/monitor/<board>.robot.xml (JUnit)."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build/monitor"
PATHS = ("tests/monitor", "tests/python", "tests/emulation", "tools", ".")
sys.path.extend(str(ROOT / p) for p in PATHS)

from conformance import BOARDS, outcomes  # noqa: E402
from unleashed import die_with_parent  # noqa: E402

LIMIT_S = 1500  # for one board


def run(board: str) -> dict[str, str]:
    """Run all cases on a board; what came of each, by its id (conformance.py)."""
    xml = OUT / f"{board}.robot.xml"
    xml.unlink(missing_ok=True)
    words = [sys.executable, "-m", "robot", "--name", board, "--variable", f"BOARD:{board}", "--metadata", "Emulator:QEMU"]
    words += ["--variable", f"RENODEKEYWORDS:{ROOT}/tests/monitor/qemu.resource", "--console", "dotted"]
    words += ["--outputdir", str(xml.parent / board / "robot"), "--xunit", str(xml)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in PATHS)}
    words += ["renode/suites"]
    done = subprocess.run(
        words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False, preexec_fn=die_with_parent
    )
    if not xml.exists():
        raise RuntimeError(done.stdout + done.stderr)
    return outcomes(xml)


def main(boards: list[str]) -> int:
    """Run boards, two at a time; 0 if no case failed."""
    names, failed = boards or list(BOARDS), 0
    with ThreadPoolExecutor(2) as pool:
        for board, found in zip(names, pool.map(run, names), strict=True):
            print("\n".join(f"{board:<18}{name:<8}{what}" for name, what in found.items()), flush=True)
            failed += sum(what.startswith("failed") for what in found.values())
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
