# SPDX-License-Identifier: Apache-2.0
"""SAFETY lines cite invariants that a test names; requirement ids that are cited exist."""

from __future__ import annotations

import re

from repo import ROOT, code, tracked

REQUIREMENT = re.compile(r"\b(?:HW|OC|CD|GP)-T?\d+\b")
INVARIANT = re.compile(r"\bI\d+\b")
MARK = re.compile(r"\b(SAFETY|SPEC): (.*)")
# A C function or a Python test whose name starts with the number: I4_stale_guard…, test_I4_stale_guard…
NAMED = re.compile(r"\b(?:test_)?(I\d+)_\w+\s*\(")


def known_ids() -> set[str]:
    """The ids of docs/requirements.txt."""
    lines = (ROOT / "docs/requirements.txt").read_text().splitlines()
    return {line.split()[0] for line in lines if line and not line.startswith("#")}


def unproved(sources: dict[str, str], tests: dict[str, str]) -> list[str]:
    """SAFETY and SPEC lines that cite nothing, or an invariant that no test names."""
    named = {n for text in tests.values() for n in NAMED.findall(text)}
    out = []
    for name, text in sources.items():
        for word, rest in MARK.findall(text):
            cited = INVARIANT.findall(rest) if word == "SAFETY" else []
            if not cited and not REQUIREMENT.search(rest):
                out.append(f"{name}: {word} cites nothing: {rest}")
            out += [f"{name}: {i} is named by no test" for i in cited if i not in named]
    return sorted(set(out))


def split() -> tuple[dict[str, str], dict[str, str]]:
    """Program files, and test files without the rules themselves."""
    every = code()
    tests = {n: t for n, t in every.items() if n.startswith("tests/") and not n.startswith("tests/rules/")}
    return {n: t for n, t in every.items() if not n.startswith("tests/")}, tests


def test_every_safety_line_cites_an_invariant_that_a_test_names() -> None:
    assert unproved(*split()) == []


def test_every_cited_requirement_exists() -> None:
    known = known_ids()
    cited = {(n, i) for n, t in tracked().items() if not n.startswith("tests/rules/") for i in REQUIREMENT.findall(t)}
    assert cited
    assert sorted((n, i) for n, i in cited if i not in known) == []


def test_the_list_of_requirements_is_whole() -> None:
    counts = {"HW": 17, "OC": 11, "CD": 8, "GP": 8}
    want = {f"{k}-{n}" for k, top in counts.items() for n in range(1, top + 1)} | {f"HW-T{n}" for n in range(1, 19)}
    assert known_ids() == want


def test_the_rule_sees_a_safety_line_without_proof() -> None:
    proof = {"t.c": "static void I4_line_is_low(void)"}
    assert unproved({"a.c": "/* SAFETY: I4 first */"}, proof) == []
    assert unproved({"a.c": "/* SAFETY: I5 first */"}, proof) == ["a.c: I5 is named by no test"]
    assert len(unproved({"a.c": "/* SAFETY: because */\n/* SPEC: somewhere */"}, proof)) == 2
