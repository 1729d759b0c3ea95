# SPDX-License-Identifier: Apache-2.0
"""What a TPM adds to a renewal, through swtpm on this host: the bytes and the path are those of a chip, its time is not."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frame import OUT, ROOT, Bench, at, median
from places import LIMIT_S, Lab, end, place, wait_for

from qsafp_embedded.cli.ports import free_ports

JOBS = {"sign": "swtpm.sign_ms", "increment": "swtpm.nv_increment_ms", "extend": "swtpm.nv_extend_ms"}
KEYS = ("swtpm.quote_ms", "swtpm.sign_ms", "swtpm.nv_increment_ms", "swtpm.nv_extend_ms")
NOTE = "swtpm: a chip takes its own time"


@contextmanager
def software_tpm(state: Path) -> Iterator[str]:
    """A software TPM of its own; yields what guard.toml's device_key says of it."""
    state.mkdir()
    port, control = free_ports(2)
    servers = [f"type=tcp,bindaddr=127.0.0.1,port={p}" for p in (port, control)]
    words = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server", servers[0], "--ctrl", servers[1]]
    process = subprocess.Popen([*words, "--flags", "startup-clear,not-need-init"])

    def listens() -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", control)) == 0

    try:
        wait_for(listens, "swtpm", seconds=LIMIT_S)
        yield f"tpm:swtpm:host=127.0.0.1,port={port}"
    finally:
        end(process)


def _settings(tpm: str) -> str:
    return f'device_key = "{tpm}"\nquote_pcrs = [0, 2, 4, 7]\n'


def _quotes(b: Bench) -> None:
    key = KEYS[0]
    first: list[float] = []
    again: list[float] = []
    with place("quote") as folder, software_tpm(folder / "tpm") as tpm, Lab(folder, more=_settings(tpm)) as lab:
        for _ in range(b.n(key)):
            lab.client.begin()
            for samples, old in ((first, 0), (again, 1)):  # another envelope of the same request has the same quote
                start = time.perf_counter_ns()
                lab.client.envelope(old)
                samples.append((time.perf_counter_ns() - start) / 1e6)
            lab.lease()
    b.put(key, at(first, 0.5), samples=first, notes=[NOTE])
    b.beside("swtpm.envelope_again_ms", median(again), "ms", samples=again)


def _jobs(b: Bench) -> None:
    """Build tests/bench/tpm_jobs.c, which runs the guard's own jobs without a guard, and read its times."""
    OUT.mkdir(parents=True, exist_ok=True)
    exe, core = OUT / "tpm_jobs", sorted((ROOT / "cext/src").glob("*.c"))
    include = ["-Icext/include", "-Icext/src", "-Iboard_ports/linux"]
    words = ["cc", "-O2", "-std=c11", "-pthread", *include, "tests/bench/tpm_jobs.c", *map(str, core), "-o", str(exe), "-ldl"]
    subprocess.run(words, check=True, cwd=ROOT)
    with place("jobs") as folder, software_tpm(folder / "tpm") as tpm:
        n = max(b.n(key) for key in JOBS.values())
        said = subprocess.run([exe, tpm.removeprefix("tpm:"), str(n)], check=True, capture_output=True, text=True, timeout=600).stdout
    rows = [line.split() for line in said.splitlines()]
    for job, key in JOBS.items():
        took = [int(ns) / 1e6 for name, ns in rows if name == job]
        b.put(key, at(took, 0.5), samples=took, notes=[NOTE])


STEPS = ((KEYS[:1], _quotes), (KEYS[1:], _jobs))
