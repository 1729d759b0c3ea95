# SPDX-License-Identifier: Apache-2.0
"""Checkpoint and rollback of declared files and directories: whole, atomic, verified by hash (HW-12)."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..errors import StoreError

__all__ = ["Checkpoint", "tree_hash"]

AT_FDCWD = -100
RENAME_EXCHANGE = 2


def _entries(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*")) if root.is_dir() and not root.is_symlink() else []


def tree_hash(root: Path) -> bytes:
    """SHA-256 over names, kinds, modes and contents of a file or of a directory with all below it; raises OSError."""
    total = hashlib.sha256()
    for path in [root, *_entries(root)]:
        name = str(path.relative_to(root)).encode()
        if path.is_symlink():
            kind, body = b"l", os.fsencode(path.readlink())
        elif path.is_dir():
            kind, body = b"d", b""
        else:
            with path.open("rb") as file:
                kind, body = b"f", hashlib.file_digest(file, "sha256").digest()
        mode = b"" if kind == b"l" else f"{path.stat().st_mode & 0o7777:o}".encode()
        for part in (name, kind, mode, body):
            total.update(len(part).to_bytes(4, "big") + part)
    return total.digest()


def _copy(source: Path, to: Path) -> None:
    """Copy and make durable."""
    if source.is_dir():
        shutil.copytree(source, to, symlinks=True)
    else:
        shutil.copy2(source, to)
    for path in [to, *_entries(to)]:
        if not path.is_symlink():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _exchange(a: Path, b: Path) -> None:
    """Swap two names in one step (renameat2); raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(a))


class Checkpoint:
    """The last good state of some paths, kept under ``store``.

    Args: paths: files and directories that a rollback restores. store: a folder of ours, on any file system.
    Raises: StoreError that names the path and leaves the earlier checkpoint as it was.
    """

    def __init__(self, paths: Sequence[Path], store: Path) -> None:
        self.paths = [p.absolute() for p in paths]
        self.store = store
        self.hashes: list[bytes] = []

    def take(self) -> bytes:
        """Copy the paths as they are now; returns the hash that names this checkpoint."""
        part = self.store.with_name(self.store.name + ".part")
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            hashes = []
            for i, path in enumerate(self.paths):
                _copy(path, part / str(i))
                hashes.append(tree_hash(part / str(i)))
            shutil.rmtree(self.store, ignore_errors=True)
            part.rename(self.store)
        except OSError as why:
            raise StoreError(f"checkpoint: {why}") from why
        self.hashes = hashes
        return hashlib.sha256(b"".join(hashes)).digest()

    def restore(self) -> None:
        """Put every path back, each in one step; a copy that does not verify is refused before anything changes."""
        for i, digest in enumerate(self.hashes):
            if tree_hash(self.store / str(i)) != digest:
                raise StoreError(f"rollback: the checkpoint of {self.paths[i]} was changed")
        for i, path in enumerate(self.paths):
            self._restore(self.store / str(i), path, self.hashes[i])

    def _restore(self, saved: Path, path: Path, digest: bytes) -> None:
        fresh = path.with_name(path.name + ".qsafp-rollback")
        try:
            _remove(fresh)
            _copy(saved, fresh)
            if tree_hash(fresh) != digest:
                raise StoreError(f"rollback: the copy of {path} does not verify")
            if path.exists() or path.is_symlink():
                _exchange(fresh, path)
                _remove(fresh)
            else:
                fresh.rename(path)
        except OSError as why:
            raise StoreError(f"rollback of {path}: {why}") from why
