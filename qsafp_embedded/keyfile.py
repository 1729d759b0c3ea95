# SPDX-License-Identifier: Apache-2.0
"""Secret files (HW-11): ``qsafp-key-1 <kind>``, then the secret in hex.  Anyone but the owner being able to read one is an error."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .errors import ConfigError

__all__ = ["read_secret", "write_secret"]

MAGIC = "qsafp-key-1"
SECRET_BYTES = 32


def write_secret(path: Path, kind: str, secret: bytes) -> None:
    """Write a secret to a new file of mode 0600, durably; raises ConfigError if the file exists or cannot be made."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as why:
        raise ConfigError(f"{path}: cannot make a key file: {why.strerror}") from why
    with os.fdopen(fd, "w", encoding="ascii") as file:
        os.fchmod(fd, 0o600)
        file.write(f"{MAGIC} {kind}\n{secret.hex()}\n")
        file.flush()
        os.fsync(fd)


def read_secret(path: Path, kind: str) -> bytes:
    """Read a 32-byte secret of this kind; raises ConfigError if it is missing, malformed, or readable by others."""
    try:
        with path.open(encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(4096)
    except FileNotFoundError as why:
        raise ConfigError(f"{path}: no such key file") from why
    except (OSError, ValueError) as why:
        raise ConfigError(f"{path}: cannot read the key file: {why}") from why
    if mode & 0o077:
        raise ConfigError(f"{path}: mode {mode:04o} lets others at the key; run: chmod 600 {path}")
    head, _, body = text.partition("\n")
    if head.split() != [MAGIC, kind]:
        raise ConfigError(f"{path}: first line is not '{MAGIC} {kind}'")
    try:
        secret = bytes.fromhex(body.strip())
    except ValueError as why:
        raise ConfigError(f"{path}: the second line is not hex") from why
    if len(secret) != SECRET_BYTES:
        raise ConfigError(f"{path}: {len(secret)} bytes of key where {SECRET_BYTES} belong")
    return secret
