# SPDX-License-Identifier: Apache-2.0
"""A device in Python, and a validator set with its keys: what the validator's tests talk to themselves with."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from qsafp_embedded import cose, keys, sets
from qsafp_embedded._core import Tree, cbor_dumps, claims_encode, sha256, tree_leaf
from qsafp_embedded._tables import Event, Reason
from qsafp_embedded.tls import make_certificate, spki_of_key
from qsafp_embedded.validator.config import Device as Registered

MODEL = bytes(range(32))
BEFORE = b"before".ljust(32, b"\0")  # the hash before a fail-safe record


@dataclass
class Quorum:
    """Keys of n validators and the set they make."""

    ed: list[keys.Ed25519Key]
    ml: list[keys.MLDSA65Key]
    tls: list[keys.Ed25519Key]
    set_key: keys.Ed25519Key
    members: sets.ValidatorSet
    document: bytes

    def signers(self, index: int) -> tuple[keys.Signer, ...]:
        """What validator ``index`` signs with in this suite."""
        suite = self.members.suite
        pools: list[Any] = [*([self.ed] if suite != "ml-dsa-65" else []), *([self.ml] if suite != "ed25519" else [])]
        return tuple(pool[index] for pool in pools)

    def lease(self, payload: bytes, indexes: list[int] | None = None) -> bytes:
        """A lease over ``payload``, signed by the first m or by ``indexes``."""
        chosen = range(self.members.m) if indexes is None else indexes
        return cose.encode_sign(payload, [cose.sign_payload(payload, k, cose.AAD_LEASE) for i in chosen for k in self.signers(i)])


def quorum(*, m: int = 2, n: int = 3, suite: str = "ed25519", epoch: int = 1, **more: Any) -> Quorum:
    """A fresh set, loaded from its own signed document."""
    ed = [keys.Ed25519Key.from_seed(secrets.token_bytes(32)) for _ in range(n)]
    ml = [keys.MLDSA65Key.from_seed(secrets.token_bytes(32)) for _ in range(n if suite != "ed25519" else 0)]
    tls = [keys.Ed25519Key.from_seed(secrets.token_bytes(32)) for _ in range(n)]
    set_key = keys.Ed25519Key.from_seed(secrets.token_bytes(32))
    validators = tuple(
        sets.Validator(
            i,
            (f"https://127.0.0.1:{9000 + i}",),
            (spki_of_key(tls[i]),),
            ed[i].public if suite != "ml-dsa-65" else None,
            ml[i].public if suite != "ed25519" else None,
        )
        for i in range(n)
    )
    s = sets.ValidatorSet(secrets.token_bytes(16), epoch, m, validators, suite=suite, set_keys=(set_key.public,), **more)
    document = sets.encode(s, [set_key])
    return Quorum(ed, ml, tls, set_key, sets.load(document), document)


@dataclass
class Device:
    """A device whose log is made of random record hashes; it signs as the guard does."""

    members: sets.ValidatorSet
    key: keys.Signer = field(default_factory=lambda: keys.Ed25519Key.from_seed(secrets.token_bytes(32)))
    ueid: bytes = field(default_factory=lambda: b"\x01" + secrets.token_bytes(32))
    log_id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    leaves: list[bytes] = field(default_factory=list)
    serial: int = 0
    claims: dict[str, Any] = field(default_factory=dict)

    def registered(self, **more: Any) -> Registered:
        """How a validator knows this device; ``models`` and ``registered`` (Unix s) may be given."""
        plain = Registered(self.ueid, self.key.public, self.log_id, None, 1_000, self.key.alg)
        return replace(plain, **more)

    def grow(self, records: int = 3) -> None:
        """Append records to the log."""
        self.leaves += [tree_leaf(secrets.token_bytes(32)) for _ in range(records)]

    def tree(self, size: int) -> Tree:
        """The tree over the first ``size`` records."""
        t = Tree()
        for leaf in self.leaves[:size]:
            t.append(leaf)
        return t

    def range(self, old: int, new: int) -> list[bytes]:
        """Roots of the maximal perfect subtrees of [old, new), left to right."""
        out = []
        while old < new:
            width = 1
            while not old & (2 * width - 1) and old + 2 * width <= new:
                width *= 2
            t = Tree()
            for leaf in self.leaves[old : old + width]:
                t.append(leaf)
            out.append(t.root())
            old += width
        return out

    def propose(self, **changed: Any) -> bytes:
        """Make the next request's lease payload over a log that grew; ``changed`` overrides claims.  Returns the payload."""
        self.serial += 1
        self.grow()
        size = len(self.leaves)
        self.claims = {
            "iat": 0,
            "lease_id": secrets.token_bytes(16),
            "nonce": secrets.token_bytes(16),
            "ueid": self.ueid,
            "duration_ms": 60_000,
            "serial": self.serial,
            "model": MODEL,
            "log_id": self.log_id,
            "log_size": size,
            "log_root": self.tree(size).root(),
            "policy_ms": [1000, 1000, 10**9, 10**9],
            "has_failsafe": False,
            "failsafe_seq": 0,
            "failsafe_hash": bytes(32),
            "level": 1,
            "lab": self.members.lab,
            "epoch": self.members.epoch,
            "set_id": self.members.set_id,
            **changed,
        }
        return claims_encode(self.claims)

    def request(self, payload: bytes, *, evidence: int = 0, measurement: bytes = b"") -> bytes:
        """The signed request for a payload."""
        body = cbor_dumps({1: payload, 2: bytes(32), 3: [0, 0, 0, 1, 0], 4: [evidence, measurement]})
        return cose.encode_sign1(body, self.key, cose.AAD_REQUEST)

    def envelope(
        self,
        request: bytes,
        *,
        old: int = 0,
        lease: bytes | None = None,
        record: bytes | None = None,
        peaks: bool = False,
        quote: bytes | None = None,
    ) -> bytes:
        """The envelope of a request for a validator that last approved ``old`` records."""
        new = self.claims["log_size"]
        shown = self.tree(old).peaks if peaks else None
        latched = None if record is None else BEFORE + record
        return cbor_dumps({1: request, 2: old, 3: shown, 4: self.range(old, new), 5: lease, 6: latched, 7: quote})

    def ask(self, *, old: int = 0, **changed: Any) -> bytes:
        """Propose, sign and wrap in one step."""
        return self.envelope(self.request(self.propose(**changed)), old=old)


def failsafe_record(sequence: int, reason: Reason) -> bytes:
    """A FAILSAFE_TRIGGERED record, as a device keeps it; no two are the same."""
    rec = bytearray(256)
    rec[:4] = b"QAR1"
    rec[4:6] = int(Event.FAILSAFE_TRIGGERED).to_bytes(2, "little")
    rec[8:16] = sequence.to_bytes(8, "little")
    rec[36:40] = int(reason).to_bytes(4, "little")
    rec[112:144] = secrets.token_bytes(32)
    rec[208:240] = sha256(BEFORE + rec[:208])
    return bytes(rec)


def named(record: bytes) -> dict[str, Any]:
    """The claims that name a fail-safe record."""
    return {"has_failsafe": True, "failsafe_seq": int.from_bytes(record[8:16], "little"), "failsafe_hash": record[208:240]}


def install(folder: Path, q: Quorum, index: int, relay: keys.Ed25519Key, devices: list[Registered], *, policy: str = "") -> Path:
    """Write a validator's directory as ``qsafp init`` lays it out; returns its validator.toml."""
    folder.mkdir(parents=True)
    kind = {"ed25519": q.ed, "ml-dsa-65": q.ml}
    for name, key, label in (("signing.key", q.ed[index], "ed25519"), ("tls.key", q.tls[index], "ed25519")):
        keys.write_secret(folder / name, label, key.private.private_bytes_raw())
    if q.members.suite != "ed25519":
        keys.write_secret(folder / "mldsa.key", "ml-dsa-65", kind["ml-dsa-65"][index].private.private_bytes_raw())
    (folder / "tls.crt").write_bytes(make_certificate(q.tls[index]))
    (folder / "relay.crt").write_bytes(make_certificate(relay))
    (folder / "set.cbor").write_bytes(q.document)
    lines = [f"index = {index}", 'listen = "127.0.0.1:0"', 'set = "set.cbor"', 'signing_key = "signing.key"']
    lines += ['mldsa_key = "mldsa.key"'] if q.members.suite != "ed25519" else []
    lines += ['tls_key = "tls.key"', 'tls_cert = "tls.crt"', 'db = "state.db"', 'admin_socket = "admin.sock"']
    lines += ["[[relay]]", 'name = "r"', f'spki = "{spki_of_key(relay).hex()}"', 'cert = "relay.crt"']
    for d in devices:
        models = ["*"] if d.models is None else [m.hex() for m in d.models]
        lines += ["[[device]]", f'ueid = "{d.ueid.hex()}"', f'key = "{d.key.hex()}"', f'log_id = "{d.log_id.hex()}"']
        lines += [f"models = {models!r}", f"registered = {d.registered}"]
        lines += ['key_type = "esp256"'] if d.alg == keys.ESP256 else []
    (folder / "validator.toml").write_text("\n".join([*lines, policy, ""]))
    return folder / "validator.toml"
