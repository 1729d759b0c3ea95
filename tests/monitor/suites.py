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
from QemuKeywords import LATE  # noqa: E402
from robot.api import ExecutionResult, ResultWriter  # noqa: E402
from robot.result import Result, TestCase, TestSuite  # noqa: E402
from unleashed import die_with_parent  # noqa: E402

SUITES = ROOT / "renode/suites"
LIMIT_S = 1500  # for one run on one board
RUNS = 4  # of a case that failed while the host had no time to stop the board where it was to stand still


def run(board: str) -> dict[str, str]:
    """Run all cases on a board; what came of each, by its id (conformance.py)."""
    folder, xml = OUT / board / "robot", OUT / f"{board}.robot.xml"
    xml.unlink(missing_ok=True)
    found = _robot(board, [])
    for _ in range(RUNS - 1):
        late = [case.name for case in found.suite.all_tests if case.failed and LATE in case.tags]
        if not late:
            break
        _take_over(found.suite, {case.name: case for case in _robot(board, late).suite.all_tests})
    ResultWriter(found).write_results(xunit=xml, log=folder / "log.html", report=folder / "report.html")
    return outcomes(xml)


def _take_over(suite: TestSuite, cases: dict[str, TestCase]) -> None:
    """Put what came of cases that ran again in the place of what came of them before."""
    suite.tests = [cases.get(case.name, case) for case in suite.tests]
    for inner in suite.suites:
        _take_over(inner, cases)


def _robot(board: str, cases: list[str]) -> Result:
    """Run these cases, or all."""
    output = OUT / board / "robot/output.xml"
    output.unlink(missing_ok=True)
    words = [sys.executable, "-m", "robot", "--name", board, "--variable", f"BOARD:{board}", "--metadata", "Emulator:QEMU"]
    words += ["--variable", f"RENODEKEYWORDS:{ROOT}/tests/monitor/qemu.resource", "--console", "dotted"]
    words += ["--outputdir", str(output.parent), "--log", "NONE", "--report", "NONE", *(f"--test={case}" for case in cases), str(SUITES)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in PATHS)}
    done = subprocess.run(
        words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False, preexec_fn=die_with_parent
    )
    if not output.exists():
        raise RuntimeError(done.stdout + done.stderr)
    return ExecutionResult(output)


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
