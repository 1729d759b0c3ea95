# SPDX-License-Identifier: Apache-2.0
"""``log`` of guard.toml: where the audit log's ring lies (HW-8), read, refused, and refused by the guard itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsafp_embedded.cli import doctor
from qsafp_embedded.cli.common import Home
from qsafp_embedded.errors import ConfigError, QsafpError
from qsafp_embedded.guard import config, enrol

NEEDED = 'run_dir = "run"\nstate_dir = "state"\nmodel_hash = "' + "00" * 32 + '"\n'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("file", (0, "", 0, 0, 0, 0)),
        ("spi:/dev/spidev0.0", (1, "/dev/spidev0.0", 10_000_000, 0, 0, 0)),
        ("spi:/dev/spidev10.1@500000", (1, "/dev/spidev10.1", 500_000, 0, 0, 0)),
        ("i2c:/dev/i2c-1@0x50,32768", (2, "/dev/i2c-1", 0, 0x50, 32768, 64)),
        ("i2c:/dev/i2c-11@0x54,262144", (2, "/dev/i2c-11", 0, 0x54, 262144, 256)),
        ("i2c:/dev/i2c-1@0x57,65536,64", (2, "/dev/i2c-1", 0, 0x57, 65536, 64)),
    ],
)
def test_every_place_is_read(text: str, place: tuple[object, ...]) -> None:
    assert tuple(config.log_place(text, "guard.toml")) == place


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("flash", "is none of"),
        ("spi:spidev0.0", "is none of"),
        ("spi:/dev/spidev0.0@", "is none of"),
        ("spi:/dev/spidev0.0@99000000", "99000000 Hz"),
        ("i2c:/dev/i2c-1@80,32768", "is none of"),
        ("i2c:/dev/i2c-1@0x50", "is none of"),
        ("i2c:/dev/i2c-1@0x50,2048", "2048 bytes"),
        ("i2c:/dev/i2c-1@0x20,32768", "0x50 to 0x57"),
        ("i2c:/dev/i2c-1@0x55,262144", "0x50 to 0x54"),
        ("i2c:/dev/i2c-1@0x50,32768,48", "pages of 48"),
    ],
)
def test_what_is_mistyped_is_named(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as no:
        config.log_place(text, "guard.toml")
    assert text in str(no.value)


def written(tmp_path: Path, extra: str) -> Path:
    path = tmp_path / "guard.toml"
    path.write_text(NEEDED + extra)
    return path


def test_the_file_checks_it_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="log = 'spi'"):
        config.load(written(tmp_path, 'log = "spi"\n'))
    with pytest.raises(ConfigError, match="log_live_min = 1009"):
        config.load(written(tmp_path, "log_live_min = 1009\n"))


@pytest.mark.parametrize("log", ["spi:/dev/spidev77.7", "i2c:/dev/i2c-77@0x50,32768"])
def test_a_bus_that_is_not_there_stops_the_enrolment_and_is_named(tmp_path: Path, log: str) -> None:
    settings = config.load(written(tmp_path, f'log = "{log}"\n'))
    with pytest.raises(QsafpError, match="no such bus"):
        enrol.enrol(settings, k0=tmp_path / "k0")
    assert not (tmp_path / "state").exists()


def test_the_doctor_says_what_the_log_is_on(tmp_path: Path) -> None:
    (tmp_path / "guard").mkdir()
    home = Home(tmp_path)
    home.guard_toml.write_text(NEEDED)
    assert list(doctor._log(home)) == []
    home.guard_toml.write_text(NEEDED + 'log = "spi:/dev/spidev77.7"\n')
    (found,) = doctor._log(home)
    assert found.ok is False
    assert "/dev/spidev77.7" in found.seen
    assert "device tree" in found.remedy
    home.guard_toml.write_text(NEEDED + 'log = "spi:/dev/spidev77.7"\nboard = "raspberry_pi_4"\n')
    assert "dtparam=spi=on" in next(doctor._log(home)).remedy
