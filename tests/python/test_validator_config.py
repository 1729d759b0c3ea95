# SPDX-License-Identifier: Apache-2.0
"""validator.toml: every key is known and typed, and a typo names the key that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from validator_kit import MODEL, Device, install, quorum
from validator_live import new_key

from qsafp_embedded.errors import ConfigError
from qsafp_embedded.validator import config

DIRECTORY = Path("/nowhere")
BASE = """
index = 2
listen = "127.0.0.1:8443"
set = "set.cbor"
signing_key = "signing.key"
tls_key = "tls.key"
tls_cert = "tls.crt"
db = "state.db"
admin_socket = "/run/admin.sock"
"""
RELAY = f'[[relay]]\nname = "a"\nspki = "{"ab" * 32}"\ncert = "a.crt"\n'
DEVICE = f'[[device]]\nueid = "{"01" * 33}"\nkey = "{"02" * 32}"\nlog_id = "{"03" * 32}"\nmodels = ["{"04" * 32}"]\nregistered = 7\n'


def test_a_configuration_is_read_with_paths_beside_it() -> None:
    c = config.parse(BASE + RELAY + DEVICE, DIRECTORY)
    assert (c.index, c.host, c.port, c.mldsa_key) == (2, "127.0.0.1", 8443, None)
    assert (c.db, c.admin_socket) == (DIRECTORY / "state.db", Path("/run/admin.sock"))
    assert c.relays == (config.Relay("a", b"\xab" * 32, DIRECTORY / "a.crt"),)
    d = c.devices[b"\x01" * 33]
    assert (d.key, d.log_id, d.models, d.registered) == (b"\x02" * 32, b"\x03" * 32, frozenset({b"\x04" * 32}), 7)
    assert c.policy == config.Policy()


def test_the_images_of_a_monitor_are_read_and_only_an_enroller_gives_them() -> None:
    assert config.parse(BASE + DEVICE, DIRECTORY).devices[b"\x01" * 33].images is None
    with_images = DEVICE + f'images = ["{"05" * 32}", "{"06" * 32}"]\n'
    assert config.parse(BASE + with_images, DIRECTORY).devices[b"\x01" * 33].images == {b"\5" * 32, b"\6" * 32}
    for bad in (DEVICE + 'images = ["05"]\n', DEVICE + "images = true\n", with_images + f'ak = "{"07" * 64}"\n'):
        with pytest.raises(ConfigError):
            config.parse(BASE + bad, DIRECTORY)
    table = {"ueid": "01" * 33, "key": "02" * 32, "log_id": "03" * 32, "models": ["*"], "registered": 7, "images": ["05" * 32]}
    with pytest.raises(ConfigError, match="images"):
        config.read_device(table, "an application")


def test_what_the_kit_installs_is_what_is_read(tmp_path: Path) -> None:
    q = quorum(suite="hybrid")
    device = Device(q.members).registered(models=frozenset({MODEL}))
    c = config.load(install(tmp_path / "v", q, 1, new_key(), [device]))
    assert c.devices == {device.ueid: device}
    assert c.mldsa_key == tmp_path / "v" / "mldsa.key"


def test_a_policy_overrides_what_it_names_only() -> None:
    text = BASE + '[policy]\nmax_duration_ms = 60_000\nstart = "any"\nrelease = {BUS = "human"}\n'
    p = config.parse(text, DIRECTORY).policy
    assert (p.max_duration_ms, p.min_interval_ms, p.start) == (60_000, 0, "any")
    assert (p.release["BUS"], p.release["LEASE_EXPIRED"], p.release["MANUAL"]) == ("human", "auto", "human")


def test_every_model_is_allowed_by_a_star_alone() -> None:
    assert config.parse(BASE + DEVICE.replace("04" * 32, "*"), DIRECTORY).devices[b"\x01" * 33].models is None
    with pytest.raises(ConfigError, match="models"):
        config.parse(BASE + DEVICE.replace(f'["{"04" * 32}"]', '["*", "*"]'), DIRECTORY)


@pytest.mark.parametrize(
    ("text", "named", "nearest"),
    [
        (BASE + "signing_keys = 1", "signing_keys", "signing_key"),
        (BASE + "[policies]\n", "policies", "policy"),
        (BASE + "[policy]\nmax_duration = 1", "max_duration", "max_duration_ms"),
        (BASE + '[policy.release]\nEXPIRED = "auto"', "EXPIRED", "LEASE_EXPIRED"),
        (BASE + RELAY + "certs = 1", "certs", "cert"),
        (BASE + DEVICE + "model = 1", "model", "models"),
        (BASE + "zzzz = 1", "zzzz", ""),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_named(text: str, named: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key '{named}'.*'{nearest}"):
        config.parse(text, DIRECTORY)


def test_every_key_that_must_be_there_is_named_when_it_is_not() -> None:
    for line in BASE.strip().splitlines():
        with pytest.raises(ConfigError, match=f"'{line.split()[0]}' is missing"):
            config.parse(BASE.replace(line, ""), DIRECTORY)


@pytest.mark.parametrize(
    "text",
    [
        "index = ",
        BASE.replace("index = 2", 'index = "2"'),
        BASE.replace("index = 2", "index = true"),
        BASE.replace("127.0.0.1:8443", "8443"),
        BASE.replace("127.0.0.1:8443", "127.0.0.1:99999"),
        BASE.replace("127.0.0.1:8443", "127.0.0.1:-1"),
        BASE + "policy = 3",
        BASE + "relay = 3",
        BASE + "[policy]\nmin_interval_ms = -1",
        BASE + "[policy]\nmin_interval_ms = true",
        BASE + "[policy]\nmax_duration_ms = 9223372036854775807",
        BASE + '[policy]\nstart = "last"',
        BASE + "[policy]\nrelease = 1",
        BASE + '[policy]\nrelease = {BUS = "never"}',
        BASE + '[policy]\nrelease = {MANUAL = "auto"}',
        BASE + RELAY.replace("ab" * 32, "ab" * 31),
        BASE + RELAY.replace("ab" * 32, "xy" * 32),
        BASE + DEVICE + DEVICE,
        BASE + DEVICE.replace("01" * 33, "01" * 32),
        BASE + DEVICE.replace("registered = 7", "registered = 7.5"),
    ],
)
def test_a_value_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"validator\.toml"):
        config.parse(text, DIRECTORY)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        config.load(tmp_path / "nowhere.toml")
