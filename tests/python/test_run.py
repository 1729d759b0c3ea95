# SPDX-License-Identifier: Apache-2.0
"""``qsafp run``: a program that never asks is held, killed, rolled back and started again (HW-12, tier 1)."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from guard_kit import LIMIT_S, Device, FakeGuard, Wire, answer, short_dir, until

from qsafp_embedded._tables import CommandStatus, Event, Opcode
from qsafp_embedded.enforce import hold as holds
from qsafp_embedded.enforce.hold import CgroupHold, Hold, SignalHold, make_hold
from qsafp_embedded.enforce.rollback import Checkpoint, tree_hash
from qsafp_embedded.enforce.runner import Plan, Runner
from qsafp_embedded.errors import ConfigError, StoreError

BUSY = 'while :; do echo x >> "$0"; sleep 0.005; done'
STEPS = {1: "drain", 2: "freeze", 3: "kill", 4: "rollback", 5: "thaw", 6: "gone", 7: "register"}


class Run:
    """``qsafp run`` as a process, and the file that its workload keeps writing to."""

    def __init__(self, device: Device, *options: str, command: list[str] | None = None, signals: bool = False) -> None:
        self.beat = device.root / "beat"
        words = command or ["sh", "-c", BUSY, str(self.beat)]
        front = (
            [
                "-c",
                "import sys; from qsafp_embedded.enforce import hold; hold._own_cgroup = lambda: hold.Path('/nowhere')\n"
                "from qsafp_embedded.cli import main; sys.exit(main())",
            ]
            if signals
            else ["-m", "qsafp_embedded.cli"]
        )
        argv = [sys.executable, *front, "run", "--dir", str(device.root), "--store", str(device.root / "store"), *options, "--", *words]
        self.log = device.root / "run.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(argv, stdout=out, stderr=out, start_new_session=True)

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def size(self) -> int:
        return self.beat.stat().st_size if self.beat.exists() else 0

    def running(self) -> bool:
        """The workload makes progress within 200 ms."""
        before, end = self.size, time.monotonic() + 0.2
        while time.monotonic() < end:
            if self.size > before:
                return True
            time.sleep(0.01)
        return False

    def held(self) -> bool:
        """No progress within 200 ms, which is 20 times the workload's own period."""
        return self.size > 0 and not self.running()

    def count(self, text: str) -> int:
        return self.said.count(text)

    def wait(self) -> int:
        return self.process.wait(LIMIT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture
def run(device: Device) -> Iterator[type[Run]]:
    """Makes runs that end with the test."""
    made: list[Run] = []

    class Kept(Run):
        def __init__(self, *args: str, **more: object) -> None:
            super().__init__(device, *args, **more)  # type: ignore[arg-type]
            made.append(self)

    yield Kept
    for one in made:
        one.close()


def steps(device: Device) -> list[str]:
    """The containment steps in the log, in order."""
    return [STEPS[r["data"][0]] for r in device.records() if r["event"] == Event.CONTAINMENT]


# ---- a whole life with a real guard ----


@pytest.mark.parametrize("signals", [False, True], ids=["cgroup", "signals"])
def test_a_busy_workload_lives_and_stops_with_the_lease(device: Device, run: type[Run], signals: bool) -> None:
    if not signals:
        probe = make_hold("probe")
        probe.close()
        if probe.kind != "cgroup":
            pytest.skip("no rights over cgroups here")
    data = device.root / "data"
    data.mkdir()
    (data / "weights").write_text("good")
    r = run("--checkpoint", str(data), "--name", "busy", signals=signals)
    until(lambda: "waiting" in r.said)
    assert r.size == 0, "nothing starts without a lease"
    device.lease()
    until(r.running)
    (data / "weights").write_text("half done")
    (data / "new").write_text("x")
    device.revoke()
    until(lambda: "rolled back 1 paths" in r.said)
    assert r.held()
    assert {p.name: p.read_text() for p in data.iterdir()} == {"weights": "good"}
    at = r.size
    device.lease()
    until(lambda: r.size > at and r.count("started busy") == 2)
    until(lambda: steps(device)[-1] == "register")
    known = [s for s in steps(device) if s != "drain"]
    assert known == ["register", "freeze", "kill", "rollback", "thaw", "register"]
    assert ("no rights over cgroups" in r.said) == signals
    r.process.terminate()
    assert r.wait() == 128 + signal.SIGTERM
    assert r.held(), "nothing outlives its runner"


def test_grace_holds_and_a_renewal_resumes_with_state_kept(device: Device, run: type[Run]) -> None:
    device.stop()
    device.configure(duration_ms=1500, warning_ms=200, grace_ms=20_000)
    device.start().lease()
    r = run()
    until(r.running)
    until(r.held)
    assert "resumes by itself with the next lease" in r.said
    device.lease()
    until(r.running)
    assert r.count("started") == 1, "the same process goes on"
    assert "kill" not in steps(device)


def test_the_exit_status_is_the_commands_own(device: Device, run: type[Run]) -> None:
    device.lease()
    for command, status in (
        (["sh", "-c", "exit 7"], 7),
        (["true"], 0),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["sh", "-c", "kill -9 $$"], 137),
    ):
        assert run(command=command).wait() == status


def test_a_command_that_is_not_there_is_one_clear_error(device: Device, run: type[Run]) -> None:
    device.lease()
    r = run(command=["/no/such/program"])
    assert r.wait() == 1
    assert r.said.strip().splitlines()[-1] == "qsafp: /no/such/program: No such file or directory"


def test_no_restart_ends_with_75_and_runs_the_hook(device: Device, run: type[Run]) -> None:
    device.lease()
    hook = device.root / "hook"
    r = run("--no-restart", "--on-stop", f"touch {hook}")
    until(r.running)
    device.revoke()
    assert r.wait() == 75
    assert hook.exists()
    assert r.held()


def test_a_hook_that_is_not_there_changes_nothing(device: Device, run: type[Run]) -> None:
    device.lease()
    r = run("--on-stop", "/no/such/hook")
    until(r.running)
    device.revoke()
    until(lambda: "on_stop: " in r.said)
    at = r.size
    device.lease()
    until(lambda: r.size > at)


def test_a_changed_checkpoint_is_refused_and_nothing_restarts(device: Device, run: type[Run]) -> None:
    device.lease()
    file = device.root / "file"
    file.write_text("good")
    r = run("--checkpoint", str(file), "--name", "busy")
    until(r.running)
    (device.root / "store" / "main-busy" / "0").write_text("bad")
    file.write_text("newer")
    device.revoke()
    assert r.wait() == 75
    assert "was changed" in r.said
    assert file.read_text() == "newer"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_stopped_guard_freezes_a_busy_workload_one_period_later(device: Device, run: type[Run], number: int) -> None:
    device.lease()
    gate = device.gate()
    r = run()
    until(r.running)
    device.send(number)
    until(lambda: not gate)
    until(lambda: "held sh: " in r.said)
    assert r.held()
    if number == signal.SIGSTOP:
        device.send(signal.SIGCONT)
    else:
        device.stop(signal.SIGKILL)
        device.start().lease()
    until(r.running)
    assert r.count("started") == 1
    device.revoke()
    until(r.held)


def test_a_killed_runner_takes_its_workload_along(device: Device, run: type[Run]) -> None:
    device.lease()
    r = run()
    until(r.running)
    until(lambda: "register" in steps(device))
    r.process.kill()
    r.process.wait()
    until(r.held)
    assert device.gate(), "only the workload lost its runner"
    assert steps(device)[-1] == "gone"


def test_the_wrong_model_never_starts(device: Device, run: type[Run]) -> None:
    device.lease()
    model = device.root / "model"
    model.write_bytes(b"other")
    r = run("--model", str(model))
    until(lambda: "waiting: lease main is for model" in r.said)
    assert r.size == 0


@pytest.mark.parametrize("options", [["--name", "a/b"], ["--name", ".."], ["--checkpoint", "/no/such/path"]])
def test_an_option_that_cannot_be_is_one_clear_error(device: Device, run: type[Run], options: list[str]) -> None:
    r = run(*options)
    assert r.wait() == 1
    assert len(r.said.strip().splitlines()) == 1


def test_two_programs_do_not_share_a_checkpoint(device: Device, run: type[Run]) -> None:
    device.lease()
    file = device.root / "file"
    file.write_text("good")
    first = run("--checkpoint", str(file), "--name", "same")
    until(first.running)
    second = run("--checkpoint", str(file), "--name", "same")
    assert second.wait() == 1
    assert "--name of its own" in second.said
    assert first.running()


# ---- guards that are none ----

ODD = {
    "refuses every workload": lambda p: answer(p, CommandStatus.BUSY),
    "answers garbage": lambda p: b"\xa5",
    "hangs up": lambda p: None,
    "says rate limited": lambda p: answer(p, CommandStatus.RATE_LIMITED),
    "never answers": lambda p: b"",
}


@pytest.mark.parametrize("case", ODD)
def test_without_orders_the_page_alone_holds_and_resumes(case: str) -> None:
    with short_dir() as root:
        fake = FakeGuard(root / "run", ODD[case])
        place = SimpleNamespace(root=root)
        fake.open(True)
        r = Run(place)  # type: ignore[arg-type]
        try:
            until(r.running)
            until(lambda: fake.heard)
            fake.open(False)
            until(lambda: "held sh: " in r.said)
            if case in ("says rate limited", "never answers"):
                assert "without the guard's orders" not in r.said, "it looked while it asked"
            assert r.held()
            fake.open(True)
            until(r.running)
            assert r.count("started") == 1
        finally:
            r.close()
            fake.close()


def test_orders_are_obeyed_in_the_order_they_come() -> None:
    orders: list[int] = []

    def guard(packet: bytes) -> bytes:
        if packet[4] != 3:
            return answer(packet, 0, b"\0")
        until(lambda: orders)
        return answer(packet, 0, bytes([orders.pop(0)]))

    with short_dir() as root:
        fake = FakeGuard(root / "run", guard)
        fake.open(True)
        r = Run(SimpleNamespace(root=root))  # type: ignore[arg-type]
        try:
            until(r.running)
            fake.open(False)
            orders += [1, 2, 4, 5]
            until(lambda: len(fake.heard) >= 8)
            assert r.held()
            assert [p[4] for p in fake.heard] == [0, 3, 1, 3, 3, 3, 4, 3], "register, wait, drained, wait, wait, wait, report, wait"
            fake.open(True)
            orders.append(3)
            until(r.running)
            until(lambda: r.count("started") == 2 and len(fake.heard) == 10)
            assert [p[4] for p in fake.heard[8:]] == [0, 3]
        finally:
            orders += [3] * 8
            r.close()
            fake.close()


# ---- what the guard takes as a workload ----


def register(device: Device, fds: list[int], kind: int = 1, path: str = "ctl.sock") -> tuple[Wire, int]:
    """Register over a connection of its own; returns it and the status of the answer."""
    import socket

    from guard_kit import frame

    wire = Wire(device.run / path)
    if path == "gate.sock":
        wire.wire.receive(5.0)
    socket.send_fds(wire.wire._socket, [frame(Opcode.WORKLOAD, bytes([0, kind]) + b"load")], fds)
    return wire, wire.wire.receive(5.0)[2]


def test_only_what_a_client_may_hold_itself_is_registered(device: Device) -> None:
    child = subprocess.Popen(["sleep", "60"])
    file = os.open(device.root / "plain", os.O_RDWR | os.O_CREAT)
    pidfd = os.pidfd_open(child.pid)
    good, bad = CommandStatus.OK, CommandStatus.BAD_ARGUMENT
    try:
        for fds, status in (([], bad), ([file], bad), ([pidfd, file], bad), ([pidfd, file, file, file], bad), ([pidfd], good)):
            wire, got = register(device, fds)
            assert got == status, fds
            wire.close()
        assert os.pread(file, 1, 0) == b"", "nobody's file was written to"
    finally:
        child.kill()
        child.wait()
        os.close(pidfd)
        os.close(file)


def test_nobody_registers_a_process_of_another_user(device: Device) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    victim = subprocess.Popen(["sleep", "60"])
    for path in (device.root, device.root / "run", device.run):
        path.chmod(0o755)
    code = f"""
import os, socket, sys
sys.path[:0] = {sys.path!r}
from guard_kit import Wire, frame
os.setuid(65534)
w = Wire({str(device.run / "gate.sock")!r}); w.wire.receive(5.0)
socket.send_fds(w.wire._socket, [frame(7, bytes([0, 1]) + b"load")], [os.pidfd_open({victim.pid})])
sys.exit(w.wire.receive(5.0)[2])
"""
    try:
        got = subprocess.run([sys.executable, "-c", code], timeout=LIMIT_S, check=False, capture_output=True, text=True)
        assert got.returncode == CommandStatus.BAD_ARGUMENT, got.stderr
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_a_workload_without_a_runner_is_frozen_and_resumed(device: Device) -> None:
    device.lease()
    beat = device.root / "beat"
    child = subprocess.Popen(
        ["sh", "-c", f'exec {sys.executable} -c \'import time\nwhile 1: open("{beat}","a").write("x"); time.sleep(.005)\'']
    )
    pidfd = os.pidfd_open(child.pid)

    def state() -> str:
        return Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0]

    try:
        until(beat.exists)
        wire, status = register(device, [pidfd], kind=0, path="gate.sock")
        assert status == CommandStatus.OK
        device.revoke()
        until(lambda: state() == "T")
        with device.client() as client:
            until(lambda: client.status().contained)
        device.lease()
        until(lambda: state() != "T")
        wire.close()
        until(lambda: steps(device)[-1] == "gone")
        assert child.poll() is None, "it let go by itself while the gate was open"
    finally:
        child.kill()
        child.wait()
        os.close(pidfd)


# ---- holds ----


def pair() -> list[Hold]:
    """Each kind of hold that can be had here."""
    made: list[Hold] = [SignalHold()]
    if isinstance(best := make_hold(f"test{secrets.token_hex(3)}"), CgroupHold):
        made.append(best)
    return made


def test_holds_freeze_thaw_and_kill_a_tree() -> None:
    for hold in pair():
        with short_dir() as root:
            beat = root / "beat"
            child = subprocess.Popen(["sh", "-c", f"({BUSY}) & wait", str(beat)], preexec_fn=hold.enter, start_new_session=True)
            hold.started(child.pid)
            size = lambda beat=beat: beat.stat().st_size if beat.exists() else 0  # noqa: E731
            until(size)
            hold.freeze(True)
            until(lambda size=size: size() == (time.sleep(0.1), size())[1] and size())
            at = size()
            time.sleep(0.1)
            assert size() == at
            hold.freeze(False)
            until(lambda size=size, at=at: size() > at)
            hold.kill()
            child.wait(LIMIT_S)
            hold.await_end()
            at = size()
            hold.close()
            time.sleep(0.05)
            assert size() == at


def test_without_rights_over_cgroups_signals_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "_own_cgroup", lambda: tmp_path / "none")
    assert make_hold("x").kind == "signals"


# ---- checkpoint and rollback ----


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "a").write_text("one")
    (root / "sub" / "b").write_bytes(bytes(5000))
    (root / "link").symlink_to("a")
    (root / "sub").chmod(0o700)
    return root


def test_a_rollback_brings_back_names_modes_links_and_contents(tree: Path, tmp_path: Path) -> None:
    single = tmp_path / "single"
    single.write_text("1")
    c = Checkpoint([tree, single], tmp_path / "store")
    before = [tree_hash(tree), tree_hash(single)]
    assert len(c.take()) == 32
    (tree / "a").write_text("two")
    (tree / "new").write_text("x")
    (tree / "link").unlink()
    (tree / "sub").chmod(0o755)
    single.unlink()
    c.restore()
    assert [tree_hash(tree), tree_hash(single)] == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "single", "store", "store.lock"]


def test_a_directory_that_vanished_comes_back(tree: Path, tmp_path: Path) -> None:
    c = Checkpoint([tree], tmp_path / "store")
    c.take()
    before = tree_hash(tree)
    tree.rename(tmp_path / "elsewhere")
    c.restore()
    assert tree_hash(tree) == before


def test_a_copy_that_was_changed_is_refused_before_anything_changes(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("x")
    c = Checkpoint([other, tree], tmp_path / "store")
    c.take()
    other.write_text("y")
    (tmp_path / "store" / "1" / "a").write_text("forged")
    with pytest.raises(StoreError, match=r"data was changed"):
        c.restore()
    assert other.read_text() == "y"


def test_a_checkpoint_that_cannot_be_taken_leaves_the_one_before(tree: Path, tmp_path: Path) -> None:
    c = Checkpoint([tree], tmp_path / "store")
    c.take()
    before = tree_hash(tree)
    os.mkfifo(tree / "fifo")
    with pytest.raises(StoreError, match="fifo"):
        c.take()
    c.restore()
    assert tree_hash(tree) == before


CUT = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from qsafp_embedded.enforce import rollback
left = int(sys.argv[1])
def cut(event, args):
    global left
    if event.startswith(("os.", "shutil.", "open")) and str(args[0]).startswith({root!r}):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
c = rollback.Checkpoint([Path({data!r}), Path({file!r})], Path({store!r}))
if sys.argv[2] == "restore":
    c.take(); Path({file!r}).write_text("newer"); (Path({data!r}) / "a").write_text("newer")
sys.addaudithook(cut)
getattr(c, sys.argv[2])()
"""


def test_a_kill_at_any_step_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    cuts = {"take": 0, "restore": 0}
    for act in cuts:
        for n in range(0, 200, 3):
            root = tmp_path / f"{act}{n}"
            data, file, store = root / "data", root / "file", root / "store"
            data.mkdir(parents=True)
            (data / "a").write_text("old")
            file.write_text("old")
            first = Checkpoint([data, file], store)
            first.take()
            os.close(first._lock)
            if act == "take":
                (data / "a").write_text("new")
                file.write_text("new")
            code = CUT.format(path=sys.path, root=str(root), data=str(data), file=str(file), store=str(store))
            ended = subprocess.run([sys.executable, "-S", "-c", code, str(n), act], timeout=LIMIT_S, check=False).returncode
            assert ended in (0, -signal.SIGKILL)
            again = Checkpoint([data, file], store)
            mended = again.recover()
            if act == "restore":
                seen = {(data / "a").read_text(), file.read_text()}
                assert seen == ({"old"} if mended or ended == 0 else {"newer"})
            else:
                assert not mended
                assert (store / "0" / "a").read_text() == (store / "1").read_text(), "whole: the old or the new"
            os.close(again._lock)
            if ended == 0:
                break
            cuts[act] += 1
        else:
            pytest.fail(f"{act} never ended")
    assert min(cuts.values()) >= 5


def test_a_plan_without_a_name_takes_the_programs(device: Device) -> None:
    r = Runner(device.gate(), Plan(["/bin/true"]))
    assert r.name == "true"
    r.hold.close()
    with pytest.raises(ConfigError, match="no name"):
        Runner(device.gate(), Plan(["/"]))
