# SPDX-License-Identifier: Apache-2.0
"""Imports point down: each part of the package may import only parts that stand before it in ORDER."""

from __future__ import annotations

import ast

from repo import package

ORDER = (
    *("errors", "settings", "journal", "notify", "_tables", "model", "_core", "keyfile", "keys", "image", "cose", "sets", "tls"),
    *("quote", "credential", "lease", "audit", "evidence", "gate", "wire", "client"),
    *("capability", "hardware", "enforce", "integrations"),
    *("guard", "validator", "agent", "scenarios", "cli"),
)
TOP = {"__init__", "__main__"}  # the package's own front: it may import every part, and no part may import it


def part_of(path: str) -> str:
    """``qsafp_embedded/agent/http.py`` and ``qsafp_embedded/agent.py`` are both part ``agent``."""
    return path.split("/")[1].removesuffix(".py")


def targets(path: str, text: str) -> set[str]:
    """The parts a module imports, absolutely or relatively, wherever in the file; ``__init__`` for the package itself."""
    here = ["qsafp_embedded", *path.split("/")[1:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names] if stem == "qsafp_embedded" else [stem]
        for name in names:
            head, _, rest = name.partition(".")
            if head == "qsafp_embedded":
                found.add(rest.split(".")[0] if rest else "__init__")
    return found


def breaches(path: str, text: str) -> list[str]:
    """Imports that do not point down."""
    part = part_of(path)
    if part in TOP:
        return []
    if part not in ORDER:
        return [f"{path}: give {part} a place in ORDER"]
    allowed = {part, *ORDER[: ORDER.index(part)]}
    return [f"{path}: {part} imports {t}" for t in sorted(targets(path, text) - allowed)]


def test_imports_point_down() -> None:
    assert [b for path, text in package().items() for b in breaches(path, text)] == []


def test_the_rule_sees_an_import_that_points_up() -> None:
    assert breaches("qsafp_embedded/lease.py", "from .agent import http\n")
    assert breaches("qsafp_embedded/gate.py", "def f():\n    import qsafp_embedded.cli\n")
    assert breaches("qsafp_embedded/guard/main.py", "from .. import agent\n")
    assert breaches("qsafp_embedded/keys.py", "import qsafp_embedded\n")
    assert breaches("qsafp_embedded/nowhere.py", "")


def test_the_rule_lets_imports_that_point_down_pass() -> None:
    assert not breaches("qsafp_embedded/gate.py", "from . import errors\nfrom ._core import Core\nimport ssl\n")
    assert not breaches("qsafp_embedded/agent/poll.py", "from .http import get\nfrom ..keys import load\n")
