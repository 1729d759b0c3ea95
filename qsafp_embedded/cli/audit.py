# SPDX-License-Identifier: Apache-2.0
"""``qsafp audit list|verify|export|evidence``: the guard's log, through its command socket or from a file, and its evidence store."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import evidence
from .._core import tpm_anchor
from ..audit import Log, Record
from ..client import GuardClient, Status
from ..errors import AuditError, ConfigError, FormatError, GuardUnavailable
from ..guard import config
from ..keyfile import read_secret
from ..lease import Lease
from .common import Commands, Home, command, emit, group, home_of, write_new

__all__ = ["add"]

EVIDENCE = 4  # flag of a record
YEAR_10000_MS = 253_402_300_800_000


def add(commands: Commands) -> None:
    """Add ``audit``."""
    acts = group(commands, "audit", "list, verify or export the log; show the evidence", "qsafp audit list\nqsafp audit verify")
    p = command(acts, "list", _list, "list the newest records", "qsafp audit list --last 50")
    p.add_argument("--last", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    what = "verify the chain, the newest lease's root and, where asked, the seals and the TPM's anchor"
    p = command(acts, "verify", _verify, what, "qsafp audit verify --k0 auditor/k0")
    p.add_argument("--k0", type=Path, metavar="FILE", help="the auditor's key that init wrote")
    p.add_argument("--tpm", action="store_true", help="and against the log anchor in the TPM that guard.toml names")
    p.add_argument("--file", type=Path, metavar="FILE", help="a log.ring, a file of records or an export; no guard is asked")
    p = command(acts, "export", _export, "write the whole log to standard output or a file", "qsafp audit export --out log.jsonl")
    how = p.add_mutually_exclusive_group()
    how.add_argument("--jsonl", action="store_true", help="one JSON object a line (default)")
    how.add_argument("--cbor", action="store_true", help="one CBOR map {1: log id, 2: first sequence, 3: [records]}")
    p.add_argument("--out", type=Path, metavar="FILE", help="a new file")
    what = "list what the guard kept: leases, refusals, revocations, set documents, and whether their signatures hold"
    p = command(acts, "evidence", _evidence, what, "qsafp audit evidence --last 20\nqsafp audit evidence --out evidence.cbor")
    p.add_argument("--last", type=int, metavar="N", help="only the newest N pieces")
    p.add_argument("--state", type=Path, metavar="DIR", help="a copy of the guard's state directory; no guard is asked for its log")
    p.add_argument("--out", type=Path, metavar="FILE", help="also write them to a new file: the CBOR map {1: log id, 2: [pieces]}")


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


def _anchor(home: Home) -> bytes:
    """What the TPM's anchor holds; raises ConfigError, QsafpError."""
    settings = config.load(home.guard_toml)
    if not settings.tpm_nv:
        raise ConfigError(f"{home.guard_toml}: no tpm_nv: this log is not anchored in a TPM")
    return tpm_anchor(settings.tpm, settings.tpm_nv)


def _verify(args: argparse.Namespace) -> int:
    home = home_of(args)
    value = _anchor(home) if args.tpm else None  # before the log: a record that comes meanwhile is one that is not in yet
    if args.file is None:
        log, status = _read(home)
    else:
        log, status = Log.open(args.file, bytes.fromhex(home.enrolment["log_id"])), None
    head = log.verify()
    if status is not None and head != status.log_head:
        raise AuditError("the guard's head is not the newest record's hash", index=len(log.raw) - 1)
    lease = _root(home, log)
    seals = log.check_seals(read_secret(args.k0, "seal")) if args.k0 else None
    anchor = None if value is None else log.anchored(value)
    anchored = "" if anchor is None else f"; the TPM stands for record {anchor}"
    sealed = "seals not checked (give --k0)" if seals is None else f"{seals} seals hold"
    found = {"ok": True, "first": log.first, "records": len(log.raw), "head": head.hex(), "lease": lease, "seals": seals, "anchor": anchor}
    emit(args, found, f"good: {len(log.raw)} records from {log.first}, head {head.hex()[:16]}…; {lease}; {sealed}{anchored}")
    return 0


def _export(args: argparse.Namespace) -> int:
    log, _ = _read(home_of(args))
    data = log.cbor() if args.cbor else log.jsonl().encode()
    if args.out is None:
        if args.cbor and sys.stdout.isatty():
            raise ConfigError("CBOR is not for a terminal; give --out FILE")
        sys.stdout.buffer.write(data)
        return 0
    write_new(args.out, data)
    emit(args, {"file": str(args.out), "records": len(log.raw)}, f"{len(log.raw)} records to {args.out}")
    return 0


# ---- evidence ----


def _log_beside(home: Home, copy: Path | None) -> Log:
    """The log that tells when each piece came: of the guard, of the file that it left, or of a copy."""
    if copy is None:
        try:
            return _read(home)[0]
        except GuardUnavailable:
            copy = home.guard_state
    return Log.open(copy / "log.ring", bytes.fromhex(home.enrolment["log_id"]))


def _shown(piece: evidence.Piece, known: Mapping[int, Any], records: Sequence[Record]) -> dict[str, Any]:
    try:
        signers, why = piece.verify(known), ""
    except FormatError as bad:
        signers, why = (), str(bad)
    serials = [r.serial for r in records] if piece.serial is None and piece.kind == "refusal" else [piece.serial]
    return {
        "number": piece.number,
        "file": piece.file,
        "offset": piece.offset,
        "bytes": len(piece.raw),
        "kind": piece.kind,
        "serial": next(iter(serials), None),
        "epoch": piece.epoch,
        "kids": [k.hex() for k in piece.kids],
        "signers": list(signers),
        "hash": piece.hash.hex(),
        "good": not why,
        "why": why,
        "records": [{k: v for k, v in r.as_json().items() if k in ("seq", "event", "boot", "boot_ns", "wall_ms")} for r in records],
    }


def _line(p: dict[str, Any]) -> str:
    first: dict[str, Any] = p["records"][0] if p["records"] else {"seq": "-", "event": "no record of it", "wall_ms": 0}
    known = 0 < first["wall_ms"] < YEAR_10000_MS
    wall = datetime.fromtimestamp(first["wall_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") if known else ""
    serial = "-" if p["serial"] is None else p["serial"]
    good = f"good, by {', '.join(map(str, p['signers'])) or 'the set keys'}" if p["good"] else f"BAD: {p['why']}"
    what = f"{first['seq']:>8}  {wall:<19}  {p['kind']:<10}  serial {serial!s:<6}  {p['hash'][:16]}  {first['event']:<16}"
    return f"{what}  {good}  [{' '.join(p['kids'])}]"


def _evidence(args: argparse.Namespace) -> int:
    home = home_of(args)
    log = _log_beside(home, args.state)  # first: a record is written after what it names
    pieces = evidence.read(args.state or home.guard_state)
    known = evidence.known_sets(home.members(), pieces)
    cited: dict[bytes, list[Record]] = defaultdict(list)
    for record in log.records:
        if record.flags & EVIDENCE:
            cited[record.evidence].append(record)
    listed = pieces[max(0, len(pieces) - args.last) :] if args.last is not None else pieces
    rows = [_shown(p, known, cited[p.hash]) for p in listed]
    gone = sorted(r.seq for h in cited.keys() - {p.hash for p in pieces} for r in cited[h])
    bad = sum(not r["good"] for r in rows)
    total = f"{len(rows)} of {len(pieces)} pieces, {bad} bad; {len(gone)} records name evidence that is not kept any more"
    head = f"{'sequence':>8}  {'time, UTC':<19}  {'kind':<10}  {'':13}  {'hash':<16}  {'event':<16}  signatures of validators [key ids]"
    if args.out is not None:
        write_new(args.out, evidence.export(log.log_id, listed))
    emit(args, {"ok": not bad, "pieces": rows, "not_kept": gone}, "\n".join([head, *map(_line, rows), total]))
    return int(bad > 0)
