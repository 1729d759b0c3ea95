# SPDX-License-Identifier: Apache-2.0
"""``qsafp doctor``: what is wrong here, each finding with its remedy."""

from __future__ import annotations

import argparse
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .._tables import Phase
from ..agent import config as agent
from ..client import GuardClient
from ..errors import ConfigError, QsafpError
from ..guard import config as guard
from ..validator import admin_client
from ..validator import config as validator
from .common import Commands, Home, ask_agent, command, emit, home_of

__all__ = ["Finding", "add", "examine", "keys", "report"]

DISK_MIN = 100 << 20
SECRETS = (
    *("guard/state/*.key", "guard/state/*.tpm", "guard/state/device.sealed"),
    *("agent/*.key", "validator-*/*.key", "set/*.key", "auditor/k0"),
)


class Finding(NamedTuple):
    """What was looked at, whether it is well (None: a note), what was seen, and what helps."""

    what: str
    ok: bool | None
    seen: str
    remedy: str = ""


def add(commands: Commands) -> None:
    """Add ``doctor``."""
    command(commands, "doctor", _run, "look for what is wrong, and say what helps", "qsafp doctor --dir ~/lab")


def examine(home: Home) -> Iterator[Finding]:
    """Yield all findings, good ones too; what cannot be looked at is a finding as well."""
    for look in (_files, _configs, _keys, _set, _guard, _agent, _validators, _log, _watchdog, _host):
        try:
            yield from look(home)
        except (QsafpError, OSError) as why:
            yield Finding(look.__name__[1:], False, str(why), "repair or restore the file it names")


def _configs(home: Home) -> Iterator[Finding]:
    agent.load(home.agent_toml)
    guard.load(home.guard_toml)
    for path in home.validators():
        validator.load(path / "validator.toml")
    yield Finding("configs", True, "every file reads")


def _files(home: Home) -> Iterator[Finding]:
    bad = 0
    for pattern in SECRETS:
        for path in {*home.root.glob(pattern), *home.state.glob(pattern)}:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                bad += 1
                yield Finding("keys", False, f"{path}: mode {mode:04o} lets others at it", f"chmod 600 {path}")
    if not bad:
        yield Finding("keys", True, "only their owner can read them")
    k0, set_key = home.state / "auditor" / "k0", home.root / "set" / "set.key"
    if k0.exists():
        yield Finding("auditor", None, f"{k0} is still here: whoever has it can forge seals", "hand it over, then delete it here")
    if set_key.exists():
        yield Finding("set key", None, f"{set_key} is still here: whoever has it can replace validators", "move it to an offline medium")


def keys(config: guard.GuardConfig) -> Iterator[Finding]:
    """Where a device's keys are, and what its leases state of it."""
    listed = ", ".join(str(n) for n in range(guard.PCRS) if config.quote_pcrs >> n & 1)
    if config.sealed:
        yield Finding("device key", None, f"sealed to TPM {config.tpm}, in memory while the guard runs", 'stronger: device_key = "tpm:…"')
    elif config.tpm and not (config.state_dir / "device.tpm").exists():
        yield Finding("device key", False, "not in the TPM that guard.toml names", "enrol the device again, or correct device_key")
    elif config.tpm:
        yield Finding("device key", True, f"in TPM {config.tpm}: its file here is of no use without it")
    else:
        yield Finding("device key", True, "in a file; device_key in guard.toml can keep it in a TPM")
    if not listed:
        yield Finding("level", True, f"{config.values['level']}, on the guard's word; with quote_pcrs in guard.toml a TPM shows 3")
    elif (config.state_dir / "attest.tpm").exists():
        yield Finding("level", True, f"3: the TPM quotes PCRs {listed}, and validators verify it")
    else:
        yield Finding("level", False, "quote_pcrs is set, but there is no attestation key", "enrol the device again")


def _keys(home: Home) -> Iterator[Finding]:
    yield from keys(guard.load(home.guard_toml))


def _set(home: Home) -> Iterator[Finding]:
    try:
        s = home.members()
    except QsafpError as why:
        yield Finding("set", False, str(why), "restore it from where the set keys are kept")
        return
    yield Finding("set", True, f"epoch {s.epoch}, {s.m} of {s.n}, {s.suite}")
    if s.lab:
        yield Finding("LAB", None, "all validators share a host: its owner is the quorum", "for real use: hosts of different owners")


def _guard(home: Home) -> Iterator[Finding]:
    try:
        with GuardClient.connect(home.ctl) as client:
            s = client.status()
    except QsafpError as why:
        yield Finding("guard", False, str(why).partition(";")[0], home.start_guard)
        return
    open_ = s.phase in (Phase.ACTIVE, Phase.WARNING)
    helps = {Phase.FAILSAFE: home.hint("unlock"), Phase.GRACE: "start or reach the validators: the next lease resumes it"}
    remedy = "" if open_ else helps.get(Phase(s.phase), "start the validators and the agent")
    yield Finding("lease", open_, f"{s.phase_name.lower()}, {s.status_name}, {s.reason_name}, serial {s.serial}", remedy)


def _agent(home: Home) -> Iterator[Finding]:
    a = ask_agent(home, "status")
    if a is None:
        yield Finding("agent", False, f"nobody answers on {home.agent}", home.start_agent)
        return
    said = a["error"]
    yield Finding("agent", not said, said or f"pid {a['agent']}, {a['renewals']} renewals", home.remedy(said) if said else "")
    if a["isolated"]:
        yield Finding("polls", False, f"{a['polls']} of {a['n']} alive: no stop could arrive", "reach or start the validators")
    for v in a["round"]:
        if v["state"] in ("garbled", "forged") or (v["state"] == "unreachable" and not v["poll"]):
            yield Finding(f"validator {v['index']}", False, f"{v['state']}: {v['text']}", "is it running, its port reachable?")


def _validator(home: Home, path: Path) -> Finding:
    try:
        found = admin_client.health(path / "admin.sock")
    except ConfigError:
        return Finding(path.name, False, "does not run", home.hint("validators up"))
    except QsafpError as why:
        return Finding(path.name, False, str(why), "see what it says on standard error; restart it")
    good = found.get("store") == "ok"
    seen = f"epoch {found.get('epoch')}, store {found.get('store')}"
    return Finding(path.name, good, seen, "" if good else "free its disk, then restart it")


def _validators(home: Home) -> Iterator[Finding]:
    for path in home.validators():
        yield _validator(home, path)


def _host(home: Home) -> Iterator[Finding]:
    free = shutil.disk_usage(home.state).free
    yield Finding("disk", free >= DISK_MIN, f"{free >> 20} MiB free", "" if free >= DISK_MIN else "make room: a full log closes the gate")
    source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source.exists():
        name = source.read_text().strip()
        reads = "the CPU counter" if name in ("tsc", "arch_sys_counter") else "CLOCK_BOOTTIME"
        yield Finding("clock", True, f"{name}: the gate reads {reads}")


def _log(home: Home) -> Iterator[Finding]:
    config = guard.load(home.guard_toml)
    v, place = config.values, config.log
    if not place.kind:
        return
    if not Path(place.device).is_char_device():
        enable = config.board.notes.get("spi" if place.device.startswith("/dev/spi") else "i2c") or "enable the bus in the device tree"
        yield Finding("log", False, f"{place.device} is no device here", enable)
        return
    least = v["log_live_min"]
    few = least < guard.DEFAULTS["log_live_min"]
    remedy = "HW-8 asks for 1,000: a larger part, and no log_live_min in guard.toml" if few else ""
    yield Finding("log", None if few else True, f"{v['log']}: {least} records on hand at least", remedy)


def _watchdog(home: Home) -> Iterator[Finding]:
    config = guard.load(home.guard_toml)
    device = config.values["watchdog"]
    if not device and config.board.simulated:
        return
    if not device:
        yield Finding("watchdog", None, "none: a board that hangs stays as it hung", 'watchdog = "/dev/watchdog0" in guard.toml')
        return
    if not Path(device).is_char_device():
        yield Finding("watchdog", False, f"{device} is no device here", "load its driver, or correct guard.toml")
        return
    theirs = _manager_watchdog()
    yield Finding(
        "watchdog",
        not theirs,
        f"systemd has a watchdog too (RuntimeWatchdogUSec={theirs})" if theirs else f"{device}: the guard's",
        "RuntimeWatchdogSec=off in /etc/systemd/system.conf, then systemctl daemon-reexec" if theirs else "",
    )


def _manager_watchdog() -> str:
    """Systemd's own setting; empty if it is off, or there is no systemd."""
    try:
        done = subprocess.run(
            ["systemctl", "show", "--value", "--property=RuntimeWatchdogUSec"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = done.stdout.strip()
    return "" if said in ("0", "off", "infinity") else said


def _run(args: argparse.Namespace) -> int:
    return report(args, list(examine(home_of(args))))


def report(args: argparse.Namespace, findings: list[Finding]) -> int:
    """Print findings; returns the exit code, 1 if one is bad."""
    marks = {True: "ok  ", False: "BAD ", None: "note"}
    lines = [f"{marks[f.ok]}  {f.what:<12} {f.seen}" + (f"\n        -> {f.remedy}" if f.remedy else "") for f in findings]
    emit(args, [f._asdict() for f in findings], "\n".join(lines))
    return int(any(f.ok is False for f in findings))
