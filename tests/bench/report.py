# SPDX-License-Identifier: Apache-2.0
"""Figures for people: the table, the plots, docs/benchmarks.md.  Nothing here is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from frame import ROOT, Bench, at, goals

DOC = ROOT / "docs" / "benchmarks.md"
HEAD = """<!-- SPDX-License-Identifier: Apache-2.0 -->
# Benchmarks

Written by `tests/bench/run.py --write-docs` from build/bench.json; no figure here is typed by hand.  `make bench` measures all keys,
`make bench KEYS=gate,audit` some, and the others stay, each with the commit that it was measured at; `QUICK=1` takes small n,
`FULL=1` every n as defined; a table cell says where n was smaller than defined.  Subject and floor are interleaved in one process on
one pinned core, 31 rounds; *ratio* is the median of the rounds' ratios with p5 and p95.  Floors are in tests/bench/floors.c and
floors.py, which hold no product code.  A noisy round is reported, not dropped.  Keys that begin with `simulated.` come from a
simulated pin.

"""


def number(v: float | None) -> str:
    """Three or four digits that matter."""
    if v is None:
        return ""
    if v == int(v) and abs(v) < 1e6:
        return f"{int(v):,}"
    return f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.4g}"


def _verdict(r: dict[str, Any]) -> str:
    return {None: "", True: "met", False: "MISSED"}[r["met"]]


def _goal(key: str, r: dict[str, Any]) -> str:
    k = goals().get(key)
    if k is None or r["goal"] is None:
        return ""
    return f"{'>=' if k.goal.startswith('>=') else '<='} {number(r['goal'])}"


def _ratio(r: dict[str, Any]) -> str:
    x = r.get("ratio")
    return f"{x['p50']:.2f} ({x['p5']:.2f}-{x['p95']:.2f})" if x else ""


def _rows(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(k, v) for k, v in found.items() if k not in ("host", "problems")]


def table(found: dict[str, Any]) -> str:
    """The table on screen: keys with goals first, floors and figures beside them after."""
    known = goals()
    heads = ("key", "value", "unit", "goal", "", "ratio p50 (p5-p95)", "p50", "p99", "p99.9", "n", "notes")
    lines = [heads]
    rows = _rows(found)
    for k, r in sorted(rows, key=lambda kv: kv[0] not in known):
        tail = [number(r[q]) for q in ("p50", "p99", "p999")]
        figures = (number(r["value"]), r["unit"], _goal(k, r), _verdict(r), _ratio(r), *tail)
        lines.append((k, *figures, f"{r['n']:,}", "; ".join(r.get("notes", []))))
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads) - 1)]
    text = [" ".join(c.ljust(w) for c, w in zip(line, [*widths, 0], strict=True)).rstrip() for line in lines]
    text += [f"not measured: {k}: {why}" for k, why in found.get("problems", {}).items()]
    h = found["host"]
    text.append(f"{h['cpu']}; Linux {h['kernel']}; {h['compiler']}; {h['file_system']}; commit {h['commit']}; mode {h['mode']}")
    return "\n".join(text)


def plots(b: Bench, folder: Path) -> None:
    """One picture per figure that has samples, its floor and its goal in it."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    for key, r in b.results.items():
        if key not in b.table or len(r.samples) < 2:
            continue
        figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
        beside = b.results.get(r.floor_key or "")
        floor = r.floor or (beside.samples if beside and beside.unit == r.unit else [])
        series = [(key, r.samples)] + ([(r.floor_key or "", floor)] if floor else [])
        for name, samples in series:
            ordered = sorted(samples)
            label = f"{name}  (n {len(ordered):,}, p50 {number(at(ordered, 0.5))}, p99 {number(at(ordered, 0.99))})"
            axes.step(ordered, [(i + 1) / len(ordered) for i in range(len(ordered))], where="post", label=label)
        if r.limit is not None:
            axes.axvline(r.limit, color="crimson", linestyle="--", label=f"goal {number(r.limit)} {r.unit}")
        spread = [v for _, s in series for v in s] + ([r.limit] if r.limit else [])
        if min(spread) > 0 and max(spread) > 20 * min(spread):
            axes.set_xscale("log")
        unit = f"{r.unit}, median of each round" if b.table[key].rounds else r.unit
        axes.set(xlabel=unit, ylabel="share of samples at most this", ylim=(0, 1.02), title=f"{key} ({b.mode})")
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize=8)
        figure.savefig(folder / f"{key}.png", dpi=110)
        plt.close(figure)


def emulated() -> list[str]:
    """What the last `make boards` measured on each board, if one ran here."""
    files = sorted((ROOT / "build/boards").glob("*.figures.json"))
    rows = [(key, r) for file in files for key, r in json.loads(file.read_text()).items()]
    if not rows:
        return []
    what = "Measured in the guest by `make boards`, and by `make wheels`: counts, bytes, and times that have no goal."
    lines = ["", "## Emulated boards", "", what, ""]
    lines += ["| key | board | value | p50 | p99 | n | note |", "|---|---|---|---|---|---|---|"]
    for key, r in rows:
        figures = [f"{number(r['value'])} {r['unit']}", number(r["p50"]), number(r["p99"]), f"{r['n']:,}", r["note"]]
        lines.append(f"| {key} | {r['board']} | {' | '.join(figures)} |")
    return lines


def write_docs(found: dict[str, Any]) -> None:
    """docs/benchmarks.md: one row per key with definition, command, figure and verdict."""
    h = found["host"]
    lines = [f"Measured {h['date']} on {h['cpu']}, Linux {h['kernel']}, {h['file_system']}, {h['compiler']},"]
    commits = sorted({r["commit"] for _, r in _rows(found)})
    lines += [f"Python {h['python']}, commit {', '.join(commits)}, mode {h['mode']}.", ""]
    if float(h["load"]) > 3:
        lines += [f"**The machine was shared (load average {h['load']} over 15 minutes): figures and floors are stretched alike, so", ""]
        lines[-2] += " neither a miss nor a goal met against a noisy floor is final.  Run it on an idle machine.**"
    lines += ["| key | definition | command | goal | measured | verdict | ratio p50 (p5-p95) | p99 | p99.9 | n | notes |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|---|"]
    problems = found.get("problems", {})
    for key, k in goals().items():
        command = f"`make bench KEYS={key}`"
        r = found.get(key)
        if r is None:
            why = problems.get(key, "not run")
            lines.append(f"| {key} | {k.what} | {command} | {k.goal} | not measured | **missed** | | | | | {why} |")
            continue
        verdict = {None: "no goal", True: "met", False: "**missed**"}[r["met"]]
        goal = f"{k.goal} (here {_goal(key, r)} {k.unit})" if r["goal"] is not None else k.goal
        figures = [f"{number(r['value'])} {k.unit}", verdict, _ratio(r), number(r["p99"]), number(r["p999"]), f"{r['n']:,}"]
        lines.append(f"| {key} | {k.what} | {command} | {goal} | {' | '.join(figures)} | {'; '.join(r.get('notes', []))} |")
    lines += ["", "## Floors, and figures beside the keys", "", "| key | value | p99 | p99.9 | n |", "|---|---|---|---|---|"]
    for key, r in _rows(found):
        if key not in goals():
            lines.append(f"| {key} | {number(r['value'])} {r['unit']} | {number(r['p99'])} | {number(r['p999'])} | {r['n']:,} |")
    DOC.write_text(HEAD + "\n".join([*lines, *emulated()]) + "\n")
