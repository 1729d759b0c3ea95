# SPDX-License-Identifier: Apache-2.0
"""Scenarios, two at a time: the fast ones here, all of them by ``make scenarios``."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from qsafp_embedded.cli import main
from qsafp_embedded.scenarios import registry
from qsafp_embedded.scenarios.stage import CannotRun, Stage, check

SECONDS = 900  # generous: nothing is judged by how long it took
NAMES = [n for n, it in registry.all_scenarios().items() if it.fast]
ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def outcomes() -> dict[str, dict[str, object]]:
    """Run them once, as a user does."""
    command = [sys.executable, "-m", "qsafp_embedded.cli", "test", "--scenario", "fast", "-j", "2", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert not done.stderr, done.stderr
    found = {r["name"]: r for r in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == any(r["outcome"] == "failed" for r in found.values())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_scenario_holds(name: str) -> None:
    result = outcomes()[name]
    if result["outcome"] == "skipped":
        pytest.skip(str(result["why"]))
    assert result["outcome"] == "passed", result["why"]
    assert result["figures"]


@registry.scenario(profile="lab")
def always_fails(s: Stage) -> registry.Figures:
    """For the tests of the runner: its guard starts, and what it asserts does not hold."""
    s.guard()
    check(s.status().serial == 1, "there is a lease")
    return {}


@registry.scenario(profile="lab")
def never_runs_here(s: Stage) -> registry.Figures:
    """For the tests of the runner: this host lacks something."""
    raise CannotRun(f"no moon above {len(s.set.validators)} validators")


def test_a_scenario_that_fails_is_told_and_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--scenario", "always_fails,never_runs_here"]) == 1
    told = capsys.readouterr().out
    assert "there is a lease" in told
    assert "no moon above 3 validators" in told
    assert "0 passed, 1 failed, 1 skipped" in told


def test_a_scenario_that_is_skipped_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--scenario", "never_runs_here", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "skipped"


def test_an_unknown_scenario_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--scenario", "revocation,nonsense"]) == 1
    assert "nonsense" in capsys.readouterr().err


def test_the_list_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert {*NAMES, "power_cut"} <= lines.keys()
    assert all(len(line.split()) > 5 for line in lines.values())


def test_a_stage_ends_what_it_started_and_leaves_nothing() -> None:
    with Stage(profile="lab") as s:
        s.validators()
        s.guard()
        children = list(s.processes.values())
        base = s.base
    assert len(children) == 4
    assert all(child.poll() is not None for child in children)
    assert not base.exists()
