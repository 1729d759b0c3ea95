# SPDX-License-Identifier: Apache-2.0
"""The bench names every goal, its floors hold none of us, and a figure comes out with its goal and its verdict."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BENCH = ROOT / "tests" / "bench"
LIMIT_S = 300


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the bench's program."""
    return subprocess.run([sys.executable, str(BENCH / "run.py"), *words], capture_output=True, text=True, timeout=LIMIT_S, check=False)


def table() -> list[str]:
    """Names of the checked-in goal table."""
    return [row["name"] for row in tomllib.loads((BENCH / "goals.toml").read_text())["key"]]


@pytest.fixture(scope="module")
def frame() -> Iterator[ModuleType]:
    """tests/bench/frame.py, which finds its neighbours by name."""
    sys.path.insert(0, str(BENCH))
    try:
        yield importlib.import_module("frame")
    finally:
        sys.path.remove(str(BENCH))


def imports(text: str) -> set[str]:
    """First parts of all module names that a Python file imports, anywhere in it."""
    out: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            out |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            out.add("" if node.level else (node.module or "").split(".")[0])
    return out


def test_floors_hold_no_product_code() -> None:
    ours = {p.stem for p in BENCH.glob("*.py")} | {"qsafp_embedded", ""}
    assert imports((BENCH / "floors.py").read_text()) & ours == set()
    text = (BENCH / "floors.c").read_text()
    assert re.findall(r'#include "', text) == []
    assert "qsafp" not in text.lower()


def test_the_floor_rule_sees_an_import_of_ours() -> None:
    assert "qsafp_embedded" in imports("def f():\n    from qsafp_embedded.gate import Gate\n")
    assert "" in imports("from . import frame\n")


def test_every_goal_is_listed_once_and_measured_by_one_area() -> None:
    names = table()
    assert len(set(names)) == len(names) >= 28
    listed = run("--list")
    assert [line.split("\t")[0] for line in listed.stdout.splitlines()] == names
    found: list[str] = []
    for area in ("gate", "audit", "parts", "lease", "failsafe", "guard", "renewal", "tpm", "validator", "inference"):
        for node in ast.parse((BENCH / f"{area}.py").read_text()).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "KEYS":
                found += ast.literal_eval(node.value)
    assert sorted(found) == sorted(names)


def test_every_goal_has_its_row_in_the_docs() -> None:
    rows = re.findall(r"^\| ([a-z]\S+) \|", (ROOT / "docs" / "benchmarks.md").read_text(), re.M)
    assert [r for r in rows if r in set(table())] == table()


def test_an_unknown_key_is_refused() -> None:
    done = run("--keys", "gate.c_chekc_ns")
    assert done.returncode == 1
    assert "gate.c_chekc_ns" in done.stderr


def test_a_quick_run_of_one_key_writes_its_figure(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    done = run("--quick", "--keys", "audit.verify_ns_per_record", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    figure = found["audit.verify_ns_per_record"]
    assert figure["value"] > 0
    assert figure["floor_key"] == "audit.four_blocks_ns"
    assert figure["goal"] == pytest.approx(1.2 * figure["floor"])
    assert figure["met"] is (figure["ratio"]["p50"] <= 1.2)
    assert figure["ratio"]["p5"] <= figure["ratio"]["p50"] <= figure["ratio"]["p95"]
    assert any("quick" in note for note in figure["notes"])
    assert {"cpu", "kernel", "compiler", "file_system", "commit", "mode"} <= set(found["host"])
    assert "audit.verify_ns_per_record" in done.stdout


@pytest.mark.parametrize(("value", "limit", "above", "met"), [(1.0, 2.0, False, True), (3.0, 2.0, False, False), (3.0, 2.0, True, True)])
def test_a_verdict_follows_its_goal(frame: ModuleType, value: float, limit: float, above: bool, met: bool) -> None:
    assert frame.Result("k", value, "ns", 1, limit=limit, above=above).met is met
    assert frame.Result("k", value, "ns", 1).met is None


def test_a_noisy_round_is_told_and_kept(frame: ModuleType) -> None:
    pair = frame.Paired([10.0] * 31, [10.0] * 30 + [30.0])
    assert pair.notes() == ["1 of 31 rounds noisy"]
    assert len(pair.floor) == 31
    assert frame.at([5.0, 1.0, 3.0], 0.5) == 3.0
    assert frame.at([float(i) for i in range(1000)], 0.999) == 999.0
