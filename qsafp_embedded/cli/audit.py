# SPDX-License-Identifier: Apache-2.0
"""``qsafp audit list|verify|export``: the guard's log, read through its command socket, or from a file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..audit import Log, Record
from ..client import GuardClient, Status
from ..errors import AuditError, ConfigError, QsafpError
from ..keyfile import read_secret
from ..lease import Lease
from .common import Commands, Home, command, emit, group, home_of

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add ``audit``."""
    acts = group(commands, "audit", "list, verify or export the log", "qsafp audit list\nqsafp audit verify")
    p = command(acts, "list", _list, "list the newest records", "qsafp audit list --last 50")
    p.add_argument("--last", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    what = "verify the chain, the newest lease's root and, with the auditor's key, the seals"
    p = command(acts, "verify", _verify, what, "qsafp audit verify --k0 auditor/k0")
    p.add_argument("--k0", type=Path, metavar="FILE", help="the auditor's key that init wrote")
    p.add_argument("--file", type=Path, metavar="FILE", help="a log.ring, a file of records or an export; no guard is asked")
    p = command(acts, "export", _export, "write the whole log to standard output or a file", "qsafp audit export --out log.jsonl")
    how = p.add_mutually_exclusive_group()
    how.add_argument("--jsonl", action="store_true", help="one JSON object a line (default)")
    how.add_argument("--cbor", action="store_true", help="one CBOR map {1: log id, 2: first sequence, 3: [records]}")
    p.add_argument("--out", type=Path, metavar="FILE", help="a new file")


def _read(home: Home) -> tuple[Log, Status]:
    """The log, and the status of the same moment: records that came meanwhile are left out."""
    with GuardClient.connect(home.ctl) as guard:
        status = guard.status()
        records = []
        for record in guard.records(0):
            if int.from_bytes(record[8:16], "little") >= status.log_next:
                break
            records.append(record)
    return Log.of(records, status.log_id), status


def _list(args: argparse.Namespace) -> int:
    home = home_of(args)
    with GuardClient.connect(home.ctl) as guard:
        status = guard.status()
        start = max(0, status.log_next - max(1, args.last))
        rows = [Record.decode(r).as_json() for r in guard.records(start)]
    lines = [
        f"{r['seq']:>8}  {r['boot']:>4}  {r['boot_ns'] / 1e9:14.3f}  {r['event']:<20} serial {r['serial']:<8}"
        + (f" {r['reason']}" if r["reason"] != "NONE" else "")
        for r in rows
    ]
    lab = "  LAB: validators share this host" if status.lab else ""
    emit(args, rows, "\n".join([f"{'sequence':>8}  boot  {'boot time, s':>14}  event{lab}", *lines]))
    return 0


def _root(home: Home, log: Log) -> str:
    """Compare the log with what the validators signed last; raises AuditError if it was rewritten since."""
    path = home.last_lease
    if not path.exists() or log.first:
        return "not compared with a lease"
    lease = Lease.decode(path.read_bytes())
    lease.verify(home.members())
    log.covers(lease)
    return f"lease {lease.serial} covers {lease.log_size} of them, its root holds"


def _verify(args: argparse.Namespace) -> int:
    home = home_of(args)
    if args.file is None:
        log, status = _read(home)
    else:
        log, status = Log.open(args.file, bytes.fromhex(home.enrolment["log_id"])), None
    head = log.verify()
    if status is not None and head != status.log_head:
        raise AuditError("the guard's head is not the newest record's hash", index=len(log.raw) - 1)
    lease = _root(home, log)
    seals = log.check_seals(read_secret(args.k0, "seal")) if args.k0 else None
    sealed = "seals not checked (give --k0)" if seals is None else f"{seals} seals hold"
    found = {"ok": True, "first": log.first, "records": len(log.raw), "head": head.hex(), "lease": lease, "seals": seals}
    emit(args, found, f"good: {len(log.raw)} records from {log.first}, head {head.hex()[:16]}…; {lease}; {sealed}")
    return 0


def _export(args: argparse.Namespace) -> int:
    log, _ = _read(home_of(args))
    data = log.cbor() if args.cbor else log.jsonl().encode()
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
    emit(args, {"file": str(args.out), "records": len(log.raw)}, f"{len(log.raw)} records to {args.out}")
    return 0
