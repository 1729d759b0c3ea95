# SPDX-License-Identifier: Apache-2.0
"""``qsafp run --json``: what a program reads of a run (docs/operations.md, Events of a run)."""

from __future__ import annotations

import json
import signal
from types import SimpleNamespace

import pytest
from guard_kit import Device, FakeGuard, answer, short_dir, until
from test_run import Run, run, steps

from qsafp_embedded._tables import CommandStatus

__all__ = ["run"]


def events(r: Run) -> list[dict[str, object]]:
    """What a run told to programs, in order; a workload's own words on the same stream are none of it."""
    return [json.loads(line) for line in r.said.splitlines() if line.startswith('{"event"')]


def test_every_event_of_a_run_is_a_line_of_json(device: Device, run: type[Run]) -> None:
    file = device.root / "file"
    file.write_text("good")
    r = run("--json", "--name", "busy", "--checkpoint", str(file), "--on-stop", "true")

    def told(name: str) -> dict[str, object]:
        return until(lambda: next((e for e in events(r) if e["event"] == name), None))  # type: ignore[no-any-return]

    told("waiting")
    device.lease()
    until(lambda: "register" in steps(device))
    device.send(signal.SIGSTOP)
    told("stopped")
    device.send(signal.SIGCONT)
    told("thawed")
    until(r.running)
    device.revoke()
    assert told("on_stop")["status"] == 0
    device.lease()
    assert told("restarted")["pid"] != told("started")["pid"]
    r.process.terminate()
    assert r.wait() == 128 + signal.SIGTERM
    found = events(r)
    assert len(found) == len(r.said.splitlines()), "nothing else is said"
    names = [e["event"] for e in found if e["event"] != "alone"]
    while names[2:6] == ["stopped", "thawed"] * 2:  # the guard's order to hold may come after it opened again
        del names[2:4]
    assert names == [
        *("waiting", "started", "stopped", "thawed"),
        *("stopped", "killed", "rolled_back", "on_stop", "restarted", "exit"),
    ]
    assert {e["name"] for e in found} == {"busy"}
    assert found == sorted(found, key=lambda e: int(str(e["boot_ns"])))
    assert [e["reason"] for e in found if e["event"] in ("stopped", "killed")][-2:] == ["VALIDATOR_DENIED"] * 2
    assert "gate closed" in str(told("killed")["why"])
    assert (told("rolled_back")["paths"], told("rolled_back")["ok"], told("exit")["status"]) == (1, True, 143)
    assert told("started")["held_by"] in ("cgroup", "signals")


def test_a_workload_that_no_guard_took_is_killed_and_rolled_back_once_one_does() -> None:
    takes, orders = False, [2, 4, 5]

    def guard(packet: bytes) -> bytes:
        if not takes:
            return answer(packet, CommandStatus.BUSY)
        if packet[4] != 3:
            return answer(packet, 0, b"\0")
        until(lambda: orders)
        return answer(packet, 0, bytes([orders.pop(0)]))

    with short_dir() as root:
        fake = FakeGuard(root / "run", guard)
        fake.open(True)
        r = Run(SimpleNamespace(root=root), "--json", "--name", "busy")  # type: ignore[arg-type]
        try:
            until(r.running)
            until(lambda: [e["event"] for e in events(r)] == ["started", "alone"])
            fake.open(False)
            until(r.held)
            heard = len(fake.heard)
            until(lambda: len(fake.heard) >= heard + 2)
            takes = True
            until(lambda: events(r)[-1]["event"] == "rolled_back")
            assert [e["event"] for e in events(r)] == ["started", "alone", "stopped", "killed", "rolled_back"], "alone is told once"
            assert r.held()
        finally:
            orders += [3] * 8
            r.close()
            fake.close()


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["words", "json"])
def test_what_cannot_be_told_is_done_all_the_same(device: Device, run: type[Run], options: list[str]) -> None:
    (device.root / "run.log").symlink_to("/dev/full")
    file = device.root / "file"
    file.write_text("good")
    device.lease()
    r = run(*options, "--checkpoint", str(file), "--no-restart")
    until(r.running)
    file.write_text("bad")
    device.revoke()
    assert r.wait() == 75
    assert file.read_text() == "good"


def test_what_ends_a_run_badly_is_an_event_too(device: Device, run: type[Run]) -> None:
    device.lease()
    r = run("--json", command=["/no/such/program"])
    assert r.wait() == 1
    assert [(e["event"], e["why"]) for e in events(r)] == [("error", "/no/such/program: No such file or directory")]
    assert "qsafp: /no/such/program: No such file or directory" in r.said
    file = device.root / "file"
    file.write_text("good")
    r = run("--json", "--name", "busy", "--checkpoint", str(file))
    until(r.running)
    (device.root / "store" / "main-busy" / "0").write_text("bad")
    device.revoke()
    assert r.wait() == 75
    rolled, ended = events(r)[-2:]
    assert (rolled["event"], rolled["ok"], ended["event"], ended["status"]) == ("rolled_back", False, "exit", 75)
    assert "was changed" in str(events(r)[-3]["why"])
