# SPDX-License-Identifier: Apache-2.0
"""``qsafp audit list|verify|export``: the guard's log, read through its command socket."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from .._core import Tree, audit_verify, cbor_dumps, record_decode, seal, seal_evolve, tree_leaf
from .._tables import Event, Reason
from ..client import GuardClient, Status
from ..errors import AuditError, ConfigError, QsafpError
from ..keyfile import read_secret
from .common import Commands, Home, command, emit, home_of

__all__ = ["add", "check_seals", "row", "verify"]

RECORD = 256


def add(commands: Commands) -> None:
    """Add ``audit``."""
    acts = commands.add_parser("audit", help="list, verify or export the log").add_subparsers(metavar="ACT", required=True)
    p = command(acts, "list", _list, "list the newest records")
    p.add_argument("--last", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    p = command(acts, "verify", _verify, "verify the chain, the newest lease's root and, with the auditor's key, the seals")
    p.add_argument("--k0", type=Path, metavar="FILE", help="the auditor's key that init wrote")
    p = command(acts, "export", _export, "write the whole log to standard output or a file")
    how = p.add_mutually_exclusive_group()
    how.add_argument("--jsonl", action="store_true", help="one JSON object a line (default)")
    how.add_argument("--cbor", action="store_true", help="one CBOR map {1: log id, 2: first sequence, 3: [records]}")
    p.add_argument("--out", type=Path, metavar="FILE", help="a new file")


def _read(home: Home, start: int = 0) -> tuple[list[bytes], Status]:
    """The records from a sequence on, and the status of the same moment: records that came meanwhile are left out."""
    with GuardClient.connect(home.ctl) as guard:
        status = guard.status()
        records = []
        for record in guard.records(start):
            if int.from_bytes(record[8:16], "little") >= status.log_next:
                break
            records.append(record)
    return records, status


def _name(table: type[Event] | type[Reason], value: int) -> str:
    return next((x.name for x in table if x == value), str(value))


def row(record: bytes) -> dict[str, Any]:
    """Return one record as JSON shows it: names for numbers, hex for bytes; raises FormatError."""
    r = record_decode(record)
    shown = {k: v.hex() if isinstance(v, bytes) else v for k, v in r.items()}
    return shown | {"event": _name(Event, r["event"]), "reason": _name(Reason, r["reason"]), "raw": record.hex()}


def _list(args: argparse.Namespace) -> int:
    home = home_of(args)
    with GuardClient.connect(home.ctl) as guard:
        start = max(0, guard.status().log_next - max(1, args.last))
        rows = [row(r) for r in guard.records(start)]
    lines = [
        f"{r['seq']:>8}  {r['boot']:>4}  {r['boot_ns'] / 1e9:14.3f}  {r['event']:<20} serial {r['serial']:<8}"
        + (f" {r['reason']}" if r["reason"] != "NONE" else "")
        for r in rows
    ]
    emit(args, rows, "\n".join([f"{'sequence':>8}  boot  {'boot time, s':>14}  event", *lines]))
    return 0


def check_seals(records: list[bytes], k0: bytes) -> int:
    """Check every seal under the key that evolves from ``k0``; returns how many there are.  Raises AuditError."""
    key, epoch, good = k0, 0, 0
    for r in records:
        number = int.from_bytes(r[8:16], "little")
        if number % 16 != 15:
            continue
        while epoch < number // 16:
            key, epoch = seal_evolve(key), epoch + 1
        if seal(key, r[208:240]) != r[240:256]:
            raise AuditError(f"record {number}: the seal does not verify: written without the log's key", index=number)
        good += 1
    return good


def verify(records: list[bytes], log_id: bytes) -> bytes:
    """Check the chain and return the hash of the newest record; raises AuditError naming the sequence that fails first.

    Record 0 must be the log's own beginning.  If older records were pruned, the first that is left is taken as the start.
    """
    if not records:
        raise AuditError("the log is empty", index=0)
    first = int.from_bytes(records[0][8:16], "little")
    if first == 0 and records[0][208:240] != log_id:
        raise AuditError("record 0 is not the beginning of this device's log", index=0)
    start, prev = (0, bytes(32)) if first == 0 else (1, records[0][208:240])
    try:
        return bytes(audit_verify(b"".join(records[start:]), prev))
    except AuditError as why:
        number = first + start + why.index
        raise AuditError(f"record {number} does not verify: it or the one before was changed", index=number) from why


def _root(home: Home, records: list[bytes]) -> str:
    """Compare the log with what the validators signed last; raises AuditError if it was rewritten since."""
    path = home.root / "agent" / "evidence" / "last-lease.cbor"
    if not path.exists() or records[0][8:16] != bytes(8):
        return "not compared with a lease"
    from .. import sets

    claims = sets.verify_lease(path.read_bytes(), sets.load(home.set_document.read_bytes()))
    size = claims["log_size"]
    if size > len(records):
        raise AuditError(f"the log has {len(records)} records, the newest lease covers {size}: it was cut", index=len(records))
    tree = Tree()
    for r in records[:size]:
        tree.append(tree_leaf(r[208:240]))
    if tree.root() != claims["log_root"]:
        raise AuditError(f"the first {size} records are not those that the validators signed in lease {claims['serial']}", index=0)
    return f"lease {claims['serial']} covers {size} of them, its root holds"


def _verify(args: argparse.Namespace) -> int:
    home = home_of(args)
    records, status = _read(home)
    head = verify(records, status.log_id)
    if head != status.log_head:
        raise AuditError("the guard's head is not the newest record's hash", index=len(records) - 1)
    lease = _root(home, records)
    seals = check_seals(records, read_secret(args.k0, "seal")) if args.k0 else None
    first = int.from_bytes(records[0][8:16], "little")
    sealed = "seals not checked (give --k0)" if seals is None else f"{seals} seals hold"
    found = {"ok": True, "first": first, "records": len(records), "head": head.hex(), "lease": lease, "seals": seals}
    emit(args, found, f"good: {len(records)} records from {first}, head {head.hex()[:16]}…; {lease}; {sealed}")
    return 0


def _export(args: argparse.Namespace) -> int:
    records, status = _read(home_of(args))
    if args.cbor:
        first = int.from_bytes(records[0][8:16], "little") if records else 0
        data = bytes(cbor_dumps({1: status.log_id, 2: first, 3: records}))
    else:
        data = "".join(json.dumps(row(r)) + "\n" for r in records).encode()
    if args.out is None:
        if args.cbor and sys.stdout.isatty():
            raise ConfigError("CBOR is not for a terminal; give --out FILE")
        sys.stdout.buffer.write(data)
        return 0
    try:
        with os.fdopen(os.open(args.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            file.write(data)
    except FileExistsError as why:
        raise QsafpError(f"{args.out}: is there already; export never overwrites") from why
    emit(args, {"file": str(args.out), "records": len(records)}, f"{len(records)} records to {args.out}")
    return 0
