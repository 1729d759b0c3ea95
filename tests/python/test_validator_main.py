# SPDX-License-Identifier: Apache-2.0
"""The program: one line when ready, one line when it cannot work, a clean end."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from validator_kit import Device, install, quorum
from validator_live import client, new_key

from qsafp_embedded import keys
from qsafp_embedded.tls import make_certificate, spki_of_key
from qsafp_embedded.validator import admin_client


def line(stream: int, seconds: float = 20.0) -> str:
    """The next line of a pipe, within a bound."""
    out = b""
    until = time.monotonic() + seconds
    while not out.endswith(b"\n"):
        ready, _, _ = select.select([stream], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise TimeoutError(f"no line in {seconds} s, only {out!r}")
        block = os.read(stream, 1)
        if not block:
            break
        out += block
    return out.decode()


def command(toml: Path) -> list[str]:
    return [sys.executable, "-m", "qsafp_embedded.validator", "--config", str(toml)]


@contextmanager
def started(toml: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = subprocess.Popen(command(toml), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield program
    finally:
        program.kill()
        program.communicate()


def out(program: subprocess.Popen[bytes]) -> str:
    assert program.stdout is not None
    return line(program.stdout.fileno())


def err(program: subprocess.Popen[bytes]) -> str:
    assert program.stderr is not None
    return line(program.stderr.fileno())


def post(url: str, body: bytes, folder: Path, relay: keys.Ed25519Key) -> tuple[int, bytes]:
    async def once() -> tuple[int, bytes]:
        async with aiohttp.ClientSession() as session, session.post(url, data=body, ssl=client(folder, relay)) as answer:
            return answer.status, await answer.read()

    return asyncio.run(once())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_serves_and_ends_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    q, relay = quorum(lab=True), new_key()
    device = Device(q.members)
    home = tmp_path / "v"
    with started(install(home, q, 1, relay, [device.registered(registered=int(time.time()))])) as program:
        ready = out(program)
        port = int((home / "port").read_text())
        assert ready == f"validator 1 listening on https://127.0.0.1:{port} LAB\n"
        status, body = post(f"https://127.0.0.1:{port}/v1/renew", device.ask(), tmp_path, relay)
        assert (status, body[:1]) == (200, b"\x81")
        assert admin_client.devices(home / "admin.sock")[0]["serial"] == 1
        program.send_signal(number)
        assert program.wait(10) == 0
        assert not (home / "admin.sock").exists()


def test_the_service_manager_hears_ready_watchdog_and_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        with started(install(tmp_path / "v", quorum(), 0, new_key(), [])) as program:
            assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
            program.terminate()
            while manager.recv(100) != b"STOPPING=1":
                continue
            assert program.wait(10) == 0


def test_kill_9_loses_no_answer(tmp_path: Path) -> None:
    q, relay = quorum(suite="hybrid"), new_key()
    device = Device(q.members)
    home = tmp_path / "v"
    toml = install(home, q, 0, relay, [device.registered(registered=int(time.time()))])
    envelope, answers = device.ask(), set()
    for _ in range(2):
        with started(toml) as program:
            url = out(program).split()[4]
            answers.add(post(f"{url}/v1/renew", envelope, tmp_path, relay))
    assert len(answers) == 1


def test_a_second_program_on_the_same_database_is_refused(tmp_path: Path) -> None:
    toml = install(tmp_path / "v", quorum(), 0, new_key(), [])
    with started(toml) as first:
        out(first)
        second = subprocess.run(command(toml), capture_output=True, text=True, timeout=20, check=False)
        assert (second.returncode, second.stderr.count("\n")) == (1, 1)
        assert "another validator holds it" in second.stderr


def test_hangup_takes_up_a_new_policy_device_and_relay_and_keeps_a_wrong_one_out(tmp_path: Path) -> None:
    q, old, new = quorum(), new_key(), new_key()
    device = Device(q.members)
    home = tmp_path / "v"
    toml = install(home, q, 0, old, [])
    with started(toml) as program:
        url = out(program).split()[4] + "/v1/renew"
        body = device.ask()
        assert post(url, body, tmp_path, old)[0] == 403
        (home / "new.crt").write_bytes(make_certificate(new))
        d = device.registered(registered=int(time.time()))
        (tmp_path / "other").mkdir()
        text = install(tmp_path / "other" / "v", q, 0, new, [d]).read_text().replace("relay.crt", "new.crt")
        toml.write_text(text)
        program.send_signal(signal.SIGHUP)
        assert out(program) == "validator 0 reloaded: 1 devices, epoch 1\n"
        assert spki_of_key(new).hex() in text
        assert post(url, body, tmp_path, new)[0] == 200
        assert post(url, body, tmp_path, old)[0] == 403
        toml.write_text("surprise = 1\n" + text)
        program.send_signal(signal.SIGHUP)
        assert "not reloaded: validator.toml: unknown key 'surprise'" in err(program)
        assert post(url, body, tmp_path, new)[0] == 200


def test_what_it_cannot_work_with_is_named_in_one_line(tmp_path: Path) -> None:
    def fresh(name: str) -> Path:
        return install(tmp_path / name, quorum(), 0, new_key(), [])

    def gone(path: Path) -> None:
        path.unlink()

    def garbage(path: Path) -> None:
        path.write_bytes(b"\xff" * 99)

    def open_to_all(path: Path) -> None:
        path.chmod(0o644)

    def of_another(path: Path) -> None:
        path.unlink()
        keys.generate(path)

    cases = [
        ("validator.toml", gone, "validator.toml"),
        ("set.cbor", gone, "set.cbor: cannot read"),
        ("set.cbor", garbage, "set.cbor: "),
        ("signing.key", gone, "signing.key: no such key file"),
        ("signing.key", open_to_all, "chmod 600"),
        ("signing.key", of_another, "is not the one the set gives validator 0"),
        ("tls.key", open_to_all, "chmod 600"),
        ("tls.key", of_another, "not the TLS key that the set pins"),
        ("tls.crt", garbage, "tls.crt"),
        ("relay.crt", gone, "relay.crt"),
        ("state.db", garbage, "state.db"),
    ]
    for n, (name, spoil, text) in enumerate(cases):
        toml = fresh(f"v{n}")
        (toml.parent / "state.db").touch()
        spoil(toml.parent / name)
        done = subprocess.run(command(toml), capture_output=True, text=True, timeout=20, check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), (name, done.stderr)
        assert text in done.stderr


def test_an_index_outside_the_set_and_a_taken_port_are_named(tmp_path: Path) -> None:
    toml = install(tmp_path / "v", quorum(), 0, new_key(), [])
    text = toml.read_text()
    text += '\n[policy]\nsuites = ["hybrid", "ed25519"]\n'
    cases = (
        ("index = 0", "index = 3", "index 3 is not in the set of 3"),
        (', "ed25519"', "", "suite ed25519 is not among the policy's 'suites'"),
        ('"hybrid"', '"rsa"', "'suites' is not a list of"),
        ("127.0.0.1:0", "192.0.2.1:1", "cannot listen on 192.0.2.1:1"),
    )
    for old, new, said in cases:
        toml.write_text(text.replace(old, new))
        done = subprocess.run(command(toml), capture_output=True, text=True, timeout=20, check=False)
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr
