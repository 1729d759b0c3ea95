# SPDX-License-Identifier: Apache-2.0
"""Broad ``except`` stands only in a program's outermost loop; every public module says what it offers."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

from repo import package, tracked

BROAD = re.compile(r"^[ \t]*except[ \t]*(?:\*[ \t]*)?(?::|[^:#\n]*\b(?:Base)?Exception\b[^:#\n]*:)(?P<rest>[^\n]*)", re.M)


def broad_handlers(text: str) -> list[str]:
    """Handlers that catch everything and do not say ``# outermost``."""
    return [m[0].strip() for m in BROAD.finditer(text) if "# outermost" not in m["rest"]]


def offered(tree: ast.Module) -> list[str] | None:
    """The strings of ``__all__``, None if there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            value: list[str] = list(ast.literal_eval(node.value))
            return value
    return None


def defined(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Functions and classes made here; all names bound at the top."""
    made: set[str] = set()
    bound: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(a.asname or a.name).split(".")[0] for a in node.names}
        else:
            bound |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return made, bound | made


def lazy(path: str, name: str) -> bool:
    """Whether a module that loads names when they are asked for (PEP 562) really has this one."""
    return hasattr(importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")), name)


def all_faults(path: str, text: str) -> list[str]:
    """Where a module's ``__all__`` and its contents disagree."""
    tree = ast.parse(text)
    names = offered(tree)
    made, bound = defined(tree)
    public = {n for n in made if not n.startswith("_")}
    if names is None:
        return [f"{path}: no __all__ for {', '.join(sorted(public))}"] if public else []
    missing = [n for n in names if n not in bound and not ("__getattr__" in made and lazy(path, n))]
    out = [f"{path}: __all__ offers {n}, which is not there" for n in missing]
    out += [f"{path}: {n} is public and not in __all__" for n in sorted(public - set(names))]
    return out + ([f"{path}: __all__ repeats a name"] if len(set(names)) != len(names) else [])


def is_public(path: str) -> bool:
    """No folder or file on the way starts with an underscore, but for ``__init__``."""
    return all(not p.startswith("_") or p == "__init__.py" for p in Path(path).parts)


def test_broad_except_stands_only_in_outermost_loops() -> None:
    files = {n: t for n, t in tracked().items() if n.endswith((".py", ".pyx")) and not n.startswith("tests/")}
    assert files
    assert {n: found for n, t in files.items() if (found := broad_handlers(t))} == {}


def test_every_public_module_offers_what_it_defines() -> None:
    assert [f for n, t in package().items() if is_public(n) for f in all_faults(n, t)] == []


def test_the_except_rule_sees_what_it_is_for() -> None:
    caught = ("except:", "except Exception:", "except (OSError, Exception) as e:", "except BaseException as e:  # y", "except* Exception:")
    for line in caught:
        assert broad_handlers(f"try:\n    f()\n{line}\n    pass\n"), line
    for line in ("except OSError:", "except Exception as e:  # outermost", "except MyExceptionKind:"):
        assert not broad_handlers(f"try:\n    f()\n{line}\n    pass\n"), line


def test_the_all_rule_sees_what_it_is_for() -> None:
    assert all_faults("m.py", "def f(): ...\n")
    assert all_faults("m.py", "__all__ = ['f', 'g']\ndef f(): ...\n")
    assert all_faults("m.py", "__all__ = []\nclass F: ...\n")
    assert all_faults("qsafp_embedded/__init__.py", "__all__ = ['Gate', 'Gates']\ndef __getattr__(n): ...\n") == [
        "qsafp_embedded/__init__.py: __all__ offers Gates, which is not there"
    ]
    assert not all_faults("m.py", "from a import b\n__all__ = ['b', 'F', 'X']\nX: int = 1\nclass F: ...\ndef _g(): ...\n")
