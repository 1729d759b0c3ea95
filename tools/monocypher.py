# SPDX-License-Identifier: Apache-2.0
"""Fetch the source of Monocypher, whose curve arithmetic the firmware's Ed25519 uses, and print the folder that holds it.

It is the sdist of PyPI's ``pymonocypher``, pinned by its hash and kept in ``~/.cache/qsafp``; nothing of it is in this repository.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "4.0.3.4"
SHA256 = "5e56e3d3eb770a53e0b9f6274146663c11a11f3d0de5cd48e3be0428d1b07a4a"
FILES = {
    "monocypher.c": "57eb914fc88136119bd41655cccb8c250048bf54d470540625186f8ab16f64be",
    "monocypher.h": "c494da712122da7ff679fdcf318a5317e84972b6c950fe9d896212947797facd",
}
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qsafp"
TIMEOUT_S = 300


class FetchError(Exception):
    """The source cannot be had; the message says why."""


def _download(into: Path) -> Path:
    """The sdist, whose hash pip has checked before it ran anything of it."""
    wanted = into / "wanted.txt"
    wanted.write_text(f"pymonocypher=={VERSION} --hash=sha256:{SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:"]
    argv = [*pip, "--no-build-isolation", "--require-hashes", "-r", str(wanted), "-d", str(into)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as late:
        raise FetchError(f"pymonocypher {VERSION}: no end within {TIMEOUT_S} s") from late
    if done.returncode:
        raise FetchError(f"pymonocypher {VERSION} cannot be downloaded:\n{done.stderr.strip()}")
    return into / f"pymonocypher-{VERSION}.tar.gz"


def _checked(kept: Path) -> Path:
    for file, digest in FILES.items():
        if hashlib.sha256((kept / file).read_bytes()).hexdigest() != digest:
            raise FetchError(f"{kept / file} is not what was published; remove its folder")
    return kept


def fetch() -> Path:
    """Return the folder with monocypher.c and monocypher.h, fetched if it is not in the cache; raises FetchError."""
    kept = CACHE / f"monocypher-{VERSION}"
    if kept.is_dir():
        return _checked(kept)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        new = Path(name) / "new"
        new.mkdir()
        with tarfile.open(_download(Path(name))) as sdist:
            for file in FILES:
                member = sdist.extractfile(f"pymonocypher-{VERSION}/{file}")
                if member is None:
                    raise FetchError(f"pymonocypher {VERSION} holds no {file}")
                (new / file).write_bytes(member.read())
        try:
            new.rename(kept)  # whole or not at all
        except OSError:
            if not kept.is_dir():  # another one was faster
                raise
    return _checked(kept)


if __name__ == "__main__":
    try:
        print(fetch())
    except FetchError as no:
        sys.exit(f"FAIL {no}")
