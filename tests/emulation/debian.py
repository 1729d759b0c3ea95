# SPDX-License-Identifier: Apache-2.0
"""Debian packages of a foreign processor, through a private apt: own lists, own status, the machine's sources; nothing is installed here.

Everything that was fetched stays in ``~/.cache/qsafp/apt/<arch>``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

__all__ = ["CACHE", "ImageError", "Packages", "alone", "run", "unpack"]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qsafp"
TIMEOUT_S = 900

os.environ["PATH"] += ":/usr/sbin:/sbin"  # mke2fs and depmod; Debian leaves these out for users


class ImageError(Exception):
    """An image cannot be made; the message says why and what helps."""


@contextlib.contextmanager
def alone(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock file, as one process at a time.  Raises BlockingIOError if another has it and we do not wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def run(words: Iterable[object], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a program and return what it printed; raises ImageError with its last lines."""
    argv = [str(w) for w in words]
    try:
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
    except FileNotFoundError as why:
        raise ImageError(f"{argv[0]} is not installed; run tools/bootstrap.sh boards") from why
    except subprocess.TimeoutExpired as why:
        raise ImageError(f"{' '.join(argv[:4])} …: no end within {TIMEOUT_S} s") from why
    if done.returncode:
        said = "\n  ".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise ImageError(f"{' '.join(argv[:4])} …: exit {done.returncode}\n  {said}")
    return done.stdout


class Packages:
    """Debian's packages for one processor (``arm64``, ``armhf``, …)."""

    def __init__(self, arch: str, say: Callable[[str], None], *, sources: str = "") -> None:
        """Use, or make, the private apt of this processor; ``say`` hears what people should know.

        ``sources`` are lines for a processor that the machine's own release does not have.
        """
        self.arch, self._say, self._sources = arch, say, sources
        self.root = CACHE / "apt" / arch
        for part in ("lists/partial", "archives/partial", "none/partial"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
        (self.root / "status").write_text("")  # nothing is installed: every dependency is fetched
        (self.root / "sources.list").write_text(sources)
        self._fresh = False

    def _apt(self, *words: str, archives: str = "archives") -> str:
        r = self.root
        options = {
            "Dir::State": r,
            "Dir::State::status": r / "status",
            "Dir::State::lists": r / "lists",
            "Dir::Cache": r,
            "Dir::Cache::archives": r / archives,
            "APT::Architecture": self.arch,
            "APT::Architectures": self.arch,
            "APT::Install-Recommends": "0",
            "APT::Sandbox::User": "",
            "APT::Update::Post-Invoke": "",
            "Acquire::Retries": "3",
            "Debug::NoLocking": "1",
        }
        if self._sources:
            options |= {"Dir::Etc::sourcelist": r / "sources.list", "Dir::Etc::sourceparts": "/dev/null"}
        return run(["apt-get", "-q", "-y", *(x for k, v in options.items() for x in ("-o", f"{k}={v}")), *words])

    def _update(self) -> None:
        """Fetch the lists.  What apt refused (a mirror in the middle of its update) is left out and said; the rest is as signed."""
        if not self._fresh:
            try:
                self._apt("update")
            except ImageError as why:
                refused = [line.strip() for line in str(why).splitlines() if line.strip().startswith("E: Failed")]
                self._say(f"apt left out an index of {self.arch}: {(refused or [str(why)])[0].rpartition('/dists/')[2][:100]}")
            self._fresh = True

    def _listed(self, *words: str) -> dict[str, str]:
        """File name of each package that would be installed, by package name; apt leaves out what it has, so it looks at nothing."""
        self._update()
        said = self._apt("install", "--print-uris", *words, archives="none")
        rows = [line.split() for line in said.splitlines() if line.startswith("'")]
        return {file.partition("_")[0]: file for _, file, *_ in rows}

    def fetch(self, names: Sequence[str]) -> list[Path]:
        """Fetch these packages and all they depend on; their files."""
        files = self._listed(*names)
        have = self.root / "archives"
        if any(not (have / f).exists() for f in files.values()):
            self._apt("install", "--download-only", *names)
        return [have / f for f in sorted(files.values())]

    def fetch_kernel(self, meta: str) -> Path:
        """Fetch the kernel that a metapackage such as ``linux-image-arm64`` now stands for, without its dependencies."""
        file = next(f for n, f in self._listed(meta).items() if n.startswith("linux-image-") and n != meta)
        where = self.root / "archives" / file
        if not where.exists():
            self._apt("install", "--download-only", meta)
        return where


def unpack(files: Sequence[Path], to: Path) -> None:
    """Lay the files of packages under a root whose ``/bin``, ``/sbin`` and ``/lib`` are links into ``/usr``."""
    for part in ("bin", "sbin", "lib"):
        (to / "usr" / part).mkdir(parents=True, exist_ok=True)
        if not (to / part).is_symlink():
            (to / part).symlink_to(f"usr/{part}")
    for file in files:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", file], stdout=subprocess.PIPE) as tar:
            assert tar.stdout is not None
            flags = ["--keep-directory-symlink", "--no-same-owner", "--exclude=./usr/share/doc", "--exclude=./usr/share/man"]
            done = subprocess.run(["tar", "-x", "-C", to, *flags, "--exclude=./usr/share/locale"], stdin=tar.stdout, check=False)
        if tar.returncode or done.returncode:
            file.unlink(missing_ok=True)
            raise ImageError(f"{file.name}: cannot unpack; it was deleted from the cache, run again")
