# SPDX-License-Identifier: Apache-2.0
"""Checkpoint and rollback of declared files and directories: whole, atomic, verified by hash (HW-12).

A store holds one whole checkpoint: copies ``0``, ``1``, … and ``manifest``, the hashes.  It is replaced in one step.  The mark
``rollback`` beside them says that a rollback began and has not ended; whoever finds it ends it first.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from ..errors import StoreError

__all__ = ["Checkpoint", "tree_hash"]

AT_FDCWD = -100
RENAME_EXCHANGE = 2
MANIFEST, MARK = "manifest", "rollback"


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


def _named(act: str, why: OSError) -> StoreError:
    return why if isinstance(why, StoreError) else StoreError(f"{act}: {why}")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _straight(path: Path) -> None:
    """Refuse a path that leads elsewhere by now: what we hold may have put a link there.  Raises StoreError."""
    if path.resolve() != path:
        raise StoreError(f"{path} leads to {path.resolve()} by now, through a link that was not there before")


def _copy_file(source: str, to: str) -> str:
    """Copy contents only, into a new file that is nobody else's yet; raises StoreError for what is no file."""
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise StoreError(f"{source} is neither a file nor a directory nor a link")
        with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
            shutil.copyfileobj(file, out)
    return to


def _give(source: Path, to: Path) -> None:
    """Give a copy the owner, times and mode of its source; where the owner is not ours to give, no set-id bits either."""
    was = source.lstat()
    with contextlib.suppress(PermissionError):
        os.chown(to, was.st_uid, was.st_gid, follow_symlinks=False)
    if to.is_symlink():
        return
    now = to.stat()
    same = (now.st_uid, now.st_gid) == (was.st_uid, was.st_gid)
    os.utime(to, ns=(was.st_atime_ns, was.st_mtime_ns))
    to.chmod(was.st_mode & (0o7777 if same else 0o1777))


def _copy(source: Path, to: Path) -> None:
    """Copy and make durable."""
    if source.is_dir():
        shutil.copytree(source, to, symlinks=True, copy_function=_copy_file)
    else:
        _copy_file(str(source), str(to))
    for path in [*reversed(_entries(to)), to]:
        _give(source / path.relative_to(to), path)
        if not path.is_symlink():
            _sync(path)


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


def _replace(fresh: Path, path: Path) -> None:
    """Put ``fresh`` where ``path`` is or was, in one step, and remove what was there."""
    if path.exists() or path.is_symlink():
        _exchange(fresh, path)
        _sync(path.parent)
        _remove(fresh)
    else:
        fresh.rename(path)
        _sync(path.parent)


class Checkpoint:
    """The last good state of some paths, kept under ``store``.

    Args: paths: files and directories that a rollback restores. store: a folder of ours, on any file system.
    Raises: StoreError that names the path and leaves the earlier checkpoint as it was.
    """

    def __init__(self, paths: Sequence[Path], store: Path) -> None:
        self.paths = [p.resolve() for p in paths]
        self.store = store
        self.hashes: list[bytes] = []
        self._lock = -1

    def _claim(self) -> None:
        """One program at a time keeps its checkpoint here."""
        if self._lock >= 0:
            return
        self.store.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.store.with_name(self.store.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as why:
            os.close(fd)
            raise StoreError(f"{self.store}: another program keeps its checkpoint here; give this one a --name of its own") from why
        self._lock = fd

    def take(self) -> bytes:
        """Copy the paths as they are now, in place of the checkpoint before; returns the hash that names this one."""
        part = self.store.with_name(self.store.name + ".part")
        try:
            self._claim()
            _remove(part)
            part.mkdir(mode=0o700)
            hashes = []
            for i, path in enumerate(self.paths):
                _straight(path)
                _copy(path, part / str(i))
                hashes.append(tree_hash(part / str(i)))
            manifest = {"paths": [str(p) for p in self.paths], "hashes": [h.hex() for h in hashes]}
            (part / MANIFEST).write_text(json.dumps(manifest))
            _sync(part / MANIFEST)
            _sync(part)
            _replace(part, self.store)
        except OSError as why:
            raise _named("checkpoint", why) from why
        self.hashes = hashes
        return hashlib.sha256(b"".join(hashes)).digest()

    def recover(self) -> bool:
        """End a rollback that was cut; False if there was none.  Raises StoreError."""
        try:
            self._claim()
            if not (self.store / MARK).exists():
                return False
            manifest = json.loads((self.store / MANIFEST).read_text())
            paths, hashes = [Path(p) for p in manifest["paths"]], [bytes.fromhex(h) for h in manifest["hashes"]]
        except StoreError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as why:
            raise StoreError(f"{self.store}: a rollback was cut, and its checkpoint cannot be read: {why}") from why
        if paths != self.paths:
            raise StoreError(f"{self.store}: a rollback of {', '.join(map(str, paths))} was cut; run with the same --checkpoint once")
        self.hashes = hashes
        self.restore()
        return True

    def restore(self) -> None:
        """Put every path back, each in one step; a copy that does not verify is refused before anything changes."""
        if not self.paths:
            return
        try:
            for i, digest in enumerate(self.hashes):
                if tree_hash(self.store / str(i)) != digest:
                    raise StoreError(f"rollback: the checkpoint of {self.paths[i]} was changed")
            (self.store / MARK).touch()
            _sync(self.store)
        except OSError as why:
            raise _named("rollback", why) from why
        for i, path in enumerate(self.paths):
            self._restore(self.store / str(i), path, self.hashes[i])
        (self.store / MARK).unlink(missing_ok=True)

    def _restore(self, saved: Path, path: Path, digest: bytes) -> None:
        fresh = path.with_name(path.name + ".qsafp-rollback")
        try:
            _straight(path.parent)
            _remove(fresh)
            _copy(saved, fresh)
            if tree_hash(fresh) != digest:
                raise StoreError(f"rollback: the copy of {path} does not verify")
            _replace(fresh, path)
        except OSError as why:
            raise _named(f"rollback of {path}", why) from why
