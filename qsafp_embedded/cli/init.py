# SPDX-License-Identifier: Apache-2.0
"""``qsafp init``: device, validators, agent and set document, laid out in one directory; all of it or nothing."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import keys, sets
from .._core import sha256
from ..errors import ConfigError, QsafpError
from ..tls import make_certificate, spki_of_key
from . import attest
from .common import Commands, Home, command, emit, folders
from .ports import free_ports
from .templates import SYSTEM, Folders, agent_toml, device_toml, guard_toml, validator_toml

__all__ = ["PROFILES", "Plan", "add", "make"]

PROFILES = {"lab": (3, 3), "home": (2, 3), "fleet": (4, 6)}
SOCKET_PATH_MAX = 107
MONTH_MS = 31 * 24 * 3600 * 1000


@dataclass(frozen=True)
class Plan:
    """What to make: directory, profile, suite, model file or None, duration of leases in ms; ``places`` instead of one directory.

    ``device_key``, ``quote_pcrs`` and ``tpm_nv`` are guard.toml's.
    """

    root: Path
    profile: str = "lab"
    suite: str = "ed25519"
    model: Path | None = None
    duration_ms: int = 60_000
    places: Folders | None = None
    device_key: str = "file"
    quote_pcrs: tuple[int, ...] = ()
    tpm_nv: str = ""

    @property
    def folders(self) -> Folders:
        """Where things go."""
        return self.places or folders(self.root)


def add(commands: Commands) -> None:
    """Add ``init``."""
    p = command(
        commands,
        "init",
        _run,
        "make a device, its validators, an agent and the set document; all of it or nothing",
        "qsafp init --profile lab --dir ~/lab          # to try it: one directory, everything in it\n"
        "qsafp init --profile fleet --model model.onnx  # /etc, /var/lib and /run for root, else ~/.config, ~/.local/state",
    )
    p.add_argument("--profile", choices=sorted(PROFILES), required=True, help="lab: 3 of 3, home: 2 of 3, fleet: 4 of 6; all on this host")
    p.add_argument("--model", type=Path, metavar="FILE", help="model that leases name by its SHA-256")
    p.add_argument("--device-key", default="file", metavar="PLACE", help='"file" (default), or a TPM: "tpm:/dev/tpmrm0"')
    p.add_argument("--quote-pcrs", type=_pcrs, default=(), metavar="N,N", help="of that TPM: leases state level 3 while these PCRs stay")
    p.add_argument("--tpm-nv", default="", metavar="INDEX", help="such as 0x01815100: bind state and log to that TPM")
    p.add_argument("--suite", choices=sorted(sets.SUITES), default="ed25519", help="signatures of validators (default: %(default)s)")
    p.add_argument("--duration-ms", type=_duration, default=60_000, metavar="MS", help="length of a lease (default: %(default)s)")


def _pcrs(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(","))


def _duration(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MONTH_MS:
        raise argparse.ArgumentTypeError(f"not in 1..{MONTH_MS}")
    return value


def _run(args: argparse.Namespace) -> int:
    f = folders(args.dir)
    plan = Plan(f.config, args.profile, args.suite, args.model, args.duration_ms, f, args.device_key, args.quote_pcrs, args.tpm_nv)
    enrolment = make(plan)
    m, n = PROFILES[plan.profile]
    home = Home(f.config, f.state, args.dir is not None)
    set_key = home.root / "set" / "set.key"
    where = " and ".join(dict.fromkeys(map(str, (f.config, f.state))))
    lines = [
        f"made {where}: device {enrolment['ueid'][:16]}…, {m} of {n} validators ({plan.suite}), LAB: all on this host",
        f"  1. start the validators:  {home.hint('validators up')}    (leave it running)",
        f"  2. start the agent:       {home.start_agent}",
        f"  3. look:                  {home.hint('status --watch')}",
        f"  4. run something:         {home.hint('run')} -- CMD",
        f"hand the auditor's key over and delete it here: {f.state / 'auditor' / 'k0'}",
    ]
    if plan.profile == "lab":
        lines.append(f"LAB set key, good for experiments only: {set_key}")
    else:
        lines.append(f"take the set key offline now, who has it can replace the validators: {set_key}")
    if plan.quote_pcrs:
        lines.append("this TPM's key is trusted on first use: for a maker's certificate enrol with qsafp attest challenge --ek-ca")
    emit(args, {"dir": str(f.config), "m": m, "n": n, "suite": plan.suite, "lab": True, **enrolment}, "\n".join(lines))
    return 0


def make(plan: Plan) -> dict[str, Any]:
    """Make it all beside the target and rename; returns the public enrolment.  Raises ConfigError, QsafpError."""
    final = plan.folders
    longest = final.run / "main" / "agent.sock"
    if len(os.fsencode(longest)) > SOCKET_PATH_MAX:
        raise ConfigError(f"{longest}: longer than the {SOCKET_PATH_MAX} bytes of a socket's path; choose a shorter --dir")
    targets = list(dict.fromkeys((final.config, final.state)))
    for target in targets:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ConfigError(f"{target}: something is there already, and init never overwrites; choose another --dir or move it away")
    parts = {t: t.with_name(f"{t.name}.tmp-{secrets.token_hex(4)}") for t in targets}
    try:
        for part in parts.values():
            part.mkdir(parents=True, mode=0o755)
        enrolment = _fill(Folders(parts[final.config], parts[final.state], parts[final.config] / "run"), plan)
        for target, part in parts.items():
            if final == SYSTEM:
                _give(part, "qsafp")
            part.rename(target)
    except OSError as why:
        raise ConfigError(f"{why.filename or final.config}: cannot make it: {why.strerror or why}") from why
    finally:
        for part in parts.values():
            shutil.rmtree(part, ignore_errors=True)  # gone already if all went well
    return enrolment


def _give(root: Path, user: str) -> None:
    """Let the units' user own what is under ``root``; raises ConfigError if there is no such user."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError as why:
        raise ConfigError(f"no user {user!r} for the units; make one (packaging/systemd/qsafp.sysusers), or give --dir") from why
    for path in (root, *root.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def _fill(f: Folders, plan: Plan) -> dict[str, Any]:
    """Fill the folders ``f``; what is written names the places where they will be."""
    m, n = PROFILES[plan.profile]
    final = plan.folders
    for where in (f.config / "set", f.config / "guard", f.config / "agent", f.state / "guard", f.state / "auditor"):
        where.mkdir(mode=0o700, exist_ok=True)
    if f.config == f.state:
        f.run.mkdir(mode=0o755)
    model = sha256(_read(plan.model)) if plan.model else bytes(32)
    named = str(plan.model.absolute()) if plan.model else None
    config = f.config / "guard" / "guard.toml"

    def written(where: Folders) -> str:
        tpm = {"device_key": plan.device_key, "quote_pcrs": plan.quote_pcrs, "tpm_nv": plan.tpm_nv}
        return guard_toml(where, model=named, duration_ms=plan.duration_ms, tpm=tpm)

    config.write_text(written(f))  # what the guard enrols with: no place is final yet
    enrolment = _enrol(f, config)
    attested, state = _attest(f, config, enrolment) if plan.quote_pcrs else ("", "")
    config.write_text(written(final))
    relay = _ed25519(f.config / "agent" / "relay.key")
    certificate = make_certificate(relay, name="qsafp agent")
    (f.config / "agent" / "relay.crt").write_bytes(certificate)
    (f.config / "agent" / "agent.toml").write_text(agent_toml(final))
    members = []
    for i, port in enumerate(free_ports(n)):
        where = f.state / f"validator-{i}"
        where.mkdir(mode=0o700)
        members.append(_validator(where, i, port, plan.suite))
        (where / "relay.crt").write_bytes(certificate)
        text = validator_toml(final, i, port=port, suite=plan.suite, relay_spki=spki_of_key(relay))
        (where / "validator.toml").write_text(
            text + device_toml(enrolment, model=model, registered=int(time.time()), attested=attested) + state
        )
    set_key = _ed25519(f.config / "set" / "set.key")
    s = sets.ValidatorSet(secrets.token_bytes(16), 1, m, tuple(members), plan.suite, lab=True, set_keys=(set_key.public,))
    document = sets.encode(s, [set_key])
    sets.load(document)
    (f.config / "set" / "set-1.cbor").write_bytes(document)
    return enrolment


def _read(model: Path) -> bytes:
    try:
        return model.read_bytes()
    except OSError as why:
        raise ConfigError(f"--model {model}: {why.strerror}") from why


def _ed25519(path: Path) -> keys.Ed25519Key:
    key = keys.generate(path)
    assert isinstance(key, keys.Ed25519Key)
    return key


def _guard(f: Folders, config: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "qsafp_embedded.guard", "--config", str(config), *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise QsafpError(f"guard {words[0]}: {said[-1] if said else f'exit code {done.returncode}'}".replace(str(f.config), "…"))
    return dict(json.loads(done.stdout))


def _enrol(f: Folders, config: Path) -> dict[str, Any]:
    """Let the guard make its own keys: nobody else ever sees them."""
    return _guard(f, config, "--init", "--k0", str(f.state / "auditor" / "k0"))


def _attest(f: Folders, config: Path, enrolment: dict[str, Any]) -> tuple[str, str]:
    """Have the TPM prove that the attestation key is its own; what validators are told of it."""
    asked, ticket = attest.challenge(enrolment)
    file = f.state / "guard" / "challenge.json"
    file.write_text(json.dumps(asked))
    answer = _guard(f, config, "--activate", str(file))
    file.unlink()
    return attest.admit(ticket, answer)


def _validator(where: Path, index: int, port: int, suite: str) -> sets.Validator:
    """Make a validator's keys and return what the set says of it."""
    ed = ml = None
    if suite != "ml-dsa-65":
        ed = keys.generate(where / "signing.key").public
    if suite != "ed25519":
        ml = keys.generate(where / "mldsa.key", kind="ml-dsa-65").public
    tls = _ed25519(where / "tls.key")
    (where / "tls.crt").write_bytes(make_certificate(tls, name=f"qsafp validator {index}"))
    return sets.Validator(index, (f"https://127.0.0.1:{port}",), (spki_of_key(tls),), ed, ml)
