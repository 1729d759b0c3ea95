# SPDX-License-Identifier: Apache-2.0
"""``make bench``: measure every figure of goals.toml.

Writes build/bench.json, a table on screen, plots under build/bench/ and, with --write-docs, docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import frame
import report
from frame import OUT, ROOT, Bench

AREAS = ("gate", "audit", "parts", "lease", "failsafe", "guard", "renewal", "tpm", "validator", "inference")


def chosen(words: str) -> set[str]:
    """Names of the keys that ``KEYS=`` selects: a key, an area, or the start of a name."""
    table = frame.goals()
    out: set[str] = set()
    for word in filter(None, words.replace(" ", ",").split(",")):
        in_area = set(importlib.import_module(word).KEYS) if word in AREAS else set()
        found = in_area | {k for k in table if k == word or k.startswith(word + ".")}
        if not found:
            raise SystemExit(f"bench: no key or area is named {word!r}; see --list")
        out |= found
    return out or set(table)


def host(mode: str) -> dict[str, str]:
    """What the figures were measured on."""
    from audit import file_system

    def said(*words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    changed = " with changes" if said("git", "status", "--porcelain", "--untracked-files=no") else ""
    return {
        "cpu": f"{cpu[0] if cpu else platform.machine()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "compiler": said("cc", "--version").splitlines()[0],
        "python": platform.python_version(),
        "file_system": file_system(OUT),
        "commit": said("git", "rev-parse", "--short", "HEAD") + changed,
        "mode": mode,
        "load": f"{os.getloadavg()[2]:.1f}",  # of 15 minutes: what else ran beside
        "date": time.strftime("%Y-%m-%d"),
    }


def measure(b: Bench) -> None:
    """Every step with a wanted key; one that fails is reported and does not stop the others."""
    for area in AREAS:
        module = importlib.import_module(area)
        for keys, step in module.STEPS:
            if b.wants(*keys):
                attempt(b, keys, step)


def attempt(b: Bench, keys: tuple[str, ...], step: Callable[[Bench], None]) -> None:
    """Measure some keys, or say why they could not be."""
    print(f"{', '.join(k for k in keys if k in b.wanted)} …", file=sys.stderr, flush=True)
    start = time.monotonic()
    try:
        step(b)
    except Exception as why:  # outermost: one figure that cannot be had must not hide the others
        b.problems |= {k: f"{type(why).__name__}: {why}" for k in keys if k in b.wanted and k not in b.results}
        if os.environ.get("BENCH_TRACE"):
            raise
    print(f"  {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Figures of two runs, the newer where both have one; what could not be measured then and was now is no problem any more."""
    problems = {k: v for k, v in old.get("problems", {}).items() if k not in new}
    out = {**old, **new}
    out.pop("problems", None)
    return out | ({"problems": problems} if problems else {})


def main(argv: list[str] | None = None) -> int:
    """Run; 0 if everything that was asked for was measured, whether or not it met its goal."""
    p = argparse.ArgumentParser(prog="bench", description="Measure the figures of tests/bench/goals.toml.")
    p.add_argument(
        "--keys",
        default=os.environ.get("KEYS", ""),
        help="keys, areas or starts of names, with commas; other figures of --out stay (default: all)",
    )
    p.add_argument("--quick", action="store_true", default=bool(os.environ.get("QUICK")), help="small n, marked as such")
    p.add_argument("--full", action="store_true", default=bool(os.environ.get("FULL")), help="every n as defined")
    p.add_argument("--list", action="store_true", help="list keys and goals, measure nothing")
    p.add_argument("--out", type=Path, default=ROOT / "build" / "bench.json", help="where the figures go (default: build/bench.json)")
    p.add_argument("--write-docs", action="store_true", help="write docs/benchmarks.md from the figures; with none measured yet: measure")
    args = p.parse_args(argv)
    if args.list:
        for k in frame.goals().values():
            print(f"{k.name}\t{k.goal}")
        return 0
    if args.write_docs and not args.keys and args.out.exists():
        report.write_docs(json.loads(args.out.read_text()))
        return 0
    mode = "full" if args.full else "quick" if args.quick else "default"
    b = Bench(mode, chosen(args.keys))
    measure(b)
    here = host(mode)
    found: dict[str, Any] = {"host": here, **{k: {**r.as_dict(), "commit": here["commit"]} for k, r in b.results.items()}}
    if args.keys and args.out.exists():
        found = merged(json.loads(args.out.read_text()), found)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if b.problems:
        found["problems"] = {**found.get("problems", {}), **b.problems}
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    report.plots(b, args.out.parent / "bench")
    print(report.table(found))
    if args.write_docs:
        report.write_docs(found)
    return int(bool(b.problems))


if __name__ == "__main__":
    sys.exit(main())
