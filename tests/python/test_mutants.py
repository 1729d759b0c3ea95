# SPDX-License-Identifier: Apache-2.0
"""tools/mutants.py: what it changes, what it leaves alone, and that each reason on its list is one."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import mutants  # noqa: E402


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("    if (a < b && c == 2)", {"< -> <=", "&& -> ||", "== -> !=", "2 -> 3", "2 -> 1", "(a < b && c == 2) -> (!(a < b && c == 2))"}),
        ("    return err;", {"return err; -> return 0;"}),
        ("    return 0;", {"return 0; -> return 1;", "0 -> 1"}),
        ("    q->armed = false;", {"q->armed = false -> nothing"}),
        ("    (void)lower(q, n + 1u);", {"+ -> -", "1u -> 2u", "1u -> 0u", "(void)lower(q, n + 1u) -> nothing"}),
        ("    uint8_t hash[32];", {"32 -> 33", "32 -> 31"}),
        ("    uint64_t now = port_now(q);", set()),
        ("#define TEN 10", set()),
        ("    0x6a09e667, 0xbb67ae85, 3,", set()),
        ('    puts("1 < 2"); /* 3 */', {'puts("1 < 2") -> nothing'}),
    ],
)
def test_a_line_has_these_mutants(tmp_path: Path, line: str, changes: set[str]) -> None:
    source = tmp_path / "a.c"
    source.write_text(line + "\n")
    found = mutants.mutants_of(source)
    assert {m.change for m in found} == changes
    for m in found:
        assert m.apply(line + "\n") != line + "\n"


def test_every_reason_is_said_once_and_names_a_file() -> None:
    listed = tomllib.loads((ROOT / "tests/c/survivors.toml").read_text())["survivor"]
    assert listed
    for entry in listed:
        assert set(entry) == {"file", "line", "change", "why"}
        assert len(entry["why"]) > 20
        assert list((ROOT / "cext/src").glob(entry["file"]))
