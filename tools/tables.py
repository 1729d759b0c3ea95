# SPDX-License-Identifier: Apache-2.0
"""Write the number tables as a C header, a Python module and the last chapter of docs/formats.md from cext/tables.toml.

Run without arguments to write them, with ``--check`` to fail if they differ from what is committed.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = ROOT / "cext/include/qsafp_tables.h"
MODULE = ROOT / "qsafp_embedded/_tables.py"
DOCUMENT = ROOT / "docs/formats.md"
BEGIN, END = "<!-- numbers: written by tools/tables.py from cext/tables.toml -->\n", "<!-- end of numbers -->\n"
NOTE = "Written by tools/tables.py from cext/tables.toml; edit that."


def _width(value: int) -> str:
    return f"0x{value:04X}" if value > 255 else str(value)


def header(tables: dict[str, dict[str, int | str]]) -> str:
    """C enums, one per table."""
    out = ["/* SPDX-License-Identifier: Apache-2.0 */", f"/* {NOTE} */", "#ifndef QSAFP_TABLES_H", "#define QSAFP_TABLES_H", ""]
    for name, rows in tables.items():
        out.append(f"/* {rows['doc']} */")
        prefix = {"error": "QSAFP_E"}.get(name, f"QSAFP_{name.upper()}")
        body = [f"    {prefix}_{key} = {'-' if name == 'error' else ''}{_width(v)}," for key, v in rows.items() if isinstance(v, int)]
        out += ["typedef enum {", *body, f"}} qsafp_{name}_t;", ""]
    return "\n".join([*out, "#endif", ""])


def module(tables: dict[str, dict[str, int | str]]) -> str:
    """Python IntEnums, one per table."""
    out = ["# SPDX-License-Identifier: Apache-2.0", f'"""{NOTE}"""', "", "from enum import IntEnum", ""]
    names = []
    for name, rows in tables.items():
        cls = "".join(part.capitalize() for part in name.split("_"))
        names.append(cls)
        out += ["", f"class {cls}(IntEnum):", f'    """{str(rows["doc"])[0].upper()}{str(rows["doc"])[1:]}."""', ""]
        out += [f"    {key} = {_width(v)}" for key, v in rows.items() if isinstance(v, int)]
        out.append("")
    out += ["", "__all__ = [", *(f'    "{n}",' for n in sorted(names)), "]", ""]
    return "\n".join(out)


def document(tables: dict[str, dict[str, int | str]], text: str) -> str:
    """The document with its chapter of numbers: one table for each."""
    out = ["", "## Numbers", ""]
    for name, rows in tables.items():
        values = [f"{_width(v)} {key}" for key, v in rows.items() if isinstance(v, int)]
        out += [f"**{name}**, {rows['doc']}: {', '.join(values)}.", ""]
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + "\n".join([*out, ""]) + END + rest.partition(END)[2]


def main() -> int:
    """Write, or check with ``--check``; returns the exit status."""
    tables = tomllib.loads((ROOT / "cext/tables.toml").read_text())
    stale = 0
    for path, text in ((HEADER, header(tables)), (MODULE, module(tables)), (DOCUMENT, document(tables, DOCUMENT.read_text()))):
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                print(f"{path.relative_to(ROOT)} is stale: run python tools/tables.py")
                stale = 1
        else:
            path.write_text(text)
    return stale


if __name__ == "__main__":
    sys.exit(main())
