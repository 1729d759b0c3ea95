# SPDX-License-Identifier: Apache-2.0
"""A log without a guard: it chains, it survives, and it says that nobody polices it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qsafp_embedded._core import OwnLog, record_decode
from qsafp_embedded._tables import Event
from qsafp_embedded.audit import Log
from qsafp_embedded.errors import FormatError, QsafpError

DONE = int(Event.INFERENCE_COMPLETED)


def test_what_was_appended_chains_and_is_there_again(tmp_path: Path) -> None:
    log = OwnLog(tmp_path, create=True)
    for i in range(40):
        log.append(DONE, i, bytes([i]) * (i % 96))
    log.sync()
    size, head = log.head()
    log.close()
    again = OwnLog(tmp_path)
    assert again.head() == (size, head)
    again.append(DONE)
    again.close()
    read = Log.open(tmp_path / "log.ring")
    read.verify()
    fields = [record_decode(raw) for raw in read.raw]
    assert [f["reason"] for f in fields[1:41]] == list(range(40))
    assert fields[10]["data"] == b"\x09" * 9 + bytes(87)
    assert all(f["flags"] & 8 for f in fields[1:]), "reported by a workload, not by a guard"


def test_a_ring_that_went_round_opens_again(tmp_path: Path) -> None:
    log = OwnLog(tmp_path, create=True)
    for _ in range(3000):
        log.append(DONE)
    log.sync()
    size, head = log.head()
    log.close()
    assert size > 3000
    again = OwnLog(tmp_path)
    assert again.head() == (size, head)
    again.close()


def test_what_was_synced_survives_a_kill(tmp_path: Path) -> None:
    text = f"""import sys
from qsafp_embedded._core import OwnLog
log = OwnLog({str(tmp_path)!r}, create=True)
for i in range(100):
    log.append({DONE}, i)
log.sync()
print(log.head()[0], flush=True)
while True:
    log.append({DONE}, 7)
"""
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) as child:
        assert child.stdout
        known = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
    log = OwnLog(tmp_path)
    assert log.head()[0] >= known == 101
    log.close()


def test_misuse_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(QsafpError, match="self-policed log"):
        OwnLog(tmp_path / "nowhere", create=True)
    with pytest.raises(QsafpError):
        OwnLog(tmp_path)
    log = OwnLog(tmp_path, create=True)
    with pytest.raises(QsafpError, match="another guard"):
        OwnLog(tmp_path)
    with pytest.raises(FormatError, match="97 bytes"):
        log.append(DONE, 0, bytes(97))
    log.close()
    for act in (log.sync, log.head, lambda: log.append(DONE)):
        with pytest.raises(QsafpError, match="closed"):
            act()
    log.close()
