# SPDX-License-Identifier: Apache-2.0
"""Durable state in SQLite: write-ahead log, synchronous=FULL, one commit for everything that came in one turn of the event loop.

What ``write`` was given is on disk when its future is done; nothing leaves the validator before (decision 7).  The loop waits
for the disk: what arrives meanwhile is the next commit, and no answer could have left earlier.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .decide import FailSafe, State

__all__ = ["Rows", "Store"]

VERSION = 2
CACHED = 65_536
KEEP_DECISIONS = 200_000
PRUNE_EVERY = 1_000
SCHEMA = """
CREATE TABLE state (ueid BLOB PRIMARY KEY, highest INT, serial INT, digest BLOB, answer BLOB, approved INT, size INT, peaks BLOB,
                    decided_ms INT, revoked INT, revocation BLOB, counts BLOB, measured INT) WITHOUT ROWID;
CREATE TABLE decision (id INTEGER PRIMARY KEY, at_ms INT, ueid BLOB, serial INT, code INT, digest BLOB);
CREATE TABLE equivocation (ueid BLOB, serial INT, digest BLOB, request BLOB, answer BLOB, PRIMARY KEY (ueid, digest)) WITHOUT ROWID;
CREATE TABLE consent (ueid BLOB, log_id BLOB, sequence INT, hash BLOB, PRIMARY KEY (ueid, log_id, sequence, hash)) WITHOUT ROWID;
CREATE TABLE applicant (ueid BLOB PRIMARY KEY, document TEXT, accepted INT) WITHOUT ROWID;
"""
FROM_1 = """
ALTER TABLE state ADD COLUMN counts BLOB NOT NULL DEFAULT x'';
ALTER TABLE state ADD COLUMN measured INT NOT NULL DEFAULT 0;
"""
INSERT = {
    "state": ("INSERT OR REPLACE INTO state VALUES", 13),
    "decision": ("INSERT INTO decision (at_ms, ueid, serial, code, digest) VALUES", 5),
    "equivocation": ("INSERT OR IGNORE INTO equivocation VALUES", 5),
    "consent": ("INSERT OR IGNORE INTO consent VALUES", 4),
    "applicant": ("INSERT OR REPLACE INTO applicant VALUES", 3),
}

Rows = list[tuple[str, tuple[Any, ...]]]
Job = tuple[Rows, "asyncio.Future[None]"]


def _row(s: State) -> tuple[Any, ...]:
    peaks = b"".join(s.peaks)
    return (
        s.ueid,
        s.highest,
        s.serial,
        s.digest,
        s.answer,
        s.approved,
        s.size,
        peaks,
        s.decided_ms,
        s.revoked,
        s.revocation,
        s.counts,
        s.measured,
    )


def _state(row: tuple[Any, ...]) -> State:
    peaks = tuple(row[7][i : i + 32] for i in range(0, len(row[7]), 32))
    return State(row[0], row[1], row[2], row[3], row[4], bool(row[5]), row[6], peaks, row[8], bool(row[9]), *row[10:])


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version in (0, 1):
        db.executescript(f"BEGIN; {SCHEMA if version == 0 else FROM_1} PRAGMA user_version={VERSION}; COMMIT")
    elif version != VERSION:
        raise StoreError(f"{path}: version {version} of the store; this program knows {VERSION}")
    return db


def _claim(path: Path) -> int:
    """Lock the database for this process: two validators with one key would vote twice."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as why:
        raise StoreError(f"{lock}: {why.strerror}") from why
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as why:
        os.close(fd)
        raise StoreError(f"{path}: another validator holds it") from why
    return fd


class Store:
    """The registry of device states, of one event loop.  Use as an async context manager."""

    def __init__(self, path: Path) -> None:
        """Open or create the database; raises StoreError if it cannot be used."""
        self._lock = _claim(path)
        try:
            path.touch(mode=0o600)
            self._db, self._reader = _open(path), _open(path)
            self._consents = {FailSafe(*row) for row in self._reader.execute("SELECT * FROM consent")}
        except (sqlite3.Error, OSError) as why:
            raise StoreError(f"{path}: {why}") from why
        self._cache: OrderedDict[bytes, State] = OrderedDict()
        self._pending: dict[bytes, asyncio.Future[None]] = {}
        self._waiting: list[Job] = []
        self.commits = 0
        self.failed = False

    async def __aenter__(self) -> Store:
        """Belong to the running event loop."""
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Write what waits, then close."""
        self._flush()
        self._db.close()
        self._reader.close()
        os.close(self._lock)

    def state(self, ueid: bytes) -> State:
        """Return the state of a device, as last written or about to be."""
        found = self._cache.get(ueid)
        if found is None:
            row = self._reader.execute("SELECT * FROM state WHERE ueid=?", (ueid,)).fetchone()
            found = _state(row) if row else State(ueid)
            self._keep(found)
        return found

    def _keep(self, state: State) -> None:
        self._cache[state.ueid] = state
        self._cache.move_to_end(state.ueid)
        if len(self._cache) > CACHED and (oldest := next(iter(self._cache))) not in self._pending:
            del self._cache[oldest]

    def put(self, state: State, more: Rows | None = None) -> asyncio.Future[None]:
        """Take a state up at once and write it; the future is done when it is durable, or raises StoreError."""
        self._keep(state)
        done = self.write([("state", _row(state)), *(more or [])])
        self._pending[state.ueid] = done
        return done

    def write(self, rows: Rows) -> asyncio.Future[None]:
        """Queue rows for the next commit.  After a failed commit every write is refused until a restart."""
        done = self._loop.create_future()
        if self.failed:
            done.set_exception(StoreError("the store failed; restart the validator once its disk works"))
        else:
            self._waiting.append((rows, done))
            if len(self._waiting) == 1:
                self._loop.call_soon(self._flush)
        return done

    def _flush(self) -> None:
        """Commit everything that waits, and tell who waits for it."""
        batch, self._waiting = self._waiting, []
        error = self._commit([row for rows, _ in batch for row in rows]) if batch else None
        self._pending.clear()
        if error:
            self._cache.clear()
        for _, done in batch:
            if error and not done.cancelled():
                done.set_exception(error)
            elif not done.cancelled():
                done.set_result(None)

    def pending(self, ueid: bytes) -> asyncio.Future[None] | None:
        """Return the future of the last write of a device that may not be durable yet."""
        return self._pending.get(ueid)

    def consent(self, latched: FailSafe) -> asyncio.Future[None]:
        """Write a person's consent to one release."""
        bare = latched._replace(reason=0)
        self._consents.add(bare)
        return self.write([("consent", bare[:4])])

    def consented(self, latched: FailSafe) -> bool:
        """Tell whether a person consented to this very record."""
        return latched._replace(reason=0) in self._consents

    def read(self, sql: str, args: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Read rows for an operator's list."""
        return self._reader.execute(sql, args).fetchall()

    def states(self) -> Iterator[State]:
        """Yield every durable state."""
        return map(_state, self._reader.execute("SELECT * FROM state"))

    def _commit(self, rows: Rows) -> StoreError | None:
        if self.failed:
            return StoreError("the store failed")
        try:
            self._db.execute("BEGIN")
            for name in INSERT:
                self._insert(name, [r for n, r in rows if n == name])
            if self.commits % PRUNE_EVERY == PRUNE_EVERY - 1:
                self._db.execute("DELETE FROM decision WHERE id <= (SELECT max(id) FROM decision) - ?", (KEEP_DECISIONS,))
            self._db.execute("COMMIT")
        except (sqlite3.Error, ArithmeticError, TypeError, ValueError) as why:  # whatever it is, the writer lives on to say so
            self.failed = True
            return StoreError(f"commit failed: {why}")
        self.commits += 1
        return None

    def _insert(self, name: str, rows: list[tuple[Any, ...]]) -> None:
        """Many rows in one statement."""
        head, width = INSERT[name]
        for at in range(0, len(rows), 256):
            chunk = rows[at : at + 256]
            marks = ",".join([f"({','.join('?' * width)})"] * len(chunk))
            self._db.execute(f"{head} {marks}", [v for row in chunk for v in row])
