# SPDX-License-Identifier: Apache-2.0
"""Verify log.bin (or log.ring, log.jsonl), leases/*.cbor, set.cbor and pins.trace of a folder with nothing of ours.

``cwt`` verifies COSE with Ed25519 (-19), ``cryptography`` the ML-DSA-65 (-49) that cwt has not.  Exit status 1 names the culprit.
"""

import hashlib
import json
import struct
import sys
from collections import namedtuple
from pathlib import Path

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cwt import COSE, COSEKey
from cwt.exceptions import CWTError

ISSUED, RENEWED, QUERY, FAILSAFE, LAG_NS = 1, 2, 5, 7, 100_000_000  # a line may fall one tick after its lease
Record = namedtuple("Record", "magic event flags seq ns wall_ms boot reason serial model evidence data hash")


def need(ok, culprit):
    if not ok:
        sys.exit(f"NOT VERIFIED: {culprit}")


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def signed(token, label, public):  # by this raw key: 32 bytes of Ed25519, 1952 of ML-DSA-65
    kid, (_, _, payload, signatures) = sha(public)[:8], cbor2.loads(token).value
    try:
        if len(public) == 32:
            COSE().decode(token, COSEKey.new({1: 1, 2: kid, 3: -19, 4: [2], -1: 6, -2: public}), external_aad=label)
        else:
            by = next(s for s in signatures if cbor2.loads(s[0]) == {1: -49, 4: kid})
            MLDSA65PublicKey.from_public_bytes(public).verify(by[2], cbor2.dumps(["Signature", b"", by[0], label, payload]))
    except (CWTError, InvalidSignature, StopIteration, ValueError, TypeError):
        return False
    return True


def root(leaves):  # RFC 9162, 2.1.1
    k = 1 << (len(leaves) - 1).bit_length() - 1 if len(leaves) > 1 else 0
    return sha(b"\1", root(leaves[:k]), root(leaves[k:])) if k else leaves[0]


folder, head, log = Path(sys.argv[1]), bytes(32), []
file = next((f for n in ("log.bin", "log.ring", "log.jsonl") if (f := folder / n).exists()), folder / "log.bin")
raw = b"".join(bytes.fromhex(json.loads(x)["raw"]) for x in file.open()) if file.suffix == ".jsonl" else file.read_bytes()
for r in (raw[at : at + 256] for at in range(0, len(raw), 256) if raw[at : at + 256] != b"\xff" * 256):
    log.append(Record(*struct.unpack_from("<4sHHQQQIIQ32s32s96s32s", r.ljust(256))))
    need((log[-1].seq, log[-1].hash) == (len(log) - 1, sha(head, r[:208])), f"{file.name}: record {len(log) - 1}")
    head = log[-1].hash
document = (folder / "set.cbor").read_bytes()
_, epoch, m, members, _, _, (k, set_keys), _ = cbor2.loads(cbor2.loads(document).value[2]).values()
need(sum(signed(document, b"qsafp/1/set", key) for key in set_keys) >= k, "set.cbor: its set keys did not sign it")
recorded, spans = {r.evidence: r.serial for r in log if r.event in (ISSUED, RENEWED)}, []
for path in sorted((folder / "leases").glob("*.cbor")):
    token = path.read_bytes()
    need(recorded.pop(sha(token), None), f"{path.name}: not in the log, or changed")
    claims = cbor2.loads(cbor2.loads(token).value[2])
    votes = sum(all(signed(token, b"qsafp/1/lease", key) for key in v[3:] if key) for v in members)
    need(votes >= m and claims[-65544] == epoch, f"{path.name}: {votes} valid signers of {m}")
    log_id, size, covered = claims[-65540]
    need(log_id == log[0].hash and root([sha(b"\0", r.hash) for r in log[:size]]) == covered, f"{path.name}: the root is not the log's")
    query = log[size - 1]  # the request's own record: the lease began just before it
    need(query.event == QUERY and query.data[:32] == claims[10] + claims[7], f"{path.name}: record {size - 1} is not its request")
    spans.append((query.ns, min(query.ns + claims[-65537] * 10**6, *(r.ns for r in log[size:] if r.event == FAILSAFE), 2**64) + LAG_NS))
need(not recorded, f"leases/: serial {sorted(recorded.values())} of the log is missing")
edges = [(int(at), level) for at, name, level in map(str.split, (folder / "pins.trace").open()) if name == "LEASE_VALID"]
for (at, level), (end, _) in zip(edges, [*edges[1:], edges[-1]], strict=True) if edges else ():
    while level == "1" and at <= end:
        later = max((until for since, until in spans if since <= at < until), default=0)
        need(later, f"pins.trace: LEASE_VALID is high at {at} ns, outside every lease")
        at = later
print(f"verified: {len(log)} records, {len(spans)} leases by {m} of {len(members)} validators, {len(edges)} edges of LEASE_VALID")
