# SPDX-License-Identifier: Apache-2.0
"""The configuration files that ``qsafp init`` writes: every option stands in them, with its default and what it does."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SYSTEM", "Folders", "agent_toml", "attested_toml", "device_toml", "guard_toml", "pcrs_toml", "validator_toml"]

SPDX = "# SPDX-License-Identifier: Apache-2.0\n"
YEAR_MS = 365 * 24 * 3600 * 1000


@dataclass(frozen=True)
class Folders:
    """Where things go: what people write, what programs keep, sockets.  ``--dir`` puts them all under one folder."""

    config: Path
    state: Path
    run: Path

    def path(self, to: Path, part: str) -> str:
        """A TOML string: ``to`` as seen from the configuration of a part, relative if both are under one folder."""
        here = (self.state if part.startswith("validator") else self.config) / part
        shared = self.config == self.state and to.is_relative_to(self.config)
        return _text(os.path.relpath(to, here) if shared else str(to))


SYSTEM = Folders(Path("/etc/qsafp"), Path("/var/lib/qsafp"), Path("/run/qsafp"))


def _text(value: str) -> str:
    """A TOML string: JSON's escapes are TOML's."""
    return json.dumps(value, ensure_ascii=False)


def guard_toml(f: Folders, *, model: str | None, duration_ms: int, tpm: Mapping[str, Any]) -> str:
    """The guard's file; ``model`` is the path of a model file, ``tpm`` has device_key, quote_pcrs and tpm_nv."""
    share = max(1, duration_ms // 6)
    none = "" if model else "  # no model is named"
    return f"""{SPDX}# The guard's configuration.  Paths are relative to this file.  A change takes effect when the guard starts again.

lease = "main"  # name of the lease: one guard, one log, one device id
run_dir = {f.path(f.run / "main", "guard")}  # sockets and, on the simulated board, pins
state_dir = {f.path(f.state / "guard" / "state", "guard")}  # keys, log and evidence; nobody else may read it
set = {f.path(f.config / "set" / "set-1.cbor", "guard")}  # the validator set that this guard trusts

# The model that leases name: a file, or its SHA-256 in hex.
{"" if model else "# "}model = {_text(model or "model.onnx")}
{"# " if model else ""}model_hash = "{bytes(32).hex()}"{none}

duration_ms = {duration_ms}  # length of a lease; validators may allow less
warning_ms = {min(10_000, share)}  # the last part of a lease, gate still open
grace_ms = {min(5_000, share)}  # after the end: gate closed, workload held, a renewal resumes it; then fail-safe
initial_ms = {YEAR_MS}  # validators ask for a new registration after initial_ms + extension_ms; 0 and 0 for never
extension_ms = 0

stale_after_ms = 1000  # a guard that died or hangs closes the gate within this
tick_ms = 100  # how often the deadline moves; at most half of stale_after_ms
drain_ms = 200  # what a workload gets to finish its batch before it is frozen
linger_ms = 60000  # how long the pins are held at their safe levels after the guard's death
evidence_mb = 64  # room for leases and refusals kept as evidence
on_log_full = "close"  # or "degrade(n)": stay open while at most n records wait for the disk or were lost, each counted
device_key = {_text(tpm["device_key"])}  # or "tpm:/dev/tpmrm0": made in that TPM when the device is enrolled, never out of it
quote_pcrs = {list(tpm["quote_pcrs"])}  # PCRs of that TPM, such as [0, 2, 4, 7]: every request has a quote; leases state level 3
tpm_nv = {_text(tpm["tpm_nv"])}  # such as "0x01815100": three NV indices of that TPM from there on bind state and log to it
anchor_s = 600  # then: how often the log's head goes into the TPM, which wears; 60 at least
log = "file"  # or "spi:/dev/spidev0.0" (NOR flash), or "i2c:/dev/i2c-1@0x50,32768" (EEPROM of so many bytes)
log_live_min = 1000  # a log that holds fewer records refuses the start
board = "simulated"  # "simulated" drives no real line and says so everywhere; qsafp board list knows others
watchdog = ""  # such as "/dev/watchdog0": fed while the deadline is kept; the board is reset when it is not
watchdog_s = 15  # its timeout
uart = ""  # a serial device that takes commands as ctl.sock does: this guard is another board's coprocessor
uart_baud = 115200  # its speed, one of 9600 to 921600
level = 1  # isolation level that leases state, 0 to 2 on the guard's word; 3 with quote_pcrs
agent_uid = -1  # user id that may command this guard beside root; -1 is the user the guard runs as
"""


def agent_toml(f: Folders) -> str:
    """The agent's file; on the system's places the guard is a unit of its own."""
    guard = '""' if f == SYSTEM else f.path(f.config / "guard" / "guard.toml", "agent")
    return f"""{SPDX}# The agent's configuration.  Paths are relative to this file.  A change takes effect when the agent starts again.

guard_socket = {f.path(f.run / "main" / "ctl.sock", "agent")}  # the guard's command socket, or a coprocessor's serial or SPI device
guard_baud = 115200  # the speed of a serial device
guard_spi_hz = 10000000  # the clock of an SPI device
control_socket = {f.path(f.run / "main" / "agent.sock", "agent")}  # where qsafp status and others reach this agent
guard_config = {guard}  # a guard is started with this when none runs; "" never starts one
stop_guard = true  # stopping the agent stops a guard that it started, and so the lease; a guard with a unit of its own stays

set = {f.path(f.config / "set" / "set-1.cbor", "agent")}  # whom to ask, and their TLS keys
relay_key = "relay.key"  # this agent's TLS key; validators list its SPKI
relay_cert = "relay.crt"
evidence_dir = {f.path(f.state / "agent" / "evidence", "agent")}  # the newest lease, for validators that are behind

renew_fraction = 0.5  # renew when this part of the lease is over, 0.05 to 0.95
backoff_max_s = 15.0  # longest pause after failures, 0.1 to 15
timeout_s = 10.0  # longest wait for one answer, 0.1 to 600
poll = true  # keep a long poll at every validator, so that a revocation arrives between renewals
"""


def validator_toml(f: Folders, index: int, *, port: int, suite: str, relay_spki: bytes) -> str:
    """A validator's file, but for its devices."""
    post_quantum = suite != "ed25519"
    signing = "mldsa.key" if suite == "ml-dsa-65" else "signing.key"
    return f"""{SPDX}# Validator {index}.  Paths are relative to this file.  SIGHUP takes up a changed policy, device, relay or set.

index = {index}  # which member of the set this is
listen = "127.0.0.1:{port}"  # address for agents
set = {f.path(f.config / "set" / "set-1.cbor", f"validator-{index}")}
signing_key = "{signing}"
{"" if post_quantum else "# "}mldsa_key = "mldsa.key"  # suites ml-dsa-65 and hybrid
tls_key = "tls.key"  # the set pins it
tls_cert = "tls.crt"
db = "state.db"  # what was decided; lose it and devices must show their log from the last lease on
admin_socket = "admin.sock"  # who may open it may revoke, allow and release

[policy]
max_duration_ms = 86400000  # the longest lease
min_interval_ms = 0  # ask again no sooner than this; an early request is delayed, never denied
max_period_ms = 0  # the longest initial period and extension of a device, 0 for any
human_retry_ms = 2000  # how soon an agent asks again while a person decides
start = "first"  # without state, follow a log from serial 1 or a lease of our peers on; "any": from wherever it stands
suites = ["ed25519", "hybrid", "ml-dsa-65"]  # a set of another suite is refused
min_level = 0  # the least level that a lease may state; 3 grants none without a TPM's quote

[policy.release]  # who releases a fail-safe of this reason: "auto", or "human": qsafp unlock
LEASE_EXPIRED = "auto"
NETWORK_TIMEOUT = "auto"
BUS = "auto"
LOG_FULL = "auto"
VALIDATOR_DENIED = "human"  # these five always need a person
ANOMALY = "human"
INVALID_SIGNATURES = "human"
MANUAL = "human"
TAMPER = "human"

[[relay]]  # an agent that may connect
name = "agent"
spki = "{relay_spki.hex()}"  # SHA-256 of its TLS key's SubjectPublicKeyInfo
cert = "relay.crt"
"""


def attested_toml(ak: str, trust: str, name: str) -> str:
    """What a validator's file says of a device that attests, after ``qsafp attest``."""
    return f"""ak = "{ak}"  # its attestation key: every request needs a quote by it, and leases state level 3
ek = "{trust}"  # why its TPM is taken for one: "certificate" of its maker, or trusted on "first-use"
pcrs = {_text(name)}  # the [[pcrs]] that it may show
"""


def pcrs_toml(name: str, version: int, values: Mapping[int, str]) -> str:
    """A PCR state that a validator allows; ``values`` in hex by PCR."""
    listed = ", ".join(f'{n} = "{value}"' for n, value in sorted(values.items()))
    return f"""
[[pcrs]]  # an allowed state; before an update add the next version, afterwards take this one away
name = {_text(name)}
version = {version}
values = {{ {listed} }}  # of the SHA-256 bank
"""


def device_toml(enrolment: dict[str, Any], *, model: bytes, registered: int, attested: str = "") -> str:
    """What a validator's file says of a device; ``registered`` in Unix s, ``attested`` the lines of ``attested_toml``."""
    none = "".join(f"# {line}\n" for line in attested_toml("…", "first-use", "pi").splitlines())
    return f"""
[[device]]  # a device that may get leases
ueid = "{enrolment["ueid"]}"
key = "{enrolment["key"]}"  # its public key
key_type = "{enrolment["key_type"]}"  # ed25519, or esp256: in a TPM
log_id = "{enrolment["log_id"]}"  # the log it was enrolled with
models = ["{model.hex()}"]  # SHA-256 of the models it may run; ["*"] is any
registered = {registered}  # Unix time, s
{attested or none}"""
