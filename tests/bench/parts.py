# SPDX-License-Identifier: Apache-2.0
"""The audit log on simulated parts of ours (tests/c/parts.h), in their own time: what the driver and the writer add to the part."""

from __future__ import annotations

import subprocess

from frame import OUT, ROOT, Bench

KINDS = ("nor", "eeprom")
GOALS = {"append_share": 0.9, "read_share": 0.9, "bus_bytes_per_byte": 1.05}
KEYS = (
    "simulated.nor.append_share",
    "simulated.nor.read_share",
    "simulated.nor.bus_bytes_per_byte",
    "simulated.eeprom.append_share",
    "simulated.eeprom.read_share",
    "simulated.eeprom.bus_bytes_per_byte",
)


def _figures() -> dict[str, float]:
    """Build tests/c/test_parts.c, run its figures alone, and read them."""
    OUT.mkdir(parents=True, exist_ok=True)
    exe, core = OUT / "parts", sorted((ROOT / "cext/src").glob("*.c"))
    words = ["cc", "-O2", "-std=c11", "-pthread", "-Icext/include", "-Icext/src", "tests/c/test_parts.c", *map(str, core), "-o", str(exe)]
    subprocess.run(words, check=True, cwd=ROOT)
    said = subprocess.run([exe, "figures"], check=True, cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
    out = {}
    for line in said.splitlines():
        name, _, rest = line.partition(": ")
        if name in ("simulated.nor", "simulated.eeprom"):
            out |= {f"{name}.{k}": float(v) for k, v in zip(*[iter(rest.split())] * 2, strict=True)}
    return out


def _parts(b: Bench) -> None:
    found = _figures()
    for key in KEYS:
        name = key.rpartition(".")[2]
        b.put(key, found[key], n=b.n(key), limit=GOALS[name], above=name != "bus_bytes_per_byte")
    for kind in KINDS:
        b.beside(f"simulated.{kind}.ioctls_per_mb", found[f"simulated.{kind}.ioctls_per_mb"], "count", n=1)


STEPS = ((KEYS, _parts),)
