# SPDX-License-Identifier: Apache-2.0
"""guard.toml, and what the C core is told."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .._core import sha256
from ..errors import ConfigError
from ..hardware import board
from ..hardware.board import Board
from ..settings import read_toml, settings
from ..wire import BAUDS

__all__ = ["DEFAULTS", "GuardConfig", "LogPlace", "load", "log_place", "model_hash", "tpm_nv", "tpm_place"]

ANCHOR_MIN_S = 60
MONTH_MS = 31 * 24 * 3600 * 1000
CLAIMED_MAX, ATTESTED, PCRS = 2, 3, 24  # as in quote.py, which imports more than a guard has

# Every key of guard.toml; a type marks one that must be given.
DEFAULTS: dict[str, Any] = {
    "lease": "main",  # lease name: one guard, one log, one ueid
    "run_dir": str,  # sockets and pins; 0755
    "state_dir": str,  # keys, log, evidence; 0700
    "set": "",  # the validator set document; needed to run, not to enrol
    "model": "",  # the model file that leases name ...
    "model_hash": "",  # ... or its SHA-256 in hex
    "duration_ms": 60_000,
    "warning_ms": 10_000,
    "grace_ms": 5_000,  # the gate is closed, the workload held, a renewal resumes it
    "initial_ms": 0,  # OC-2: validators deny REREGISTER past registered + initial + extension; 0 is no limit
    "extension_ms": 0,
    "stale_after_ms": 1_000,  # a dead guard closes the gate within this
    "tick_ms": 100,
    "drain_ms": 200,  # a workload's time to finish its batch before it is frozen
    "linger_ms": 60_000,  # the pin holder's life after the guard's death
    "evidence_mb": 64,
    "device_key": "file",  # or "tpm:/dev/tpmrm0" (or another TCTI: "tpm:swtpm:host=127.0.0.1,port=2321"), or "tpm-sealed:", weaker
    "quote_pcrs": [],  # PCRs of that TPM, such as [0, 2, 4, 7]: every request comes with a quote of them, and leases state level 3
    "tpm_nv": "",  # such as "0x01815100": three NV indices of that TPM from there on keep an older state_dir from coming back
    "anchor_s": 600,  # then: how often the log's head goes into the TPM, which wears; 60 at least
    "log": "file",  # or "spi:/dev/spidevB.C[@HZ]" (NOR flash), or "i2c:/dev/i2c-N@ADDRESS,BYTES[,PAGE]" (EEPROM)
    "log_live_min": 1_000,  # fewer records on hand refuse the start: a smaller part must be asked for
    "on_log_full": "close",  # or "degrade(n)": go on while at most n records wait for the disk or were lost, each counted on record
    "board": "simulated",  # a name that `qsafp board list` knows, or the path of a board.toml
    "watchdog": "",  # such as /dev/watchdog0: fed while the deadline is kept; the board is reset when it is not
    "watchdog_s": 15,
    "uart": "",  # a serial line that takes commands as ctl.sock does: this guard is another board's coprocessor
    "uart_baud": 115_200,
    "level": 1,  # isolation level the guard claims (requirements CD-5), 0 to 2; with quote_pcrs it is 3
    "agent_uid": -1,  # who may use ctl.sock beside root and the guard's own user
}

TOLD_AS_THEY_ARE = (
    *("duration_ms", "stale_after_ms", "tick_ms", "drain_ms", "linger_ms"),
    *("log_live_min", "watchdog", "watchdog_s", "uart", "uart_baud"),
)


class LogPlace(NamedTuple):
    """What the audit log's ring lies on, in the order of qsafp_log_spec_t; kind: 0 file, 1 SPI NOR flash, 2 I2C EEPROM."""

    kind: int
    device: str = ""
    hz: int = 0
    address: int = 0
    bytes: int = 0
    page: int = 0


@dataclass(frozen=True)
class GuardConfig:
    """Settings with absolute paths; times in ms."""

    values: dict[str, Any]
    run_dir: Path
    state_dir: Path
    set_path: Path | None
    model: bytes
    board: Board
    log: LogPlace
    tpm: str  # the TCTI configuration of the TPM that has the device key; empty: a file has it
    sealed: bool  # it has sealed a seed, no more
    tpm_nv: int  # first of the NV indices that bind state and log to it, or 0
    degrade: int  # records that may be lost before the gate closes
    quote_pcrs: int  # a bit each

    def options(self) -> dict[str, Any]:
        """The numbers and strings of qsafp_guard_options_t; keys and set document are added by the caller."""
        v = self.values
        uid = v["agent_uid"] if v["agent_uid"] >= 0 else os.getuid()
        return {
            "run_dir": str(self.run_dir),
            "state_dir": str(self.state_dir),
            "board": self.board.name,
            "lines": [tuple(line) for line in self.board.lines],
            "model": self.model,
            "policy_ms": [v["warning_ms"], v["grace_ms"], v["initial_ms"], v["extension_ms"]],
            "evidence_max": v["evidence_mb"] << 20,
            "degrade": self.degrade,
            "lease": v["lease"],
            "tpm": self.tpm,
            "quote_pcrs": self.quote_pcrs,
            "level": ATTESTED if self.quote_pcrs else v["level"],
            "sealed": int(self.sealed),
            "tpm_nv": self.tpm_nv,
            "anchor_ms": v["anchor_s"] * 1000,
            "anchor_min_ms": ANCHOR_MIN_S * 1000,
            "log": tuple(self.log),
            "agent_uid": uid,
            **{key: v[key] for key in TOLD_AS_THEY_ARE},
        }


def model_hash(path: Path) -> bytes:
    """SHA-256 of a model file; raises ConfigError if it cannot be read."""
    try:
        return sha256(path.read_bytes())
    except OSError as why:
        raise ConfigError(f"model {path}: {why.strerror}") from why


def _quote_pcrs(listed: list[Any], tpm: str, where: str) -> int:
    if not all(type(n) is int and 0 <= n < PCRS for n in listed) or len(set(listed)) != len(listed):
        raise ConfigError(f"{where}: quote_pcrs = {listed} is no list of PCRs, each 0 to {PCRS - 1} and once")
    if listed and not tpm:
        raise ConfigError(f'{where}: quote_pcrs needs a TPM: device_key = "tpm:/dev/tpmrm0"')
    return sum(1 << n for n in listed)


def _degrade(policy: str, where: str) -> int:
    found = re.fullmatch(r"degrade\(([1-9][0-9]{0,2})\)", policy)
    if policy != "close" and (found is None or int(found[1]) > 512):
        raise ConfigError(f'{where}: on_log_full = {policy!r} is neither "close" nor "degrade(n)" with n in 1..512')
    return int(found[1]) if found else 0


SPI_HZ = (10_000, 10_000_000, 50_000_000)  # least, default (requirement HW-14), most of the plain read command
EEPROM_BYTES = tuple(1 << n for n in range(15, 19))  # 24C256 to 24CM02: two address bytes


def log_place(text: str, where: str) -> LogPlace:
    """Parse ``log`` of guard.toml (HW-8).  Raises: ConfigError that says what is wrong with it."""
    if text == "file":
        return LogPlace(0)
    if spi := re.fullmatch(r"spi:(/dev/spidev\d+\.\d+)(?:@(\d+))?", text):
        hz = int(spi[2] or SPI_HZ[1])
        if not SPI_HZ[0] <= hz <= SPI_HZ[2]:
            raise ConfigError(f"{where}: log = {text!r}: {hz} Hz is outside {SPI_HZ[0]}..{SPI_HZ[2]}")
        return LogPlace(1, spi[1], hz)
    if i2c := re.fullmatch(r"i2c:(/dev/i2c-\d+)@(0x[0-9a-fA-F]{2}),(\d+)(?:,(\d+))?", text):
        address, size = int(i2c[2], 16), int(i2c[3])
        page = int(i2c[4]) if i2c[4] else min(size // 512, 256)
        if size not in EEPROM_BYTES:
            raise ConfigError(f"{where}: log = {text!r}: {size} bytes is none of {', '.join(map(str, EEPROM_BYTES))}")
        if not 0x50 <= address <= 0x57 - (size - 1 >> 16):
            raise ConfigError(f"{where}: log = {text!r}: an EEPROM of {size} bytes is at 0x50 to 0x{0x57 - (size - 1 >> 16):x}")
        if page not in (16, 32, 64, 128, 256):
            raise ConfigError(f"{where}: log = {text!r}: pages of {page} bytes; the data sheet says 16, 32, 64, 128 or 256")
        return LogPlace(2, i2c[1], 0, address, size, page)
    shapes = '"file", "spi:/dev/spidevB.C[@HZ]" or "i2c:/dev/i2c-N@0xADDRESS,BYTES[,PAGE]"'
    raise ConfigError(f"{where}: log = {text!r} is none of {shapes}")


def tpm_place(place: str, where: str) -> tuple[str, bool]:
    """Parse ``device_key`` of guard.toml: a TCTI, empty for a file, and whether only a seed is sealed there.  Raises: ConfigError."""
    kind, _, rest = place.partition(":")
    if place != "file" and (kind not in ("tpm", "tpm-sealed") or not rest or "\0" in rest):
        shapes = '"file", "tpm:/dev/tpmrm0", "tpm:" and a TCTI of libtss2, or "tpm-sealed:" and one of both'
        raise ConfigError(f"{where}: device_key = {place!r} is none of {shapes}")
    return f"device:{rest}" if rest.startswith("/") else rest, kind == "tpm-sealed"


def tpm_nv(text: str, where: str) -> int:
    """Parse ``tpm_nv`` of guard.toml: three indices of the owner's range; 0 for none.  Raises: ConfigError."""
    number = int(text, 16) if re.fullmatch(r"0x[0-9a-fA-F]{8}", text) else 0
    if text and not 0x01800000 <= number <= 0x01BFFFFD:
        raise ConfigError(f'{where}: tpm_nv = {text!r} is no NV index of the owner, "0x01800000" to "0x01bffffd"')
    return number


def _limits(v: dict[str, Any], where: str) -> None:
    rules = (
        ("duration_ms", 1, MONTH_MS),
        ("warning_ms", 0, v["duration_ms"]),
        ("grace_ms", 0, MONTH_MS),
        ("initial_ms", 0, 1 << 53),
        ("extension_ms", 0, 1 << 53),
        ("tick_ms", 1, 10_000),
        ("stale_after_ms", v["tick_ms"] * 2, 59_999),
        ("drain_ms", 0, 60_000),
        ("linger_ms", 0, 1 << 40),
        ("evidence_mb", 1, 1 << 20),
        ("log_live_min", 32, 1008),
        ("watchdog_s", max(2, v["stale_after_ms"] * 2 // 1000), 3600),
        ("level", 0, CLAIMED_MAX),
        ("anchor_s", ANCHOR_MIN_S, 86_400),
    )
    if v["level"] > CLAIMED_MAX:
        raise ConfigError(f"{where}: level = {v['level']} is above {CLAIMED_MAX}; 3 comes with quote_pcrs, and no more is verified")
    for key, low, high in rules:
        if not low <= v[key] <= high:
            raise ConfigError(f"{where}: {key} = {v[key]} is outside {low}..{high}")
    if v["uart_baud"] not in BAUDS:
        raise ConfigError(f"{where}: uart_baud = {v['uart_baud']} is none of {', '.join(map(str, BAUDS))}")
    name = v["lease"]
    if not name or len(name) > 32 or not all(c.isalnum() or c in "-_" for c in name):
        raise ConfigError(f"{where}: lease = {name!r} is not a name of letters, digits, - and _")


def _model(v: dict[str, Any], base: Path, where: str) -> bytes:
    if bool(v["model"]) == bool(v["model_hash"]):
        raise ConfigError(f"{where}: give either model (a file) or model_hash (64 hex digits)")
    if v["model"]:
        return model_hash(base / v["model"])
    try:
        digest = bytes.fromhex(v["model_hash"])
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise ConfigError(f"{where}: model_hash is not 64 hex digits")
    return digest


def load(path: Path) -> GuardConfig:
    """Read guard.toml; relative paths are relative to its folder.  Raises: ConfigError."""
    where = str(path)
    v = settings(read_toml(path), DEFAULTS, where)
    base = path.resolve().parent
    _limits(v, where)
    try:
        found = board.load(v["board"], base)
    except ConfigError as why:
        raise ConfigError(f"{path}: {why}") from why
    tpm, sealed = tpm_place(v["device_key"], where)
    nv = tpm_nv(v["tpm_nv"], where)
    if nv and not tpm:
        raise ConfigError(f"{where}: tpm_nv needs a device_key in that TPM, or sealed to it")
    return GuardConfig(
        values=v,
        run_dir=base / v["run_dir"],
        state_dir=base / v["state_dir"],
        set_path=base / v["set"] if v["set"] else None,
        model=_model(v, base, where),
        board=found,
        log=log_place(v["log"], where),
        tpm=tpm,
        sealed=sealed,
        tpm_nv=nv,
        quote_pcrs=_quote_pcrs(v["quote_pcrs"], "" if sealed else tpm, where),
        degrade=_degrade(v["on_log_full"], where),
    )
