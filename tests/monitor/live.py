# SPDX-License-Identifier: Apache-2.0
"""``make emulate BOARD=NAME``: an emulated bare-metal board, alive on this terminal until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from emulate import ROOT  # first: it says where modules are

from agent_world import World  # isort: skip
from kinds import KINDS
from unleashed import Board, Device, build, die_with_parent, finish, short_dir, until
from validator_kit import MODEL

from qsafp_embedded.keyfile import write_secret

LOOK_S, WORK_S = 0.05, 1.0
PULSES = 4  # edges of FAILSAFE in a row that are told
TEXT = re.compile(rb"[\x20-\x7e]+\r\n")


def say(who: str, text: str) -> None:
    """One line."""
    print(f"{time.strftime('%H:%M:%S')}  {who:<8} {text}", flush=True)


class Watch:
    """What the board does, told as it happens: its words, its answers, its pins, its payload."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._heard = self._told = self._pulses = 0
        self._state, self._batches, self._looked = "", 0, 0.0

    def line(self) -> None:
        """Whole lines of words; frames are not for people."""
        words = TEXT.findall(self._board.heard_log.read_bytes())
        for line in words[self._heard :]:
            say("line", line.decode().strip())
        self._heard = len(words)

    def pins(self) -> None:
        """Edges, outside; a FAILSAFE that pulses is told some times."""
        edges = self._board.edges()
        for name, level in edges[self._told :]:
            self._pulses = self._pulses + 1 if name == "FAILSAFE" else 0
            if self._pulses <= PULSES:
                say("pin", f"{name} {'high' if level else 'low'}{'; it goes on pulsing' if self._pulses == PULSES else ''}")
        self._told = len(edges)

    def payload(self) -> None:
        """Whether it computes."""
        if time.monotonic() - self._looked < WORK_S:
            return
        orders, self._looked = self._board.orders(), time.monotonic()
        state = "computes" if orders["batches"] > self._batches else "computes nothing" if orders["started"] else "was not started"
        if state != self._state:
            say("payload", f"{state} ({orders['batches']:,} batches so far, {orders['refused']:,} refused)")
        self._state, self._batches = state, orders["batches"]

    def look(self) -> None:
        """All of it once."""
        self.line()
        self.pins()
        self.payload()


def lab(folder: Path, duration_ms: int) -> tuple[World, Device]:
    """A directory as ``qsafp init`` makes it, and a device that trusts its six validators."""
    world = World(folder, profile="fleet", duration_ms=duration_ms)
    return world, Device(duration_ms=duration_ms, grace_ms=duration_ms // 6, document=(world.root / "set/set-1.cbor").read_bytes())


def join(world: World, board: Board) -> None:
    """Let validators, agent and ``qsafp`` find the board where they would find a guard."""
    with board.client() as client:
        world.register(board.device.ueid, board.device.public, client.status().log_id, model=MODEL)
    world.ctl.parent.mkdir(parents=True, exist_ok=True)
    world.ctl.symlink_to(board.line)
    agent = world.root / "agent/agent.toml"
    agent.write_text(re.sub(r"(?m)^guard_config = .*", 'guard_config = ""', agent.read_text()))
    write_secret(world.root / "board.k0", "seal", board.device.k0)


def commands(world: World) -> list[list[str]]:
    """What leads the board: validators, then the agent."""
    at = str(world.root)
    return [
        [sys.executable, "-m", "qsafp_embedded.cli", "validators", "up", "--dir", at],
        [sys.executable, "-m", "qsafp_embedded.agent", "--config", f"{at}/agent/agent.toml"],
    ]


def explain(world: World, board: Board, *, lead: bool) -> None:
    """How to talk to it."""
    qsafp = f"{os.path.relpath(sys.prefix, ROOT)}/bin/qsafp"
    print(f"\n{board.name}: emulated, no such board is here.  Command frames on {board.line}, 115,200 baud.")
    if not lead:
        print("Two programs give it leases, each in a terminal of its own (LEAD=1 starts them here):")
        for words in commands(world):
            print("  " + " ".join(words))
    print("Look at it, and read its log back (one at a time: the line is one):")
    print(f"  {qsafp} status --dir {world.root}")
    print(f"  {qsafp} audit verify --dir {world.root} --k0 {world.root}/board.k0")
    print(f"  {qsafp} failsafe --dir {world.root}\nCtrl-C ends it; what it kept is removed.\n", flush=True)


@contextlib.contextmanager
def leading(world: World, *, lead: bool) -> Iterator[None]:
    """Validators and agent beside it, if they were asked for."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for words in commands(world) if lead else []:
            out = (world.root / f"{words[2].rpartition('.')[2]}.log").open("wb")
            running.append(subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True, preexec_fn=die_with_parent))
        yield
    finally:
        for process in reversed(running):
            finish(process, 10)


def run(kind: type[Board], *, duration_ms: int, lead: bool) -> None:
    """Start it and watch it, until Ctrl-C."""
    build(kind.name)
    with short_dir() as folder:
        world, device = lab(folder, duration_ms)
        with kind(device, folder) as board:
            watch = Watch(board)
            until(lambda: b"serving" in board.heard_log.read_bytes())
            watch.look()
            join(world, board)
            explain(world, board, lead=lead)
            with leading(world, lead=lead):
                while not board.gone():
                    watch.look()
                    time.sleep(LOOK_S)
        say("board", "QEMU ended")


def arguments() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="make emulate BOARD=NAME",
        description="Start an emulated bare-metal board with our monitor and a payload; show line, pins and payload until Ctrl-C.",
        epilog="examples:\n  make emulate BOARD=hifive_unleashed          # it waits for leases; how to bring them is printed\n"
        "  make emulate BOARD=hifive_unleashed LEAD=1   # six validators and the agent are started, too\n"
        "  .venv/bin/python tests/monitor/live.py virt_aarch64 --lead --duration-ms 10000\n\n"
        "What you see: LEASE_VALID rises with a lease and the payload computes; after its end LEASE_VALID falls, FAILSAFE pulses,\n"
        "and the payload stands still until people release it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("board", choices=KINDS, help="the board")
    p.add_argument("--lead", action="store_true", help="start validators and agent, too")
    p.add_argument("--duration-ms", type=int, default=20_000, metavar="MS", help="length of a lease (default: 20000)")
    return p.parse_args()


def main() -> int:
    """Run it; 0 after Ctrl-C, 1 if it cannot run here or ended by itself."""
    args = arguments()
    kind = KINDS[args.board]
    if missing := kind.absent():
        print(f"{args.board}: not on this host: {missing}; run tools/bootstrap.sh tests", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        run(kind, duration_ms=args.duration_ms, lead=args.lead)
        return 1
    print("\nended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
