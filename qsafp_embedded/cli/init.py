# SPDX-License-Identifier: Apache-2.0
"""``qsafp init``: device, validators, agent and set document, laid out in one directory; all of it or nothing."""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .. import keys, sets
from .._core import sha256
from ..errors import ConfigError, QsafpError
from ..validator.tls import make_certificate, spki_of_key
from .common import Commands, command, emit

__all__ = ["PROFILES", "Plan", "add", "make"]

PROFILES = {"lab": (3, 3), "home": (2, 3), "fleet": (4, 6)}
YEAR_MS = 365 * 24 * 3600 * 1000
SPDX = "# SPDX-License-Identifier: Apache-2.0\n"


@dataclass(frozen=True)
class Plan:
    """What to make: directory, profile, suite, model file or None, duration of leases in ms."""

    root: Path
    profile: str = "lab"
    suite: str = "ed25519"
    model: Path | None = None
    duration_ms: int = 60_000


def add(commands: Commands) -> None:
    """Add ``init``."""
    p = command(commands, "init", _run, "make a device, its validators, an agent and the set document in one directory")
    p.add_argument("--profile", choices=sorted(PROFILES), required=True, help="lab: 3 of 3, home: 2 of 3, fleet: 4 of 6; all on this host")
    p.add_argument("--model", type=Path, metavar="FILE", help="model that leases name by its SHA-256")
    p.add_argument("--suite", choices=sorted(sets.SUITES), default="ed25519", help="signatures of validators (default: %(default)s)")
    p.add_argument("--duration-ms", type=int, default=60_000, metavar="MS", help="length of a lease (default: %(default)s)")


def _run(args: argparse.Namespace) -> int:
    plan = Plan(Path(args.dir).absolute(), args.profile, args.suite, args.model, args.duration_ms)
    enrolment = make(plan)
    m, n = PROFILES[plan.profile]
    d = args.dir
    lines = [
        f"made {d}: device {enrolment['ueid'][:16]}…, {m} of {n} validators ({plan.suite}), LAB: all on this host",
        f"  start validators: qsafp validators up --dir {d}",
        f"  start the agent:  python -m qsafp_embedded.agent --config {d}/agent/agent.toml",
        f"  look:             qsafp status --dir {d}",
        f"  auditor's key, hand it over and delete it here: {d}/auditor/k0",
    ]
    if plan.profile != "lab":
        lines.append(f"  set key, take it offline now: {d}/set/set.key")
    emit(args, {"dir": str(plan.root), "m": m, "n": n, "suite": plan.suite, "lab": True, **enrolment}, "\n".join(lines))
    return 0


def make(plan: Plan) -> dict[str, str]:
    """Make it all beside the target and rename; returns the public enrolment.  Raises ConfigError, QsafpError."""
    if plan.root.exists() and (not plan.root.is_dir() or any(plan.root.iterdir())):
        raise ConfigError(f"{plan.root}: something is there already, and init never overwrites; choose another --dir or move it away")
    part = plan.root.with_name(f"{plan.root.name}.tmp-{secrets.token_hex(4)}")
    try:
        part.mkdir(parents=True, mode=0o755)
    except OSError as why:
        raise ConfigError(f"{part.parent}: cannot make a directory here: {why.strerror}") from why
    try:
        enrolment = _fill(part, plan)
        part.rename(plan.root)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # gone already if all went well
    return enrolment


def _fill(part: Path, plan: Plan) -> dict[str, str]:
    m, n = PROFILES[plan.profile]
    for name in ("guard", "agent", "set", "auditor", *(f"validator-{i}" for i in range(n))):
        (part / name).mkdir(mode=0o700)
    (part / "run").mkdir(mode=0o755)
    model = sha256(_read(plan.model)) if plan.model else bytes(32)
    (part / "guard" / "guard.toml").write_text(_guard_toml(plan))
    enrolment = _enrol(part)
    relay = _ed25519(part / "agent" / "relay.key")
    certificate = make_certificate(relay, name="qsafp agent")
    (part / "agent" / "relay.crt").write_bytes(certificate)
    (part / "agent" / "agent.toml").write_text(AGENT)
    members = []
    for i, port in enumerate(_free_ports(n)):
        where = part / f"validator-{i}"
        members.append(_validator(where, i, port, plan.suite))
        (where / "relay.crt").write_bytes(certificate)
        (where / "validator.toml").write_text(_validator_toml(i, port, plan, spki_of_key(relay)) + _device(enrolment, model))
    set_key = _ed25519(part / "set" / "set.key")
    s = sets.ValidatorSet(secrets.token_bytes(16), 1, m, tuple(members), plan.suite, lab=True, set_keys=(set_key.public,))
    document = sets.encode(s, [set_key])
    sets.load(document)
    (part / "set" / "set-1.cbor").write_bytes(document)
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


def _enrol(part: Path) -> dict[str, str]:
    """Let the guard make its own keys: nobody else ever sees them."""
    config = part / "guard" / "guard.toml"
    words = [sys.executable, "-m", "qsafp_embedded.guard", "--init", "--config", str(config), "--k0", str(part / "auditor" / "k0")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise QsafpError(f"guard --init: {said[-1] if said else f'exit code {done.returncode}'}".replace(str(part), "…"))
    return {k: str(v) for k, v in json.loads((part / "guard" / "enrolment.json").read_text()).items()}


def _free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody uses now; all are held until all are known."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(s.getsockname()[1]) for s in held]
    for s in held:
        s.close()
    return ports


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


def _text(value: str) -> str:
    """A TOML string: JSON's escapes are TOML's."""
    return json.dumps(value, ensure_ascii=False)


def _guard_toml(plan: Plan) -> str:
    model = f"model = {_text(str(plan.model.absolute()))}" if plan.model else f'model_hash = "{bytes(32).hex()}" # no model is named'
    share = max(1, plan.duration_ms // 6)
    return f"""{SPDX}# The guard's configuration; every key: docs/operations.md.  Paths are relative to this file.
lease = "main"
run_dir = "../run/main"
state_dir = "state"
set = "../set/set-1.cbor"
{model}
duration_ms = {plan.duration_ms}
warning_ms = {min(10_000, share)}
grace_ms = {min(5_000, share)}
initial_ms = {YEAR_MS}
extension_ms = 0
board = "simulated"
"""


AGENT = f"""{SPDX}# The agent's configuration; every key: docs/operations.md.  Paths are relative to this file.
guard_socket = "../run/main/ctl.sock"
control_socket = "../run/main/agent.sock"
guard_config = "../guard/guard.toml" # started from here when none runs
stop_guard = true # stopping the agent stops a guard that it started, and so the lease; a guard with a unit of its own stays
set = "../set/set-1.cbor"
relay_key = "relay.key"
relay_cert = "relay.crt"
evidence_dir = "evidence"
renew_fraction = 0.5
backoff_max_s = 15
poll = true
"""


def _validator_toml(index: int, port: int, plan: Plan, relay_spki: bytes) -> str:
    ed = "mldsa.key" if plan.suite == "ml-dsa-65" else "signing.key"
    ml = "" if plan.suite == "ed25519" else 'mldsa_key = "mldsa.key"\n'
    return f"""{SPDX}# Validator {index}; every key: docs/operations.md.  Paths are relative to this file.  SIGHUP reloads.
index = {index}
listen = "127.0.0.1:{port}"
set = "../set/set-1.cbor"
signing_key = "{ed}"
{ml}tls_key = "tls.key"
tls_cert = "tls.crt"
db = "state.db"
admin_socket = "admin.sock"

[[relay]]
name = "agent"
spki = "{relay_spki.hex()}"
cert = "relay.crt"
"""


def _device(enrolment: dict[str, str], model: bytes) -> str:
    return f"""
[[device]]
ueid = "{enrolment["ueid"]}"
key = "{enrolment["key"]}"
log_id = "{enrolment["log_id"]}"
models = ["{model.hex()}"]
registered = {int(time.time())}
"""
