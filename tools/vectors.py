# SPDX-License-Identifier: Apache-2.0
"""Write the wire vectors: tests/vectors/index.json and the files it names.  ``--check`` fails if what is committed differs.

The vectors tell one story: a device of six validators (four must agree) is enrolled, leased, renewed, revoked, released, expires and is
stopped by hand.  tests/c/test_vectors.c lives the same story with the core and must make the same bytes.  Keys are test keys:
the seed of NAME is SHA-256("qsafp test key NAME").  ML-DSA-65 signatures are random; one that still verifies is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from qsafp_embedded import cose, keys, quote, sets
from qsafp_embedded._core import (
    Tree,
    cbor_dumps,
    cbor_loads,
    claims_decode,
    claims_encode,
    cobs_encode,
    crc16,
    record_hash,
    seal,
    seal_evolve,
    tree_leaf,
)
from qsafp_embedded._tables import CommandStatus, Error, Event, Opcode, Phase, Reason, Refusal, RefusalClass, Status
from qsafp_embedded.errors import FormatError

FOLDER = Path(__file__).resolve().parent.parent / "tests/vectors"
N, M, SLOTS, RECORDS = 6, 4, 64, 70
S = 10**9
ARMED, OLD_DEFAULT = 0x5A3C96E1, 2**64 - 1
NOTE = "Written by tools/vectors.py.  One vector a line; kind is a rule of docs/formats.cddl, or a name of this script."


def sha(text: str | bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).digest()


def seed(name: str) -> bytes:
    """Seed of a test key."""
    return sha(f"qsafp test key {name}")


class P256Key:
    """What a TPM signs with: ECDSA on P-256, here with the nonces of RFC 6979."""

    alg = keys.ESP256

    def __init__(self, name: str) -> None:
        """The test key NAME."""
        self.private = ec.derive_private_key(int.from_bytes(seed(name)), ec.SECP256R1())
        p = self.private.public_key().public_numbers()
        self.public = p.x.to_bytes(32) + p.y.to_bytes(32)
        self.kid = keys.kid(self.public)

    def sign(self, message: bytes) -> bytes:
        """r || s, s of the lower half."""
        r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
        return r.to_bytes(32) + min(s, keys.P256_ORDER - s).to_bytes(32)


DEVICE = keys.Ed25519Key.from_seed(seed("device"))
TPM_DEVICE, TPM_AK = P256Key("device in a TPM"), P256Key("attestation key")
PCRS = {0: sha("PCR 0"), 7: sha("PCR 7")}
UEID, MODEL, INPUT, SET_ID = b"\x01" + sha("ueid"), sha("model"), sha("input"), sha("set")[:16]
ED = [keys.Ed25519Key.from_seed(seed(f"validator {i} ed25519")) for i in range(N + 1)]
ML = [keys.MLDSA65Key.from_seed(seed(f"validator {i} ml-dsa-65")) for i in range(N)]
SET_KEYS = [keys.Ed25519Key.from_seed(seed(f"set {i}")) for i in range(3)]
CONSTANT: dict[str, Any] = {
    "ueid": UEID,
    "duration_ms": 60_000,
    "model": MODEL,
    "policy_ms": [10_000, 5_000, 0, 0],
    "level": 1,
    "lab": True,
    "epoch": 1,
    "set_id": SET_ID,
}
LABELS = {
    "set": cose.AAD_SET,
    "lease": cose.AAD_LEASE,
    "request": cose.AAD_REQUEST,
    "refusal": cose.AAD_REFUSAL,
    "revocation": cose.AAD_REVOCATION,
}


class Frozen:
    """ML-DSA-65 signatures as they were written before, by file and key id."""

    def __init__(self, files: list[Path]) -> None:
        """Read what is there; a file that is no longer of this format gives nothing."""
        self.found: dict[tuple[str, bytes], bytes] = {}
        for path in files:
            for parse in (cose.parse_sign, cose.parse_sign1):
                try:
                    by = parse(path.read_bytes()).by
                except (FormatError, OSError):
                    continue
                for s in by if isinstance(by, tuple) else (by,):
                    self.found[path.name, s.kid] = s.signature

    def signer(self, key: keys.Signer, name: str) -> keys.Signer:
        """The key, which signs as it did the last time in the file of this name."""
        return _Again(key, self.found.get((name, key.kid), b""))


@dataclass(frozen=True)
class _Again:
    key: keys.Signer
    before: bytes

    @property
    def alg(self) -> int:
        return self.key.alg

    @property
    def public(self) -> bytes:
        return self.key.public

    @property
    def kid(self) -> bytes:
        return self.key.kid

    def sign(self, message: bytes) -> bytes:
        if self.alg == keys.ML_DSA_65 and keys.verify(self.alg, self.public, message, self.before):
            return self.before
        return self.key.sign(message)


@dataclass
class Log:
    """The device's log, as audit.c writes it on a ring of SLOTS."""

    records: list[bytes] = field(default_factory=list)
    head: bytes = bytes(32)
    boot: int = 0
    tree: int = 0
    saved: int = 0
    erased: int = SLOTS
    key: bytes = field(default_factory=lambda: seed("seal"))

    def write(self, event: Event, at: int, *, reason: int = 0, serial: int = 0, data: bytes = b"", **more: Any) -> None:
        """Program one record; ``more``: evidence, reported (by a workload), model, wall."""
        number, evidence = len(self.records), more.get("evidence", b"")
        wall = more.get("wall", 1_700_000_000_000 + at * 1000)
        flags = bool(wall) | (number % 16 == 15) << 1 | bool(evidence) << 2 | more.get("reported", 0) << 3
        head = struct.pack("<4sHHQQQIIQ", b"QAR1", event, flags, number, at * S, wall, self.boot, reason, serial)
        body = head + more.get("model", MODEL) + (evidence or bytes(32)) + data.ljust(96, b"\0")
        self.head = record_hash(self.head, body + bytes(48))
        mark = bytes(16)
        if number % 16 == 15:
            mark, self.key = seal(self.key, self.head), seal_evolve(self.key)
        self.records.append(body + self.head + mark)

    def note(self, event: Event, at: int, **more: Any) -> None:
        """Append as qsafp_note does: the tree first, room next."""
        if len(self.records) - self.saved >= SLOTS // 2:
            self.save(grow=True)
        self.append(event, at, **more)

    def append(self, event: Event, at: int, **more: Any) -> None:
        """Make room, then write."""
        if self.erased < (len(self.records) // 16 + 2) * 16:
            old, end = self.erased - SLOTS, self.erased - SLOTS + 16
            self.tree = self.tree if self.tree >= end else len(self.records)
            data = struct.pack("<QQ32sQ", old, end - 1, self.records[end - 1][208:240], self.tree)
            self.erased += 16
            self.write(Event.LOG_PRUNED, at, data=data, model=bytes(32))
        self.write(event, at, **more)

    def save(self, *, grow: bool = False) -> None:
        """The small state keeps the tree."""
        self.tree = len(self.records) if grow else self.tree
        self.saved = self.tree

    def subtree(self, start: int, end: int) -> Tree:
        """The tree over [start, end)."""
        t = Tree()
        for r in self.records[start:end]:
            t.append(tree_leaf(r[208:240]))
        return t

    def range(self, start: int, end: int) -> list[bytes]:
        """Compact range [start, end)."""
        out = []
        while start < end:
            width = 1
            while not start & (2 * width - 1) and start + 2 * width <= end:
                width *= 2
            out.append(self.subtree(start, start + width).root())
            start += width
        return out


class Story:
    """Everything that is written, by file name."""

    def __init__(self, folder: Path) -> None:
        """``folder`` has the signatures that were made before."""
        self.frozen = Frozen(sorted((folder / "wire").glob("*.cbor")))
        self.files: dict[str, bytes] = {}
        self.index: list[dict[str, Any]] = []
        self.log = Log()
        self.serial, self.leased, self.entropy = 0, 0, 0
        self.frames: dict[str, tuple[bytes, bytes]] = {}
        self.token = b""
        self.old = 0

    def add(self, name: str, data: bytes, kind: str, what: str, **more: Any) -> bytes:
        """Keep one vector."""
        self.files[f"wire/{name}"] = data
        self.index.append({"file": f"wire/{name}", "kind": kind, "what": what, **more})
        return data

    # ---- set documents ----

    def sets(self) -> None:
        """One set in each suite, and the next epoch of the first."""
        for suite in sets.SUITES:
            members = tuple(
                sets.Validator(
                    i,
                    (f"https://validator-{i}.example:8443",),
                    (sha(f"spki {i}"),),
                    ED[i].public if suite != "ml-dsa-65" else None,
                    ML[i].public if suite != "ed25519" else None,
                )
                for i in range(N)
            )
            s = sets.ValidatorSet(SET_ID, 1, M, members, suite, lab=True, set_k=1, set_keys=tuple(k.public for k in SET_KEYS[:2]))
            self.add(f"set_{suite}.cbor", sets.encode(s, SET_KEYS[:1]), "set-document", f"epoch 1, 4 of 6, {suite}", suite=suite, epoch=1)
            if suite == "ed25519":
                first = s
        moved = replace(first.validators[5], ed25519=ED[6].public, endpoints=("https://validator-6.example:8443", "https://[::1]:8443"))
        new = replace(first, epoch=2, validators=(*first.validators[:5], moved), set_k=2, set_keys=(SET_KEYS[0].public, SET_KEYS[2].public))
        document = sets.encode(new, [SET_KEYS[0], SET_KEYS[2]])
        self.add("set_epoch2.cbor", document, "set-document", "epoch 2: another validator 5, 2 of 2 set keys", suite="ed25519", epoch=2)
        self.refused_sets()

    def refused_sets(self) -> None:
        """Set documents that set keys signed and nobody may take: one broken rule each, and the error of the core."""
        body = cbor_loads(cose.parse_sign(self.files["wire/set_ed25519.cbor"]).payload)
        key, validator = SET_KEYS[0].public, ED[5].public
        rows: list[tuple[str, str, Error, dict[int, Any]]] = [
            ("epoch_0", "epoch 0", Error.MALFORMED, {2: 0}),
            ("epoch_64_bits", "epoch 2^63", Error.MALFORMED, {2: 2**63}),
            ("no_majority", "3 of 6", Error.MALFORMED, {3: 3}),
            ("no_key", "suite ml-dsa-65, one validator without a key", Error.MALFORMED, {3: 1, 4: [[0, [], [], None, None]], 5: 2}),
            ("limit_0", "longest lease 0 ms", Error.MALFORMED, {8: {1: 0}}),
            ("limit_long", "longest lease 31 days and 1 ms", Error.MALFORMED, {8: {1: 2_678_400_001}}),
            ("limit_64_bits", "longest lease 2^64 - 1 ms", Error.MALFORMED, {8: {1: 2**64 - 1}}),
            ("limit_key_true", "longest lease under the key true", Error.MALFORMED, {8: {True: 60_000}}),
            ("set_key_twice", "one set key twice", Error.DUPLICATE_SIGNER, {7: [1, [key, key]]}),
            ("validator_key", "a validator's key is a set key, too", Error.DUPLICATE_SIGNER, {7: [1, [key, validator]]}),
        ]
        for name, what, error, change in rows:
            self.refused_set(name, what, error, cbor_dumps({**body, **change}))
        payload = cbor_dumps(body)
        good, forged, other = (cose.sign_payload(payload, key, cose.AAD_SET) for key in SET_KEYS)
        forged = replace(forged, signature=good.signature)
        foreign = replace(other, alg=-9, protected=cbor_dumps({1: -9, 4: other.kid}))
        self.refused_set("unsigned", "no signature", Error.TOO_FEW, payload, [])
        self.refused_set("stranger", "signed by a stranger alone", Error.TOO_FEW, payload, [other])
        self.refused_set("forged", "a good signature and a forged one", Error.BAD_SIGNATURE, payload, [good, forged])
        self.refused_set("algorithm", "a good signature and one of ESP256", Error.UNKNOWN_ALGORITHM, payload, [good, foreign])

    def refused_set(self, name: str, what: str, error: Error, payload: bytes, by: list[cose.CoseSignature] | None = None) -> None:
        """Keep one of them; unless ``by`` says otherwise the first set key signs."""
        by = [cose.sign_payload(payload, SET_KEYS[0], cose.AAD_SET)] if by is None else by
        self.add(f"set_refused_{name}.cbor", cose.encode_sign(payload, by), "refused-set", what, error=int(error))

    # ---- requests and leases ----

    def request(self, at: int, state: list[int], record: bytes | None = None) -> tuple[bytes, bytes]:
        """Begin: nonce, VALIDATOR_QUERY, claims, request, envelope.  Returns the proposal and the request's payload."""
        log, n = self.log, self.serial + 1
        self.entropy += 1
        message = struct.pack("<IQ", log.boot, n) + sha(f"entropy {self.entropy}")
        mac = hmac.digest(seed("nonce"), message, "sha256")
        log.note(Event.VALIDATOR_QUERY, at, serial=self.leased, data=mac)
        log.save(grow=True)
        size = len(log.records)
        claims = {
            **CONSTANT,
            "iat": 1_700_000_000 + at,
            "lease_id": mac[16:],
            "nonce": mac[:16],
            "serial": n,
            "log_id": log.records[0][208:240],
            "log_size": size,
            "log_root": log.subtree(0, size).root(),
            "has_failsafe": record is not None,
            **({"failsafe_seq": record[8], "failsafe_hash": record[208:240]} if record else {}),
        }
        proposal = claims_encode(claims)
        payload = cbor_dumps({1: proposal, 2: INPUT, 3: [*state, self.leased, log.boot, 0], 4: [0, b""]})
        request = cose.encode_sign1(payload, DEVICE, cose.AAD_REQUEST)
        peaks = log.subtree(0, self.old).peaks if self.old else None
        shown = log.records[record[8] - 1][208:240] + record if record else None
        outer = {1: request, 2: self.old, 3: peaks, 4: log.range(self.old, size), 5: self.token or None, 6: shown, 7: None}
        self.add(f"claims_{n}.cbor", proposal, "lease-claims", f"lease payload of serial {n}", serial=n)
        self.add(f"request_{n}.cbor", request, "request", f"request of serial {n}", serial=n)
        self.add(f"envelope_{n}.cbor", cbor_dumps(outer), "envelope", f"the same for a validator that knows {self.old} records", serial=n)
        self.serial, self.old = n, size
        return proposal, payload

    def lease(self, proposal: bytes, who: list[int], name: str, suite: str = "ed25519") -> bytes:
        """A lease signed by the validators ``who``."""
        pools: list[list[Any]] = [*([ED] if suite != "ml-dsa-65" else []), *([ML] if suite != "ed25519" else [])]
        signers = [self.frozen.signer(pool[i], name) for i in who for pool in pools]
        token = cose.encode_sign(proposal, [cose.sign_payload(proposal, k, cose.AAD_LEASE) for k in signers])
        what = f"lease of validators {', '.join(map(str, who))}, {suite}"
        return self.add(name, token, "lease", what, suite=suite, signers=who, set=f"wire/set_{suite}.cbor")

    def refuse(self, code: Refusal, payload: bytes, data: Any, who: keys.Signer = ED[5], name: str = "") -> bytes:
        """A refusal of the request with this payload."""
        kind = RefusalClass.DENY if code < Refusal.STALE else RefusalClass.RETRY
        body = cbor_dumps({1: sha(payload), 2: int(kind), 3: int(code), 4: f"because of {code.name}", 5: data})
        name = name or f"refusal_{code.name.lower()}.cbor"
        token = cose.encode_sign1(body, self.frozen.signer(who, name), cose.AAD_REFUSAL)
        return self.add(name, token, "refusal", f"{kind.name} {code.name}", code=int(code), serial=self.serial)

    def revoke(self, who: int) -> bytes:
        """A revocation of every serial up to the running one."""
        body = cbor_dumps({1: UEID, 2: SET_ID, 3: 1, 4: self.leased, 5: int(Refusal.REVOKED), 6: "stolen"})
        token = cose.encode_sign1(body, ED[who], cose.AAD_REVOCATION)
        return self.add(f"revocation_{who}.cbor", token, "revocation", f"by validator {who}, up to serial {self.leased}", signer=who)

    # ---- frames and pages ----

    def frame(self, name: str, opcode: int, payload: bytes, status: CommandStatus, answer: bytes = b"", **more: bytes) -> None:
        """A command and its answer; ``raw`` is a frame that is not well made."""
        body = struct.pack("<BBH", len(self.frames) + 1, opcode, len(payload)) + payload
        ask = more.get("raw") or body + struct.pack("<H", crc16(body))
        body = struct.pack("<BBBH", 0xA5, ask[0], status, len(answer)) + answer
        self.frames[name] = (ask, body + struct.pack("<H", crc16(body)))

    def status(self, at: int, end: int, lease_id: bytes) -> bytes:
        """Answer of opcode 0x01 while the first lease runs."""
        log = self.log
        head = struct.pack("<QQQIHIIBBI", (end - at) * S, 60_000, self.leased, Status.VALID, Phase.ACTIVE, 0, 0, M, N, 0)
        place = struct.pack("<QQ33s32s32s", len(log.records), self.old, UEID, log.records[0][208:240], log.head)
        return head + MODEL + lease_id + b"\x04" + place + struct.pack("<Q32sIQH", 0, bytes(32), 1, at * S, 0)

    def page(self, name: str, what: str, *, armed: int, deadline: int, seq: int, state: tuple[int, int, int, int], lease_id: bytes) -> None:
        """A gate page; ``deadline`` in ns, ``state`` is serial, status, phase, reason.  The counter runs at 3 GHz from boot."""
        serial, status, phase, reason = state
        head = struct.pack("<4sIQQQQQ", b"QGP1", armed, deadline * 3, deadline, 6 * S, 2 * S, 3 * S)
        tail = struct.pack("<QIIHHIQ", serial, status, seq, phase, 7, reason, 0)
        self.add(f"page_{name}.bin", head + tail + MODEL + lease_id, "page", what)

    # ---- the story ----

    def tell(self) -> None:
        """From enrolment to the last stop; times are seconds since boot."""
        log = self.log
        self.sets()
        log.write(Event.LOG_CREATED, 100, data=sha("entropy 0"), model=bytes(32), wall=0)
        log.boot = 1
        log.note(Event.BOOT, 101)
        self.first_lease()
        self.renewal()
        failsafe = self.denial()
        self.release(failsafe)
        log.note(Event.LEASE_EXPIRED, 177, reason=Reason.LEASE_EXPIRED, serial=3)
        step = 0
        while len(log.records) < RECORDS:
            log.note(Event.INFERENCE_COMPLETED, 200 + step, serial=3, reported=1, data=struct.pack("<Q", step))
            step += 1
        self.host_frames()
        self.frame("failsafe_first", Opcode.FAILSAFE, struct.pack("<I", Reason.MANUAL), CommandStatus.CONFIRM)
        self.frame("failsafe_again", 0, b"", CommandStatus.OK, raw=self.frames["failsafe_first"][0])
        log.append(Event.FAILSAFE_TRIGGERED, 300, reason=Reason.MANUAL, serial=3, data=b"\x02")
        self.attest()
        self.close()

    def host_frames(self) -> None:
        """What a host answers beside the core: polls alive; the set document in force, the next one."""
        document, newer = self.files["wire/set_ed25519.cbor"], self.files["wire/set_epoch2.cbor"]
        self.frame("host_polls", Opcode.RENEW, b"\4\6", CommandStatus.OK)
        self.frame("host_set_read", Opcode.SET, struct.pack("<BI", 1, 0), CommandStatus.OK, struct.pack("<I", len(document)) + document)
        self.frame("host_set_put", Opcode.SET, struct.pack("<BII", 2, 0, len(newer)) + newer, CommandStatus.OK)
        self.frame("host_set_finish", Opcode.SET, b"\3", CommandStatus.OK, b"\0")

    def first_lease(self) -> None:
        """Obtained over command frames; the page opens."""
        log = self.log
        self.frame("version", Opcode.VERSION, b"", CommandStatus.OK, struct.pack("<IBH", 1, 1, 1024))
        proposal, payload = self.request(102, [Status.UNINITIALIZED, Phase.NONE])
        envelope = self.files["wire/envelope_1.cbor"]
        size = len(self.files["wire/request_1.cbor"])
        self.frame("renew_begin", Opcode.RENEW, b"\0", CommandStatus.OK, struct.pack("<IQ", size, 1))
        ask = struct.pack("<BQI", 1, OLD_DEFAULT, 0)
        self.frame("renew_read", Opcode.RENEW, ask, CommandStatus.OK, struct.pack("<I", len(envelope)) + envelope[:1000])
        for suite in sets.SUITES:
            self.lease(proposal, [0, 1, 2, 3], f"lease_{suite}.cbor", suite)
        self.token = self.files["wire/lease_ed25519.cbor"]
        self.refuse(Refusal.POLICY, payload, None, ML[0], "refusal_ml-dsa-65.cbor")
        self.frame("renew_put", Opcode.RENEW, struct.pack("<BII", 2, 0, len(self.token)) + self.token, CommandStatus.OK)
        self.frame("renew_finish", Opcode.RENEW, b"\3", CommandStatus.OK, b"\0")
        self.leased = 1
        log.note(Event.LEASE_ISSUED, 103, serial=1, evidence=sha(self.token))
        state = (1, int(Status.VALID), int(Phase.ACTIVE), 0)
        self.page("open", "open at 103 s after boot", armed=ARMED, deadline=104 * S, seq=2, state=state, lease_id=log.records[2][128:144])
        self.frame("status", Opcode.STATUS, b"", CommandStatus.OK, self.status(103, 162, log.records[2][128:144]))
        started = struct.pack("<HI", Event.INFERENCE_STARTED, 0)
        self.frame("log_event", Opcode.LOG_EVENT, started + b"batch 1", CommandStatus.OK)
        log.note(Event.INFERENCE_STARTED, 104, serial=1, reported=1, data=b"batch 1")
        two = struct.pack("<Q", 5) + b"".join(log.records[:2])
        self.frame("read_log", Opcode.READ_LOG, struct.pack("<QH", 0, 2), CommandStatus.OK, two)
        self.frame("workload_register", Opcode.WORKLOAD, b"\0\1camera", CommandStatus.OK, b"\0")
        self.frame("set_unsupported", Opcode.SET, b"\3", CommandStatus.BAD_OPCODE)
        version = self.frames["version"][0]
        self.frame("bad_crc", 0, b"", CommandStatus.BAD_CRC, raw=version[:-1] + bytes((version[-1] ^ 1,)))
        self.frame("cut", 0, b"", CommandStatus.BAD_LENGTH, raw=version[:-1])
        log.note(Event.INFERENCE_COMPLETED, 105, serial=1, reported=1)

    def renewal(self) -> None:
        """A retry, a forged vote, then four good ones."""
        log = self.log
        proposal, payload = self.request(106, [Status.VALID, Phase.ACTIVE])
        newer = self.files["wire/set_epoch2.cbor"]
        data: dict[Refusal, Any] = {Refusal.STALE: 7, Refusal.STATE_BEHIND: 3, Refusal.RATE: 250, Refusal.PENDING_HUMAN: 2000}
        data |= {Refusal.EPOCH: newer, Refusal.LIMITS: {1: 30_000, 2: 86_400_000}}
        for code in Refusal:
            self.refuse(code, payload, data.get(code))
        rate = sha(self.files["wire/refusal_rate.cbor"])
        log.note(Event.VALIDATOR_RESPONSE, 107, reason=Refusal.RATE, serial=2, evidence=rate, data=b"\5")
        log.note(Event.ANOMALY, 108, reason=Reason.INVALID_SIGNATURES, serial=2, data=b"\3")
        self.token = self.lease(proposal, [0, 1, 2, 4], "lease_renewed.cbor")
        log.note(Event.LEASE_RENEWED, 109, serial=2, evidence=sha(self.token))
        self.leased = 2
        log.note(Event.WORKLOAD_REPORT, 110, serial=2, reported=1, data=b"\2" + bytes(8) + sha("checkpoint"))
        log.note(Event.CONTAINMENT, 111, serial=2, data=b"\7")
        log.note(Event.EVIDENCE_PRUNED, 111, serial=2, data=struct.pack("<Q", 4096))
        log.note(Event.CONFIG_CHANGE, 111, serial=2)
        log.note(Event.LOG_ANCHORED, 111, serial=2, data=b"\1")

    def denial(self) -> bytes:
        """Three of six revoke: the fail-safe latches.  Returns its record."""
        log = self.log
        for i in range(3):
            token = self.revoke(i)
            log.note(Event.LEASE_DENIED, 112 + i, reason=Refusal.REVOKED, serial=2, evidence=sha(token), data=bytes((i,)))
        log.append(Event.FAILSAFE_TRIGGERED, 115, reason=Reason.VALIDATOR_DENIED, serial=2, data=b"\1")
        log.save()
        state = (2, int(Status.DENIED), int(Phase.FAILSAFE), int(Reason.VALIDATOR_DENIED))
        lease_id = self.files["wire/claims_2.cbor"][9:25]
        self.page("failsafe", "closed by the first fail-safe", armed=1, deadline=116 * S, seq=4, state=state, lease_id=lease_id)
        return log.records[-1]

    def release(self, failsafe: bytes) -> None:
        """The next lease answers that record."""
        log = self.log
        proposal, _ = self.request(116, [Status.DENIED, Phase.FAILSAFE], failsafe)
        self.token = self.lease(proposal, [2, 3, 4, 5], "lease_released.cbor")
        log.note(Event.FAILSAFE_RELEASED, 117, reason=Reason.VALIDATOR_DENIED, serial=3, evidence=sha(self.token))
        log.note(Event.LEASE_ISSUED, 117, serial=3, evidence=sha(self.token))
        log.save()
        self.leased = 3

    def attest(self) -> None:
        """The first request as a device with its keys in a TPM sends it: signed there, and quoted."""
        first = claims_decode(self.files["wire/claims_1.cbor"])
        proposal = claims_encode({**first, "level": 3})
        payload = cbor_dumps({1: proposal, 2: INPUT, 3: [0, 0, 0, 1, 0], 4: [0, b""]})
        request = cose.encode_sign1(payload, TPM_DEVICE, cose.AAD_REQUEST)
        bits = sum(1 << n for n in PCRS).to_bytes(3, "little")
        head = bytes.fromhex("ff54434780180022000b") + sha("qualified signer") + b"\0\x20" + sha(payload)
        clock = struct.pack(">QIIBQ", 1000, 3, 1, 1, 0x0102)
        said = head + clock + bytes.fromhex("00000001000b03") + bits + b"\0\x20" + quote.measured(1, PCRS).digest
        shown = quote.encode(said, TPM_AK.sign(said))
        outer = {1: request, 2: 0, 3: None, 4: self.log.range(0, first["log_size"]), 5: None, 6: None, 7: shown}
        self.add("request_esp256.cbor", request, "request", "request of serial 1, signed in a TPM", serial=1)
        self.add("quote.cbor", shown, "attestation", "its quote of PCRs 0 and 7")
        self.add("envelope_quoted.cbor", cbor_dumps(outer), "envelope", "both for a validator that knows 0 records", serial=1)

    def close(self) -> None:
        """The log as a whole, one record of each event, and the root of every size."""
        records = self.log.records
        roots = b"".join(self.log.subtree(0, n).root() for n in range(len(records) + 1))
        export = cbor_dumps({1: records[0][208:240], 2: 0, 3: records})
        self.add("log.bin", b"".join(records), "log", f"{len(records)} records, ring of {SLOTS}, sealed from the test key 'seal'")
        self.add("log.cbor", export, "log-export", "the same as qsafp audit export --cbor writes it")
        self.add("roots.bin", roots, "roots", "tree root of every size from 0")
        for event in Event:
            number = next(i for i, r in enumerate(records) if r[4] == event)
            row = {"file": "wire/log.bin", "kind": "record", "what": event.name, "event": int(event), "offset": 256 * number}
            self.index.append(row)
        lines = [" ".join([name, *(x.hex() for f in pair for x in (f, cobs_encode(f)))]) for name, pair in self.frames.items()]
        note = "# name command command-in-COBS answer answer-in-COBS; host_: answered by the guard around the core"
        text = "\n".join(["# SPDX-License-Identifier: Apache-2.0", note, *lines, ""])
        self.add("frames.txt", text.encode(), "frames", "command frames and their answers, in the order of the story")
        self.add("ed25519.bin", signatures(self.files), "ed25519", "public key, signature, SHA-256 of what was signed; 128 bytes each")


def signatures(files: dict[str, bytes]) -> bytes:
    """Every Ed25519 signature of the COSE objects, for tests in C that have no curve: key, signature, SHA-256 of the Sig_structure."""
    known = {k.kid: k.public for k in (DEVICE, *ED, *SET_KEYS)}
    rows = set()
    for name, data in files.items():
        label = LABELS.get(name.removeprefix("wire/").split("_")[0])
        if label is None or not name.endswith(".cbor"):
            continue
        many = data[0] == 0xD8
        body = cbor_loads(data).value
        for protected, _, signature in body[3] if many else [[body[0], body[1], body[3]]]:
            head = cbor_loads(protected)
            tbs = cbor_dumps([*(["Signature", b""] if many else ["Signature1"]), protected, label, body[2]])
            if keys.verify(head[1], known.get(head[4], b""), tbs, signature):
                rows.add(known[head[4]] + signature + sha(tbs))
    return b"".join(sorted(rows))


def build(folder: Path = FOLDER) -> dict[str, bytes]:
    """All files by name; ML-DSA-65 signatures are taken from ``folder`` where they still hold."""
    story = Story(folder)
    story.tell()
    rows = ",\n".join(json.dumps(row) for row in story.index)
    index = f'{{"note": {json.dumps(NOTE)},\n"vectors": [\n{rows}\n]}}\n'
    return {**story.files, "index.json": index.encode()}


def main() -> int:
    """Write, or compare with ``--check``; returns the exit status."""
    files = build()
    have = {f"wire/{p.name}": p for p in (FOLDER / "wire").glob("*")} | {"index.json": FOLDER / "index.json"}
    if "--check" in sys.argv[1:]:
        differ = {n for n, data in files.items() if n not in have or not have[n].exists() or have[n].read_bytes() != data}
        stale = sorted(differ | have.keys() - files.keys())
        for name in stale:
            print(f"tests/vectors/{name} is stale: run python tools/vectors.py, and say in the commit why the format changed")
        return bool(stale)
    for path in have.values():
        path.unlink(missing_ok=True)
    (FOLDER / "wire").mkdir(exist_ok=True)
    for name, data in files.items():
        (FOLDER / name).write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
