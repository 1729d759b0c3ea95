# SPDX-License-Identifier: Apache-2.0
"""board.toml: what is shipped reads, and what is wrong is named (HW-13)."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsafp_embedded.errors import ConfigError
from qsafp_embedded.hardware import board

GOOD = """
title = "bench"
proven = "never"
chip = "c"
[lines]
LEASE_VALID = { line = "A" }
FAILSAFE = { offset = 3, active-low = true, open-drain = true }
LEASE_RENEW = { chip = "d", line = "A", bias = "pull-up", debounce_us = 5000, pin = "16" }
[header]
name = "J1"
ground = "9"
confirmed = true
[notes]
spi = "ask the maker"
"""


def read(folder: Path, text: str) -> board.Board:
    (folder / "mine.toml").write_text(text)
    return board.load("mine.toml", folder)


def test_every_board_that_is_shipped_reads() -> None:
    shipped = [board.load(name) for name in board.names()]
    assert shipped[0].simulated
    real = {"raspberry_pi_5", "raspberry_pi_4", "raspberry_pi_zero_2_w", "visionfive_2", "beagleplay", "jetson_orin_nano"}
    assert real | {"virt_aarch64_linux", "virt_amd64_linux", "ast2600_evb", "sabrelite"} <= {b.name for b in shipped}
    assert all(line.chip for b in shipped[1:] if b.name not in ("beagleplay", "virt_amd64_linux") for line in b.lines)
    assert all(b.header.confirmed and b.header.pins[0] and set(b.notes) == set(board.NOTES) for b in shipped if b.name in real)
    assert all(b.proven != "silicon" for b in shipped)


def test_the_pis_use_the_lines_that_a_reset_pulls_down() -> None:
    for name in ("raspberry_pi_5", "raspberry_pi_4", "raspberry_pi_zero_2_w"):
        assert [line.name for line in board.load(name).lines] == ["GPIO17", "GPIO27", "GPIO22", "GPIO23"]


def test_a_board_of_ones_own_is_read_by_its_path(tmp_path: Path) -> None:
    b = read(tmp_path, GOOD)
    assert b.lines == (board.Line("c", "A", 0, 0), board.Line("c", "", 3, 3), board.Line(), board.Line("d", "A", 0, 4, 5000))
    assert [str(line) for line in b.lines] == ["c A", "c line 3", "none", "d A"]
    assert (b.header, b.notes["spi"]) == (board.Header("J1", ("", "", "", "16"), "9", "", True), "ask the maker")
    assert not b.simulated


def test_no_folder_makes_a_real_board_a_simulated_one(tmp_path: Path) -> None:
    folder = tmp_path / board.SIMULATED
    folder.mkdir()
    b = read(folder, GOOD)
    assert (b.name, b.simulated) == ("mine.toml", False)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('proven = "never"', 'proven = "yes"', "none of silicon, emulated, never"),
        ("title", "titel", "unknown key 'titel'; the nearest valid one is 'title'"),
        ("FAILSAFE", "FAIL_SAFE", "unknown key 'FAIL_SAFE'; the nearest valid one is 'FAILSAFE'"),
        ('{ line = "A" }\nFAIL', "7\nFAIL", "LEASE_VALID: must be a table"),
        ("offset = 3", 'offset = 3, line = "B"', "FAILSAFE: give either line"),
        ("offset = 3,", "", "FAILSAFE: give either line"),
        ("offset = 3", "offset = 65536", "FAILSAFE: give either line"),
        ('chip = "c"', "", "LEASE_VALID: give chip"),
        ('bias = "pull-up"', 'bias = "up"', "LEASE_RENEW: bias"),
        ('LEASE_VALID = { line = "A" }', "", "LEASE_VALID has no line"),
        ('chip = "d", ', "", "one line has two meanings"),
        ('bias = "pull-up"', "open-drain = true", "LEASE_RENEW: open-drain is for outputs"),
        ("debounce_us = 5000", "debounce_us = 1000001", "LEASE_RENEW: debounce_us = 1000001 is outside 0..1000000"),
        ("debounce_us = 5000", "debounce_us = -1", "outside 0..1000000"),
        ('line = "A" }', 'line = "A", debounce_us = 1 }', "LEASE_VALID: debounce_us = 1 is for the input alone"),
        ('ground = "9"', 'ground = "16"', "one header pin has two meanings"),
        ('name = "J1"', "", "[header]: give its name"),
        ("spi =", "sip =", "[notes]: unknown key 'sip'; the nearest valid one is 'spi'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=r"mine\.toml") as why:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert says in str(why.value)


def test_a_board_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='"rapsberry_pi_5" is not known; the nearest is "raspberry_pi_5"'):
        board.load("rapsberry_pi_5")
    with pytest.raises(ConfigError, match="not known"):
        board.load("../../etc/board")
    with pytest.raises(ConfigError, match=r"none\.toml: cannot read"):
        board.load("none.toml", tmp_path)
