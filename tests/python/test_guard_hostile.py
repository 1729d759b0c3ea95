# SPDX-License-Identifier: Apache-2.0
"""What a process that means harm cannot do to a guard: fill its log, borrow its keys, sit in its folders."""

from __future__ import annotations

import os
import resource
import signal
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from guard_kit import Device, Wire, until

from qsafp_embedded import cose, keys
from qsafp_embedded._core import seal_evolve
from qsafp_embedded._tables import CommandStatus, Error, Event, Opcode, Reason
from qsafp_embedded.client import CommandRefused

EVENT = struct.pack("<HI", Event.WORKLOAD_REPORT, 0)


def test_a_new_connection_is_no_new_allowance(device: Device) -> None:
    taken = 0
    for _ in range(30):
        wire = Wire(device.run / "gate.sock")
        wire.wire.receive(5.0)
        taken += sum(wire.ask(Opcode.LOG_EVENT, EVENT)[0] == CommandStatus.OK for _ in range(10))
        wire.close()
    told = [r for r in device.records() if r["event"] == Event.WORKLOAD_REPORT]
    seconds = Counter(r["boot_ns"] // 1_000_000_000 for r in told)
    assert len(told) == taken
    assert taken <= 10 * (1 + max(seconds) - min(seconds) + 1), f"ten a second by user, not by connection: {seconds}"


def test_a_forged_yes_does_not_make_an_honest_no_an_equivocation(device: Device) -> None:
    with device.client() as client:
        payload, request = device.propose(client)
        client.put(device.refusal(request, 1))
        signed = cose.parse_sign(device.q.lease(payload))
        forged = [replace(s, signature=bytes([s.signature[0] ^ 1]) + s.signature[1:]) if i == 1 else s for i, s in enumerate(signed.by)]
        with pytest.raises(CommandRefused) as caught:
            client.put(cose.encode_sign(payload, forged))
        assert caught.value.error == Error.BAD_SIGNATURE
    reasons = [r["reason"] for r in device.records() if r["event"] == Event.ANOMALY]
    assert reasons == [Reason.INVALID_SIGNATURES]


def test_keys_of_earlier_seals_are_gone(device: Device) -> None:
    key, earlier = keys.read_secret(device.state.parent / "k0", "seal"), []
    with device.client() as client:
        for _ in range(100):
            client.log_event(Event.WORKLOAD_REPORT)
        client.begin()  # the log is durable
        epoch = client.status().log_next // 16
    for _ in range(epoch):
        earlier.append(key)
        key = seal_evolve(key)
    assert epoch >= 6
    until(lambda: key in (device.state / "seal.bin").read_bytes())
    kept = (device.state / "seal.bin").read_bytes()
    assert [e for e, old in enumerate(earlier) if old in kept] == []


def test_no_core_file_carries_the_keys_away(enrolled: Device, tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if limit == 0:
        pytest.skip("core files are forbidden here")
    enrolled.start(cwd=tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (limit, limit)))
    assert enrolled.guard is not None
    enrolled.send(signal.SIGABRT)
    _, status = os.waitpid(enrolled.guard.pid, 0)
    enrolled.guard.returncode = -signal.SIGABRT
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert not os.WCOREDUMP(status)


@pytest.mark.parametrize("folder", ["run", "state"])
def test_a_folder_that_others_may_write_is_refused(enrolled: Device, folder: str) -> None:
    path = getattr(enrolled, folder)
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)
    done = enrolled.call()
    assert (done.returncode, "others may write" in done.stderr) == (1, True), done.stderr
    assert str(path) in done.stderr
    path.chmod(0o755 if folder == "run" else 0o700)
    enrolled.start()
    assert enrolled.lease()


def test_a_folder_of_another_user_is_refused(enrolled: Device) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    enrolled.run.mkdir(parents=True)
    os.chown(enrolled.run, 65534, -1)
    done = enrolled.call()
    assert (done.returncode, "others may write" in done.stderr) == (1, True), done.stderr
