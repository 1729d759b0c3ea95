# SPDX-License-Identifier: Apache-2.0
"""The agent as a service: what the service manager, journald, Prometheus and people at its control socket see."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import re
import shutil
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from agent_world import World, states

from qsafp_embedded.agent import metrics
from qsafp_embedded.agent.loop import Agent
from qsafp_embedded.journal import encode, say

UNITS = Path(__file__).resolve().parents[2] / "packaging" / "systemd"


def datagrams(path: Path) -> socket.socket:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(str(path))
    s.settimeout(10)
    return s


def test_the_service_manager_hears_ready_watchdog_and_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> list[bytes]:
        world = World(tmp_path)
        async with world.validators(), world.agent():
            await world.phase("active")
        heard = []
        while True:
            try:
                heard.append(manager.recv(100))
            except BlockingIOError:
                return heard

    with datagrams(tmp_path / "notify") as manager:
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        heard = [m for m in asyncio.run(story()) if b"STATUS" not in m]
    # the guard, which the agent started, reports there too
    assert b"READY=1" in heard
    assert b"WATCHDOG=1" in heard
    assert b"STOPPING=1" in heard


def test_under_journald_a_line_carries_its_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    stat = os.fstat(writer)
    with datagrams(tmp_path / "j") as journal:
        say("agent", "plain", {"serial": 7}, to=tmp_path / "j", fd=writer)
        assert os.read(reader, 100) == b"agent: plain\n"
        monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
        say("agent", "one\ntwo", {"serial": 7, "phase": "active"}, to=tmp_path / "j", fd=writer)
        got = journal.recv(4096)
        message = b"MESSAGE\n" + struct.pack("<Q", 7) + b"one\ntwo\n"
        assert got == message + b"PRIORITY=6\nSYSLOG_IDENTIFIER=qsafp-agent\nQSAFP_SERIAL=7\nQSAFP_PHASE=active\n"
    say("agent", "nobody listens", to=tmp_path / "gone", fd=writer)
    assert os.read(reader, 100) == b"agent: nobody listens\n"
    os.close(reader)
    say("agent", "nobody reads", to=tmp_path / "gone", fd=writer)
    os.close(writer)


def test_a_value_cannot_smuggle_a_field_in() -> None:
    assert encode({"MESSAGE": "x\nPRIORITY=0"}) == b"MESSAGE\n" + struct.pack("<Q", 12) + b"x\nPRIORITY=0\n"


async def ask(agent: Agent, *lines: bytes) -> list[dict[str, object]]:
    reader, writer = await asyncio.open_unix_connection(agent._config.control_socket)
    out = []
    for line in lines:
        writer.write(line + b"\n")
        out.append(json.loads(await reader.readline()))
    writer.close()
    return out


def test_the_control_socket_answers_what_it_knows_and_survives_the_rest(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        async with world.validators(), world.agent() as agent:
            await world.phase("active")
            await world.until(lambda: agent.status()["renewals"])
            assert agent._config.control_socket.stat().st_mode & 0o777 == 0o600
            for garbage in (b"", b"{", b"[]", b'"x"', b"5", b'{"cmd": 5}', b'{"cmd": "open"}', b"\xff", b"[" * 3000):
                (said,) = await ask(agent, garbage)
                assert "error" in said, garbage
            for cut in (b"x" * 100_000, b""):
                reader, writer = await asyncio.open_unix_connection(agent._config.control_socket)
                writer.write(cut)
                writer.write_eof()
                await reader.read()
                writer.close()
            status, text, renewed = await ask(agent, b'{"cmd": "status"}', b'{"cmd": "metrics"}', b'{"cmd": "renew"}')
            assert (status["phase"], renewed) == ("active", {"ok": True})
            assert "qsafp_lease_open 1" in str(text["text"])
            assert set(states(agent)) == {0, 1, 2}

    asyncio.run(story())


def test_metrics_are_prometheus_text(tmp_path: Path) -> None:
    votes = [{"index": 0, "state": "approved"}, {"index": 1, "state": "unreachable"}]
    status = {"guard": 5, "phase": "grace", "serial": 9, "remaining_ms": 0, "lab": True, "renewals": 3, "latencies_ms": [2.0, 1.0, 9.0]}
    text = metrics.text({**status, "polls": 1, "isolated": True, "error": "x", "round": votes})
    sample = re.compile(r'^qsafp_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+$')
    kinds = re.findall(r"^# TYPE (\S+) (?:counter|gauge)$", text, re.M)
    assert len(kinds) == len(set(kinds)) == text.count("# HELP")
    assert all(sample.match(line) for line in text.splitlines() if line[0] != "#")
    for line in ("lease_open 0", "lease_serial 9", "lab 1", 'agent_renewal_seconds{quantile="0.99"} 0.009', "agent_isolated 1"):
        assert f"qsafp_{line}\n" in text
    bare = metrics.text({"guard": None, "renewals": 0, "latencies_ms": [], "polls": 0, "isolated": True, "error": "", "round": []})
    assert "lease_open" not in bare


@pytest.mark.parametrize("unit", ["qsafp-guard.service", "qsafp-agent.service", "qsafp-validator@.service"])
def test_a_unit_is_notified_watched_and_hardened(unit: str) -> None:
    u = configparser.ConfigParser(strict=False, interpolation=None)
    u.optionxform = str  # type: ignore[assignment,method-assign]
    u.read_string((UNITS / unit).read_text())
    assert u["Service"]["Type"] == "notify"
    assert int(u["Service"]["WatchdogSec"]) > 0
    program = unit.removesuffix(".service").removeprefix("qsafp-")
    place = "/var/lib/qsafp/validator-%i/validator.toml" if "@" in unit else f"/etc/qsafp/{program}/{program}.toml"
    assert u["Service"]["ExecStart"].endswith(f"-m qsafp_embedded.{program.rstrip('@')} --config {place}")
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: the unit's exposure was not looked at")
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(UNITS / unit)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    assert "Overall exposure level" in done.stdout
