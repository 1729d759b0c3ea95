# SPDX-License-Identifier: Apache-2.0
"""``qsafp test``: scenarios, each a real run of real processes on this host."""

from __future__ import annotations

import argparse
import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from ..errors import ConfigError
from ..scenarios import registry
from .common import Commands, command, emit

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add ``test``."""
    what = "run scenarios: real guard, agent and validators, in a temporary directory"
    p = command(commands, "test", _test, what, "qsafp test --list\nqsafp test --scenario revocation,one_bad_validator")
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument("--scenario", metavar="NAME", help="names with commas between them, fast, or all")
    which.add_argument("--list", action="store_true", help="list the scenarios")
    p.add_argument("-j", type=int, default=1, dest="jobs", metavar="N", help="run N at a time (default: %(default)s)")


def _chosen(text: str) -> list[str]:
    known = registry.all_scenarios()
    if text in ("all", "fast"):
        return [n for n, it in known.items() if it.fast or text == "all"]
    for name in text.split(","):
        if name not in known:
            raise ConfigError(f"no scenario {name!r}; see: qsafp test --list")
    return text.split(",")


_interrupted = threading.Event()  # of a process of the pool: it would be given the next scenario all the same


def _alone(name: str) -> registry.Result:
    """Run one scenario in a process of the pool, unless it was interrupted before."""
    try:
        if not _interrupted.is_set():
            return registry.run(name)
    except KeyboardInterrupt:
        _interrupted.set()
    return registry.Result(name, "skipped", 0.0, "interrupted")


def _results(names: list[str], jobs: int) -> Iterator[registry.Result]:
    """Run them; each in a process of its own where there are several, so that threads never share a stage."""
    if jobs == 1:
        yield from map(registry.run, names)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        try:
            for done in as_completed([pool.submit(_alone, name) for name in names]):
                yield done.result()
        finally:  # an interrupt ends what runs, and nothing more is begun
            pool.shutdown(cancel_futures=True)


def _line(r: registry.Result) -> str:
    figures = "  ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in r.figures.items())
    return f"{r.outcome:<8} {r.name:<24} {r.seconds:6.1f} s  {r.why or figures}"


def _test(args: argparse.Namespace) -> int:
    if args.list:
        known = registry.all_scenarios().values()
        emit(args, {it.name: it.text for it in known}, "\n".join(f"{it.name:<24} {it.text}" for it in known))
        return 0
    if args.jobs < 1:
        raise ConfigError("-j is a number of at least 1")
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for r in _results(_chosen(args.scenario), args.jobs):
        counts[r.outcome] += 1
        emit(args, r.as_dict(), _line(r))
    if not args.json:
        print(", ".join(f"{n} {what}" for what, n in counts.items()))
    return int(counts["failed"] > 0)
