# SPDX-License-Identifier: Apache-2.0
"""Every file says its licence, is short enough to read, and knows nothing of the machine it was written on."""

from __future__ import annotations

import re

import pytest
from repo import code, tracked

SPDX = "SPDX-License-Identifier: " + "Apache-2.0"
MAX_LINES = 600
LONGER = {"qsafp_embedded/_core.pyx": 760}  # one binding, one file: every C call stands in it once
# Spelled in pieces, so that this file holds none of them.
PARTS = ("/" + "root" + r"\b", "/" + "work" + "/", "/" + "tmp" + "/", "/" + "home" + r"/\w", "/" + "opt/(?:wheels|pypi)")
MACHINE = re.compile("|".join(PARTS))


def lacks_spdx(name: str, text: str) -> bool:
    """True for a non-empty file without the line near its top; LICENSE and JSON cannot carry one."""
    if not text or name == "LICENSE" or name.endswith(".json"):
        return False
    return SPDX not in "\n".join(text.splitlines()[:6])


def machine_paths(text: str) -> list[str]:
    """Paths of one developer's machine."""
    return MACHINE.findall(text)


def test_tracked_files_are_seen() -> None:
    assert {"Makefile", "pyproject.toml", "cext/src/lease.c"} <= set(tracked())


def test_every_text_file_names_its_licence() -> None:
    assert [name for name, text in tracked().items() if lacks_spdx(name, text)] == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert {name: found for name, text in tracked().items() if (found := machine_paths(text))} == {}


def test_no_program_file_is_longer_than_the_limit() -> None:
    assert {name: n for name, text in code().items() if (n := len(text.splitlines())) > LONGER.get(name, MAX_LINES)} == {}


@pytest.mark.parametrize(("name", "text", "bad"), [("a.c", "int x;\n", True), ("a.c", f"/* {SPDX} */\n", False), ("v.json", "{}", False)])
def test_the_licence_rule_sees_what_it_is_for(name: str, text: str, bad: bool) -> None:
    assert lacks_spdx(name, text) is bad


@pytest.mark.parametrize("path", ["/" + "root/x", "/" + "work/main", "/" + "tmp/x", "/" + "home/me"])
def test_the_path_rule_sees_what_it_is_for(path: str) -> None:
    assert machine_paths(f"open({path})")
