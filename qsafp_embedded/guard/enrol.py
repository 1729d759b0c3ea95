# SPDX-License-Identifier: Apache-2.0
"""Enrolment and keys: what ``guard --init`` makes, and what a start reads (HW-11).  Imports no crypto library but PyNaCl's."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._core import guard_create, tpm_activate, tpm_attest, tpm_create, tpm_seal
from ..errors import ConfigError
from ..keyfile import read_secret, write_secret
from .config import GuardConfig

__all__ = ["activate", "enrol", "options"]


def _sodium_path() -> str:
    """The shared object that holds libsodium, found without loading the Python package around it; raises ConfigError."""
    spec = importlib.util.find_spec("nacl")
    found = sorted(Path(spec.submodule_search_locations[0]).glob("_sodium*.so")) if spec and spec.submodule_search_locations else []
    if not found:
        raise ConfigError("pynacl is not installed; run: pip install pynacl")
    return str(found[0])


def _secret_key(seed: bytes) -> bytes:
    """Seed and public key, as libsodium keeps an Ed25519 secret key."""
    from nacl.bindings import crypto_sign_seed_keypair

    pair: tuple[bytes, bytes] = crypto_sign_seed_keypair(seed)
    return pair[1]


KEYS = {(True, False): "in a TPM", (True, True): "in a TPM", (False, True): "sealed by a TPM", (False, False): "in a file"}


def _keys(config: GuardConfig, key: bytes) -> dict[str, bytes]:
    if config.tpm and not config.sealed:
        return {"secret_key": bytes(64), "device_pk": key}
    seed = bytes(32) if config.sealed else read_secret(config.state_dir / "device.key", "device")
    return {"secret_key": seed + key, "device_pk": bytes(64)}


def _common(config: GuardConfig) -> dict[str, Any]:
    state = config.state_dir
    try:
        ueid = bytes.fromhex((state / "ueid").read_text().strip())
        key = bytes.fromhex((state / "device.pub").read_text().strip())
    except (OSError, ValueError) as why:
        raise ConfigError(f"{state}: not enrolled; run: python -m qsafp_embedded.guard --init --config ...") from why
    place = KEYS[len(key) == 64, (state / "device.sealed").exists()]
    if place != KEYS[bool(config.tpm) and not config.sealed, config.sealed]:
        raise ConfigError(f"{state}: enrolled with the device key {place}; device_key in guard.toml says otherwise")
    return {
        **config.options(),
        "ueid": ueid,
        **_keys(config, key),
        "nonce_key": read_secret(state / "nonce.key", "nonce"),
        "seal_key": bytes(32),
        "sodium": _sodium_path(),
        "set": b"",
    }


def options(config: GuardConfig) -> dict[str, Any]:
    """Everything the C guard needs to run; raises ConfigError that names what is missing."""
    if config.set_path is None:
        raise ConfigError("guard.toml: 'set' is missing: the path of the validator set document")
    try:
        document = config.set_path.read_bytes()
    except OSError as why:
        raise ConfigError(f"set document {config.set_path}: {why.strerror}") from why
    config.run_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
    for folder in (config.run_dir, config.state_dir):
        _ours_alone(folder)
    return {**_common(config), "set": document}


def _ours_alone(folder: Path) -> None:
    """Refuse a folder in which others may put a socket or a file in the place of ours; raises ConfigError."""
    if not folder.exists():
        return  # its files are named as missing later
    found = folder.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        owner, mode = found.st_uid, stat.S_IMODE(found.st_mode)
        raise ConfigError(
            f"{folder}: others may write there (uid {owner}, mode {mode:04o}); give it to the guard's user and run: chmod go-w {folder}"
        )


def _device_key(state: Path, config: GuardConfig, nonce_key: bytes) -> tuple[str, bytes]:
    """Make the device key: in a file, sealed by a TPM, or in a TPM whose blobs are kept; returns its type and raw public key."""
    if config.tpm and not config.sealed:
        public, blobs = tpm_create(config.tpm)
        _keep(state / "device.tpm", blobs)
        return "esp256", public
    seed = secrets.token_bytes(32)
    if config.sealed:
        _keep(state / "device.sealed", tpm_seal(config.tpm, seed, nonce_key))
    else:
        write_secret(state / "device.key", "device", seed)
    return "ed25519", _secret_key(seed)[32:]


def _keep(path: Path, blobs: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(blobs)
        file.flush()
        os.fsync(file.fileno())


def _attestation(state: Path, config: GuardConfig) -> dict[str, Any]:
    """Make the attestation key, and say what an enroller must know of it and what the PCRs hold now; nothing without quote_pcrs."""
    if not config.quote_pcrs:
        return {}
    ak, ek, certificate, blobs, values = tpm_attest(config.tpm, config.quote_pcrs)
    _keep(state / "attest.tpm", blobs)
    pcrs = {str(n): value.hex() for n, value in values.items()}
    return {"attestation": {"ak": ak.hex(), "ek": ek.hex(), "ek_certificate": certificate.hex(), "pcrs": pcrs}}


def activate(config: GuardConfig, challenge: bytes) -> dict[str, str]:
    """Answer an enroller's challenge (``qsafp attest challenge``): only this TPM can, and only for this attestation key.

    Raises: ConfigError if there is no such key here or the challenge is another device's, QsafpError if the TPM does not open it.
    """
    try:
        said = json.loads(challenge)
        ueid, blob = str(said["ueid"]), bytes.fromhex(said["challenge"])
    except (ValueError, KeyError, TypeError) as why:
        raise ConfigError("--activate: no challenge; have the enroller make one: qsafp attest challenge") from why
    try:
        ours, key = (config.state_dir / "ueid").read_text().strip(), (config.state_dir / "attest.tpm").read_bytes()
    except OSError as why:
        raise ConfigError(f"{config.state_dir}: enrolled without quote_pcrs: there is no attestation key") from why
    if ueid != ours:
        raise ConfigError(f"--activate: the challenge is for device {ueid[:16]}…, this is {ours[:16]}…")
    return {"ueid": ours, "secret": tpm_activate(config.tpm, key, blob).hex()}


def enrol(config: GuardConfig, *, k0: Path, erase_log: bool = False) -> dict[str, Any]:
    """Make ueid, keys, K_0 and record 0; returns the public enrolment, also written beside the state directory.

    Args: k0: where the first seal key goes, 0600: hand it to the auditor; the guard keeps only what evolves from it.
    erase_log: what a flash or EEPROM holds goes; without, one that is not blank is refused.
    Raises: ConfigError if this device is enrolled already, QsafpError if the log cannot be made.
    """
    if config.state_dir.exists():
        raise ConfigError(f"{config.state_dir}: enrolled already; a second lease name is a second device: give it its own state_dir")
    state = config.state_dir.with_name(config.state_dir.name + ".part")
    shutil.rmtree(state, ignore_errors=True)  # an enrolment that was cut
    state.mkdir(parents=True, mode=0o700)
    seal = secrets.token_bytes(32)
    nonce_key = secrets.token_bytes(32)
    kind, key = _device_key(state, config, nonce_key)
    attested = _attestation(state, config)
    ueid = b"\x01" + secrets.token_bytes(32)
    write_secret(state / "nonce.key", "nonce", nonce_key)
    (state / "device.pub").write_text(key.hex() + "\n")
    (state / "ueid").write_text(ueid.hex() + "\n")
    log_id = guard_create({**_common(replace(config, state_dir=state)), "seal_key": seal, "log_erase": int(erase_log)})
    names = {"lease": config.values["lease"], "ueid": ueid.hex()}
    public = {**names, "key": key.hex(), "key_type": kind, "log_id": log_id.hex(), **attested}
    write_secret(k0, "seal", seal)
    state.rename(config.state_dir)
    _write(state.parent / "enrolment.json", json.dumps(public, indent=1) + "\n")
    return public


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
