# SPDX-License-Identifier: Apache-2.0
"""The validator's TOML file.  Unknown keys are refused with the nearest valid one, so that a typo never weakens a policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import credential, keys
from .._tables import Reason
from ..errors import ConfigError
from ..quote import ATTESTED, PCRS, Measured, measured
from ..sets import SUITES
from ..settings import known, parse_toml, read_toml

__all__ = ["Attestation", "Config", "Device", "Policy", "Relay", "load", "parse", "read_device"]

States = Mapping[str, tuple[Measured, ...]]

UEID_BYTES = 33
RELEASABLE = ("LEASE_EXPIRED", "NETWORK_TIMEOUT", "BUS", "LOG_FULL")
NEED_PEOPLE = ("VALIDATOR_DENIED", "ANOMALY", "INVALID_SIGNATURES", "MANUAL", "TAMPER")


@dataclass(frozen=True)
class Relay:
    """An agent that may connect: a name, the SHA-256 of its TLS key's SPKI, and its certificate file."""

    name: str
    spki: bytes
    cert: Path


@dataclass(frozen=True)
class Attestation:
    """What quotes of a device are held against: x || y of its attestation key, why its EK is trusted, the allowed states."""

    ak: bytes
    ek: str
    allowed: tuple[Measured, ...]


@dataclass(frozen=True)
class Device:
    """A registered device: ueid, raw public key, log id, model hashes (None: any), Unix s of registration, the key's COSE algorithm.

    With ``attestation`` its leases state level 3 and every request needs a quote; with ``images`` they state at most 4 and every request
    must be measured as one of these monitor images, by their SHA-256; without, they state what the guard says, 2 at most.
    """

    ueid: bytes
    key: bytes
    log_id: bytes
    models: frozenset[bytes] | None
    registered: int
    alg: int = keys.ED25519
    attestation: Attestation | None = None
    images: frozenset[bytes] | None = None


@dataclass(frozen=True)
class Policy:
    """What is granted: longest lease and shortest interval in ms, the fail-safe reasons that need no person, retry times in ms.

    ``max_period_ms`` caps the sum of a device's initial period and extension (OC-2), 0 leaves it to the device.
    ``start`` says what a validator without state makes of a log: ``first`` follows it from serial 1 or a previous lease only;
    ``any`` follows it from any serial of a device that shows its whole log.  ``suites`` are those a set may have.  ``min_level``
    is the least level that a lease may state.
    """

    max_duration_ms: int = 24 * 3600 * 1000
    min_interval_ms: int = 0
    max_period_ms: int = 0
    human_retry_ms: int = 2000
    start: str = "first"
    suites: frozenset[str] = frozenset(SUITES)
    min_level: int = 0
    release: Mapping[str, str] = field(default_factory=lambda: {**dict.fromkeys(RELEASABLE, "auto"), **dict.fromkeys(NEED_PEOPLE, "human")})

    def automatic(self, reason: int) -> bool:
        """Tell whether a fail-safe of this reason is released without a person; an unknown reason never is."""
        try:
            return self.release.get(Reason(reason).name) == "auto"
        except ValueError:
            return False


@dataclass(frozen=True)
class Config:
    """One validator: its place in the set, address, files, relays, devices and policy.  Paths are absolute."""

    directory: Path
    index: int
    host: str
    port: int
    set_path: Path
    signing_key: Path
    mldsa_key: Path | None
    tls_key: Path
    tls_cert: Path
    db: Path
    admin_socket: Path
    relays: tuple[Relay, ...]
    devices: Mapping[bytes, Device]
    policy: Policy


TOP = (
    "index",
    "listen",
    "set",
    "signing_key",
    "mldsa_key",
    "tls_key",
    "tls_cert",
    "db",
    "admin_socket",
    "relay",
    "device",
    "policy",
    "pcrs",
)
POLICY = ("max_duration_ms", "min_interval_ms", "max_period_ms", "human_retry_ms", "start", "suites", "min_level", "release")


def _get(table: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value = table.get(key)
    if value is None:
        raise ConfigError(f"{where}: '{key}' is missing")
    if type(value) is not kind:
        raise ConfigError(f"{where}: '{key}' is not of type {kind.__name__}")
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(f"{where}: '{key}' has a NUL in it")
    return value


def _hex(table: Mapping[str, Any], key: str, size: int, where: str) -> bytes:
    text = _get(table, key, str, where)
    try:
        value = bytes.fromhex(text)
    except ValueError as why:
        raise ConfigError(f"{where}: '{key}' is not hex") from why
    if len(value) != size:
        raise ConfigError(f"{where}: '{key}' is {len(value)} bytes where {size} belong")
    return value


def _count(table: Mapping[str, Any], key: str, default: int, where: str) -> int:
    value = table.get(key, default)
    if type(value) is not int or not 0 <= value < 2**53:
        raise ConfigError(f"{where}: '{key}' is not a count of milliseconds")
    return value


def _listen(text: str, where: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"{where}: 'listen' is not host:port")
    return host.strip("[]"), int(port)


def _relay(table: Mapping[str, Any], directory: Path, where: str) -> Relay:
    known(table, ("name", "spki", "cert"), where)
    return Relay(_get(table, "name", str, where), _hex(table, "spki", 32, where), directory / _get(table, "cert", str, where))


def _attestation(table: Mapping[str, Any], states: States, where: str) -> Attestation | None:
    if not {"ak", "ek", "pcrs"} & table.keys():
        return None
    ak, ek, name = _hex(table, "ak", 64, where), _get(table, "ek", str, where), _get(table, "pcrs", str, where)
    if not keys.device_key_ok(keys.ESP256, ak):
        raise ConfigError(f"{where}: 'ak' is no point of P-256")
    if ek not in (credential.CERTIFICATE, credential.FIRST_USE):
        raise ConfigError(f"{where}: 'ek' is {ek!r}, not {credential.CERTIFICATE} or {credential.FIRST_USE}")
    if name not in states:
        raise ConfigError(f"{where}: no [[pcrs]] is named {name!r}")
    return Attestation(ak, ek, states[name])


def read_device(table: Mapping[str, Any], where: str, states: States | None = None) -> Device:
    """Read one device: ueid, key, log_id, models (hex; ``["*"]`` is any), registered (Unix s), key_type, images; raises ConfigError.

    ``states`` are the allowed PCR states by name; without them, as in an application, neither attestation key nor images may be given:
    an enroller decides on these.
    """
    attested = () if states is None else ("ak", "ek", "pcrs", "images")
    known(table, ("ueid", "key", "key_type", "log_id", "models", "registered", *attested), where)
    kind = table.get("key_type", "ed25519")
    if not isinstance(kind, str) or kind not in keys.DEVICE_KEYS:
        raise ConfigError(f"{where}: 'key_type' is {kind!r}, not one of {', '.join(keys.DEVICE_KEYS)}")
    alg, size = keys.DEVICE_KEYS[kind]
    key = _hex(table, "key", size, where)
    if not keys.device_key_ok(alg, key):
        raise ConfigError(f"{where}: 'key' is no point of P-256")
    listed = _get(table, "models", list, where)
    models = None if listed == ["*"] else frozenset(_hex({"models": m}, "models", 32, where) for m in listed)
    return Device(
        _hex(table, "ueid", UEID_BYTES, where),
        key,
        _hex(table, "log_id", 32, where),
        models,
        _get(table, "registered", int, where),
        alg,
        _attestation(table, states or {}, where),
        _images(table, where),
    )


def _images(table: Mapping[str, Any], where: str) -> frozenset[bytes] | None:
    if "images" not in table:
        return None
    if "ak" in table:
        raise ConfigError(f"{where}: 'images' is for a monitor and 'ak' for a TPM; a device has one of them")
    return frozenset(_hex({"images": i}, "images", 32, where) for i in _get(table, "images", list, where))


def _pcrs(table: Mapping[str, Any], where: str) -> tuple[str, Measured]:
    known(table, ("name", "version", "values"), where)
    version, values = _get(table, "version", int, where), _get(table, "values", dict, where)
    if not 0 < version < 2**31:
        raise ConfigError(f"{where}: 'version' is no number from 1")
    if not values or not all(n.isdecimal() and n == str(int(n)) and int(n) < PCRS for n in values):
        raise ConfigError(f"{where}: 'values' are not those of PCRs 0 to {PCRS - 1}")
    return _get(table, "name", str, where), measured(version, {int(n): _hex(values, n, 32, f"{where}: values") for n in values})


def _states(tables: list[tuple[dict[str, Any], str]]) -> States:
    """The allowed states by name; several versions of one name are allowed at once, as during an update."""
    out: dict[str, tuple[Measured, ...]] = {}
    for table, where in tables:
        name, state = _pcrs(table, where)
        if state.version in [m.version for m in out.get(name, ())]:
            raise ConfigError(f"{where}: version {state.version} of {name!r} stands twice")
        out[name] = (*out.get(name, ()), state)
    return out


def _release(table: object, where: str) -> dict[str, str]:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: 'release' is not a table")
    known(table, (*RELEASABLE, *NEED_PEOPLE), where)
    for reason, how in table.items():
        if how not in ("auto", "human"):
            raise ConfigError(f"{where}: release of {reason} is 'auto' or 'human'")
        if how == "auto" and reason in NEED_PEOPLE:
            raise ConfigError(f"{where}: release of {reason} always needs a person")
    return dict(table)


def _suites(table: Mapping[str, Any], where: str) -> frozenset[str]:
    listed = table.get("suites", sorted(SUITES))
    if not isinstance(listed, list) or not listed or not {str(x) for x in listed} <= set(SUITES):
        raise ConfigError(f"{where}: 'suites' is not a list of {', '.join(sorted(SUITES))}")
    return frozenset(listed)


def _least(table: Mapping[str, Any], where: str) -> int:
    value = table.get("min_level", 0)
    if type(value) is not int or not 0 <= value <= ATTESTED:
        raise ConfigError(f"{where}: 'min_level' is not a level from 0 to {ATTESTED}, the highest that is verified")
    return value


def _policy(table: Mapping[str, Any], where: str) -> Policy:
    known(table, POLICY, where)
    plain = Policy()
    start = table.get("start", plain.start)
    if start not in ("first", "any"):
        raise ConfigError(f"{where}: 'start' is 'first' or 'any'")
    return Policy(
        _count(table, "max_duration_ms", plain.max_duration_ms, where),
        _count(table, "min_interval_ms", plain.min_interval_ms, where),
        _count(table, "max_period_ms", plain.max_period_ms, where),
        _count(table, "human_retry_ms", plain.human_retry_ms, where),
        start,
        _suites(table, where),
        _least(table, where),
        {**plain.release, **_release(table.get("release", {}), f"{where}.release")},
    )


def _tables(table: Mapping[str, Any], key: str, where: str) -> list[tuple[dict[str, Any], str]]:
    listed = table.get(key, [])
    if not isinstance(listed, list) or not all(isinstance(t, dict) for t in listed):
        raise ConfigError(f"{where}: [[{key}]] is not a list of tables")
    return [(t, f"{where}: {key} {i}") for i, t in enumerate(listed)]


def parse(text: str, directory: Path, *, where: str = "validator.toml") -> Config:
    """Read the text of a configuration; relative paths are taken from ``directory``.  Raises ConfigError naming the key."""
    return _build(parse_toml(text, where), directory, where)


def load(path: Path) -> Config:
    """Read a configuration file; raises ConfigError if it is missing or wrong."""
    return _build(read_toml(path), path.parent.absolute(), path.name)


def _build(table: Mapping[str, Any], directory: Path, where: str) -> Config:
    known(table, TOP, where)
    host, port = _listen(_get(table, "listen", str, where), where)
    index = _get(table, "index", int, where)
    states = _states(_tables(table, "pcrs", where))
    devices: dict[bytes, Device] = {}
    for item, at in _tables(table, "device", where):
        device = read_device(item, at, states)
        if device.ueid in devices:
            raise ConfigError(f"{at}: ueid {device.ueid.hex()} stands twice")
        devices[device.ueid] = device
    mldsa = directory / _get(table, "mldsa_key", str, where) if "mldsa_key" in table else None
    policy = table.get("policy", {})
    if not isinstance(policy, dict):
        raise ConfigError(f"{where}: [policy] is not a table")

    def path(key: str) -> Path:
        return directory / str(_get(table, key, str, where))

    return Config(
        directory=directory,
        index=index,
        host=host,
        port=port,
        set_path=path("set"),
        signing_key=path("signing_key"),
        mldsa_key=mldsa,
        tls_key=path("tls_key"),
        tls_cert=path("tls_cert"),
        db=path("db"),
        admin_socket=path("admin_socket"),
        relays=tuple(_relay(t, directory, at) for t, at in _tables(table, "relay", where)),
        devices=devices,
        policy=_policy(policy, f"{where}: policy"),
    )
