# SPDX-License-Identifier: Apache-2.0
"""``qsafp board``: what is known, shown and found on this device; what is missing is named with its remedy (HW-13)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsafp_embedded.cli import doctor, main
from qsafp_embedded.cli.common import Home
from qsafp_embedded.hardware import board, gpio

FREE = {17: "GPIO17", 22: "GPIO22", 23: "GPIO23", 27: "GPIO27"}


class Pi:
    """A kernel that answers as a Raspberry Pi 5's would; lines without a name but those of the board."""

    def __init__(self) -> None:
        self.chips = [gpio.Chip(Path("/dev/gpiochip0"), "gpio-brcmstb", 36), gpio.Chip(Path("/dev/gpiochip4"), "pinctrl-rp1", 54)]
        self.held: dict[str, str] = {}

    def lines(self, chip: gpio.Chip) -> Iterator[gpio.LineInfo]:
        for i in range(chip.lines):
            name = FREE.get(i, "") if chip.label == "pinctrl-rp1" else ""
            yield gpio.LineInfo(i, name, self.held.get(name))


@pytest.fixture
def pi(monkeypatch: pytest.MonkeyPatch) -> Pi:
    made = Pi()
    monkeypatch.setattr(gpio, "chips", lambda: made.chips)
    monkeypatch.setattr(gpio, "lines", made.lines)
    return made


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, dict[str, object]]]:
    code = main(["board", "check", "--json", *words])
    return code, {f["what"]: f for f in json.loads(capsys.readouterr().out)}


def test_boards_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["board", "list"]) == 0
    assert "raspberry_pi_5         Raspberry Pi 5 (never)" in capsys.readouterr().out
    assert main(["board", "show", "raspberry_pi_5"]) == 0
    shown = capsys.readouterr().out
    assert "LEASE_VALID   pin 11   pinctrl-rp1 GPIO17" in shown
    assert "spi:       dtparam=spi=on in /boot/firmware/config.txt" in shown
    assert "NOT confirmed" not in shown
    assert main(["board", "show", "beagleplay"]) == 0
    assert "VALIDATOR_REQ          none" in capsys.readouterr().out
    assert main(["board", "show", "simulated"]) == 0
    assert "no real line" in capsys.readouterr().out
    assert main(["board", "show", "rasberry_pi_5"]) == 1
    assert 'the nearest is "raspberry_pi_5"' in capsys.readouterr().err


def test_a_board_with_its_lines_free_is_well(pi: Pi, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = check(capsys, "raspberry_pi_5")
    assert code == 0
    assert found["LEASE_VALID"]["seen"] == "pinctrl-rp1 GPIO17: free"
    assert found["gpiochip0"]["ok"] is None


def test_a_line_of_ours_is_well_and_one_of_others_names_them(pi: Pi, capsys: pytest.CaptureFixture[str]) -> None:
    pi.held = {"GPIO17": "qsafp LEASE_VALID", "GPIO27": "fan"}
    code, found = check(capsys, "raspberry_pi_5")
    assert code == 1
    assert found["LEASE_VALID"]["ok"] is True
    assert (found["FAILSAFE"]["ok"], found["FAILSAFE"]["seen"]) == (False, 'pinctrl-rp1 GPIO27: held by "fan"')


def test_who_holds_a_line_is_named_with_its_process(
    pi: Pi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for pid, offset in ((41, 17), (42, 27)):
        (tmp_path / f"{pid}/fdinfo").mkdir(parents=True)
        (tmp_path / f"{pid}/comm").write_text("fand\n")
        (tmp_path / f"{pid}/fdinfo/3").write_text(f"pos:\t0\ngpio-chip:\tgpiochip4\ngpio-line:\t{offset}\n")
    (tmp_path / "43/fdinfo/3").mkdir(parents=True)  # what cannot be read
    monkeypatch.setattr(gpio, "PROC", tmp_path)
    pi.held = {"GPIO27": "fan"}
    assert check(capsys, "raspberry_pi_5")[1]["FAILSAFE"]["seen"] == 'pinctrl-rp1 GPIO27: held by "fan", fand (pid 42)'


def test_our_lease_valid_on_the_line_of_another_is_no_good(pi: Pi, capsys: pytest.CaptureFixture[str]) -> None:
    pi.held = {"GPIO27": "qsafp LEASE_VALID"}
    assert check(capsys, "raspberry_pi_5")[0] == 1


def test_another_board_is_told_from_this(pi: Pi, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = check(capsys, "raspberry_pi_4")
    assert code == 1
    assert found["LEASE_VALID"]["seen"] == "no chip is labelled pinctrl-bcm2711"


def test_a_line_that_is_not_there_is_named(pi: Pi, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('title = "t"\nproven = "never"\nchip = "pinctrl-rp1"\n[lines]\nLEASE_VALID = { offset = 54 }\n')
    code, found = check(capsys, str(mine))
    assert code == 1
    assert found["LEASE_VALID"]["seen"] == "pinctrl-rp1 line 54: there is no such line"
    assert found["FAILSAFE"]["ok"] is None


def test_a_chip_that_may_not_be_opened_names_the_group(pi: Pi, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "gpiochip4"
    path.touch()
    pi.chips = [gpio.Chip(path, trouble="Permission denied")]
    code, found = check(capsys, "raspberry_pi_5")
    assert code == 1
    assert path.group() in str(found["gpiochip4"]["remedy"]) or "udev" in str(found["gpiochip4"]["remedy"])
    assert (found["LEASE_VALID"]["ok"], found["LEASE_VALID"]["seen"]) == (None, "not looked for: a chip above could not be read")


def test_a_chip_of_a_nameless_group_needs_the_rule(pi: Pi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless(_: Path) -> str:
        raise KeyError("getgrgid(): gid not found")

    monkeypatch.setattr(Path, "group", nameless)
    pi.chips = [gpio.Chip(Path("/dev/null"), trouble="Permission denied")]
    _, found = check(capsys, "raspberry_pi_5")
    assert "60-qsafp-gpio.rules" in str(found["null"]["remedy"])


def test_no_chip_at_all_is_one_finding(pi: Pi, capsys: pytest.CaptureFixture[str]) -> None:
    pi.chips = []
    code, found = check(capsys, "raspberry_pi_5")
    assert (code, list(found)) == (1, ["chips"])


def test_what_is_no_chip_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpio, "DEV", tmp_path)
    (tmp_path / "gpiochip10").write_bytes(b"no device")
    (tmp_path / "gpiochip9").mkdir()
    nine, ten = gpio.chips()
    assert (nine.path.name, ten.path.name) == ("gpiochip9", "gpiochip10")
    assert nine.trouble == os.strerror(21)
    assert ten.trouble


def test_a_bus_that_is_missing_or_shut_says_what_this_board_needs(
    pi: Pi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpio, "DEV", tmp_path)
    found = check(capsys, "raspberry_pi_5")[1]
    assert (found["spi"]["ok"], found["spi"]["remedy"]) == (None, board.load("raspberry_pi_5").notes["spi"])
    assert "dtparam=i2c_arm=on" in str(found["i2c"]["remedy"])
    (tmp_path / "spidev0.0").touch()
    (tmp_path / "i2c-1").touch()
    monkeypatch.setattr(os, "access", lambda path, _: path.name != "i2c-1")
    found = check(capsys, "raspberry_pi_5")[1]
    assert (found["spi"]["ok"], found["spi"]["seen"]) == (True, str(tmp_path / "spidev0.0"))
    assert (found["i2c"]["ok"], found["i2c"]["seen"]) == (None, f"{tmp_path / 'i2c-1'}: permission denied")
    assert "60-qsafp-buses.rules" in str(found["i2c"]["remedy"]) or "usermod" in str(found["i2c"]["remedy"])


# ---- the watchdog ----


def watchdog_finding(root: Path, device: str) -> doctor.Finding:
    home = Home(root)
    home.guard_toml.parent.mkdir(parents=True, exist_ok=True)
    needed = f'run_dir = "r"\nstate_dir = "s"\nmodel_hash = "{bytes(32).hex()}"\nboard = "raspberry_pi_5"\n'
    home.guard_toml.write_text(f'{needed}watchdog = "{device}"\n')
    (found,) = doctor._watchdog(home)
    return found


def test_a_watchdog_that_systemd_feeds_as_well_is_a_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\necho 30s\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = watchdog_finding(tmp_path, "/dev/null")
    assert (found.ok, "30s" in found.seen, "RuntimeWatchdogSec=off" in found.remedy) == (False, True, True)
    systemctl.write_text("#!/bin/sh\necho 0\n")
    assert watchdog_finding(tmp_path, "/dev/null").ok is True
    systemctl.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))  # no systemd at all
    assert watchdog_finding(tmp_path, "/dev/null").ok is True


def test_a_watchdog_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert watchdog_finding(tmp_path, "").ok is None
    found = watchdog_finding(tmp_path, "/dev/watchdog77")
    assert (found.ok, found.seen) == (False, "/dev/watchdog77 is no device here")
