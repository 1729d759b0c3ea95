# SPDX-License-Identifier: Apache-2.0
"""The models that Renode is lent (renode/*.cs) answer as QEMU's devices do, word by word, to what the monitor says to them.

They are compiled against declarations of ours (models/Models.cs) with Mono: that Renode takes them, only Renode can tell.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from firmware import ROOT
from unleashed import die_with_parent

LIMIT_S = 120
Word = tuple[str, int, int]  # what to do, offset, value

VIRT = ["qemu-system-aarch64", "-M", "virt"]
UNLEASHED = ["qemu-system-riscv64", "-M", "sifive_u", "-smp", "3", "-bios", "none"]

DIRECTION, IDENTITY, OTHERS = 0x400, 0xFE0, (0x404, 0x408, 0x40C, 0x410, 0x420)
PA, PAIO, PAS, PCE, PCLK, PDIN, PDOUT, PDSTB, PPROG, PTRIM, PWE = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18, 0x1C, 0x20, 0x34, 0x38
BLOCK = 0x40000
COUNT = 400


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All models and the driver of models/Models.cs, compiled."""
    if not (shutil.which("mcs") and shutil.which("mono")):
        pytest.skip("no Mono compiler: apt-get install mono-mcs")
    exe = tmp_path_factory.mktemp("models") / "models.exe"
    sources = [ROOT / "tests/monitor/models/Models.cs", *sorted((ROOT / "renode").glob("*.cs"))]
    subprocess.run(["mcs", "-warnaserror", f"-out:{exe}", *map(str, sources)], check=True, timeout=LIMIT_S)
    return exe


def modelled(program: Path, name: str, words: list[Word]) -> list[int]:
    """What the model answers to each read."""
    lines = [f"{what} {at:x} {value:x}" if what == "w" else f"{what} {at:x}" for what, at, value in words]
    done = subprocess.run(
        ["mono", str(program), name], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True, timeout=LIMIT_S
    )
    assert done.stderr == ""
    return [int(line, 16) for line in done.stdout.split()]


def emulated(machine: list[str], base: int, words: list[Word], words_file: Path) -> list[int]:
    """What QEMU's device answers to each read; no processor runs."""
    lines = [f"writel {base + at:#x} {value:#x}" if what == "w" else f"readl {base + at:#x}" for what, at, value in words]
    words_file.write_text("\n".join(lines) + "\n")
    command = [*machine, "-S", "-display", "none", "-serial", "none", "-monitor", "none", "-qtest", "stdio", "-qtest-log", "none"]
    with (
        words_file.open() as told,
        subprocess.Popen(command, stdin=told, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent) as qemu,
    ):
        assert qemu.stdout is not None
        said = [qemu.stdout.readline().split() for _ in words]  # it stays when its words end
        qemu.kill()
    return [int(answer[1], 16) for answer in said if len(answer) > 1]


def agree(program: Path, name: str, words: list[Word], machine: list[str], base: int) -> list[int]:
    """Both answer the same; returns it."""
    got = modelled(program, name, words)
    assert got == emulated(machine, base, words, program.with_suffix(".words"))
    return got


def pin_words() -> Iterator[Word]:
    """Directions and levels in any order.  Inputs are not looked at: in QEMU one keeps the level that it had as an output."""
    dice = random.Random(61)
    yield from (("r", IDENTITY + 4 * i, 0) for i in range(8))
    outputs = 0
    for _ in range(COUNT):
        match dice.choice(["direction", "level", "level", "other"]):
            case "direction":
                outputs = dice.randrange(256)
                yield "w", DIRECTION, outputs
            case "level":
                yield "w", 4 * dice.randrange(256), dice.randrange(256)
            case "other":
                at = dice.choice(OTHERS)
                yield "w", at, dice.randrange(256)
                yield "r", at, 0
        yield from (("r", at, 0) for at in (4 * outputs, 4 * (outputs & dice.randrange(256)), DIRECTION))


def test_pins_are_those_of_qemus_pl061(program: Path) -> None:
    answers = agree(program, "PL061", list(pin_words()), VIRT, 0x09030000)
    assert len(set(answers)) > 100


def test_a_pin_shows_what_was_written_once_it_is_an_output(program: Path) -> None:
    words: list[Word] = [
        ("w", 0x3FC, 0b1100),
        ("w", DIRECTION, 0b0110),
        ("p", 0, 0),
        ("w", 0x0C << 2, 0b1111),
        ("p", 0, 0),
        ("w", 0x3FC, 0),
        ("p", 0, 0),
    ]
    assert modelled(program, "PL061", words) == [0, 0b0100, 0]


def both(value: int) -> int:
    """The same to both parts."""
    return value << 16 | value


def programmed(at: int, values: list[int]) -> list[Word]:
    """Words written through the buffer, as cfi.c does."""
    written = [("w", at + 4 * i, value) for i, value in enumerate(values)]
    return [("w", at, both(0xE8)), ("w", at, both(len(values) - 1)), *written, ("w", at, both(0xD0)), ("r", at, 0), ("w", at, both(0xFF))]


def erased(at: int) -> list[Word]:
    """A block erased, as cfi.c does."""
    return [("w", at, both(0x20)), ("w", at, both(0xD0)), ("r", at, 0), ("w", at, both(0xFF))]


def flash_words() -> Iterator[Word]:
    """What cfi.c does, in any order, in two blocks and on their edges.  No bit is asked to rise: QEMU's flash would let it."""
    dice = random.Random(68)
    yield from erased(0)  # without a file QEMU's holds zeros
    yield from erased(BLOCK)
    held = defaultdict(lambda: 0xFFFFFFFF)
    for _ in range(COUNT):
        block = BLOCK * dice.randrange(2)
        at = block + 4 * dice.choice([0, 1, dice.randrange(64), BLOCK // 4 - 4])
        match dice.choice(["query", "erase", "program", "program", "program", "clear"]):
            case "query":
                yield "w", 0x55 * 4, both(0x98)
                yield from (("r", 4 * i, 0) for i in (0x10, 0x11, 0x12))
                yield "w", 0x55 * 4, both(0xFF)
            case "erase":
                yield from erased(at)
                for gone in [a for a in held if a // BLOCK == at // BLOCK]:
                    del held[gone]
            case "program":
                to = range(at, at + 4 * dice.randrange(1, 5), 4)
                for a in to:
                    held[a] &= dice.getrandbits(32) | dice.getrandbits(32)
                yield from programmed(at, [held[a] for a in to])
            case "clear":
                yield from (("w", at, both(code)) for code in (0x50, 0xFF))
        yield from (("r", at + 4 * i, 0) for i in range(-2 if at % BLOCK > 4 else 0, 4))


def test_programming_lets_no_bit_rise(program: Path) -> None:
    words = [*programmed(BLOCK, [0x0F0F0F0F]), *programmed(BLOCK, [0xFFFF0000]), ("r", BLOCK, 0), *erased(BLOCK + 4), ("r", BLOCK, 0)]
    assert modelled(program, "TwoIntelParts", words) == [0x00800080, 0x00800080, 0x0F0F0000, 0x00800080, 0xFFFFFFFF]


def test_flash_is_that_of_qemu(program: Path) -> None:
    answers = agree(program, "TwoIntelParts", list(flash_words()), VIRT, 0x04000000)
    assert {0xFFFFFFFF, 0x00800080, 0x00510051} < set(answers)


def fuse_words() -> Iterator[Word]:
    """What the boot stage does: look, program, look again."""
    dice = random.Random(540)
    for _ in range(COUNT):
        word, bit = 0x100 + dice.randrange(4), dice.randrange(32)
        yield from (("w", at, 1) for at in (PDSTB, PTRIM, PCE))
        yield "w", PA, word
        yield from (("w", PCLK, level) for level in (1, 0))
        yield "r", PDOUT, 0
        yield from (
            ("w", at, value) for at, value in ((PAS, 0), (PA, word), (PAIO, bit), (PDIN, 0), (PPROG, 1), (PWE, 1), (PWE, 0), (PPROG, 0))
        )
        yield "r", PDOUT, 0


def test_what_was_programmed_outlives_a_reset_and_levels_do_not(program: Path) -> None:
    again: Word = ("reset", 0, 0)
    flash = [*programmed(BLOCK, [0x0F0F0F0F]), ("w", BLOCK, both(0x98)), again, ("r", BLOCK, 0)]
    assert modelled(program, "TwoIntelParts", flash)[-1] == 0x0F0F0F0F
    fuse: list[Word] = [("w", PA, 0x100), ("w", PPROG, 1), ("w", PWE, 1), again, ("w", PA, 0x100), ("r", PDOUT, 0)]
    assert modelled(program, "Fu540Otp", fuse) == [0xFFFFFFFE]
    pins: list[Word] = [("w", DIRECTION, 1), ("w", 0x3FC, 1), ("p", 0, 0), again, ("r", DIRECTION, 0), ("w", DIRECTION, 1), ("p", 0, 0)]
    assert modelled(program, "PL061", pins) == [1, 0, 0]


def test_fuses_are_those_of_qemu(program: Path) -> None:
    answers = agree(program, "Fu540Otp", list(fuse_words()), UNLEASHED, 0x10070000)
    assert {0xFFFFFFFF, 0} < set(answers)  # words of which no fuse was programmed, and every one
