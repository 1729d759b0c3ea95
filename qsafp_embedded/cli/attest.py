# SPDX-License-Identifier: Apache-2.0
"""``qsafp attest``: the enroller's two steps that bind a device's attestation key to its TPM (MakeCredential; ActivateCredential there)."""

from __future__ import annotations

import argparse
import hmac
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .common import Commands, command, emit, group, write_new
from .templates import attested_toml, pcrs_toml

__all__ = ["add", "admit", "challenge"]

TRUST = {
    "certificate": "its endorsement key is certified by the TPM's maker",
    "first-use": "its endorsement key is TRUSTED ON FIRST USE: no maker's certificate was checked, any software TPM could be behind it",
}


CHALLENGE = "qsafp attest challenge enrolment.json --ticket t.json --out challenge.json"
ANSWER = "python -m qsafp_embedded.guard --config guard.toml --activate challenge.json > answer.json  # on the device"
ADMIT = "qsafp attest admit answer.json --ticket t.json"


def add(commands: Commands) -> None:
    """Add ``attest challenge|admit``."""
    acts = group(
        commands,
        "attest",
        "register a device's TPM: it proves that its attestation key is its own",
        f"{CHALLENGE}\n{ANSWER}\n{ADMIT}",
    )
    p = command(acts, "challenge", _challenge, "make a secret that the device's TPM alone opens, for its attestation key alone", CHALLENGE)
    p.add_argument("enrolment", type=Path, help="what guard --init printed where quote_pcrs is set")
    p.add_argument("--ticket", type=Path, required=True, metavar="FILE", help="new file for what `admit` needs; it holds the secret")
    p.add_argument("--out", type=Path, required=True, metavar="FILE", help="new file for the challenge, which goes to the device")
    p.add_argument(
        "--ek-ca",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="certificates of TPM makers, PEM or DER: one of them must have signed the endorsement key's (default: trust on first use)",
    )
    p = command(acts, "admit", _admit, "check the device's answer and print what to add to each validator.toml", ADMIT)
    p.add_argument("answer", type=Path, help="what guard --activate printed")
    p.add_argument("--ticket", type=Path, required=True, metavar="FILE", help="the file that `challenge` made")
    p.add_argument("--name", default="", help="name of the PCR state (default: the first digits of the device id)")


def _hex(found: dict[str, Any], key: str) -> bytes:
    return bytes.fromhex(found[key])


def challenge(enrolment: dict[str, Any], authorities: Sequence[bytes] = ()) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the challenge for the device, and the ticket that the enroller keeps; raises ConfigError."""
    from .. import credential

    try:
        told, ueid = enrolment["attestation"], str(enrolment["ueid"])
        ak, ek, certificate = _hex(told, "ak"), _hex(told, "ek"), _hex(told, "ek_certificate")
    except (KeyError, TypeError, ValueError) as why:
        raise ConfigError("the enrolment names no attestation key: set quote_pcrs in guard.toml, then enrol") from why
    trust = credential.ek_trust(ek, certificate, authorities)
    secret = secrets.token_bytes(32)
    hidden, seed = credential.make(ek, ak, secret)
    ticket = {"ueid": ueid, "ak": ak.hex(), "ek": trust, "pcrs": told["pcrs"], "secret": secret.hex()}
    return {"ueid": ueid, "challenge": (hidden + seed).hex()}, ticket


def admit(ticket: dict[str, Any], answer: dict[str, Any], name: str = "") -> tuple[str, str]:
    """Return the lines for the device's [[device]] and the [[pcrs]] table of its state now; raises ConfigError if the answer is wrong."""
    try:
        good = hmac.compare_digest(_hex(ticket, "secret"), _hex(answer, "secret")) and answer["ueid"] == ticket["ueid"]
        ak, trust, values = str(ticket["ak"]), str(ticket["ek"]), {int(n): str(v) for n, v in ticket["pcrs"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as why:
        raise ConfigError("the ticket or the answer is damaged") from why
    if not good:
        raise ConfigError("the answer is wrong: the attestation key is not in the TPM of that endorsement key")
    name = name or str(ticket["ueid"])[2:10]
    return attested_toml(ak, trust, name), pcrs_toml(name, 1, values)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as why:
        raise ConfigError(f"{path}: {getattr(why, 'strerror', None) or 'not JSON'}") from why
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: not a JSON object")
    return found


def _challenge(args: argparse.Namespace) -> int:
    asked, ticket = challenge(_read(args.enrolment), [path.read_bytes() for path in args.ek_ca])
    write_new(args.ticket, json.dumps(ticket).encode(), mode=0o600)
    write_new(args.out, json.dumps(asked).encode())
    emit(args, {"ek": ticket["ek"], **asked}, f"{args.out}: for the device; {TRUST[ticket['ek']]}")
    return 0


def _admit(args: argparse.Namespace) -> int:
    lines, state = admit(_read(args.ticket), _read(args.answer), args.name)
    emit(args, {"device": lines, "pcrs": state}, f"# add to its [[device]]:\n{lines}{state}")
    return 0
